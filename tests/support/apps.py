"""Applications, generators and hooks that the tests share."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import Depends, FastAPI

import fastapi_sse_fast
from fastapi_sse_fast import StreamOptions, StreamSummary

from .eventsource import parse

MS = 0.001
"""Seconds. Times of tests are multiples of it."""

KINDS = ["async", "sync"]
"""Of generators."""

STREAM_OPTIONS = [field.name for field in dataclasses.fields(StreamOptions)]


def app_of(
    endpoint: Callable[..., Any],
    *,
    module: ModuleType = fastapi_sse_fast,
    method: str = "GET",
    response_class: Any = None,
    **options: Any,
) -> FastAPI:
    """Return an application with one route, at "/".

    Args:
        endpoint: What the route calls.
        module: Whose response class it has, unless one is given: `fastapi.sse` or ours.
        method: Of HTTP.
        response_class: Of the route.
        options: Of the stream and of the route, told apart by their names.
    """
    of_stream = {name: options.pop(name) for name in STREAM_OPTIONS if name in options}
    response_class = response_class or module.EventSourceResponse
    if of_stream:
        response_class = response_class.with_options(**of_stream)
    app = FastAPI()
    app.api_route("/", methods=[method], response_class=response_class, **options)(
        endpoint
    )
    return app


async def endless() -> AsyncIterator[int]:
    """Count, an event a millisecond."""
    number = 0
    while True:
        yield number
        number += 1
        await anyio.sleep(MS)


async def bursts() -> AsyncIterator[int]:
    """Yield bursts, single events and nothing for a while."""
    for number in range(12):
        yield number
        if number % 3 == 0:
            # Once for so long that a pause of the machine does not count.
            await anyio.sleep((80 if number == 6 else 12) * MS)
        elif number % 3 == 1:
            await anyio.lowlevel.checkpoint()


def endless_of(kind: str, closed: list[bool]) -> Callable[[], Any]:
    """Return a generator function of a kind of `KINDS` that notes when it is closed."""

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(MS)
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(MS)
        finally:
            closed.append(True)

    return items if kind == "async" else sync_items


def numbers(body: bytes) -> list[int]:
    """Return the data of all events, which are numbers."""
    return [int(event.data) for event in parse(body).events]


class Log:
    """What happened on the server, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


class Summaries(list[StreamSummary]):
    """An `on_close` that keeps what it is given."""

    def __call__(self, summary: StreamSummary) -> None:
        self.append(summary)

    @property
    def reasons(self) -> list[str]:
        return [summary.reason for summary in self]


def noted(name: str, log: list[str]) -> Any:
    """Return a dependency that logs its name when it is closed."""

    async def dependency() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append(name)

    return Depends(dependency)


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Have the garbage collector wait."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class OddError(BaseException):
    """What is no `Exception`."""


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    """Return what the package has logged, and about which errors."""
    return [
        (record.getMessage(), record.exc_info and record.exc_info[0])
        for record in caplog.records
        if record.name == "fastapi_sse_fast" and record.levelno >= logging.WARNING
    ]
