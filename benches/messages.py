"""The cost of a burst by the size of its ASGI messages, on several servers."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import TYPE_CHECKING

from fastapi_sse_fast._bench.bench import Bench, Contestant, Row
from fastapi_sse_fast._bench.bursts import CHUNKS, Burst
from fastapi_sse_fast._bench.client import chunks_of, fetch
from fastapi_sse_fast._bench.report import Curve, Section
from fastapi_sse_fast._bench.serving import serving_by

if TYPE_CHECKING:
    from fastapi_sse_fast._bench.serving import Server

ROUNDS = 3
STREAM_SECONDS = 0.2
LAPS = 500
SIZES = (4 * 1024, 16 * 1024, 64 * 1024, 256 * 1024)
APP = "fastapi_sse_fast._bench.drop_ins:fastapi_sse_fast_app"

FIRST = "uvicorn, httptools"
MESSAGE = "KiB per message"

SERVERS = {
    FIRST: "uvicorn {app} --factory --port {{port}} --no-access-log "
    "--http httptools --loop uvloop",
    "uvicorn, h11": "uvicorn {app} --factory --port {{port}} --no-access-log "
    "--http h11 --loop uvloop",
    "granian": "granian {app} --factory --port {{port}} --interface asgi --loop uvloop",
    "hypercorn": "hypercorn {app}() --bind 127.0.0.1:{{port}} --workers 0 "
    "--worker-class uvloop",
}
"""How to start a server with an application factory, on a port."""


def messages(bench: Bench) -> list[Curve]:
    values: dict[str, dict[int, list[float]]] = {
        name: {} for name in (MESSAGE, *SERVERS)
    }
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                serving_by(command.format(app=APP).split(), bench.cores.server)
            )
            for name, command in SERVERS.items()
        }
        for part, size in enumerate(SIZES):
            values[MESSAGE][size] = [message_size(servers[FIRST], size)]
            bursts = [
                Burst(
                    server,
                    Contestant(name, name, f"/pending/{size}/{{laps}}"),
                    CHUNKS,
                    STREAM_SECONDS,
                )
                for name, server in servers.items()
            ]
            for burst in bench.turns(bursts, part=part, of=len(SIZES)):
                burst.measure()
            for burst in bursts:
                values[burst.contestant.name][size] = burst.waits()
    return [
        Curve(
            "Size of ASGI messages",
            "`max_pending`",
            lambda size: f"{size // 1024} KiB",
            values,
        )
    ]


def message_size(server: Server, max_pending: int) -> float:
    """Return the median size of ASGI messages in KiB.

    The server sends each message as one chunk. The time slice of the generator limits
    the size of large messages.
    """
    response = fetch(server.address, f"/pending/{max_pending}/{LAPS}")
    return statistics.median(map(len, chunks_of(response)[0])) / 1024


ROWS = {
    "messages": Row(
        Section(
            "Size of ASGI messages",
            "µs per event",
            "The wall-clock time in µs per event of a burst of pre-encoded events, by "
            "`max_pending`, which is the most that a response sends at once.",
        ),
        ROUNDS,
        len(SERVERS) * len(SIZES) * STREAM_SECONDS,
        messages,
    )
}
