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
"""A millisecond, in seconds. Tests give times as multiples of it."""

KINDS = ["async", "sync"]
"""Kinds of generators."""

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
        endpoint: Endpoint of the route.
        module: Module of the response class: `fastapi.sse` or `fastapi_sse_fast`.
        method: HTTP method.
        response_class: Response class, instead of that of the module.
        options: Options of the stream or of the route.
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
    """Yield a number every millisecond."""
    number = 0
    while True:
        yield number
        number += 1
        await anyio.sleep(MS)


async def bursts() -> AsyncIterator[int]:
    """Yield bursts and single events, with pauses."""
    for number in range(12):
        yield number
        if number % 3 == 0:
            # One pause is so long that a pause of the machine cannot look like it.
            await anyio.sleep((80 if number == 6 else 12) * MS)
        elif number % 3 == 1:
            await anyio.lowlevel.checkpoint()


def endless_of(kind: str, closed: list[bool]) -> Callable[[], Any]:
    """Return an endless generator function that records when it is closed."""

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
    """Return the data of all events as numbers."""
    return [int(event.data) for event in parse(body).events]


class Log:
    """What happened on the server, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


class Summaries(list[StreamSummary]):
    """An `on_close` hook that keeps the summaries."""

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
    """Switch the garbage collector off."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class OddError(BaseException):
    """An error that is not an `Exception`."""


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    """Return the warnings of the package, each with the class of its error."""
    return [
        (record.getMessage(), record.exc_info and record.exc_info[0])
        for record in caplog.records
        if record.name == "fastapi_sse_fast" and record.levelno >= logging.WARNING
    ]
