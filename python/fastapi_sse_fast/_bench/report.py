"""The results, formatted as Markdown or for the terminal."""

from __future__ import annotations

import statistics
import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


class Section(NamedTuple):
    """A section of the report.

    Attributes:
        title: The heading.
        unit: The unit of the values.
        text: How the values were measured.
        image: The file name of the chart of the section, if it has one.
    """

    title: str
    unit: str
    text: str
    image: str = ""


class Line(NamedTuple):
    """The result of one contestant.

    Attributes:
        name: The name of the contestant.
        values: The values, one per round.
        against: The name of our contestant that it is compared with. Empty for ours.
        note: Further results.
        delivered: The events per second, one per round, if they were counted.
    """

    name: str
    values: Sequence[float]
    against: str = ""
    note: str = ""
    delivered: Sequence[float] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.values)


class Comparison(NamedTuple):
    """The results of contestants that do the same."""

    title: str
    lines: Sequence[Line]


class Curve(NamedTuple):
    """Values that depend on one parameter.

    Attributes:
        title: The title, with the meaning of the values and of the parameter.
        axis: The name of the parameter.
        label: A function that formats a value of the parameter.
        values: The values by contestant and parameter, one per round.
    """

    title: str
    axis: str
    label: Callable[[int], str]
    values: dict[str, dict[int, list[float]]]

    def medians(self, name: str) -> dict[int, float]:
        return {x: statistics.median(ys) for x, ys in self.values[name].items()}


Result = Comparison | Curve


class Target(NamedTuple):
    """The target for ours: a ratio to another contestant, or an absolute value."""

    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        limit = f"{self.limit:g}" if self.limit > 0.2 else f"1/{1 / self.limit:g}"
        return f"{sign} {limit}"

    def verdict(self, value: float) -> str:
        met = value >= self.limit if self.at_least else value <= self.limit
        return "met" if met else "missed"


MODEL = "fastapi_sse_fast, model"
ENCODED = "fastapi_sse_fast, pre-encoded event"
HAND_WRITTEN = "StreamingResponse, model_dump_json"

TARGETS: dict[tuple[str, str], Target] = {
    ("paced streams", HAND_WRITTEN): Target(1),
    ("paced streams", "fastapi.sse, model"): Target(1 / 5),
    ("paced streams", "FastAPI route, pre-encoded bytes"): Target(1),
    ("paced streams", "plain ASGI, pre-encoded bytes"): Target(1.12),
    ("one event per await", HAND_WRITTEN): Target(1),
    ("one event per await", "FastAPI route, pre-encoded bytes"): Target(1),
    ("pydantic model, typed route", "fastapi.sse"): Target(1 / 25),
    ("pydantic model, typed route", HAND_WRITTEN): Target(1 / 4),
    ("pydantic model, typed route", "sse-starlette, pre-encoded JSON"): Target(1 / 9),
    ("dict", "fastapi.sse"): Target(1 / 60),
    ("dict", "StreamingResponse, orjson"): Target(1 / 4),
    ("ServerSentEvent(data=model, event=, id=)", "fastapi.sse"): Target(1 / 20),
    ("ServerSentEvent(raw_data=token)", "fastapi.sse"): Target(1 / 35),
    ("EncodedEvent(raw_data=token)", "fastapi.sse, ServerSentEvent"): Target(1 / 90),
    ("EventTemplate", "fastapi.sse, model built for it"): Target(1 / 100),
    ("pydantic model, sync generator", "fastapi.sse"): Target(1 / 55),
    ("raw_data of 16 KiB", "StreamingResponse, f-string"): Target(1),
    ("raw_data of 64 KiB", "StreamingResponse, f-string"): Target(1),
    ("raw_data of 256 KiB", "StreamingResponse, f-string"): Target(1),
    ("latency, p50", HAND_WRITTEN): Target(1.1),
    ("latency, p99", HAND_WRITTEN): Target(1.1),
    ("idle stream", HAND_WRITTEN): Target(1.1),
    ("one-event streams", HAND_WRITTEN): Target(0.97, at_least=True),
    ("burst of text", "sse-starlette"): Target(0.4),
    ("text, one per await", "sse-starlette"): Target(0.6),
    ("paced text", "sse-starlette"): Target(0.8),
    ("idle stream of text", "sse-starlette"): Target(0.75),
    ("JSON of a dict", "orjson.dumps"): Target(1.5),
    ("the same, compact", "orjson.dumps"): Target(1.2),
    (
        "JSON of a model, typed route",
        "SchemaSerializer.to_json(by_alias=True)",
    ): Target(1.15),
    ("EventTemplate with a slot", "fastapi_sse_fast"): Target(110),
    ("EventTemplate with a slot", "f-string of model_dump_json()"): Target(1 / 8),
    ("EventTemplate with a slot", "the same, of a model built for it"): Target(1 / 25),
    ("EncodedEvent(raw_data=) of 16 KiB", "a copy of its bytes"): Target(4),
    ("EncodedEvent(raw_data=) of 1 MiB", "a copy of its bytes"): Target(4),
    ("import", "fastapi_sse_fast"): Target(15),
}
"""The targets, by the title of a comparison and the name of a contestant.

If the contestant is not ours, the target is for the ratio of ours to it.
"""


def section_lines(section: Section, results: Sequence[Result]) -> Iterator[str]:
    """Yield a section as Markdown: one table for all comparisons, one per curve."""
    yield f"## {section.title}"
    yield ""
    yield section.text
    comparisons = [result for result in results if isinstance(result, Comparison)]
    if comparisons:
        yield ""
        has_notes = any(line.note for found in comparisons for line in found.lines)
        yield (
            f"| | implementation | {section.unit} | range | ours ÷ theirs |"
            f"{' |' * has_notes}"
        )
        yield f"|---|---|--:|--:|--:|{'---|' * has_notes}"
        for comparison in comparisons:
            yield from _comparison_lines(comparison, has_notes=has_notes)
    for curve in results:
        if isinstance(curve, Curve):
            yield ""
            yield from _curve_lines(curve)


def _comparison_lines(comparison: Comparison, *, has_notes: bool) -> Iterator[str]:
    title = comparison.title
    for line in comparison.lines:
        cells = [
            title,
            line.name,
            number(line.median),
            f"{number(min(line.values))} to {number(max(line.values))}",
            ratio_text(_compared(comparison, line)) if line.against else "",
        ]
        if has_notes:
            cells.append(line.note)
        yield f"| {' | '.join(cells)} |"
        title = ""


def _compared(comparison: Comparison, line: Line) -> float:
    """Return the value that a target is for: the ratio of ours to it, or our value."""
    if not line.against:
        return line.median
    medians = {one.name: one.median for one in comparison.lines}
    return medians[line.against] / line.median


def target_lines(results: Mapping[Section, Sequence[Result]]) -> Iterator[str]:
    """Return the Markdown of the targets of those comparisons that were measured."""
    yield "## Targets"
    yield ""
    yield (
        "What we aimed at before we measured: a ratio of ours to theirs, or a value of "
        "ours. CONTRIBUTING.md says why targets are missed."
    )
    yield ""
    yield "| | implementation | measured | target | |"
    yield "|---|---|--:|--:|---|"
    for section, found in results.items():
        for comparison in found:
            if isinstance(comparison, Comparison):
                yield from _target_rows(section, comparison)


def _target_rows(section: Section, comparison: Comparison) -> Iterator[str]:
    title = comparison.title
    for line in comparison.lines:
        target = TARGETS.get((comparison.title, line.name))
        if target is None:
            continue
        value = _compared(comparison, line)
        unit = "" if line.against else f" {section.unit}"
        text = ratio_text(value) if line.against else number(value)
        cells = (title, line.name, text + unit, f"{target}{unit}")
        yield f"| {' | '.join(cells)} | {target.verdict(value)} |"
        title = ""


def _curve_lines(curve: Curve) -> Iterator[str]:
    names = list(curve.values)
    medians = {name: curve.medians(name) for name in names}
    yield f"| {curve.axis} | {' | '.join(names)} |"
    yield f"|--:|{'--:|' * len(names)}"
    for x in dict.fromkeys(x for points in medians.values() for x in points):
        cells = (
            number(medians[name][x]) if x in medians[name] else "" for name in names
        )
        yield f"| {curve.label(x)} | {' | '.join(cells)} |"


WIDTH = 79
NAMES = 44


def heading_lines(section: Section) -> Iterator[str]:
    """Yield the lines above the comparisons of a section, for the terminal."""
    yield section.title
    yield "-" * len(section.title)
    yield from textwrap.wrap(section.text.replace("`", ""), WIDTH)
    yield ""
    yield f"{'':{NAMES}}{section.unit:>14}{'÷ ours':>8}  range"


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of a comparison, for the terminal."""
    medians = {line.name: line.median for line in comparison.lines}
    yield comparison.title
    for line in comparison.lines:
        ratio = times(line.median / medians[line.against]) if line.against else ""
        spread = ""
        if len(line.values) > 1:
            spread = f"  {number(min(line.values))} to {number(max(line.values))}"
        name = f"  {line.name}"
        yield f"{name:{NAMES}}{number(line.median):>14}{ratio:>8}{spread}".rstrip()


def times(ratio: float) -> str:
    """Return a ratio as text, such as `1.25x`."""
    digits = 0 if ratio >= 10 else 1 if ratio >= 2 else 2
    return f"{ratio:.{digits}f}x"


def number(value: float) -> str:
    """Return a number as text with three significant digits, or as an integer."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def ratio_text(ratio: float) -> str:
    """Return a ratio as text. A small one is written as a fraction, such as `1/8`."""
    return f"{ratio:.2f}" if ratio > 0.2 else f"1/{1 / ratio:.3g}"
