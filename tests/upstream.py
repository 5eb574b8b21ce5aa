"""Run FastAPI's own tests of event streams against this package.

The tests come from the source distribution of the installed FastAPI. Only the import
lines are changed, and the way in which a test shortens the time between pings. This
needs a package index, so it is a command (`make upstream-tests`) and not a test.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.archives import (
    BUILD,
    UNCONFIGURED,
    copy_swapped,
    run_pytest,
    unpacked,
)

TESTS = [
    "tests/test_sse.py",
    "tests/test_stream*.py",
    "tests/test_dependency_after_yield_streaming.py",
    "tests/test_tutorial/test_server_sent_events",
]
SUPPORT = ["tests/__init__.py", "tests/utils.py", "tests/test_tutorial/__init__.py"]
SOURCES = "docs_src/server_sent_events"

SWAPS = [
    (r"from fastapi\.sse import", "from fastapi_sse_fast import"),
    (
        r"from fastapi\.responses import EventSourceResponse\b(.*)",
        r"from fastapi_sse_fast import EventSourceResponse\n"
        r"from fastapi.responses import Response\1",
    ),
    (
        # FastAPI has a private constant for this; this package has an option.
        r"monkeypatch\.setattr\(fastapi\.routing, \"_PING_INTERVAL\", (.*)\)",
        r"from fastapi_sse_fast import EventSourceResponse, StreamOptions\n"
        r"    options = StreamOptions(ping_interval=\1)\n"
        r'    monkeypatch.setattr(EventSourceResponse, "options", options)',
    ),
]


def main() -> int:
    root = unpacked("fastapi")
    swapped = BUILD / "swapped"
    shutil.rmtree(swapped, ignore_errors=True)
    swaps = sum(
        copy_swapped(path, swapped / path.relative_to(root), SWAPS)
        for path in selected(root)
    )
    print(f"{root.name}: {swaps} lines swapped", flush=True)
    return run_pytest(swapped, *UNCONFIGURED, "tests", *sys.argv[1:])


def selected(root: Path) -> list[Path]:
    """Return the files of the tests."""
    patterns = [*TESTS, *SUPPORT, SOURCES, "docs_src/__init__.py"]
    found = [path for pattern in patterns for path in root.glob(pattern)]
    return [
        file
        for path in found
        for file in (path.rglob("*.py") if path.is_dir() else [path])
    ]


if __name__ == "__main__":
    sys.exit(main())
