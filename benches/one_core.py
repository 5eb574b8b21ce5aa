"""The table that shows how much one core delivers of events that come one at a time."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from fastapi_sse_fast._bench import paced
from fastapi_sse_fast._bench.controls import PACE
from fastapi_sse_fast._bench.report import Comparison
from readme import CONTESTANTS, ONE_AT_A_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fastapi_sse_fast._bench.report import Line, Result

TITLE = "One core"

NAMES = [
    "fastapi_sse_fast",
    "hand-written `StreamingResponse`",
    "sse-starlette",
    "`fastapi.sse`",
]
"""Names for readers, in the order of the columns in the README."""


def one_core_lines(results: Iterable[Result]) -> Iterator[str]:
    """Return the Markdown of the table, if its comparison was measured."""
    for result in results:
        if isinstance(result, Comparison) and result.title == ONE_AT_A_TIME:
            found = {line.name: line for line in result.lines}
            yield from _table([found[name] for name in CONTESTANTS[ONE_AT_A_TIME]])


def _table(lines: Sequence[Line]) -> Iterator[str]:
    per_second = 1 / PACE
    offered = paced.STREAMS * per_second
    yield (
        f"| | events delivered, of {offered:,.0f} per second | share | CPU time per "
        f"event | streams of {per_second:g} events per second that fill one core |"
    )
    yield "|---|--:|--:|--:|--:|"
    for name, line in zip(NAMES, lines, strict=True):
        rate = statistics.median(line.delivered)
        cells = (
            name,
            f"{rate:,.0f}",
            f"**{rate / offered:.0%}**",
            f"{line.median:.0f} µs",
            f"{1e6 / line.median / per_second:.0f}",
        )
        yield f"| {' | '.join(cells)} |"
