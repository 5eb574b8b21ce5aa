"""Paced streams: the cost of an event when the next one comes some time later.

Tokens come like this. Nearly all of the time goes into what every server has to do for
an event: wake up, resume the generator, write to a socket. A plain ASGI application
that sends pre-encoded bytes shows how much that is.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from .bench import Bench, Contestant, Row, present
from .bursts import CHUNKS
from .client import Crowd, beginning_of, decode
from .controls import PACE
from .report import ENCODED, HAND_WRITTEN, MODEL, Comparison, Line, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .serving import Server

STREAMS = 300
ROUNDS = 5
QUICK_ROUNDS = 1
SETTLE_SECONDS = 0.5
WINDOW_SECONDS = 1.5

SECONDS = 0.5 + SETTLE_SECONDS + WINDOW_SECONDS
"""Seconds that one contestant takes in one round."""

PACED = present(
    [
        Contestant(MODEL, "fastapi_sse_fast", "/paced"),
        Contestant(HAND_WRITTEN, "StreamingResponse", "/paced", MODEL),
        Contestant("fastapi.sse, model", "fastapi.sse", "/paced", MODEL),
        Contestant(
            "sse-starlette, pre-encoded JSON",
            "sse-starlette",
            "/paced",
            MODEL,
            "sse_starlette",
        ),
        Contestant(ENCODED, "fastapi_sse_fast", "/ready-paced"),
        Contestant(
            "FastAPI route, pre-encoded bytes",
            "StreamingResponse",
            "/ready-paced",
            ENCODED,
        ),
        Contestant("plain ASGI, pre-encoded bytes", "plain ASGI", "/paced", ENCODED),
    ]
)


def paced(bench: Bench) -> list[Comparison]:
    servers = {one.name: bench.server(one.app) for one in PACED}
    return [compare_paced("paced streams", bench, PACED, servers)]


def compare_paced(
    title: str,
    bench: Bench,
    contestants: Sequence[Contestant],
    servers: dict[str, Server],
) -> Comparison:
    """Measure paced streams in alternating rounds.

    Args:
        title: The title in the report.
        bench: The benchmark run.
        contestants: The contestants, whose paths stream the same events.
        servers: The servers, by the contestants' names.
    """
    for one in contestants:
        body = beginning_of(servers[one.name].address, one.path, 3)
        if decode(body, CHUNKS) != CHUNKS[: body.count(b"\n\n")]:
            sys.exit(f"{one.name}: wrong events: {body!r}")
    windows: dict[str, list[Window]] = {one.name: [] for one in contestants}
    for one in bench.turns(contestants):
        server = servers[one.name]
        with paced_crowd(server, one.path) as crowd:
            windows[one.name].append(watch(server, crowd, WINDOW_SECONDS))
    return Comparison(title, [line(one, windows[one.name]) for one in contestants])


@contextmanager
def paced_crowd(server: Server, path: str) -> Iterator[Crowd]:
    """Open paced streams, and wait for a while until they are steady."""
    with Crowd(server.address, path) as crowd:
        # The streams are opened over 16 periods, so that no two of them send an event
        # at the same time.
        crowd.grow(STREAMS, interval=16 * PACE / STREAMS)
        crowd.read_until(time.perf_counter() + SETTLE_SECONDS)
        yield crowd


class Window(NamedTuple):
    """The measurement of paced streams over some seconds.

    Attributes:
        cost: Microseconds of the server's CPU time per event.
        rate: Events per second.
        client_share: The share of its core that the client has used.
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
    rate, offered = statistics.median(rates), STREAMS / PACE
    note = (
        f"{rate:,.0f} of {offered:,.0f} events/s ({rate / offered:.0%}); "
        f"client {statistics.median(client_shares):.0%} busy"
    )
    return Line(contestant.name, costs, contestant.against, note, rates)


ROWS = {
    "paced": Row(
        Section(
            "Paced streams",
            "µs per event",
            f"{STREAMS} open streams. The generator of each yields {1 / PACE:g} events "
            "per second, with `asyncio.sleep` in between. The times are the server's "
            f"CPU time over {WINDOW_SECONDS:g} s, divided by the events that the "
            "client received in that time. `StreamingResponse` is hand-written and "
            'yields `f"data: {model.model_dump_json()}\\n\\n"`. Pre-encoded events and '
            "bytes are encoded before the stream starts. They are compared with each "
            "other, and the other rows with the model of this package.",
            "paced.svg",
        ),
        ROUNDS,
        len(PACED) * SECONDS,
        paced,
        QUICK_ROUNDS,
        linux_only=True,
    ),
}
