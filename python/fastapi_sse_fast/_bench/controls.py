"""Helpers that the streams of all contestants share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from itertools import chain, cycle, repeat
from typing import TypeVar

from fastapi import FastAPI

T = TypeVar("T")

PACE = 0.02
"""Seconds between the events of a paced stream, which makes 50 per second."""

STAMP_PACE = 0.002
"""Seconds between the events of a stream whose latency is measured."""

MARKED = 10_000
"""The number of events at the start and at the end of a long stream that are timed."""


def over_and_over(items: Iterable[T], laps: int) -> Iterator[T]:
    return chain.from_iterable(repeat(tuple(items), laps))


class Gate:
    """A gate that streams wait at until all of them are open."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()

    async def wait(self) -> None:
        await self._opened.wait()

    def open(self) -> None:
        self._opened.set()
        self._opened = asyncio.Event()


class Marks:
    """The CPU time of the process at certain events of a long stream.

    It is taken where events are produced. At the client it would be late by all events
    that the sockets buffer.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def over(self, items: Iterable[T], count: int) -> Iterator[T]:
        """Yield a number of items repeatedly, and take the time at certain events."""
        marked = {0, MARKED, count - MARKED}
        self.seconds.clear()
        for index, item in zip(range(count), cycle(items), strict=False):
            if index in marked:
                self.seconds.append(time.process_time())
            yield item
        self.seconds.append(time.process_time())


def add_controls(app: FastAPI) -> tuple[Gate, Marks]:
    """Add the routes that control the streams and return measurements."""
    gate, marks = Gate(), Marks()

    @app.get("/open")
    async def open_gate() -> None:
        gate.open()

    @app.get("/marks")
    async def marked_seconds() -> list[float]:
        return marks.seconds

    return gate, marks
