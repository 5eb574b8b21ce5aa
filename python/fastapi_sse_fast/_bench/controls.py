"""What the streams of all contestants share: pauses, a gate, a clock, ready laps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from itertools import chain, cycle, repeat
from typing import TypeVar

from fastapi import FastAPI

T = TypeVar("T")

PACE = 0.02
"""Seconds between the events of a paced stream: 50 of them a second."""

STAMP_PACE = 0.002
"""Seconds between the events of a stream whose latency is measured."""

MARKED = 10_000
"""Events at the beginning and at the end of a long stream that are timed."""


def over_and_over(items: Iterable[T], laps: int) -> Iterator[T]:
    return chain.from_iterable(repeat(tuple(items), laps))


class Gate:
    """Holds streams back until all of them are there."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()

    async def wait(self) -> None:
        await self._opened.wait()

    def open(self) -> None:
        self._opened.set()
        self._opened = asyncio.Event()


class Marks:
    """What the process has used of its CPU when a long stream was at some event.

    Taken where the events are made: what the client has seen is behind by all that
    sockets hold.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def over(self, items: Iterable[T], count: int) -> Iterator[T]:
        """So many of the items, over and over; the time is marked on the way."""
        marked = {0, MARKED, count - MARKED}
        self.seconds.clear()
        for index, item in zip(range(count), cycle(items), strict=False):
            if index in marked:
                self.seconds.append(time.process_time())
            yield item
        self.seconds.append(time.process_time())


def add_controls(app: FastAPI) -> tuple[Gate, Marks]:
    """Paths that stream nothing."""
    gate, marks = Gate(), Marks()

    @app.get("/open")
    async def open_gate() -> None:
        gate.open()

    @app.get("/marks")
    async def marked_seconds() -> list[float]:
        return marks.seconds

    return gate, marks
