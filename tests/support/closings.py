"""Generators that record when they are closed, and the time limit for that."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.lowlevel

from fastapi_sse_fast import EncodedEvent

from .apps import MS
from .server import wait_until

FRAME = EncodedEvent(raw_data="x" * 1000)
SOON = 100 * MS
"""The limit of a median. A single pause of the machine does not change a median."""


class Closings:
    """Generators that record when they are closed."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.produced = 0

    async def idle(self) -> AsyncIterator[EncodedEvent]:
        try:
            self.produced += 1
            yield FRAME
            await anyio.sleep(3600)
        finally:
            self.times.append(time.perf_counter())

    async def busy(self) -> AsyncIterator[EncodedEvent]:
        try:
            while True:
                self.produced += 1
                yield FRAME
        finally:
            self.times.append(time.perf_counter())

    def sync_busy(self) -> Iterator[EncodedEvent]:
        try:
            while True:
                self.produced += 1
                yield FRAME
        finally:
            self.times.append(time.perf_counter())


def wait_until_frozen(closings: Closings) -> None:
    counts = [-1]

    def settled() -> bool:
        counts.append(closings.produced)
        time.sleep(10 * MS)
        return counts[-1] == counts[-2]

    wait_until(settled)
