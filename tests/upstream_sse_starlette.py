"""Run sse-starlette's own tests against `fastapi_sse_fast.sse_starlette`.

The tests come from the source distribution of the installed sse-starlette. Only the
lines below are changed. This needs a package index, so it is a command
(`make sse-starlette-tests`) and not a test.
"""

from __future__ import annotations

import re
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

SWAPS = [
    (r"(from|import) sse_starlette\b", r"\1 fastapi_sse_fast.sse_starlette"),
    # The archive does not contain this file.
    ("from tests.anyio_compat", "from tests.conftest"),
    # The logger of streams, and its message for a cleanup that takes too long.
    (r'record\.name == "sse_starlette\.sse"', 'record.name == "fastapi_sse_fast"'),
    (r'"cleanup" in record\.getMessage', '"did not close" in record.getMessage'),
    # The test patches a private method; here it shuts the server down instead.
    (
        r'( *)monkeypatch\.setattr\(response, "_listen_for_exit_signal", (\w+)\)',
        r"\1from tests.conftest import shut_down_when\n\1shut_down_when(\2)",
    ),
    # Our response refuses content that cannot be iterated. These tests only look at the
    # interval of pings.
    (r"EventSourceResponse\(0\)", "EventSourceResponse([])"),
]

PRIVATE = {
    "test_issue132.py": "a function that looks for uvicorn, and a watcher's task",
    "test_issue152.py": "the same task, of which there is to be one for each thread",
    "test_multi_loop.py": "the state of a thread, and a method that waits for the end",
    "test_broadcasting_example.py": "an example, which the archive does not have",
    "test_ping_whenTimerTicks_thenSendsOneMessagePerTick": "the method of the pings",
    "test_ping_whenSendTimesOut_thenRaisesSendTimeoutError": "the method of the pings",
}
"""Tests of private names, and what these names are."""

DIFFERENT = {
    "test_ping_whenConcurrentWithEvents_thenRespectsLocking": (
        "it expects that a ping is sent while an event is being sent: never here"
    ),
    "test_send_whenInterrupted_thenClosesSuspendedGenerator[False-send_error]": (
        "an OSError of `send` tells that the client has left, which is no error here"
    ),
    "test_send_whenInterrupted_thenClosesSuspendedGenerator[True-send_error]": (
        "the same"
    ),
    "test_send_whenInterruptedAndCleanupStuck_thenDeadlineCancelsCleanup[send_error]": (
        "the same"
    ),
}
"""Tests of behaviour that differs on purpose, and why."""


def main() -> int:
    root = unpacked("sse-starlette")
    swapped = BUILD / "swapped-sse-starlette"
    shutil.rmtree(swapped, ignore_errors=True)
    tests = swapped / "tests"
    tests.mkdir(parents=True)
    (tests / "__init__.py").touch()
    conftest = Path(__file__).with_name("support") / "sse_starlette_conftest.py"
    shutil.copy(conftest, tests / "conftest.py")
    swaps = sum(
        copy_swapped(file, tests / file.name, SWAPS)
        for file in sorted((root / "tests").glob("test_*.py"))
    )
    left_out = []
    for name, reason in [*PRIVATE.items(), *DIFFERENT.items()]:
        print(f"left out: {name}: {reason}")
        if name.endswith(".py"):
            left_out.append(f"--ignore=tests/{name}")
        else:
            left_out += ["--deselect", node_of(name, tests)]
    print(f"{root.name}: {swaps} lines swapped", flush=True)
    options = [*UNCONFIGURED, "-o", "anyio_mode=auto", *left_out]
    return run_pytest(swapped, "tests", *options, *sys.argv[1:])


def node_of(name: str, tests: Path) -> str:
    """Return the node id of a test."""
    function = name.partition("[")[0]
    for file in tests.glob("test_*.py"):
        class_name = ""
        for line in file.read_text().splitlines():
            if line.startswith("class "):
                class_name = re.split(r"\W", line)[1] + "::"
            if re.match(rf" *(async )?def {function}\(", line):
                is_method = line.startswith(" ")
                return f"tests/{file.name}::{class_name * is_method}{name}"
    raise LookupError(f"sse-starlette has no test {function}")


if __name__ == "__main__":
    sys.exit(main())
