"""The servers that the benchmark measures, and the report of what it has found."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

from fastapi_sse_fast._bench.bursts import CHUNKS
from fastapi_sse_fast._bench.client import body_of, decode, fetch
from fastapi_sse_fast._bench.report import (
    HAND_WRITTEN,
    MODEL,
    TARGETS,
    Comparison,
    Line,
    Section,
    section_lines,
    target_lines,
)
from fastapi_sse_fast._bench.serving import serving

RESULTS = Path(__file__).parents[2] / "benches" / "RESULTS.md"

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize(
    ("app", "paths"),
    [
        ("fastapi_sse_fast", ["/awaiting/2", "/ready-awaiting/2"]),
        ("fastapi.sse", ["/awaiting/2"]),
        ("StreamingResponse", ["/awaiting/2", "/ready-awaiting/2"]),
        ("plain ASGI", ["/awaiting/2"]),
    ],
)
def test_all_send_the_same_events_one_per_await(app: str, paths: list[str]) -> None:
    with serving(app, None) as server:
        for path in paths:
            body = body_of(fetch(server.address, path))
            assert decode(body, CHUNKS * 2) == CHUNKS * 2, path


@on_linux
def test_a_server_has_the_same_path_for_modules_as_this_process() -> None:
    with serving("plain ASGI", None) as server:
        environ = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    found = [line for line in environ if line.startswith(b"PYTHONPATH=")]
    own = os.environ.get("PYTHONPATH")
    assert found == ([] if own is None else [f"PYTHONPATH={own}".encode()])


SECTION = Section("Paced streams", "µs per event", "How they were measured.")
PACED = Comparison(
    "paced streams",
    [
        Line(MODEL, [50.0, 60.0, 70.0], note="seen"),
        Line(HAND_WRITTEN, [40.0], MODEL),
        Line("fastapi.sse, model", [360.0], MODEL),
    ],
)
IMPORT = Comparison("import", [Line("fastapi_sse_fast", [15.5])])


def test_a_table_has_what_was_measured() -> None:
    assert list(section_lines(SECTION, [PACED])) == [
        "## Paced streams",
        "",
        "How they were measured.",
        "",
        "| | implementation | µs per event | range | ours ÷ theirs | |",
        "|---|---|--:|--:|--:|---|",
        f"| paced streams | {MODEL} | 60.0 | 50.0 to 70.0 |  | seen |",
        f"|  | {HAND_WRITTEN} | 40.0 | 40.0 to 40.0 | 1.50 |  |",
        "|  | fastapi.sse, model | 360 | 360 to 360 | 1/6 |  |",
    ]


def test_a_table_without_notes_has_no_column_for_them() -> None:
    assert list(section_lines(Section("Import", "ms", "How."), [IMPORT]))[4:] == [
        "| | implementation | ms | range | ours ÷ theirs |",
        "|---|---|--:|--:|--:|",
        "| import | fastapi_sse_fast | 15.5 | 15.5 to 15.5 |  |",
    ]


def test_targets_are_compared_with_ratios_and_values() -> None:
    results = {SECTION: [PACED], Section("Import", "ms", ""): [IMPORT]}
    *_, header, _, by_hand, fastapi, imported = target_lines(results)
    assert header == "| | implementation | measured | target | |"
    assert by_hand == f"| paced streams | {HAND_WRITTEN} | 1.50 | ≤ 1 | missed |"
    assert fastapi == "|  | fastapi.sse, model | 1/6 | ≤ 1/5 | met |"
    assert imported == "| import | fastapi_sse_fast | 15.5 ms | ≤ 15 ms | missed |"


def test_every_target_is_in_the_results() -> None:
    """One for a contestant that has another name would never be shown."""
    _, _, table = RESULTS.read_text("utf-8").partition("## Targets\n")
    title, found = "", []
    for first, name in re.findall(r"^\| (.*?) \| (.+?) \| [\d/]", table, re.M):
        title = first.strip() or title
        found.append((title, name))
    assert sorted(found) == sorted(TARGETS)
