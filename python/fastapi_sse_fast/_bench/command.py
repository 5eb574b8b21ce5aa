"""The short version of the benchmark, for the terminal."""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from itertools import groupby
from typing import TYPE_CHECKING

from . import awaited, bursts, latency, machine, paced
from .bench import Bench, rows_of
from .report import Comparison, comparison_lines, heading_lines
from .serving import pin, raise_file_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = {
    name: row
    for name, row in rows_of(paced, awaited, bursts, latency).items()
    if row.quick
}

PEERS = {"orjson": "orjson", "sse-starlette": "sse_starlette"}
"""Optional packages that some contestants need, with their modules."""


def missing() -> list[str]:
    """Return the optional packages that are not installed."""
    return [package for package, module in PEERS.items() if not find_spec(module)]


def run(names: Sequence[str], rounds: int | None) -> None:
    """Run the benchmark, and print results as they come.

    Args:
        names: The names of the rows. If empty, all rows are measured.
        rounds: The number of rounds of each row. If `None`, every row has as many as
            the short version allows.
    """
    # `sys.exit` runs the cleanup that ends the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if machine.is_debug_build():
        sys.exit(machine.DEBUG_BUILD)
    file_limit = raise_file_limit()
    cores = pin()
    print("\n".join(machine.description()), flush=True)
    rows = {name: ROWS[name] for name in ROWS if name in (names or ROWS)}
    with Bench(cores, file_limit, lambda row: rounds or row.quick) as bench:
        measured = bench.run(rows)
        for section, group in groupby(measured, key=lambda done: done[0].section):
            print("\n".join(["", *heading_lines(section)]), flush=True)
            for _, results in group:
                for result in results:
                    assert isinstance(result, Comparison)
                    print("\n".join(comparison_lines(result)), flush=True)
