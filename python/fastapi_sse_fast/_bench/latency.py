"""Latency: the time from the creation of an event to its arrival at the client."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from .bench import Bench, Contestant, Row
from .client import latencies
from .controls import STAMP_PACE
from .report import HAND_WRITTEN, Comparison, Line, Section

if TYPE_CHECKING:
    from collections.abc import Sequence

STAMPED_EVENTS = 200
WARM_UP = 50  # events
ROUNDS = 25
QUICK_ROUNDS = 2

STAMPED = [
    Contestant("fastapi_sse_fast", "fastapi_sse_fast", "/stamped"),
    Contestant("fastapi.sse", "fastapi.sse", "/stamped", "fastapi_sse_fast"),
    Contestant(HAND_WRITTEN, "StreamingResponse", "/stamped", "fastapi_sse_fast"),
]


def latency(bench: Bench) -> list[Comparison]:
    halves: dict[str, list[float]] = {one.name: [] for one in STAMPED}
    tails: dict[str, list[float]] = {one.name: [] for one in STAMPED}
    for one in bench.turns(STAMPED):
        address = bench.server(one.app).address
        seconds = latencies(address, one.path, WARM_UP + STAMPED_EVENTS)[WARM_UP:]
        percentiles = statistics.quantiles(seconds, n=100)
        halves[one.name].append(1e6 * percentiles[49])
        tails[one.name].append(1e6 * percentiles[98])

    def lines(values: dict[str, list[float]]) -> Sequence[Line]:
        return [Line(one.name, values[one.name], one.against) for one in STAMPED]

    return [
        Comparison("latency, p50", lines(halves)),
        Comparison("latency, p99", lines(tails)),
    ]


ROWS = {
    "latency": Row(
        Section(
            "Latency",
            "µs",
            "The time from just before a model is yielded until the client has "
            f"received it: one stream with an event every {1000 * STAMP_PACE:g} ms, "
            f"{STAMPED_EVENTS} events per round, median of the rounds.",
        ),
        ROUNDS,
        len(STAMPED) * (STAMPED_EVENTS + WARM_UP) * STAMP_PACE * 1.2,
        latency,
        QUICK_ROUNDS,
    ),
}
