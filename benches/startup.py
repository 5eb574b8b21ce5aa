"""The time of the import."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from fastapi_sse_fast._bench.bench import Bench, Row
from fastapi_sse_fast._bench.report import Comparison, Line, Section

ROUNDS = 15

OURS = "fastapi_sse_fast"
MODULES = {OURS: "fastapi_sse_fast", "sse-starlette": "sse_starlette"}

PROGRAM = """
import fastapi, time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began)
"""


def imports(bench: Bench) -> list[Comparison]:
    milliseconds: dict[str, list[float]] = {name: [] for name in MODULES}
    with tempfile.TemporaryDirectory() as cache:
        for name in MODULES:
            seconds_to_import(name, cache)  # It fills the cache of compiled files.
        for name in bench.turns(list(MODULES)):
            milliseconds[name].append(1000 * seconds_to_import(name, cache))
    lines = [
        Line(name, values, "" if name == OURS else OURS)
        for name, values in milliseconds.items()
    ]
    return [Comparison("import", lines)]


def seconds_to_import(name: str, cache: str) -> float:
    command = [sys.executable, "-c", PROGRAM.format(module=MODULES[name])]
    # Compiled files are kept, even if the environment says otherwise.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    return float(done.stdout)


ROWS = {
    "import": Row(
        Section(
            "Import",
            "ms",
            "The time to import the package in a new process that has already imported "
            "`fastapi`.",
        ),
        ROUNDS,
        len(MODULES) * 0.7,
        imports,
    )
}
