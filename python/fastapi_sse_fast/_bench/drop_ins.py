"""The applications of this package and of `fastapi.sse`, with one import changed.

This module does not use `from __future__ import annotations`, because FastAPI could not
resolve names that are imported within a function.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from typing import Any

from fastapi import FastAPI

from .controls import PACE, STAMP_PACE, add_controls, over_and_over
from .samples import (
    DICTS,
    IDS,
    JSON_TEXTS,
    MODELS,
    TOKENS,
    Chunk,
    Stamp,
    chunk,
    text_of,
)


def fastapi_sse_fast_app() -> FastAPI:
    from fastapi_sse_fast import (
        EncodedEvent,
        EventSourceResponse,
        EventTemplate,
        ServerSentEvent,
        Slot,
    )

    app = FastAPI()
    add_event_streams(app, EventSourceResponse, ServerSentEvent)

    @app.get("/encoded/{laps}", response_class=EventSourceResponse, response_model=None)
    async def encoded(laps: int) -> AsyncIterator[EncodedEvent]:
        for token in over_and_over(TOKENS, laps):
            yield EncodedEvent(raw_data=token)

    template = EventTemplate(chunk(Slot("content")))

    @app.get("/filled/{laps}", response_class=EventSourceResponse, response_model=None)
    async def filled(laps: int) -> AsyncIterator[EncodedEvent]:
        for token in over_and_over(TOKENS, laps):
            yield template(token)

    ready_events = [EncodedEvent(raw_data=text) for text in JSON_TEXTS]

    @app.get("/ready/{laps}", response_class=EventSourceResponse, response_model=None)
    async def ready(laps: int) -> AsyncIterator[EncodedEvent]:
        for event in over_and_over(ready_events, laps):
            yield event

    @app.get("/ready-paced", response_class=EventSourceResponse, response_model=None)
    async def ready_paced() -> AsyncIterator[EncodedEvent]:
        for event in cycle(ready_events):
            yield event
            await asyncio.sleep(PACE)

    @app.get(
        "/ready-awaiting/{laps}",
        response_class=EventSourceResponse,
        response_model=None,
    )
    async def ready_awaiting(laps: int) -> AsyncIterator[EncodedEvent]:
        for event in over_and_over(ready_events, laps):
            yield event
            await asyncio.sleep(0)

    @app.get("/pending/{size}/{laps}")
    async def pending(size: int, laps: int) -> EventSourceResponse:
        async def events() -> AsyncIterator[EncodedEvent]:
            for text in over_and_over(JSON_TEXTS, laps):
                yield EncodedEvent(raw_data=text)

        return EventSourceResponse(events(), max_pending=size)

    return app


def fastapi_app() -> FastAPI:
    from fastapi.sse import EventSourceResponse, ServerSentEvent

    app = FastAPI()
    add_event_streams(app, EventSourceResponse, ServerSentEvent)
    return app


def add_event_streams(app: FastAPI, response_class: Any, event_class: Any) -> None:
    """Add the routes of both applications.

    `response_model=None` means that the items have no declared type.
    """

    # This is the first route in each application, because the router takes longer to
    # find later ones.
    @app.get("/one", response_class=response_class)
    async def one() -> AsyncIterator[Chunk]:
        yield MODELS[0]

    gate, marks = add_controls(app)

    @app.get("/typed/{laps}", response_class=response_class)
    async def typed(laps: int) -> AsyncIterator[Chunk]:
        for model in over_and_over(MODELS, laps):
            yield model

    @app.get("/built/{laps}", response_class=response_class)
    async def built(laps: int) -> AsyncIterator[Chunk]:
        for token in over_and_over(TOKENS, laps):
            yield chunk(token)

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

    @app.get("/paced", response_class=response_class)
    async def paced() -> AsyncIterator[Chunk]:
        for model in cycle(MODELS):
            yield model
            await asyncio.sleep(PACE)

    @app.get("/awaiting/{laps}", response_class=response_class)
    async def awaiting(laps: int) -> AsyncIterator[Chunk]:
        for model in over_and_over(MODELS, laps):
            yield model
            await asyncio.sleep(0)

    @app.get("/stamped", response_class=response_class)
    async def stamped() -> AsyncIterator[Stamp]:
        while True:
            yield Stamp(at=time.perf_counter_ns())
            await asyncio.sleep(STAMP_PACE)

    @app.get("/idle", response_class=response_class)
    async def idle() -> AsyncIterator[Chunk]:
        yield MODELS[0]
        await asyncio.Event().wait()

    @app.get("/sized/{size}/{laps}", response_class=response_class, response_model=None)
    async def sized(size: int, laps: int) -> AsyncIterator[Any]:
        for text in over_and_over([text_of(size)] * len(MODELS), laps):
            yield event_class(raw_data=text)

    @app.get("/grouped/{size}/{laps}", response_class=response_class)
    async def grouped(size: int, laps: int) -> AsyncIterator[Chunk]:
        for index, model in enumerate(over_and_over(MODELS, laps), 1):
            yield model
            if index % size == 0:
                await asyncio.sleep(0)

    @app.get("/gated/{count}", response_class=response_class)
    async def gated(count: int) -> AsyncIterator[Chunk]:
        yield MODELS[0]
        await gate.wait()
        for _ in range(count):
            yield MODELS[0]

    @app.get("/long/{count}", response_class=response_class)
    async def long(count: int) -> AsyncIterator[Chunk]:
        for model in marks.over(MODELS, count):
            yield model
