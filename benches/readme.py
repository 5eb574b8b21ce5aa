"""The table of the README, of the results of a run."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastapi_sse_fast._bench import machine
from fastapi_sse_fast._bench.report import (
    BY_HAND,
    MODEL,
    READY,
    Comparison,
    times,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fastapi_sse_fast._bench.report import Result

README = Path(__file__).parents[1] / "README.md"

BEGIN = "<!-- figures of benches/server.py: begin -->"
END = "<!-- figures of benches/server.py: end -->"

OURS = "fastapi_sse_fast"
FASTAPI = "fastapi.sse"
SSE_STARLETTE = "sse-starlette, ready JSON"

TIMES = "\N{MULTIPLICATION SIGN}"
READY_BYTES = "ready bytes in a FastAPI route"


class Entry(NamedTuple):
    """A line of the table.

    Attributes:
        label: What it says on the left.
        title: The comparison that it shows.
        ours: Our contestant in that.
        by_hand: The one in the next column; none leaves a cell empty.
        fastapi: The one in the column after that.
        sse_starlette: The one in the last column.
        note: What is different about `by_hand`.
    """

    label: str
    title: str
    ours: str = OURS
    by_hand: str = ""
    fastapi: str = ""
    sse_starlette: str = ""
    note: str = ""


TYPED = "pydantic model, typed route"
EVENT = "ServerSentEvent(data=model, event=, id=)"
RAW = "ServerSentEvent(raw_data=token)"
ENCODED = "EncodedEvent(raw_data=token)"

ENTRIES = [
    Entry(
        "**paced**, 300 streams of 50 events/s: typed model",
        "paced streams",
        MODEL,
        BY_HAND,
        "fastapi.sse, model",
        SSE_STARLETTE,
    ),
    Entry(
        "paced: ready `EncodedEvent`",
        "paced streams",
        READY,
        READY_BYTES,
        note="ready bytes",
    ),
    Entry(
        "**one event per await**, 20 streams: typed model",
        "one event per await",
        MODEL,
        BY_HAND,
        "fastapi.sse, model",
        SSE_STARLETTE,
    ),
    Entry(
        "one event per await: ready `EncodedEvent`",
        "one event per await",
        READY,
        READY_BYTES,
        note="ready bytes",
    ),
    Entry("**burst**: typed model", TYPED, OURS, BY_HAND, FASTAPI, SSE_STARLETTE),
    Entry("burst: `dict`", "dict", OURS, "by hand, orjson", FASTAPI, note="orjson"),
    Entry(f"burst: `{EVENT}`", EVENT, fastapi=FASTAPI),
    Entry(f"burst: `{RAW}`", RAW, fastapi=FASTAPI),
    Entry(f"burst: `{ENCODED}`", ENCODED, fastapi="fastapi.sse, ServerSentEvent"),
    Entry(
        "burst: a token in an `EventTemplate`",
        "EventTemplate",
        OURS,
        "by hand, model built for it",
        "fastapi.sse, model built for it",
    ),
    Entry(
        "burst: models from a sync generator",
        "pydantic model, sync generator",
        fastapi=FASTAPI,
    ),
    *(
        Entry(
            f"burst: `raw_data` of {size} KiB",
            f"raw_data of {size} KiB",
            by_hand="by hand, f-string",
        )
        for size in (16, 64, 256)
    ),
]


def table(results: Iterable[Result]) -> list[str]:
    """Make the Markdown of the table, of those lines that were measured."""
    found = {
        result.title: {line.name: line.median for line in result.lines}
        for result in results
        if isinstance(result, Comparison)
    }
    lines = list(_lines(found))
    if not lines:
        return []
    return [
        "| server CPU per event | fastapi_sse_fast | by hand, `StreamingResponse` "
        "| `fastapi.sse` | sse-starlette |",
        "|---|--:|--:|--:|--:|",
        *lines,
        "",
        caption(),
    ]


def _lines(found: dict[str, dict[str, float]]) -> Iterator[str]:
    for entry in ENTRIES:
        medians = found.get(entry.title)
        if medians is None:
            continue
        ours = medians[entry.ours]
        cells = [entry.label, _microseconds(ours)]
        for name in (entry.by_hand, entry.fastapi, entry.sse_starlette):
            cell = ""
            if name in medians:
                note = f", {entry.note}" if name == entry.by_hand and entry.note else ""
                ratio = times(medians[name] / ours).replace("x", TIMES)
                cell = f"{_microseconds(medians[name])} ({ratio}{note})"
            cells.append(cell)
        yield f"| {' | '.join(cells)} |"


def _microseconds(value: float) -> str:
    digits = 0 if value >= 10 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f} µs"


def caption() -> str:
    """Tell where the figures come from, in a line below them."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "uvicorn"))
    return (
        f"By `make bench-server` on {machine.cpu()}: CPython "
        f"{platform.python_version()}, {packages}; medians of alternating rounds."
    )


def is_complete(results: Iterable[Result]) -> bool:
    """Tell whether everything that the table shows was measured."""
    titles = {result.title for result in results}
    return all(entry.title in titles for entry in ENTRIES)


def write(lines: Sequence[str]) -> None:
    """Put the table between its marks in the README."""
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{README.name} has no place for the table")
    between = "\n".join(["\n", *lines, "\n"])
    README.write_text(before + begin + between + end + after, encoding="utf-8")
