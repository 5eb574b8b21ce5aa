"""Bursts: the cost of an event when the next one is always ready.

Every byte is checked, so a server cannot win by losing or repeating events.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .bench import Bench, Contestant, Row, present
from .client import body_of, decode, fetch
from .report import HAND_WRITTEN, Comparison, Line, Section, number
from .samples import DICTS, IDS, TOKENS, text_of
from .serving import ON_LINUX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .serving import Server

ROUNDS = 7
QUICK_ROUNDS = 3
STREAM_SECONDS = 0.4
MOST_BYTES = 64 * 1024 * 1024  # of a stream, because the client keeps it in memory
LAP = len(TOKENS)  # events

Events = list[dict[str, Any]]

CHUNKS: Events = [{"data": item} for item in DICTS]
RAW: Events = [{"data": token} for token in TOKENS]
EVENTS: Events = [
    {"event": "chunk", "data": item, "id": id_}
    for item, id_ in zip(DICTS, IDS, strict=True)
]


def text_of_cpu() -> str:
    """Return what is measured: CPU time, if the system knows that of a process."""
    return "the server's CPU time" if ON_LINUX else "wall-clock time"


SECTION = Section(
    "Bursts",
    "µs per event",
    "One stream, whose generator yields events without waiting in between. The times "
    f"are {text_of_cpu()} per event, over as many events as take {STREAM_SECONDS:g} s.",
    "bursts.svg",
)

LARGE_SECTION = Section(
    "Large events",
    "µs per event",
    "Bursts of `ServerSentEvent(raw_data=text)`, compared with a `StreamingResponse` "
    f'of `f"data: {{text}}\\n\\n"`. A stream has at most {MOST_BYTES // 1024**2} MiB.',
)


class Sample(NamedTuple):
    """The measurement of one stream, in seconds."""

    events: int
    wall: float
    cpu: float


class Burst:
    """The stream of one contestant, measured repeatedly.

    Its first lap is decoded and compared with the expected events. Later laps must be
    the same bytes.

    Args:
        server: The server of the stream.
        contestant: The contestant. Its `path` contains `{laps}`.
        expected: The events of a lap, with decoded `data` if that is JSON.
        seconds: About how many seconds a stream should take.
    """

    def __init__(
        self, server: Server, contestant: Contestant, expected: Events, seconds: float
    ) -> None:
        self.contestant = contestant
        self.samples: list[Sample] = []
        self._server = server
        self._events = len(expected)
        self._lap = body_of(self._request(1)[0])
        if (found := decode(self._lap, expected)) != expected:
            sys.exit(f"{contestant.name}: wrong events: {found[:3]}")
        self._laps = self._calibrated(seconds)

    def measure(self) -> None:
        self.samples.append(self._sample(self._laps))

    def costs(self) -> list[float]:
        """Return the microseconds per event of each sample."""
        return [1e6 * sample.cpu / sample.events for sample in self.samples]

    def waits(self) -> list[float]:
        """Return the wall-clock microseconds per event of each sample."""
        return [1e6 * sample.wall / sample.events for sample in self.samples]

    def line(self) -> Line:
        one = self.contestant
        note = f"{number(statistics.median(self.waits()))} µs wall clock"
        return Line(one.name, self.costs(), one.against, note)

    def _calibrated(self, seconds: float) -> int:
        most = MOST_BYTES // len(self._lap)
        laps = 1
        while (wall := self._best_wall(laps)) < seconds / 4 and laps < most:
            laps *= 2
        return max(1, min(most, round(laps * seconds / wall)))

    def _best_wall(self, laps: int) -> float:
        """Return the shorter time of two, because one may have been delayed."""
        return min(self._sample(laps).wall, self._sample(laps).wall)

    def _sample(self, laps: int) -> Sample:
        response, sample = self._request(laps)
        if (body := body_of(response)) != self._lap * laps:
            sys.exit(
                f"{self.contestant.name}: {len(body)} bytes instead of "
                f"{len(self._lap) * laps}, or others, for {sample.events} events"
            )
        return sample

    def _request(self, laps: int) -> tuple[bytes, Sample]:
        cpu = self._server.cpu_seconds()
        began = time.perf_counter()
        response = fetch(self._server.address, self.contestant.path.format(laps=laps))
        wall = time.perf_counter() - began
        cpu = self._server.cpu_seconds() - cpu
        return response, Sample(laps * self._events, wall, cpu)


def measured_by(
    title: str, expected: Events, contestants: Sequence[Contestant]
) -> Callable[[Bench], list[Comparison]]:
    def run(bench: Bench) -> list[Comparison]:
        bursts = [
            Burst(bench.server(one.app), one, expected, STREAM_SECONDS)
            for one in contestants
        ]
        for burst in bench.turns(bursts):
            burst.measure()
        return [Comparison(title, [burst.line() for burst in bursts])]

    return run


def row(
    title: str,
    expected: Events,
    contestants: Sequence[Contestant],
    section: Section = SECTION,
) -> Row:
    contestants = present(contestants)
    seconds = len(contestants) * STREAM_SECONDS
    run = measured_by(title, expected, contestants)
    return Row(section, ROUNDS, seconds, run, QUICK_ROUNDS)


def ours(path: str) -> Contestant:
    return Contestant("fastapi_sse_fast", "fastapi_sse_fast", f"/{path}/{{laps}}")


def other(name: str, app: str, path: str, needs: str = "") -> Contestant:
    return Contestant(name, app, f"/{path}/{{laps}}", "fastapi_sse_fast", needs)


def large(kibibytes: int) -> Row:
    size = 1024 * kibibytes
    return row(
        f"raw_data of {kibibytes} KiB",
        [{"data": text_of(size)}] * LAP,
        [
            ours(f"sized/{size}"),
            other("StreamingResponse, f-string", "StreamingResponse", f"sized/{size}"),
        ],
        LARGE_SECTION,
    )


ROWS = {
    "typed": row(
        "pydantic model, typed route",
        CHUNKS,
        [
            ours("typed"),
            other(HAND_WRITTEN, "StreamingResponse", "typed"),
            other("fastapi.sse", "fastapi.sse", "typed"),
            other(
                "sse-starlette, pre-encoded JSON",
                "sse-starlette",
                "typed",
                "sse_starlette",
            ),
        ],
    ),
    "dict": row(
        "dict",
        CHUNKS,
        [
            ours("dict"),
            other("fastapi.sse", "fastapi.sse", "dict"),
            other("StreamingResponse, orjson", "StreamingResponse", "dict", "orjson"),
        ],
    ),
    "event": row(
        "ServerSentEvent(data=model, event=, id=)",
        EVENTS,
        [ours("event"), other("fastapi.sse", "fastapi.sse", "event")],
    ),
    "raw": row(
        "ServerSentEvent(raw_data=token)",
        RAW,
        [ours("raw"), other("fastapi.sse", "fastapi.sse", "raw")],
    ),
    "encoded": row(
        "EncodedEvent(raw_data=token)",
        RAW,
        [
            ours("encoded"),
            other("fastapi.sse, ServerSentEvent", "fastapi.sse", "raw"),
        ],
    ),
    "template": row(
        "EventTemplate",
        CHUNKS,
        [
            ours("filled"),
            other("fastapi.sse, model built for it", "fastapi.sse", "built"),
            other(
                "StreamingResponse, model built for it", "StreamingResponse", "built"
            ),
        ],
    ),
    "sync": row(
        "pydantic model, sync generator",
        CHUNKS,
        [ours("sync"), other("fastapi.sse", "fastapi.sse", "sync")],
    ),
    "16KiB": large(16),
    "64KiB": large(64),
    "256KiB": large(256),
}
