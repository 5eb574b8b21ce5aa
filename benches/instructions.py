"""Count the instructions per event with callgrind.

    python benches/instructions.py [CONTESTANT ...]

Unlike times, the counts do not depend on how busy the machine is. They show whether a
change has made an event cheaper. They do not include the kernel or sockets: the script
calls the application as a server does, and counts the events that it sends.

A process under valgrind forks one process for each contestant, which runs each kind of
stream with few events and with many. The cost of an event is the difference divided by
the number of additional events, so the cost of beginning and ending a stream cancels
out. With the clock of `clock.c`, time slices and timers are the same in every run.

The script needs Linux, `valgrind` and a C compiler, and takes about two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi_sse_fast._bench import machine
from fastapi_sse_fast._bench.apps import APPS
from fastapi_sse_fast._bench.report import ENCODED, HAND_WRITTEN, MODEL, ratio_text
from fastapi_sse_fast._bench.samples import MODELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message

CLOCK = Path(__file__).with_name("clock.c")

WARM_UP, FEW, MANY = 4, 16, 64
"""Laps over the samples. The first one lets CPython specialize its bytecode."""

LAP = len(MODELS)


class Contestant(NamedTuple):
    """An application, and the paths of its streams by kind."""

    app: str
    paths: dict[str, str]


KINDS = {
    "paced": "an event and `asyncio.sleep(0.02)`",
    "awaited": "an event and `asyncio.sleep(0)`",
    "burst": "an event of a burst",
}

CONTESTANTS = {
    MODEL: Contestant(
        "fastapi_sse_fast",
        {"paced": "/paced", "awaited": "/awaiting/{laps}", "burst": "/typed/{laps}"},
    ),
    HAND_WRITTEN: Contestant(
        "StreamingResponse",
        {"paced": "/paced", "awaited": "/awaiting/{laps}", "burst": "/typed/{laps}"},
    ),
    ENCODED: Contestant(
        "fastapi_sse_fast",
        {
            "paced": "/ready-paced",
            "awaited": "/ready-awaiting/{laps}",
            "burst": "/ready/{laps}",
        },
    ),
    "FastAPI route, pre-encoded bytes": Contestant(
        "StreamingResponse",
        {"paced": "/ready-paced", "awaited": "/ready-awaiting/{laps}"},
    ),
}
BASES = {MODEL: HAND_WRITTEN, ENCODED: "FastAPI route, pre-encoded bytes"}
"""The contestant to compare each of ours with."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions per event.")
    parser.add_argument("names", metavar="CONTESTANT", nargs="*")
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.names) - set(CONTESTANTS):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}")
    names = options.names or list(CONTESTANTS)
    if options.counted:
        run_each(names)
        return
    if machine.is_debug_build():
        sys.exit(machine.DEBUG_BUILD)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not (sys.platform == "linux" and shutil.which("valgrind") and compiler):
        sys.exit("Needs Linux, valgrind and a C compiler.")
    for line in machine.description():
        print(f"- {line}")
    print("\n| instructions per event | " + " | ".join(KINDS.values()) + " |")
    print("|---|" + "--:|" * len(KINDS), flush=True)
    found = instructions(names, compiler)
    for name, counts in found.items():
        print_row(name, {kind: f"{n:,.0f}" for kind, n in counts.items()})
    for name, base in BASES.items():
        if name in found and base in found:
            ratios = {
                kind: ratio_text(found[name][kind] / count)
                for kind, count in found[base].items()
            }
            print_row(f"{name} ÷ {base}", ratios)


def print_row(name: str, cells: dict[str, str]) -> None:
    print(f"| {name} | " + " | ".join(cells.get(kind, "") for kind in KINDS) + " |")


def instructions(names: Sequence[str], compiler: str) -> dict[str, dict[str, float]]:
    """Return the instructions per event by contestant and kind."""
    with TemporaryDirectory() as directory:
        clock, record = Path(directory) / "clock.so", Path(directory) / "record"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", clock, CLOCK, "-ldl"],
            check=True,
        )
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={record}.%p",
            f"--dump-before={MARK}",
            sys.executable,
            __file__,
            "--counted",
            *names,
        ]
        env = {**os.environ, "LD_PRELOAD": str(clock), "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        return {
            name: per_event(CONTESTANTS[name], record.with_suffix(f".{process}"))
            for name, process in zip(names, done.stdout.split(), strict=True)
        }


def per_event(contestant: Contestant, record: Path) -> dict[str, float]:
    counts = {}
    for index, kind in enumerate(contestant.paths):
        # Each kind has three parts, and each part ends with a mark.
        few, many = (
            total(record.with_name(f"{record.name}.{3 * index + part}"))
            for part in (2, 3)
        )
        counts[kind] = (many - few) / (MANY - FEW) / LAP
    return counts


def total(record: Path) -> int:
    found = re.search(r"^totals: (\d+)", record.read_text(), re.M)
    assert found is not None
    return int(found[1])


MARK = "getppid"
"""A function that no other code calls. valgrind starts a new count at each call."""


def mark() -> None:
    os.getppid()


def run_each(names: Sequence[str]) -> None:
    """Run each contestant in a separate process, and print the process ids."""
    for name in names:
        process = os.fork()
        if not process:
            run(CONTESTANTS[name])
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if status:
            sys.exit(f"{name} has failed")
        print(process, flush=True)


def run(contestant: Contestant) -> None:
    """Run the streams that `instructions` counts."""
    app = APPS[contestant.app]()
    loop = new_loop()
    for path in contestant.paths.values():
        for laps in (WARM_UP, FEW, MANY):
            loop.run_until_complete(stream(app, path, laps))
            mark()
    loop.close()


def new_loop() -> asyncio.AbstractEventLoop:
    if not find_spec("uvloop"):
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


async def stream(app: ASGIApp, path: str, laps: int) -> None:
    """Call the application as a server does, and disconnect after all events."""
    events, body, requested = laps * LAP, 0, False
    left = asyncio.Event()
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path.format(laps=laps),
        "raw_path": path.format(laps=laps).encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"bench")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }

    async def receive() -> Message:
        nonlocal requested
        if not requested:
            requested = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal body
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            return
        body += message.get("body", b"").count(b"\n\n")
        if body >= events or not message.get("more_body", False):
            left.set()

    await app(scope, receive, send)
    assert body >= events, f"{body} events instead of {events}"


if __name__ == "__main__":
    main()
