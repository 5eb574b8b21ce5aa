"""The table in the README, made from the results of a run."""

from __future__ import annotations

import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi_sse_fast._bench import machine, paced
from fastapi_sse_fast._bench.controls import PACE
from fastapi_sse_fast._bench.report import HAND_WRITTEN, MODEL, Comparison, times

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fastapi_sse_fast._bench.report import Line, Result

README = Path(__file__).parents[1] / "README.md"

BEGIN = "<!-- figures of benches/server.py: begin -->"
END = "<!-- figures of benches/server.py: end -->"

ONE_AT_A_TIME = "paced streams"
BURST = "pydantic model, typed route"

CONTESTANTS = {
    ONE_AT_A_TIME: [
        MODEL,
        HAND_WRITTEN,
        "sse-starlette, pre-encoded JSON",
        "fastapi.sse, model",
    ],
    BURST: [
        "fastapi_sse_fast",
        HAND_WRITTEN,
        "sse-starlette, pre-encoded JSON",
        "fastapi.sse",
    ],
}
"""The comparisons that the table shows, and the contestant of each column."""

TIMES = "\N{MULTIPLICATION SIGN}"


def table(results: Iterable[Result]) -> list[str]:
    """Return the Markdown of the table, with the comparisons that were measured."""
    found = {
        result.title: {line.name: line for line in result.lines}
        for result in results
        if isinstance(result, Comparison) and result.title in CONTESTANTS
    }
    if not found:
        return []
    return [
        "| | fastapi_sse_fast | hand-written `StreamingResponse` | sse-starlette "
        "| `fastapi.sse` |",
        "|---|--:|--:|--:|--:|",
        *_lines(found),
        "",
        caption(),
    ]


def _lines(found: dict[str, dict[str, Line]]) -> Iterator[str]:
    if one_at_a_time := found.get(ONE_AT_A_TIME):
        lines = [one_at_a_time[name] for name in CONTESTANTS[ONE_AT_A_TIME]]
        offered = round(paced.STREAMS / PACE)
        yield _row(
            f"**one token at a time**: events delivered, of {offered:,} per second",
            [f"{statistics.median(line.delivered):,.0f}" for line in lines],
        )
        yield _row("one token at a time: CPU time per event", _costs(lines))
    if burst := found.get(BURST):
        lines = [burst[name] for name in CONTESTANTS[BURST]]
        yield _row("**burst**: CPU time per event", _costs(lines))


def _row(label: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join([label, *cells])} |"


def _costs(lines: Sequence[Line]) -> Iterator[str]:
    ours = lines[0].median
    yield _microseconds(ours)
    for line in lines[1:]:
        ratio = times(line.median / ours).replace("x", TIMES)
        yield f"{_microseconds(line.median)} ({ratio})"


def _microseconds(value: float) -> str:
    digits = 0 if value >= 10 else 1
    return f"{value:,.{digits}f} µs"


def caption() -> str:
    """Return the line below the table, which says where the figures come from."""
    return (
        f"Measured by `make bench-server` on {machine.cpu()} with CPython "
        f"{platform.python_version()}, FastAPI {version('fastapi')} and uvicorn "
        f"{version('uvicorn')}; medians of alternating rounds."
    )


def is_complete(results: Iterable[Result]) -> bool:
    """Return whether everything that the table shows was measured."""
    titles = {result.title for result in results}
    return titles.issuperset(CONTESTANTS)


def write(lines: Sequence[str]) -> None:
    """Replace the table in the README."""
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{README.name} has no place for the table")
    between = "\n".join(["\n", *lines, "\n"])
    README.write_text(before + begin + between + end + after, encoding="utf-8")
