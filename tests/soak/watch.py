"""Watch what ended streams leave on a server, and whether its memory grows."""

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
    """A list of faults. The first 50 are printed at once."""

    def add(self, fault: str) -> None:
        self.append(fault)
        if len(self) <= 50:
            say(f"WRONG: {fault}")


def say(text: str = "") -> None:
    print(text, flush=True)  # noqa: T201


# Growth of memory


class Growth(NamedTuple):
    """The slope of a line through the measured sizes.

    Attributes:
        per_stream: Bytes per stream.
        error: Half the width of its 99 % confidence interval.
    """

    per_stream: float
    error: float

    def __str__(self) -> str:
        return f"{self.per_stream:+.1f} ± {self.error:.1f} bytes a stream"

    @property
    def at_most(self) -> float:
        return self.per_stream + self.error


MEASURED = 9
"""The number of measured rounds, including the last round of the warm-up."""

STUDENTS_T = 3.499
"""For 99 % confidence, two-sided, with `MEASURED - 2` degrees of freedom."""


def growth(streams: Sequence[int], sizes: Sequence[int]) -> Growth:
    """Return how memory grows with the number of streams, by least squares.

    Raises:
        ValueError: The number of sizes is not `MEASURED`.
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
"""Bytes per stream by which memory must certainly not grow.

The limit is smaller than any tracked object with a reference to it. It cannot be much
smaller: the event loop's set of tasks grows in steps of 16 KiB, which is some bytes for
each of 5,000 streams. Resident memory is less precise, because it comes in pages.
"""

# Objects that are left

OURS = re.compile(
    "|".join(
        [r"^fastapi_sse_fast\.(?!_stream\.asyncio_)"]
        + [rf"^ {function.__name__}$" for function in GENERATORS.values()]
    )
)
"""Types whose objects are freed with their stream, without the garbage collector.

Alarms are not among them: garbage of other packages can keep a frame with a timer.
"""

OF_STREAMS = re.compile(
    rf"{OURS.pattern}|^fastapi_sse_fast\._stream\.asyncio_|^_asyncio\.(Future|Task)$"
)
"""Types whose objects the garbage collector frees. AnyIO's task groups are cycles."""


class Watch:
    """Compares a server with its state before the first stream.

    Args:
        name: Name of the server in the report.
        port: Port of the server.
        faults: List of the faults that are found.
        first: State before the first stream.
        patience: Seconds in which streams that have ended must be gone.
    """

    def __init__(
        self, name: str, port: int, faults: Faults, first: State, patience: float
    ) -> None:
        self.first = first
        self.last = first
        self._name = name
        # Other servers have cycles with errors, and keep memory for a while.
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
        await get(port, "/state")  # The request itself needs memory.
        first = State(**await get(port, "/state"))
        watch = cls(name, port, faults, first, patience)
        say(
            f"{name:17}{'seconds':>9}{'streams':>9}{'open':>6}{'tasks':>7}"
            f"{'threads':>9}{'files':>7}{'traced':>9}{'native':>8}{'resident':>10}"
        )
        watch.say(0, first.counts)
        return watch

    def say(self, streams: int, counts: Counts) -> None:
        """Print a line of the table, with memory in KiB."""
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
        """Make a visit, and add a fault if it fails."""
        try:
            await visit.make(self.port, reset=reset)
        except Exception as error:
            self.fault(f"{visit}: {error!r}")

    def check_records(
        self, visits: Iterable[Visit], records: dict[str, list[str]]
    ) -> None:
        """Compare all records with the plans of their streams."""
        for visit in visits:
            if wrong := visit.wrong_in_record(records.pop(str(visit.stream), None)):
                self.fault(f"{visit}: {wrong}")
        for stream, record in records.items():
            self.fault(f"stream {stream} has another record: {record}")

    async def counts(self) -> Counts:
        return Counts(**await get(self.port, "/counts"))

    async def check_quiet(self) -> None:
        """Wait until no stream is open, and check what is left."""
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
        """Keep the memory of the server after a number of streams."""
        if not self._sizes:
            self._lines = await get(self.port, "/lines")
        self._streams.append(streams)
        self._sizes.append(self.last.counts)

    async def check_growth(self) -> None:
        """Print how memory has grown, and add a fault if it grows too much."""
        for name, limit in LIMITS.items():
            sizes = [getattr(counts, name) for counts in self._sizes]
            grown = self.growth[name] = growth(self._streams, sizes)
            say(f"{name.replace('_', ' ')}: {grown}")
            if grown.at_most >= limit and self._keeps_nothing:
                self.fault(f"{name} may grow by {limit} bytes a stream")
        await self._say_lines()

    async def _say_lines(self) -> None:
        """Print the lines that have allocated most memory since the first round."""
        lines = Counter(await get(self.port, "/lines"))
        lines.subtract(self._lines)
        for line, size in lines.most_common(5):
            say(f"{size:9} bytes of {line}")


def differences(counts: Counts, first: Counts) -> str:
    return ", ".join(
        f"{getattr(counts, name)} {name} instead of {getattr(first, name)}"
        for name in ("open", "tasks", "threads", "descriptors")
        # Less than before is not a leak: a connection may have closed.
        if getattr(counts, name) > getattr(first, name)
    )
