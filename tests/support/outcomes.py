"""Streams that complete and streams that fail."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel


def streams(module: ModuleType) -> FastAPI:
    """Return an application with these streams."""
    app = FastAPI()
    stream = functools.partial(app.get, response_class=module.EventSourceResponse)

    async def failing() -> AsyncIterator[None]:
        yield
        raise LookupError("in a dependency's exit")

    @stream("/whole")
    @stream("/failing-dependency", dependencies=[Depends(failing)])
    async def whole() -> AsyncIterator[Item]:
        for n in range(100):
            yield Item(n=n)
            if n % 10 == 0:
                await anyio.lowlevel.checkpoint()

    @stream("/sync")
    def sync() -> Iterator[Item]:
        for n in range(100):
            yield Item(n=n)

    @stream("/failing-task")
    def failing_task(tasks: BackgroundTasks) -> Iterator[Item]:
        tasks.add_task(int, "not a number")
        yield Item(n=1)

    @stream("/early")
    async def early() -> AsyncIterator[Item]:
        raise LookupError("before the first event")
        yield Item(n=1)

    @stream("/broken")
    async def broken() -> AsyncIterator[Item]:
        yield Item(n=1)
        raise LookupError("mid-stream")

    @stream("/sync-broken")
    def sync_broken() -> Iterator[Item]:
        yield Item(n=1)
        raise LookupError("mid-stream")

    @stream("/invalid")
    async def invalid() -> AsyncIterator[Item]:
        yield Item(n=1)
        yield INVALID

    return app


class Item(BaseModel):
    n: int


INVALID: Any = {"m": 1}
ENDS_WELL = ["/whole", "/sync"]


class Failure(NamedTuple):
    """A way to fail: the class of the error, and a part of its message."""

    error: type[Exception]
    words: str


FAILS = {
    "/failing-dependency": Failure(LookupError, "in a dependency's exit"),
    "/failing-task": Failure(ValueError, "'not a number'"),
    "/early": Failure(LookupError, "before the first event"),
    "/broken": Failure(LookupError, "mid-stream"),
    "/sync-broken": Failure(LookupError, "mid-stream"),
    "/invalid": Failure(ResponseValidationError, "1 validation error"),
}
