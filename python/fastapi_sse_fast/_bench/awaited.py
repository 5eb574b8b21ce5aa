"""One event per await: the cost of an event when the generator awaits after each.

After every event, the event loop runs whatever else is ready, here the other streams.
In contrast to paced streams, there are no timers and no idle time, and in contrast to
bursts, every event is sent by itself. This row therefore shows best what it costs to
pass an event through a stream.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from .bench import Bench, Contestant, Row, present
from .bursts import CHUNKS, LAP, Burst, Sample, text_of_cpu
from .client import Crowd
from .report import ENCODED, HAND_WRITTEN, MODEL, Comparison, Section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .serving import Server

STREAMS = 20
ROUNDS = 7
QUICK_ROUNDS = 2
ROUND_SECONDS = 0.5
"""About how many seconds the streams of one contestant take."""

AWAITED = present(
    [
        Contestant(MODEL, "fastapi_sse_fast", "/awaiting/{laps}"),
        Contestant(HAND_WRITTEN, "StreamingResponse", "/awaiting/{laps}", MODEL),
        Contestant("fastapi.sse, model", "fastapi.sse", "/awaiting/{laps}", MODEL),
        Contestant(
            "sse-starlette, pre-encoded JSON",
            "sse-starlette",
            "/awaiting/{laps}",
            MODEL,
            "sse_starlette",
        ),
        Contestant(ENCODED, "fastapi_sse_fast", "/ready-awaiting/{laps}"),
        Contestant(
            "FastAPI route, pre-encoded bytes",
            "StreamingResponse",
            "/ready-awaiting/{laps}",
            ENCODED,
        ),
        Contestant(
            "plain ASGI, pre-encoded bytes", "plain ASGI", "/awaiting/{laps}", ENCODED
        ),
    ]
)


class Streams(Burst):
    """Concurrent streams of one contestant, measured repeatedly.

    The events of a first stream are compared with the expected ones. The events of the
    others are counted.
    """

    def _sample(self, laps: int) -> Sample:
        path = self.contestant.path.format(laps=laps)
        cpu = self._server.cpu_seconds()
        began = time.perf_counter()
        with Crowd(self._server.address, path) as crowd:
            crowd.grow(STREAMS)
            crowd.read_to_the_end()
        wall = time.perf_counter() - began
        cpu = self._server.cpu_seconds() - cpu
        if crowd.events != (expected := STREAMS * laps * LAP):
            sys.exit(f"{self.contestant.name}: {crowd.events} events, not {expected}")
        return Sample(expected, wall, cpu)


def awaited(bench: Bench) -> list[Comparison]:
    servers = {one.name: bench.server(one.app) for one in AWAITED}
    return [compare_awaited("one event per await", bench, AWAITED, servers)]


def compare_awaited(
    title: str,
    bench: Bench,
    contestants: Sequence[Contestant],
    servers: dict[str, Server],
) -> Comparison:
    """Measure streams that await after every event, in alternating rounds.

    Args:
        title: The title in the report.
        bench: The benchmark run.
        contestants: The contestants, whose paths stream the same events.
        servers: The servers, by the contestants' names.
    """
    streams = [
        Streams(servers[one.name], one, CHUNKS, ROUND_SECONDS) for one in contestants
    ]
    for one in bench.turns(streams):
        one.measure()
    return Comparison(title, [one.line() for one in streams])


ROWS = {
    "awaited": Row(
        Section(
            "One event per await",
            "µs per event",
            f"{STREAMS} open streams, whose generators `await asyncio.sleep(0)` after "
            f"every event. The times are {text_of_cpu()} per event, including the "
            "start and the end of the streams, over as many events as take "
            f"{ROUND_SECONDS:g} s. Rows are compared as for paced streams.",
            "awaited.svg",
        ),
        ROUNDS,
        len(AWAITED) * ROUND_SECONDS,
        awaited,
        QUICK_ROUNDS,
    ),
}
