"""What a server has left of streams that are over, and whether that grows."""

from __future__ import annotations

import asyncio
import math
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .app import GENERATORS, Counts, State
from .visits import Visit, get


class Faults(list[str]):
    """What is wrong: told at once, unless it is too much."""

    def add(self, fault: str) -> None:
        self.append(fault)
        if len(self) <= 50:
            say(f"WRONG: {fault}")


def say(text: str = "") -> None:
    print(text, flush=True)  # noqa: T201


# Whether memory grows


class Growth(NamedTuple):
    """A straight line through what was measured.

    Attributes:
        per_stream: Bytes.
        error: Half the width of the interval in which that is with 99 % certainty.
    """

    per_stream: float
    error: float

    def __str__(self) -> str:
        return f"{self.per_stream:+.1f} ± {self.error:.1f} bytes a stream"

    @property
    def at_most(self) -> float:
        return self.per_stream + self.error


MEASURED = 9
"""Rounds that tell of growth, the last of the warm-up included."""

STUDENTS_T = 3.499
"""For 99 % certainty, two-sided, with two degrees of freedom less than that."""


def growth(streams: Sequence[int], sizes: Sequence[int]) -> Growth:
    """How memory grows with the number of streams, by least squares.

    Raises:
        ValueError: There are not `MEASURED` sizes.
    """
    if len(sizes) != MEASURED:
        raise ValueError(f"{len(sizes)} sizes, not {MEASURED}")
    slope, intercept = statistics.linear_regression(streams, sizes)
    residuals = (
        size - (intercept + slope * number)
        for number, size in zip(streams, sizes, strict=True)
    )
    variance = sum(residual**2 for residual in residuals) / (MEASURED - 2)
    mean = statistics.mean(streams)
    spread = sum((number - mean) ** 2 for number in streams)
    return Growth(slope, STUDENTS_T * math.sqrt(variance / spread))


LIMITS = {"traced_bytes": 40, "native_bytes": 40, "resident_bytes": 500}
"""Bytes that a stream must certainly not leave behind.

Less than any object that the collector knows, with the reference that keeps it. Not
less still: the loop's set of its tasks grows in steps of 16 KiB, which in 5,000 streams
are some bytes for each. The resident memory comes in pages of 4096 bytes, which say
less.
"""

# What is left

OURS = re.compile(
    "|".join(
        [r"^fastapi_sse_fast\.(?!_stream\.asyncio_)"]
        + [rf"^ {function.__name__}$" for function in GENERATORS.values()]
    )
)
"""Types whose objects are gone with their stream, without the garbage collector.

But for alarms: a timer that rang may be in a frame that others' garbage keeps.
"""

OF_STREAMS = re.compile(
    rf"{OURS.pattern}|^fastapi_sse_fast\._stream\.asyncio_|^_asyncio\.(Future|Task)$"
)
"""Types whose objects are gone once that has run: anyio's task groups are cycles."""


class Watch:
    """Compares a server with what it was before the first stream.

    Args:
        name: Of the server, for the report.
        port: Of the server.
        faults: Where to note what is wrong.
        first: The server as it was.
        patience: Seconds in which what is over has to be gone.
    """

    def __init__(
        self, name: str, port: int, faults: Faults, first: State, patience: float
    ) -> None:
        self.first = first
        self.last = first
        self._name = name
        # Others keep an error in a cycle, and memory of their own for a while.
        self._keeps_nothing = name.startswith("uvicorn")
        self.port = port
        self._faults = faults
        self._patience = patience
        self._begun = time.perf_counter()
        self._streams: list[int] = []
        self._sizes: list[Counts] = []
        self._lines: dict[str, int] = {}
        self.growth: dict[str, Growth] = {}

    @classmethod
    async def begin(
        cls, name: str, port: int, faults: Faults, patience: float
    ) -> Watch:
        await get(port, "/start-threads")
        await get(port, "/state")  # what the request itself needs
        first = State(**await get(port, "/state"))
        watch = cls(name, port, faults, first, patience)
        say(
            f"{name:17}{'seconds':>9}{'streams':>9}{'open':>6}{'tasks':>7}"
            f"{'threads':>9}{'files':>7}{'traced':>9}{'native':>8}{'resident':>10}"
        )
        watch.say(0, first.counts)
        return watch

    def say(self, streams: int, counts: Counts) -> None:
        """Prints a line of the table, memory in KiB."""
        seconds = time.perf_counter() - self._begun
        say(
            f"{'':17}{seconds:9.1f}{streams:9}{counts.open:6}{counts.tasks:7}"
            f"{counts.threads:9}{counts.descriptors:7}"
            f"{counts.traced_bytes // 1024:9}{counts.native_bytes // 1024:8}"
            f"{counts.resident_bytes // 1024:10}"
        )

    def fault(self, text: str) -> None:
        self._faults.add(f"{self._name}: {text}")

    async def make(self, visit: Visit, *, reset: bool) -> None:
        """A visit, whatever comes of it."""
        try:
            await visit.make(self.port, reset=reset)
        except Exception as error:
            self.fault(f"{visit}: {error!r}")

    def check_records(
        self, visits: Iterable[Visit], records: dict[str, list[str]]
    ) -> None:
        """Compares all records with what should be in them."""
        for visit in visits:
            if wrong := visit.wrong_in_record(records.pop(str(visit.stream), None)):
                self.fault(f"{visit}: {wrong}")
        for stream, record in records.items():
            self.fault(f"stream {stream} has another record: {record}")

    async def counts(self) -> Counts:
        return Counts(**await get(self.port, "/counts"))

    async def check_quiet(self) -> None:
        """Waits until nothing is open and looks at what is left then."""
        deadline = time.perf_counter() + self._patience
        while left := differences(await self.counts(), self.first.counts):
            if time.perf_counter() > deadline:
                self.fault(f"still there after {self._patience:g} seconds: {left}")
                break
            await asyncio.sleep(0.1)
        self.last = State(**await get(self.port, "/state"))
        kinds = [(self.last.after, OF_STREAMS, "objects that are never collected")]
        if self._keeps_nothing:
            kinds.append((self.last.before, OURS, "objects that need the collector"))
        for objects, types, what in kinds:
            grown = Counter(objects)
            grown.subtract(self.first.after)
            left = ", ".join(
                f"{number} {name}"
                for name, number in sorted(grown.items())
                if number > 0 and types.search(name)
            )
            if left:
                self.fault(f"{what}: {left}")

    async def measure(self, streams: int) -> None:
        """Notes what the server has after so many streams."""
        if not self._sizes:
            self._lines = await get(self.port, "/lines")
        self._streams.append(streams)
        self._sizes.append(self.last.counts)

    async def check_growth(self) -> None:
        """Says whether memory grew from one measurement to the next."""
        for name, limit in LIMITS.items():
            sizes = [getattr(counts, name) for counts in self._sizes]
            grown = self.growth[name] = growth(self._streams, sizes)
            say(f"{name.replace('_', ' ')}: {grown}")
            if grown.at_most >= limit and self._keeps_nothing:
                self.fault(f"{name} may grow by {limit} bytes a stream")
        await self._say_lines()

    async def _say_lines(self) -> None:
        """Prints where most of the memory is from that has come since."""
        lines = Counter(await get(self.port, "/lines"))
        lines.subtract(self._lines)
        for line, size in lines.most_common(5):
            say(f"{size:9} bytes of {line}")


def differences(counts: Counts, first: Counts) -> str:
    return ", ".join(
        f"{getattr(counts, name)} {name} instead of {getattr(first, name)}"
        for name in ("open", "tasks", "threads", "descriptors")
        # Less is no leak: a connection of before is closed.
        if getattr(counts, name) > getattr(first, name)
    )
