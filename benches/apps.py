"""The contestants: one application each, with the same streams under the same paths.

Run as `python benches/apps.py NAME FD CORE` by `server.py`: serves one of them on an
inherited socket, in a process that imports none of the others.
"""

import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI
from starlette.responses import Response, StreamingResponse

from samples import DICTS, IDS, MODELS, TOKENS, Chunk

T = TypeVar("T")


def over_and_over(items: Iterable[T], laps: int) -> Iterator[T]:
    return chain.from_iterable(repeat(tuple(items), laps))


def fastapi_sse_fast_app() -> FastAPI:
    from fastapi_sse_fast import EncodedEvent, EventSourceResponse, ServerSentEvent

    app = FastAPI()
    add_event_streams(app, EventSourceResponse, ServerSentEvent)

    @app.get("/encoded/{laps}", response_class=EventSourceResponse, response_model=None)
    async def encoded(laps: int) -> AsyncIterator[EncodedEvent]:
        for token in over_and_over(TOKENS, laps):
            yield EncodedEvent(raw_data=token)

    return app


def fastapi_app() -> FastAPI:
    from fastapi.sse import EventSourceResponse, ServerSentEvent

    app = FastAPI()
    add_event_streams(app, EventSourceResponse, ServerSentEvent)
    return app


def add_event_streams(app: FastAPI, response_class: Any, event_class: Any) -> None:
    """The application that both have in common but for one import line.

    `response_model=None` says that items have no declared type.
    """

    @app.get("/typed/{laps}", response_class=response_class)
    async def typed(laps: int) -> AsyncIterator[Chunk]:
        for model in over_and_over(MODELS, laps):
            yield model

    @app.get("/sync/{laps}", response_class=response_class)
    def sync(laps: int) -> Iterator[Chunk]:
        yield from over_and_over(MODELS, laps)

    @app.get("/dict/{laps}", response_class=response_class, response_model=None)
    async def plain(laps: int) -> AsyncIterator[dict[str, Any]]:
        for item in over_and_over(DICTS, laps):
            yield item

    @app.get("/event/{laps}", response_class=response_class, response_model=None)
    async def event(laps: int) -> AsyncIterator[Any]:
        for model, id_ in over_and_over(zip(MODELS, IDS, strict=True), laps):
            yield event_class(data=model, event="chunk", id=id_)

    @app.get("/raw/{laps}", response_class=response_class, response_model=None)
    async def raw(laps: int) -> AsyncIterator[Any]:
        for token in over_and_over(TOKENS, laps):
            yield event_class(raw_data=token)


def streaming_response_app() -> FastAPI:
    """What is written by hand where speed counts: bytes or text, ready to send."""
    import orjson

    app = FastAPI()

    @app.get("/typed/{laps}")
    async def typed(laps: int) -> Response:
        async def body() -> AsyncIterator[str]:
            for model in over_and_over(MODELS, laps):
                yield f"data: {model.model_dump_json()}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    @app.get("/dict/{laps}")
    async def plain(laps: int) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for item in over_and_over(DICTS, laps):
                yield b"data: " + orjson.dumps(item) + b"\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    return app


def sse_starlette_app() -> FastAPI:
    """Takes text: its JSON is made beforehand, which is to its advantage."""
    from sse_starlette import EventSourceResponse

    app = FastAPI()
    texts = [model.model_dump_json() for model in MODELS]

    @app.get("/typed/{laps}")
    async def typed(laps: int) -> Response:
        async def events() -> AsyncIterator[str]:
            for text in over_and_over(texts, laps):
                yield text

        return EventSourceResponse(events(), sep="\n")

    return app


APPS: dict[str, Callable[[], FastAPI]] = {
    "fastapi_sse_fast": fastapi_sse_fast_app,
    "fastapi.sse": fastapi_app,
    "StreamingResponse": streaming_response_app,
    "sse-starlette": sse_starlette_app,
}


def main(name: str, fd: str, core: str) -> None:
    if core:
        os.sched_setaffinity(0, {int(core)})
    config = uvicorn.Config(
        APPS[name](),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(fd))])


if __name__ == "__main__":
    main(*sys.argv[1:])
