"""Streams with pauses: what an event costs the server, and when the client has it.

Here nearly all of the time goes into what every server has to do for an event: wake up,
resume the generator, write to a socket. A plain ASGI application that sends ready bytes
shows how much that is.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from .bench import Bench, Contestant, Row, present
from .bursts import CHUNKS
from .client import Crowd, beginning_of, decode, latencies
from .controls import PACE, STAMP_PACE
from .report import BY_HAND, Comparison, Line, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .serving import Server

STREAMS = 300
ROUNDS = 5
QUICK_ROUNDS = 1
SETTLE_SECONDS = 0.5
WINDOW_SECONDS = 1.5

STAMPED_EVENTS = 200
WARM_UP = 50  # events
LATENCY_ROUNDS = 25
QUICK_LATENCY_ROUNDS = 2

MODEL = "fastapi_sse_fast, model"
ENCODED = "fastapi_sse_fast, EncodedEvent of ready JSON"

PACED = present(
    [
        Contestant(MODEL, "fastapi_sse_fast", "/paced"),
        Contestant("fastapi.sse, model", "fastapi.sse", "/paced", MODEL),
        Contestant(BY_HAND, "StreamingResponse", "/paced", MODEL),
        Contestant(ENCODED, "fastapi_sse_fast", "/encoded-paced"),
        Contestant(
            "sse-starlette, ready JSON",
            "sse-starlette",
            "/paced",
            ENCODED,
            "sse_starlette",
        ),
        Contestant(
            "plain ASGI in FastAPI", "StreamingResponse", "/ready-paced", ENCODED
        ),
        Contestant("plain ASGI, ready bytes", "plain ASGI", "/paced", ENCODED),
    ]
)

STAMPED = [
    Contestant("fastapi_sse_fast", "fastapi_sse_fast", "/stamped"),
    Contestant("fastapi.sse", "fastapi.sse", "/stamped", "fastapi_sse_fast"),
    Contestant(BY_HAND, "StreamingResponse", "/stamped", "fastapi_sse_fast"),
]


def paced(bench: Bench) -> list[Comparison]:
    for one in PACED:
        body = beginning_of(bench.server(one.app).address, one.path, 3)
        if decode(body, CHUNKS) != CHUNKS[: body.count(b"\n\n")]:
            sys.exit(f"{one.name}: wrong events: {body!r}")
    windows: dict[str, list[Window]] = {one.name: [] for one in PACED}
    for one in bench.turns(PACED):
        server = bench.server(one.app)
        with paced_crowd(server, one.path) as crowd:
            windows[one.name].append(watch(server, crowd, WINDOW_SECONDS))
    lines = [line(one, windows[one.name]) for one in PACED]
    return [Comparison("paced streams", lines)]


@contextmanager
def paced_crowd(server: Server, path: str) -> Iterator[Crowd]:
    """Paced streams that have been going on for a while."""
    with Crowd(server.address, path) as crowd:
        # Sixteen rounds of the pace: no two streams have their events together.
        crowd.grow(STREAMS, interval=16 * PACE / STREAMS)
        crowd.read_until(time.perf_counter() + SETTLE_SECONDS)
        yield crowd


class Window(NamedTuple):
    """What was seen of paced streams for some seconds.

    Attributes:
        cost: Microseconds of the server's CPU for an event.
        rate: Events a second.
        client_share: Of its core that the client has used.
    """

    cost: float
    rate: float
    client_share: float


def watch(server: Server, crowd: Crowd, seconds: float) -> Window:
    began, events = time.perf_counter(), crowd.events
    cpu, client = server.cpu_seconds(), time.process_time()
    crowd.read_until(began + seconds)
    cpu, client = server.cpu_seconds() - cpu, time.process_time() - client
    seconds, events = time.perf_counter() - began, crowd.events - events
    if len(crowd) < STREAMS:
        sys.exit("streams have ended")
    return Window(1e6 * cpu / events, events / seconds, client / seconds)


def line(contestant: Contestant, windows: Sequence[Window]) -> Line:
    costs, rates, client_shares = zip(*windows, strict=True)
    note = (
        f"{statistics.median(rates):,.0f} events/s; "
        f"client {statistics.median(client_shares):.0%} busy"
    )
    return Line(contestant.name, costs, contestant.against, note)


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
    "paced": Row(
        Section(
            "Paced streams",
            "µs per event",
            f"{STREAMS} streams at once, each with {1 / PACE:g} events a second by "
            "`asyncio.sleep`. The µs are the server's CPU time over a window of "
            f"{WINDOW_SECONDS:g} s, in which the client counts the events. Who sends "
            "models is compared with our models, who sends ready JSON with our "
            "`EncodedEvent`, which is made for every event.",
            "paced.svg",
        ),
        ROUNDS,
        len(PACED) * (0.5 + SETTLE_SECONDS + WINDOW_SECONDS),
        paced,
        QUICK_ROUNDS,
        linux_only=True,
    ),
    "latency": Row(
        Section(
            "Latency",
            "µs",
            "From just before the `yield` of a model, which carries the time, to the "
            f"client's `recv`: one stream with an event every {1000 * STAMP_PACE:g} "
            f"ms, {STAMPED_EVENTS} events a round; median of the rounds.",
        ),
        LATENCY_ROUNDS,
        len(STAMPED) * (STAMPED_EVENTS + WARM_UP) * STAMP_PACE * 1.2,
        latency,
        QUICK_LATENCY_ROUNDS,
    ),
}
