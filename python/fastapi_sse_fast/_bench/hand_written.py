"""The applications without `fastapi.sse`: hand-written, sse-starlette, plain ASGI."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import cycle
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .controls import PACE, STAMP_PACE, add_controls, over_and_over
from .samples import DICTS, JSON_TEXTS, MODELS, TOKENS, Stamp, chunk, text_of


def streaming_response_app() -> FastAPI:
    """Return the application with a hand-written `StreamingResponse`."""
    app = FastAPI()

    def streaming(body: AsyncIterator[str | bytes]) -> Response:
        return StreamingResponse(body, media_type="text/event-stream")

    # This is the first route in each application, because the router takes longer to
    # find later ones.
    @app.get("/one")
    async def one() -> Response:
        async def body() -> AsyncIterator[str]:
            yield f"data: {MODELS[0].model_dump_json()}\n\n"

        return streaming(body())

    gate, marks = add_controls(app)

    @app.get("/typed/{laps}")
    async def typed(laps: int) -> Response:
        async def body() -> AsyncIterator[str]:
            for model in over_and_over(MODELS, laps):
                yield f"data: {model.model_dump_json()}\n\n"

        return streaming(body())

    @app.get("/built/{laps}")
    async def built(laps: int) -> Response:
        async def body() -> AsyncIterator[str]:
            for token in over_and_over(TOKENS, laps):
                yield f"data: {chunk(token).model_dump_json()}\n\n"

        return streaming(body())

    @app.get("/dict/{laps}")
    async def plain(laps: int) -> Response:
        import orjson

        async def body() -> AsyncIterator[bytes]:
            for item in over_and_over(DICTS, laps):
                yield b"data: " + orjson.dumps(item) + b"\n\n"

        return streaming(body())

    @app.get("/paced")
    async def paced() -> Response:
        async def body() -> AsyncIterator[str]:
            for model in cycle(MODELS):
                yield f"data: {model.model_dump_json()}\n\n"
                await asyncio.sleep(PACE)

        return streaming(body())

    @app.get("/ready-paced")
    async def ready_paced() -> Response:
        return ReadyFrames(cycle(FRAMES), PACE)

    @app.get("/awaiting/{laps}")
    async def awaiting(laps: int) -> Response:
        async def body() -> AsyncIterator[str]:
            for model in over_and_over(MODELS, laps):
                yield f"data: {model.model_dump_json()}\n\n"
                await asyncio.sleep(0)

        return streaming(body())

    @app.get("/ready-awaiting/{laps}")
    async def ready_awaiting(laps: int) -> Response:
        return ReadyFrames(over_and_over(FRAMES, laps), 0)

    @app.get("/stamped")
    async def stamped() -> Response:
        async def body() -> AsyncIterator[str]:
            while True:
                stamp = Stamp(at=time.perf_counter_ns())
                yield f"data: {stamp.model_dump_json()}\n\n"
                await asyncio.sleep(STAMP_PACE)

        return streaming(body())

    @app.get("/idle")
    async def idle() -> Response:
        async def body() -> AsyncIterator[str]:
            yield f"data: {MODELS[0].model_dump_json()}\n\n"
            await asyncio.Event().wait()

        return streaming(body())

    @app.get("/sized/{size}/{laps}")
    async def sized(size: int, laps: int) -> Response:
        async def body() -> AsyncIterator[str]:
            for text in over_and_over([text_of(size)] * len(MODELS), laps):
                yield f"data: {text}\n\n"

        return streaming(body())

    @app.get("/grouped/{size}/{laps}")
    async def grouped(size: int, laps: int) -> Response:
        async def body() -> AsyncIterator[str]:
            for index, model in enumerate(over_and_over(MODELS, laps), 1):
                yield f"data: {model.model_dump_json()}\n\n"
                if index % size == 0:
                    await asyncio.sleep(0)

        return streaming(body())

    @app.get("/gated/{count}")
    async def gated(count: int) -> Response:
        async def body() -> AsyncIterator[str]:
            yield f"data: {MODELS[0].model_dump_json()}\n\n"
            await gate.wait()
            for _ in range(count):
                yield f"data: {MODELS[0].model_dump_json()}\n\n"

        return streaming(body())

    @app.get("/long/{count}")
    async def long(count: int) -> Response:
        async def body() -> AsyncIterator[str]:
            for model in marks.over(MODELS, count):
                yield f"data: {model.model_dump_json()}\n\n"

        return streaming(body())

    return app


def sse_starlette_app() -> FastAPI:
    """Return the application with sse-starlette.

    It gets text, so its JSON is pre-encoded, which is to its advantage.
    """
    from sse_starlette import EventSourceResponse

    return app_of_text(EventSourceResponse)


def our_sse_starlette_app() -> FastAPI:
    """Return the same application with the import changed to our module."""
    from fastapi_sse_fast.sse_starlette import EventSourceResponse

    return app_of_text(EventSourceResponse)


def app_of_text(response_class: Callable[..., Any]) -> FastAPI:
    """Return an application of a response class with sse-starlette's arguments."""
    app = FastAPI()

    def streaming(events: AsyncIterator[str]) -> Response:
        response: Response = response_class(events, sep="\n")
        return response

    @app.get("/typed/{laps}")
    async def typed(laps: int) -> Response:
        async def events() -> AsyncIterator[str]:
            for text in over_and_over(JSON_TEXTS, laps):
                yield text

        return streaming(events())

    @app.get("/paced")
    async def paced() -> Response:
        async def events() -> AsyncIterator[str]:
            for text in cycle(JSON_TEXTS):
                yield text
                await asyncio.sleep(PACE)

        return streaming(events())

    @app.get("/awaiting/{laps}")
    async def awaiting(laps: int) -> Response:
        async def events() -> AsyncIterator[str]:
            for text in over_and_over(JSON_TEXTS, laps):
                yield text
                await asyncio.sleep(0)

        return streaming(events())

    @app.get("/idle")
    async def idle() -> Response:
        async def events() -> AsyncIterator[str]:
            yield JSON_TEXTS[0]
            await asyncio.Event().wait()

        return streaming(events())

    return app


def plain_asgi_app() -> ASGIApp:
    """Return the lower bound: no framework, and pre-encoded frames."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        _, name, *laps = scope["path"].split("/")
        if name == "paced":
            await send_ready_frames(cycle(FRAMES), PACE, receive, send)
        elif name == "awaiting":
            frames = over_and_over(FRAMES, int(laps[0]))
            await send_ready_frames(frames, 0, receive, send)

    return app


class ReadyFrames(Response):
    """Pre-encoded frames in a FastAPI route, to measure the cost of its middleware."""

    def __init__(self, frames: Iterable[bytes], pause: float) -> None:
        super().__init__()
        self._frames = frames
        self._pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_ready_frames(self._frames, self._pause, receive, send)


async def send_ready_frames(
    frames: Iterable[bytes], pause: float, receive: Receive, send: Send
) -> None:
    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    left = asyncio.ensure_future(disconnect())
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/event-stream")],
        }
    )
    for frame in frames:
        await send({"type": "http.response.body", "body": frame, "more_body": True})
        await asyncio.sleep(pause)
        if left.done():
            return
    left.cancel()
    await send({"type": "http.response.body"})


FRAMES = [f"data: {text}\n\n".encode() for text in JSON_TEXTS]
