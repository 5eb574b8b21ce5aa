"""Compare `fastapi_sse_fast.sse_starlette` with sse-starlette itself.

Both stream the same text, in lockstep with their clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi_sse_fast._bench import awaited, paced
from fastapi_sse_fast._bench.bench import Bench, Contestant, Row
from fastapi_sse_fast._bench.bursts import CHUNKS, ROUNDS, STREAM_SECONDS, measured_by
from fastapi_sse_fast._bench.report import Comparison, Section
from many import IDLE_ROUNDS, compare_idle

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = "fastapi_sse_fast.sse_starlette"

TIMES = Section(
    "sse-starlette, import swapped",
    "µs per event",
    "The same application with one import line changed. It yields pre-encoded JSON as "
    "text and returns an `EventSourceResponse`, whose generator is in lockstep with "
    "its client. Each row is measured as in the tables above.",
)
MEMORY = Section(
    "sse-starlette, import swapped: memory",
    "KiB per stream",
    "Measured as above.",
)


def both(path: str) -> list[Contestant]:
    """Return the two contestants of a row."""
    return [
        Contestant(OURS, OURS, path),
        Contestant("sse-starlette", "sse-starlette", path, OURS),
    ]


def on_servers(
    title: str, path: str, compare: Callable[..., Comparison]
) -> Callable[[Bench], list[Comparison]]:
    def run(bench: Bench) -> list[Comparison]:
        servers = {one.name: bench.server(one.app) for one in both(path)}
        return [compare(title, bench, both(path), servers)]

    return run


def idle(bench: Bench) -> list[Comparison]:
    return [compare_idle("idle stream of text", bench, both("/idle"))]


ROWS = {
    "swapped-burst": Row(
        TIMES,
        ROUNDS,
        2 * STREAM_SECONDS,
        measured_by("burst of text", CHUNKS, both("/typed/{laps}")),
    ),
    "swapped-awaited": Row(
        TIMES,
        awaited.ROUNDS,
        2 * awaited.ROUND_SECONDS,
        on_servers("text, one per await", "/awaiting/{laps}", awaited.compare_awaited),
    ),
    "swapped-paced": Row(
        TIMES,
        paced.ROUNDS,
        2 * paced.SECONDS,
        on_servers("paced text", "/paced", paced.compare_paced),
        linux_only=True,
    ),
    "swapped-memory": Row(MEMORY, IDLE_ROUNDS, 7.0, idle, linux_only=True),
}
