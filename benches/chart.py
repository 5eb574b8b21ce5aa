"""Draw results as SVG images, with bars for costs and lines for growth.

An image has its own background, which is dark if the reader's system is, so that it can
be on any page.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from fastapi_sse_fast._bench.report import Comparison, Curve, number, times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_sse_fast._bench.report import Result, Section

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.small { font-size: 11px; fill: #59636e }
.card { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #d1d9e0 }
.ours { fill: #2563eb; stroke: #2563eb }
.other { fill: #9aa4af; stroke: #9aa4af }
.c0 { fill: #2563eb; stroke: #2563eb }
.c1 { fill: #d1571f; stroke: #d1571f }
.c2 { fill: #6e7781; stroke: #6e7781 }
.curve { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9198a1 }
  .card { fill: #151b23; stroke: #3d444d }
  .grid { stroke: #3d444d }
  .ours, .c0 { fill: #58a6ff; stroke: #58a6ff }
  .other { fill: #5b6570; stroke: #5b6570 }
  .c1 { fill: #f0883e; stroke: #f0883e }
  .c2 { fill: #9198a1; stroke: #9198a1 }
  .curve { fill: none }
}
"""
MARGIN = 20


def draw(results: dict[Section, list[Result]]) -> dict[str, tuple[str, str]]:
    """Return the description and the image for each file name."""
    images = {}
    panels: list[Curve] = []
    for section, found in results.items():
        if not section.image:
            continue
        comparisons = [result for result in found if isinstance(result, Comparison)]
        panels += [result for result in found if isinstance(result, Curve)]
        if comparisons:
            description = f"{section.title}: {section.unit}"
            images[section.image] = (description, bars(description, comparisons))
        else:
            description = section.unit
            images[section.image] = (description, growth(description, panels))
    return images


class Svg:
    """An image that is being drawn."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def text(
        self, x: float, y: float, text: str, kind: str = "", anchor: str = "start"
    ) -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'class="{kind}"/>'
        )

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" class="{kind}"/>')

    def dot(self, x: float, y: float, index: int) -> None:
        """Draw a circle, a square or a triangle, each in another colour."""
        if index == 0:
            shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="c0"/>'
        elif index == 1:
            shape = f'<path d="M{x - 3.5:.1f},{y - 3.5:.1f}h7v7h-7z" class="c1"/>'
        else:
            shape = f'<path d="M{x:.1f},{y - 4.5:.1f}l5,8h-10z" class="c2"/>'
        self._parts.append(shape)

    def image(self, width: float, height: float, description: str) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" '
                f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
                'role="img">',
                f"<title>{escape(description)}</title>",
                f"<style>{STYLE}</style>",
                f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" '
                f'height="{height - 1:.0f}" rx="8" class="card"/>',
                *self._parts,
                "</svg>\n",
            ]
        )


BAR_WIDTH = 780
BAR_HEIGHT = 20
LONGEST_BAR = 320
LABELS = 300  # The right edge of the labels.


def bars(title: str, comparisons: Sequence[Comparison]) -> str:
    """Draw a bar for each contestant, all on the same scale."""
    svg = Svg()
    longest = max(line.median for found in comparisons for line in found.lines)
    y = MARGIN + 12.0
    svg.text(MARGIN, y, title, "title")
    for comparison in comparisons:
        medians = {line.name: line.median for line in comparison.lines}
        if len(comparisons) > 1:
            y += 28
            svg.text(MARGIN, y, comparison.title)
        for line in comparison.lines:
            y += BAR_HEIGHT
            length = max(1.0, LONGEST_BAR * line.median / longest)
            text = number(line.median)
            if line.against:
                text += f"  ({times(line.median / medians[line.against])})"
            svg.text(LABELS, y, line.name, "small", "end")
            kind = "other" if line.against else "ours"
            svg.box(LABELS + 10, y - 11, length, BAR_HEIGHT - 6, kind)
            svg.text(LABELS + 18 + length, y, text, "small")
    return svg.image(BAR_WIDTH, y + MARGIN, title)


PANEL_WIDTH = 260
PANEL_HEIGHT = 190
PANEL_GAP = 30
SCALE_WIDTH = 40
MOST_TICKS = 6


def growth(title: str, curves: Sequence[Curve]) -> str:
    """Draw a panel for each curve, with logarithmic axes and the same vertical axis."""
    svg = Svg()
    names = list(dict.fromkeys(name for curve in curves for name in curve.values))
    ys = [y for c in curves for name in c.values for y in c.medians(name).values()]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    left, top = MARGIN + SCALE_WIDTH, MARGIN + 60
    svg.text(MARGIN, MARGIN + 12, title, "title")
    for index, name in enumerate(names):
        svg.dot(left + 150 * index, MARGIN + 31, index)
        svg.text(left + 150 * index + 12, MARGIN + 35, name, "small")
    for power in range(low, high + 1):
        y = top + PANEL_HEIGHT * (high - power) / (high - low)
        svg.text(left - 8, y + 4, power_of_ten(power), "small", "end")
    for curve in curves:
        draw_panel(svg, curve, names, (left, top), (low, high))
        left += PANEL_WIDTH + PANEL_GAP
    return svg.image(left - PANEL_GAP + MARGIN, top + PANEL_HEIGHT + 60, title)


def draw_panel(
    svg: Svg,
    curve: Curve,
    names: Sequence[str],
    corner: tuple[float, float],
    powers: tuple[int, int],
) -> None:
    left, top = corner
    low, high = powers
    for power in range(low, high + 1):
        y = top + PANEL_HEIGHT * (high - power) / (high - low)
        svg.line([(left, y), (left + PANEL_WIDTH, y)], "grid")
    xs = sorted({x for points in curve.values.values() for x in points})
    widest = math.log(xs[-1] / xs[0]) or 1.0

    def across(x: int) -> float:
        return left + 10 + (PANEL_WIDTH - 20) * math.log(x / xs[0]) / widest

    for x in xs[:: -(-len(xs) // MOST_TICKS)]:
        svg.text(across(x), top + PANEL_HEIGHT + 18, curve.label(x), "small", "middle")
    middle = left + PANEL_WIDTH / 2
    svg.text(middle, top + PANEL_HEIGHT + 40, curve.axis, "", "middle")
    for name in curve.values:
        path = [
            (across(x), top + PANEL_HEIGHT * (high - math.log10(y)) / (high - low))
            for x, y in curve.medians(name).items()
        ]
        svg.line(path, f"c{names.index(name)} curve")
        for at in path:
            svg.dot(*at, names.index(name))


def power_of_ten(power: int) -> str:
    """Return 1, 10, 100, 1k, ..."""
    return f"{10 ** (power % 3)}{' kMG'[power // 3].strip()}"
