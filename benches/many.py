"""The cost of a stream apart from its events: its memory, start and end."""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

from fastapi_sse_fast._bench.bench import Bench, Contestant, Row
from fastapi_sse_fast._bench.bursts import CHUNKS
from fastapi_sse_fast._bench.client import Crowd, Visitors, body_of, decode, fetch
from fastapi_sse_fast._bench.report import HAND_WRITTEN, Comparison, Line, Section

if TYPE_CHECKING:
    from collections.abc import Sequence

IDLE_STREAMS = 1000
FIRST_STREAMS = 50
IDLE_ROUNDS = 3
SETTLE_SECONDS = 0.3

CONNECTIONS = 16
ONE_ROUNDS = 7
WARM_UP_SECONDS = 0.2
WINDOW_SECONDS = 1.0

OURS = "fastapi_sse_fast"

IDLE = [
    Contestant(OURS, OURS, "/idle"),
    Contestant("fastapi.sse", "fastapi.sse", "/idle", OURS),
    Contestant(HAND_WRITTEN, "StreamingResponse", "/idle", OURS),
    Contestant("sse-starlette, pre-encoded JSON", "sse-starlette", "/idle", OURS),
]

ONE = [
    Contestant(OURS, OURS, "/one"),
    Contestant("fastapi.sse", "fastapi.sse", "/one", OURS),
    Contestant(HAND_WRITTEN, "StreamingResponse", "/one", OURS),
]


def memory(bench: Bench) -> list[Comparison]:
    return [compare_idle("idle stream", bench, IDLE)]


def compare_idle(
    title: str, bench: Bench, contestants: Sequence[Contestant]
) -> Comparison:
    """Measure the memory of an idle stream in alternating rounds."""
    kibibytes: dict[str, list[float]] = {one.name: [] for one in contestants}
    for one in bench.turns(contestants):
        # Each round needs a new process, because an old one has free memory.
        with (
            bench.fresh_server(one.app) as server,
            Crowd(server.address, one.path) as crowd,
        ):
            crowd.grow(FIRST_STREAMS)
            time.sleep(SETTLE_SECONDS)
            before = server.resident_bytes()
            crowd.grow(IDLE_STREAMS)
            time.sleep(SETTLE_SECONDS)
            grown = server.resident_bytes() - before
        kibibytes[one.name].append(grown / 1024 / IDLE_STREAMS)
    lines = [Line(one.name, kibibytes[one.name], one.against) for one in contestants]
    return Comparison(title, lines)


def one_event(bench: Bench) -> list[Comparison]:
    for one in ONE:
        body = body_of(fetch(bench.server(one.app).address, one.path))
        if decode(body, CHUNKS) != CHUNKS[:1]:
            sys.exit(f"{one.name}: wrong event: {body!r}")
    rates: dict[str, list[float]] = {one.name: [] for one in ONE}
    costs: dict[str, list[float]] = {one.name: [] for one in ONE}
    for one in bench.turns(ONE):
        server = bench.server(one.app)
        with Visitors(server.address, one.path, CONNECTIONS) as visitors:
            visitors.visit_until(time.perf_counter() + WARM_UP_SECONDS)
            visits, cpu = visitors.visits, server.cpu_seconds()
            began = time.perf_counter()
            visitors.visit_until(began + WINDOW_SECONDS)
            seconds = time.perf_counter() - began
            visits = visitors.visits - visits
            cpu = server.cpu_seconds() - cpu
        rates[one.name].append(visits / seconds)
        costs[one.name].append(1e6 * cpu / visits)
    return [
        Comparison(
            "one-event streams",
            [
                Line(
                    one.name,
                    rates[one.name],
                    one.against,
                    f"{statistics.median(costs[one.name]):,.0f} µs of CPU per stream",
                )
                for one in ONE
            ],
        )
    ]


ROWS = {
    "memory": Row(
        Section(
            "Memory",
            "KiB per stream",
            f"The growth of a new server's resident memory with {IDLE_STREAMS:,} "
            f"streams, after {FIRST_STREAMS} others. All are idle after one event.",
        ),
        IDLE_ROUNDS,
        len(IDLE) * 3.5,
        memory,
        linux_only=True,
    ),
    "one": Row(
        Section(
            "One-event streams",
            "streams per second",
            f"{CONNECTIONS} keep-alive connections, each of which requests one stream "
            "after another. A stream ends after one model.",
        ),
        ONE_ROUNDS,
        len(ONE) * (WARM_UP_SECONDS + WINDOW_SECONDS),
        one_event,
    ),
}
