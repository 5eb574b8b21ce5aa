"""Real clients. Each takes a URL and returns what it received."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import httpx_sse
import pytest

from ..docs.test_docs import ROOT, sections_of
from ..support.eventsource import Event, parse
from ..support.server import TIMEOUT, Server, wait_until

HERE = Path(__file__).parent

PACKAGES = {
    "apache2": "apache2-bin",
    "caddy": "caddy",
    "chromium": "chromium",
    "curl": "curl",
    "haproxy": "haproxy",
    "nginx": "nginx",
    "node": "nodejs",
}
"""Programs that tests start, with their Debian packages."""


class Seen(NamedTuple):
    """The events that a client delivered, and the states of its connections.

    The event `end` is left out. It is only for clients that would reconnect.
    """

    events: list[Event]
    states: list[str]


Client = Callable[[str], Seen]


def path_of(program: str) -> str | None:
    """Return the path of a program, also of a server, or `None`."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")


def needed(program: str) -> str:
    """Return the path of a program, or skip the test if it is missing."""
    path = path_of(program)
    if path is None:
        pytest.skip(f"{program} IS MISSING: apt-get install {PACKAGES[program]}")
    return path


def said(server: Server, run: str, times: int) -> list[list[str]]:
    """Wait for a number of lines about a run, and return them."""

    def lines() -> list[list[str]]:
        return [line.split(" ")[1:] for line in server.said if line.startswith(run)]

    wait_until(lambda: len(lines()) >= times)
    return lines()


CLIENTS_PAGE = ROOT / "docs" / "clients.md"

FILE = re.compile(r"// ([\w-]+\.jsx?)\n")
"""The first line of a block of JavaScript that is a file, with its name."""


def documented_files() -> dict[str, str]:
    """Every block of the page on clients that is a file, by its name."""
    blocks = [
        block.text
        for section in sections_of(CLIENTS_PAGE)
        for block in section.blocks
        if block.language in ("javascript", "jsx")
    ]
    return {match[1]: text for text in blocks if (match := FILE.match(text))}


class Node:
    """The clients of `clients.mjs`."""

    def __init__(self) -> None:
        if not (HERE / "node_modules").exists():
            pytest.skip("node_modules IS MISSING: npm ci --prefix tests/e2e")
        self._process = subprocess.Popen(
            [needed("node"), str(HERE / "clients.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "CHROMIUM": path_of("chromium") or "",
                "DOCUMENTED_PARSER": documented_files()["events.js"],
            },
            text=True,
        )

    def see(self, client: str, url: str) -> Seen:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # The client itself times out before that.
        watchdog = threading.Timer(5 * TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            print(json.dumps([client, url]), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line, "Node has ended; see what it printed"
        seen = json.loads(line)
        return Seen([Event(*event) for event in seen["events"]], seen["states"])

    def close(self) -> None:
        with self._process:
            watchdog = threading.Timer(TIMEOUT, self._process.kill)
            watchdog.start()
            self._process.communicate()
            watchdog.cancel()


def see_with_httpx_sse(url: str) -> Seen:
    events: list[Event] = []
    with (
        httpx.Client(timeout=TIMEOUT, trust_env=False) as client,
        httpx_sse.connect_sse(client, "GET", url) as source,
    ):
        try:
            events.extend(
                Event(event.data, event.event, event.id)
                for event in source.iter_sse()
                if event.event != "end"
            )
        except httpx_sse.SSEError:
            return Seen(events, ["refused"])
        except httpx.RemoteProtocolError:
            return Seen(events, ["broken"])
    return Seen(events, ["ended"])


CURL_STATES = {0: "ended", 18: "broken", 22: "refused"}
"""The states for curl's exit codes."""


def see_with_curl(url: str) -> Seen:
    """Read a stream with curl, and parse its output with the parser of the tests."""
    command = [needed("curl"), "--no-buffer", "--silent", "--fail", url]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    events = [event for event in parse(done.stdout).events if event.type != "end"]
    return Seen(events, [CURL_STATES[done.returncode]])
