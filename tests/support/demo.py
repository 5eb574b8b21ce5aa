"""Run the demo and the examples, as processes or from their files."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import httpx
import pytest

import fastapi_sse_fast

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO = Path(fastapi_sse_fast.__file__).parent / "_demo"
PAGE = DEMO / "page"
REPLY = (DEMO / "reply.txt").read_text(encoding="utf-8").strip()
PACKAGES = ["fastapi.sse", "fastapi_sse_fast"]
"""The contestants, in the order of the race."""

DEADLINE = 20.0
"""Seconds after which a demo is killed if it does not start or stop."""


class Demo(NamedTuple):
    process: subprocess.Popen[str]
    stdout: IO[str]
    announcement: str
    url: str

    def stop(self) -> tuple[int, str, str]:
        """Press Ctrl+C, and return the exit code and the rest of the output."""
        self.process.send_signal(signal.SIGINT)
        stdout, stderr = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, stdout, stderr


@contextlib.contextmanager
def running_demo() -> Iterator[Demo]:
    command = [sys.executable, "-W", "error", "-m", "fastapi_sse_fast", "demo"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # A process that is killed closes its end of the pipe, so `readline` returns.
        watchdog = threading.Timer(DEADLINE, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            announcement = process.stdout.readline()
            watchdog.cancel()
            url = re.search(r"http://127\.0\.0\.1:\d+", announcement)
            if url is None:
                process.kill()
                pytest.fail(f"no URL: {announcement!r}, {process.communicate()[1]}")
            yield Demo(process, process.stdout, announcement, url[0])
        finally:
            watchdog.cancel()
            process.kill()


def client_of(demo: Demo) -> httpx.Client:
    # No certificate is checked, and loading those of the system takes long.
    return httpx.Client(
        base_url=demo.url, timeout=DEADLINE, trust_env=False, verify=False
    )


def at(port: int, path: str) -> str:
    return f"http://127.0.0.1:{port}/{path}"
