"""Show with perf how the time of an event is shared by libraries and the kernel.

    python benches/shares.py

The time outside this package is a lower bound for the cost of an event. The script
needs `perf` and the permission to use it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from encoder import calibrated, calls, contestants
from fastapi_sse_fast import ServerSentEvent, encode_event
from fastapi_sse_fast._bench.paced import PACED, paced_crowd, watch
from fastapi_sse_fast._bench.report import number
from fastapi_sse_fast._bench.samples import MODELS
from fastapi_sse_fast._bench.serving import pin, raise_file_limit, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastapi_sse_fast._bench.serving import Cores

SECONDS = 4.0
TURNS = 150
"""Turns of a contestant without a server. Each takes 30 ms."""

LEAST = 0.005
"""The smallest share that is printed."""

LIBRARIES = {
    "kernel": r"\[kernel",
    "CPython": r"libpython|python3|_asyncio",
    "uvloop": r"loop\.",
    "pydantic": r"_pydantic_core",
    "orjson": r"orjson",
    "this package": r"_core\.",
}
"""Patterns for the start of their file names."""

ALONE = {
    "a model, typed route": "typed",
    "the same, SchemaSerializer.to_json(by_alias=True)": "to_json",
    "a dict, compact": "compact",
    "the same, orjson": "orjson",
    "making and encoding ServerSentEvent(data=model, event=, id=)": "event",
}


def main() -> None:
    if len(sys.argv) == 2:
        print(nanoseconds(sys.argv[1]))
        return
    raise_file_limit()
    cores = pin()
    with TemporaryDirectory() as directory:
        record = Path(directory) / "perf.data"
        print_table("µs of a paced event", paced(cores, record))
        print_table("ns of one call", alone(record))


def paced(cores: Cores, record: Path) -> Iterator[tuple[str, float, dict[str, float]]]:
    for one in PACED:
        with (
            serving(one.app, cores.server) as server,
            paced_crowd(server, one.path) as crowd,
            recorded(["--pid", str(server.pid)], record),
        ):
            cost = watch(server, crowd, SECONDS).cost
        yield one.name, cost, shares(record)


def alone(record: Path) -> Iterator[tuple[str, float, dict[str, float]]]:
    for name, contestant in ALONE.items():
        command = [*perf_record(record), sys.executable, __file__, contestant]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        yield name, float(done.stdout), shares(record)


def nanoseconds(contestant: str) -> float:
    """Return the time of one call in this process, which perf records."""
    seconds = {
        **contestants(),
        "event": calls(
            lambda model: encode_event(
                ServerSentEvent(data=model, event="chunk", id="1")
            ),
            MODELS[0],
        ),
    }[contestant]
    count = calibrated(seconds)
    return 1e9 * sum(seconds(count) for _ in range(TURNS)) / TURNS / count


def perf_record(record: Path) -> list[str]:
    return ["perf", "record", "--quiet", "--freq", "5000", "--output", str(record)]


@contextmanager
def recorded(what: Sequence[str], record: Path) -> Iterator[None]:
    process = subprocess.Popen([*perf_record(record), *what])
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def shares(record: Path) -> dict[str, float]:
    """Return the share of each library in the samples. The sum is 1."""
    command = ["perf", "report", "--stdio", "--no-children", "--sort", "dso"]
    report = subprocess.run(
        [*command, "--input", str(record)], capture_output=True, check=True, text=True
    )
    found = dict.fromkeys([*LIBRARIES, "others"], 0.0)
    for percent, file in re.findall(r"^\s*([\d.]+)%\s+(\S+)", report.stdout, re.M):
        known = (name for name, start in LIBRARIES.items() if re.match(start, file))
        found[next(known, "others")] += float(percent) / 100
    return found


def print_table(unit: str, rows: Iterator[tuple[str, float, dict[str, float]]]) -> None:
    names = [*LIBRARIES, "others"]
    print(f"\n| {unit} | in all | " + " | ".join(names) + " |")
    print("|---|" + "--:|" * (1 + len(names)))
    for name, value, parts in rows:
        cells = [
            number(value * parts[part]) if parts[part] > LEAST else "" for part in names
        ]
        print(f"| {name} | {number(value)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
