"""Channels and runs for real servers; what happens is printed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
from fastapi import FastAPI
from starlette.responses import Response

from fastapi_sse_fast import (
    Channels,
    EncodedEvent,
    EventSourceResponse,
    LastEventID,
    RunResult,
    Runs,
)
from fastapi_sse_fast.stores import MemoryStore

from .streams import say, say_reason

Stream = EventSourceResponse.with_options(on_close=say_reason, send_timeout=None)


def say_end(result: RunResult) -> None:
    say("run", result.status)


class Logs:
    """An application with a channel and a run, and a store of its own.

    Args:
        history: Number of events that the channel keeps.
        **options: Options of the run.
    """

    def __init__(self, history: int = 1000, **options: Any) -> None:
        store = MemoryStore()
        self.channels = Channels(store, history=history)
        self.runs = Runs(store, on_end=say_end, **options)
        self.app = app = FastAPI(lifespan=store.lifespan)
        app.get("/events")(self.events)
        app.get("/publish")(self.publish)
        app.get("/tasks")(self.tasks)
        app.post("/run")(self.start)
        app.get("/run")(self.resume)
        app.get("/ready", response_class=EventSourceResponse)(self.ready)

    async def ready(self) -> AsyncIterator[str]:
        yield "ready"

    async def events(self, last: LastEventID) -> EventSourceResponse:
        return Stream(self.channels.subscribe("a", last))

    async def publish(self, first: int, count: int = 1, size: int = 0) -> list[str]:
        ids = []
        for number in range(first, first + count):
            event = EncodedEvent(data=number, comment="x" * size if size else None)
            ids.append(await self.channels.publish("a", event))
            await anyio.lowlevel.checkpoint()
        return ids

    async def tasks(self) -> int:
        return len(asyncio.all_tasks())

    async def start(self, seconds: float = 3600) -> EventSourceResponse:
        run = await self.runs.start("run", self.answer, seconds, if_running="attach")
        return Stream(run.subscribe())

    async def answer(self, seconds: float) -> AsyncIterator[Any]:
        try:
            yield "begun"
            await anyio.sleep(seconds)
        finally:
            say("generator")

    async def resume(self, last: LastEventID) -> Response:
        return await self.runs.response("run", last, response_class=Stream)


app = Logs().app
hasty = Logs(shutdown_grace=0.5).app
