"""Compare our servers with servers without Python: Go's net/http and axum.

    python benches/anchors/run.py [ROW ...] [--rounds N]

The script first builds the servers, if `go` and `cargo` are installed, and skips the
others. All servers encode a struct as JSON for each event and flush it, on one core.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fastapi_sse_fast._bench import machine
from fastapi_sse_fast._bench.awaited import ROUND_SECONDS, compare_awaited
from fastapi_sse_fast._bench.awaited import ROWS as AWAITED_ROWS
from fastapi_sse_fast._bench.bench import Bench, Contestant, Row
from fastapi_sse_fast._bench.paced import ROWS as PACED_ROWS
from fastapi_sse_fast._bench.paced import SECONDS, compare_paced
from fastapi_sse_fast._bench.report import (
    HAND_WRITTEN,
    MODEL,
    Comparison,
    section_lines,
)
from fastapi_sse_fast._bench.samples import JSON_TEXTS
from fastapi_sse_fast._bench.serving import pin, raise_file_limit, serving_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastapi_sse_fast._bench.serving import Server

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "target" / "anchors"

ROWS = ("paced", "awaited")

GO = "Go, net/http"
AXUM = "axum, Sse"

CARGO = ["cargo", "build", "--release", "--locked", "--quiet"]

BUILDS = {
    GO: ("go", ["go", "build", "-o", str(TARGET / "go"), "."], TARGET / "go"),
    AXUM: (
        "axum",
        [*CARGO, "--target-dir", str(TARGET / "axum")],
        TARGET / "axum" / "release" / "anchor",
    ),
}
"""The directory, the command and the program of each contestant."""


def main() -> None:
    options = parse()
    if machine.is_debug_build():
        sys.exit(machine.DEBUG_BUILD)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # It stops the servers.
    programs = build()
    file_limit = raise_file_limit()
    cores = pin()
    for line in (*machine.description(), *versions(programs)):
        print(f"- {line}")

    def rounds_of(row: Row) -> int:
        return min(row.rounds, options.rounds or row.rounds)

    with ExitStack() as stack:
        bench = stack.enter_context(Bench(cores, file_limit, rounds_of))
        samples = Path(stack.enter_context(TemporaryDirectory())) / "samples"
        samples.write_text("".join(f"{text}\n" for text in JSON_TEXTS), "utf-8")
        anchors = {
            name: stack.enter_context(
                # Go would start a thread for each core.
                serving_program(
                    [str(program), str(samples)], cores.server, {"GOMAXPROCS": "1"}
                )
            )
            for name, program in programs.items()
        }
        rows = {
            name: row
            for name, row in rows_with(anchors).items()
            if name in (options.rows or ROWS)
        }
        for row, results in bench.run(rows):
            print("\n".join(["", *section_lines(row.section, results)]), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare with compiled servers.")
    parser.add_argument("rows", metavar="ROW", nargs="*", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, metavar="N", help="at most N rounds")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}")
    return options


def build() -> dict[str, Path]:
    """Build the servers for which there is a compiler, and return the programs."""
    TARGET.mkdir(parents=True, exist_ok=True)
    programs = {}
    for name, (directory, command, program) in BUILDS.items():
        if shutil.which(command[0]) is None:
            print(f"Skipped: {name} ({command[0]} is not installed)", file=sys.stderr)
            continue
        subprocess.run(command, cwd=HERE / directory, check=True)
        programs[name] = program
    return programs


def versions(programs: dict[str, Path]) -> Iterator[str]:
    if GO in programs:
        yield output("go", "version").removeprefix("go version ")
    if AXUM in programs:
        lock = (HERE / "axum" / "Cargo.lock").read_text("utf-8")
        found = re.search(r'^name = "axum"\nversion = "(.*)"$', lock, re.M)
        assert found is not None
        yield f"axum {found[1]}, {output('rustc', '--version')}"


def output(*command: str) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.strip()


def rows_with(anchors: dict[str, Server]) -> dict[str, Row]:
    """Return the rows with our response, a hand-written one, and other servers."""

    def contestants(path: str) -> list[Contestant]:
        return [
            Contestant(MODEL, "fastapi_sse_fast", path),
            Contestant(HAND_WRITTEN, "StreamingResponse", path, MODEL),
            *(Contestant(name, "", path, MODEL) for name in anchors),
        ]

    def servers(bench: Bench, contestants: Sequence[Contestant]) -> dict[str, Server]:
        return {
            one.name: anchors.get(one.name) or bench.server(one.app)
            for one in contestants
        }

    def paced(bench: Bench) -> list[Comparison]:
        found = contestants("/paced")
        return [compare_paced("paced streams", bench, found, servers(bench, found))]

    def awaited(bench: Bench) -> list[Comparison]:
        found = contestants("/awaiting/{laps}")
        title = "one event per await"
        return [compare_awaited(title, bench, found, servers(bench, found))]

    count = 2 + len(anchors)
    return {
        "paced": PACED_ROWS["paced"]._replace(seconds=count * SECONDS, run=paced),
        "awaited": AWAITED_ROWS["awaited"]._replace(
            seconds=count * ROUND_SECONDS, run=awaited
        ),
    }


if __name__ == "__main__":
    main()
