"""The application of a worker: channels and runs over a store in Redis.

    python -m tests.chaos.app SETTINGS

What happens to runs is printed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import anyio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from fastapi_sse_fast import (
    Channels,
    EventSourceResponse,
    LastEventID,
    RunResult,
    Runs,
    ServerSentEvent,
    StoreError,
)
from fastapi_sse_fast.stores._redis.limits import RedisLimits
from tests.support.redis import redis_store
from tests.support.streams import say

PADDING = "x" * 20_000

LIMITS = RedisLimits(mirror_unused=1.0)
"""The limits of the store, but for how long a log is kept that nobody reads."""


class Settings(NamedTuple):
    """What a worker needs to know."""

    url: str
    port: int
    history: int
    lease: float
    clock: float
    """Seconds by which the clock of this worker is wrong."""


class App:
    """The application of a worker."""

    def __init__(self, settings: Settings) -> None:
        self.store = store = redis_store(settings.url, LIMITS)
        self.channels = Channels(store, history=settings.history)
        self.runs = Runs(
            store,
            lease=settings.lease,
            shutdown_grace=1.0,
            on_end=self.note_end,
            on_lost=self.note_lost,
        )
        self.app = app = FastAPI(lifespan=store.lifespan)
        app.add_exception_handler(StoreError, self.unavailable)
        app.get("/events/{names}")(self.events)
        app.post("/events/{name}")(self.publish)
        app.post("/runs/{name}")(self.start)
        app.get("/runs/{name}")(self.resume)
        app.post("/runs/{name}/cancel")(self.cancel)
        app.get("/runs/{name}/status")(self.status)
        app.get("/state")(self.state)

    async def unavailable(self, request: Request, error: Exception) -> Response:
        return JSONResponse(str(error), status_code=503)

    async def events(self, names: str, last: LastEventID) -> EventSourceResponse:
        return EventSourceResponse(self.channels.subscribe(names.split(","), last))

    async def publish(
        self, name: str, publisher: str, number: int, type: str, padded: int = 0
    ) -> str:
        data = [publisher, number, *[PADDING] * padded]
        event = ServerSentEvent(event=type, data=data)
        dedupe = f"{publisher}:{number}"
        return await self.channels.publish(name, event, dedupe=dedupe)

    async def start(self, name: str, events: int, pause: float) -> bool:
        run = await self.runs.start(
            name, self.answer, name, events, pause, if_running="attach"
        )
        return run.is_new

    async def answer(
        self, name: str, events: int, pause: float
    ) -> AsyncIterator[list[Any]]:
        for number in range(1, events + 1):
            yield [name, number]
            await anyio.sleep(pause)

    async def resume(self, name: str, last: LastEventID) -> Response:
        return await self.runs.response(name, last)

    async def cancel(self, name: str) -> bool:
        return await self.runs.cancel(name)

    async def status(self, name: str) -> str | None:
        return await self.runs.status(name)

    def note_end(self, result: RunResult) -> None:
        say("ended", result.name, result.status)

    def note_lost(self, name: str) -> None:
        say("lost", name)

    async def state(self) -> dict[str, Any]:
        store, runs = self.store.stats(), self.runs.stats()
        return {
            "tasks": len(asyncio.all_tasks()),
            "subscribers": self.channels.stats().subscribers,
            "readers": runs.subscribers,
            "running": runs.running,
            "logs": store.logs,
            "runs": store.runs,
        }


def main() -> None:
    settings = Settings(*json.loads(sys.argv[1]))
    right = time.time
    time.time = lambda: right() + settings.clock
    uvicorn.run(
        App(settings).app, port=settings.port, log_level="warning", backlog=2048
    )


if __name__ == "__main__":
    main()
