"""How the cost of an event changes with its size, the number of streams, and pauses."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, NamedTuple

from fastapi_sse_fast._bench.bench import Bench, Contestant, Row
from fastapi_sse_fast._bench.bursts import CHUNKS, LAP, Burst, Events
from fastapi_sse_fast._bench.client import Crowd, content_of, fetch
from fastapi_sse_fast._bench.controls import MARKED
from fastapi_sse_fast._bench.report import Curve, Section
from fastapi_sse_fast._bench.samples import text_of
from fastapi_sse_fast._bench.serving import ON_LINUX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 3
STREAM_SECONDS = 0.2

SIZES = (20, 200, 2048, 16 * 1024, 64 * 1024)
GROUPS = tuple(2**power for power in range(11))
CROWDS = (1, 10, 100, 1000, 5000)
CROWD_EVENTS = 20_000
MOST_OF_FASTAPI = 1000  # With more streams, the first pings before the last opens.
SPARE_FILES = 100
LONG = 1_000_000

OURS = "fastapi_sse_fast"
FASTAPI = "fastapi.sse"
HAND_WRITTEN = "StreamingResponse"

PER_SECOND = "Events per second" + (" of the server's CPU time" if ON_LINUX else "")


class Variation(NamedTuple):
    """A burst that varies by one number, the `{x}` in its path."""

    title: str
    axis: str
    label: Callable[[int], str]
    path: str
    xs: Sequence[int]
    expected: Callable[[int], Events]

    def run(self, bench: Bench) -> list[Curve]:
        values: dict[str, dict[int, list[float]]] = {
            name: {} for name in (OURS, FASTAPI, HAND_WRITTEN)
        }
        for part, x in enumerate(self.xs):
            bursts = [
                Burst(
                    bench.server(name),
                    Contestant(name, name, self.path.replace("{x}", str(x))),
                    self.expected(x),
                    STREAM_SECONDS,
                )
                for name in values
            ]
            for burst in bench.turns(bursts, part=part, of=len(self.xs)):
                burst.measure()
            for burst in bursts:
                costs = burst.costs()
                values[burst.contestant.name][x] = [1e6 / cost for cost in costs]
        return [Curve(self.title, self.axis, self.label, values)]

    @property
    def seconds(self) -> float:
        """The approximate duration of a round."""
        return len(self.xs) * 3 * STREAM_SECONDS


def streams(bench: Bench) -> list[Curve]:
    """Measure streams that are all open before the first event and after the last."""
    xs = [x for x in CROWDS if x + SPARE_FILES < bench.file_limit]
    values: dict[str, dict[int, list[float]]] = {
        name: {} for name in (OURS, FASTAPI, HAND_WRITTEN)
    }
    for part, x in enumerate(xs):
        names = [name for name in values if name != FASTAPI or x <= MOST_OF_FASTAPI]
        for name in bench.turns(names, part=part, of=len(xs)):
            rate = gated_rate(bench, name, x)
            values[name].setdefault(x, []).append(rate)
    return [Curve("Streams at once", "streams", "{:,}".format, values)]


def gated_rate(bench: Bench, name: str, count: int) -> float:
    server = bench.server(name)
    path = f"/gated/{CROWD_EVENTS // count}"
    with Crowd(server.address, path) as crowd:
        crowd.grow(count)
        cpu = server.cpu_seconds()
        content_of(fetch(server.address, "/open"))
        crowd.read_events(count + CROWD_EVENTS)
        cpu = server.cpu_seconds() - cpu
        if crowd.events != count + CROWD_EVENTS:
            sys.exit(f"{name}: {crowd.events} events of {count} streams")
    return CROWD_EVENTS / cpu


def length(bench: Bench) -> list[Curve]:
    first, last = MARKED, LONG
    names = (OURS, HAND_WRITTEN)
    values: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    for name in bench.turns(names):
        address = bench.server(name).address
        with Crowd(address, f"/long/{LONG}") as crowd:
            crowd.grow(1)
            crowd.read_to_the_end()
            if crowd.events != LONG:
                sys.exit(f"{name}: {crowd.events} events instead of {LONG}")
        marks = json.loads(content_of(fetch(address, "/marks")))
        values[name].setdefault(first, []).append(MARKED / (marks[1] - marks[0]))
        values[name].setdefault(last, []).append(MARKED / (marks[3] - marks[2]))
    return [
        Curve(
            "Length of the stream",
            "up to event",
            "{:,}".format,
            values,
        )
    ]


def size_label(size: int) -> str:
    return f"{size // 1024} KiB" if size >= 1024 else f"{size} B"


SIZED = Variation(
    "Size of an event",
    "text of an event",
    size_label,
    "/sized/{x}/{laps}",
    SIZES,
    lambda size: [{"data": text_of(size)}] * LAP,
)
GROUPED = Variation(
    "Events between two awaits",
    "events between two awaits",
    "{:,}".format,
    "/grouped/{x}/{laps}",
    GROUPS,
    lambda size: CHUNKS,
)

ROWS = {
    "sizes": Row(
        Section(
            SIZED.title,
            PER_SECOND,
            f"{PER_SECOND} in one burst of `ServerSentEvent(raw_data=text)`. The "
            "hand-written response yields an f-string.",
            "growth.svg",
        ),
        ROUNDS,
        SIZED.seconds,
        SIZED.run,
    ),
    "wakeups": Row(
        Section(
            GROUPED.title,
            PER_SECOND,
            f"{PER_SECOND} in one stream of models with an "
            "`await asyncio.sleep(0)` after each group of this size.",
            "growth.svg",
        ),
        ROUNDS,
        GROUPED.seconds,
        GROUPED.run,
    ),
    "streams": Row(
        Section(
            "Streams at once",
            PER_SECOND,
            f"{PER_SECOND}: {CROWD_EVENTS:,} models in total, from this number of "
            "open streams, which all start at the same time.",
            "growth.svg",
        ),
        ROUNDS,
        20,
        streams,
    ),
    "length": Row(
        Section(
            "Length of a stream",
            PER_SECOND,
            f"{PER_SECOND}: the first and the last {MARKED:,} models of "
            f"one burst of {LONG:,} models.",
        ),
        ROUNDS,
        20,
        length,
    ),
}
