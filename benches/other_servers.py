"""Paced streams behind a middleware, on other servers, and on uvicorn without extras.

Most of them are compared with a hand-written response. The rows are optional:
`python benches/server.py --servers`.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from fastapi_sse_fast._bench.apps import MIDDLEWARE
from fastapi_sse_fast._bench.bench import Bench, Contestant, Row
from fastapi_sse_fast._bench.paced import SECONDS, compare_paced
from fastapi_sse_fast._bench.report import HAND_WRITTEN, MODEL, Comparison, Section
from fastapi_sse_fast._bench.serving import serving_by
from messages import FIRST, SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5

OURS = "fastapi_sse_fast"
THEIRS = "StreamingResponse"

FACTORIES = {
    OURS: "fastapi_sse_fast._bench.drop_ins:fastapi_sse_fast_app",
    THEIRS: "fastapi_sse_fast._bench.hand_written:streaming_response_app",
}


def contestants(suffix: str = "") -> list[Contestant]:
    return [
        Contestant(MODEL, OURS + suffix, "/paced"),
        Contestant(HAND_WRITTEN, THEIRS + suffix, "/paced", MODEL),
    ]


def behind_middleware(bench: Bench) -> list[Comparison]:
    pair = contestants(MIDDLEWARE)
    servers = {one.name: bench.server(one.app) for one in pair}
    return [compare_paced("paced, BaseHTTPMiddleware", bench, pair, servers)]


def on(name: str) -> Callable[[Bench], list[Comparison]]:
    def run(bench: Bench) -> list[Comparison]:
        pair = contestants()
        with ExitStack() as stack:
            servers = {
                one.name: stack.enter_context(
                    serving_by(
                        SERVERS[name].format(app=FACTORIES[one.app]).split(),
                        bench.cores.server,
                    )
                )
                for one in pair
            }
            return [compare_paced(f"paced, {name}", bench, pair, servers)]

    return run


def without_extras(bench: Bench) -> list[Comparison]:
    """Compare `uvicorn[standard]` with uvicorn alone."""
    commands = {
        "uvicorn[standard]": SERVERS[FIRST],
        "uvicorn alone": SERVERS[FIRST]
        .replace("--http httptools", "--http h11")
        .replace("--loop uvloop", "--loop asyncio"),
    }
    standard, alone = (f"{MODEL}, {name}" for name in commands)
    pair = [
        Contestant(standard, OURS, "/paced"),
        Contestant(alone, OURS, "/paced", standard),
    ]
    with ExitStack() as stack:
        servers = {
            one.name: stack.enter_context(
                serving_by(
                    command.format(app=FACTORIES[OURS]).split(), bench.cores.server
                )
            )
            for one, command in zip(pair, commands.values(), strict=True)
        }
        return [compare_paced("paced, uvicorn's extras", bench, pair, servers)]


SECTION = Section(
    "Other servers, and a middleware",
    "µs per event",
    "Paced streams of models as above: on uvicorn behind a `BaseHTTPMiddleware` that "
    "changes nothing, on granian and hypercorn with uvloop, and on uvicorn without "
    "uvloop and httptools. The CPU time is that of the server and its workers, "
    "including granian's threads.",
)


def row(run: Callable[[Bench], list[Comparison]]) -> Row:
    return Row(SECTION, ROUNDS, 2 * SECONDS, run, linux_only=True)


ROWS = {
    "middleware": row(behind_middleware),
    "granian": row(on("granian")),
    "hypercorn": row(on("hypercorn")),
    "extras": row(without_extras),
}
