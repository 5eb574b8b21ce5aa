"""Compare whole streams over real sockets with those of other packages.

    python benches/server.py [ROW ...] [--servers] [--rounds N] [--write]

Each contestant is a uvicorn process on one core, and this process runs the clients on
another core. Contestants take turns. A complete run writes `RESULTS.md`, the images,
and the table in the README. Any other run only prints its results, unless `--write` is
given.

To add a row, add a path to the applications (`drop_ins.py`, `hand_written.py`) and an
entry to `ROWS` of the module for this kind of measurement. `readme.py` defines the
README's table.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import chart
import curves
import encoder
import imports
import many
import messages
import one_core
import other_servers
import readme
import startup
from fastapi_sse_fast._bench import awaited, bursts, latency, machine, paced
from fastapi_sse_fast._bench.bench import Bench, rows_of
from fastapi_sse_fast._bench.report import section_lines, target_lines
from fastapi_sse_fast._bench.serving import pin, raise_file_limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastapi_sse_fast._bench.bench import Row
    from fastapi_sse_fast._bench.report import Result, Section
    from fastapi_sse_fast._bench.serving import Cores

RESULTS = Path(__file__).with_name("RESULTS.md")
IMAGES = Path(__file__).parents[1] / "docs" / "images"

ROWS = rows_of(
    paced, awaited, bursts, latency, many, imports, encoder, startup, curves, messages
)
OPTIONAL = rows_of(other_servers)
"""Rows that are measured only with `--servers`."""


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if machine.is_debug_build():
        sys.exit(machine.DEBUG_BUILD)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # It stops the servers.
    file_limit = raise_file_limit()
    cores = pin()
    head = list(head_lines(arguments, cores))
    print("\n".join(head))
    rows = chosen(options.rows, options.servers)

    def rounds_of(row: Row) -> int:
        return min(row.rounds, options.rounds or row.rounds)

    with Bench(cores, file_limit, rounds_of) as bench:
        results: dict[Section, list[Result]] = {}
        measured = bench.run(rows)
        for section, group in groupby(measured, key=lambda done: done[0].section):
            results[section] = [result for _, found in group for result in found]
            print("\n".join(["", *section_lines(section, results[section])]))
            sys.stdout.flush()
    everything = [result for found in results.values() for result in found]
    table = readme.table(everything)
    print("\n".join(["", *target_lines(results)]))
    print("\n".join(["", "## The README's table", "", *table]))
    if options.write or not (options.rows or options.rounds):
        write(head, results)
        if readme.is_complete(everything):
            readme.write(table)


def chosen(names: Sequence[str], servers: bool) -> dict[str, Row]:
    """Return the rows to measure, in order."""
    wanted = {*(names or ROWS), *(OPTIONAL if servers else ())}
    return {name: row for name, row in (ROWS | OPTIONAL).items() if name in wanted}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare streams of events over real sockets.",
        epilog=f"rows: {', '.join(ROWS)}; optional: {', '.join(OPTIONAL)}",
    )
    parser.add_argument("rows", metavar="ROW", nargs="*", help="default: all rows")
    parser.add_argument(
        "--servers",
        action="store_true",
        help=f"also measure the optional rows: {', '.join(OPTIONAL)}",
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="at most N rounds for each row"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"write {RESULTS.name}, and the README's table if it is complete",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.rows) - set(ROWS | OPTIONAL):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def head_lines(arguments: Sequence[str], cores: Cores) -> Iterator[str]:
    where = (
        "nothing is pinned to a core"
        if cores.server is None
        else "servers on one core, clients on another"
    )
    yield "# Results"
    yield from marked(
        "machine",
        [
            "",
            f"`{' '.join(['python benches/server.py', *arguments])}`",
            "",
            *(f"- {line}" for line in machine.description()),
            f"- commit {commit()}",
            f"- {where}",
            "- medians of alternating rounds, and their range",
        ],
    )


def commit() -> str:
    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "--no-optional-locks", *command],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "../src", "../python")
        return git("rev-parse", "--short", "HEAD") + (" and changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(head: Sequence[str], results: dict[Section, list[Result]]) -> None:
    lines = list(head)
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, (description, image) in chart.draw(results).items():
        path = IMAGES / name
        path.write_text(image, encoding="utf-8")
        link = os.path.relpath(path, RESULTS.parent)
        lines += ["", f"![{description}]({link})"]
    everything = [result for found in results.values() for result in found]
    if table := list(one_core.one_core_lines(everything)):
        lines += ["", f"## {one_core.TITLE}", *marked(one_core.TITLE, ["", *table])]
    for section, found in results.items():
        heading, *rest = section_lines(section, found)
        lines += ["", heading, *marked(section.title, rest)]
    lines += ["", *target_lines(results)]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def marked(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines with the marks by which the documentation includes them."""
    name = re.sub(r"[^a-z0-9]+", "-", title.lower())
    return [
        f"<!-- --8<-- [start:{name}] -->",
        *lines,
        "",
        f"<!-- --8<-- [end:{name}] -->",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
