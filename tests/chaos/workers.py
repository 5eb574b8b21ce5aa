"""The workers of a chaos test, each a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.forking import Forked
from tests.support.redis import free_port

from .app import Settings

TIMEOUT = 20.0
"""Seconds after which something that does not answer is a fault."""

UNAVAILABLE = (OSError, EOFError, asyncio.TimeoutError)
"""What a request raises if a worker is not there, is killed or cannot do it."""

EXPECTED = (
    "the connection to Redis for",
    # uvicorn says so of streams that end with the server.
    "ASGI callable returned without completing response",
)
"""Lines that workers may print."""


class Said(NamedTuple):
    """A line that the application of a worker has printed, and when."""

    at: float
    line: str


class Worker:
    """A server with channels and runs, which can be killed and started again.

    Args:
        number: Number of the worker.
        settings: Its settings, but for its port and its clock.

    Attributes:
        port: Its port, which stays the same.
        said: What its application has printed, also before it was started again.
        log: All other lines.
    """

    def __init__(self, number: int, settings: Settings) -> None:
        self.port = free_port()
        # The clock of each worker is wrong, and no result depends on it.
        self._settings = settings._replace(port=self.port, clock=3600.0 * number)
        self.said: list[Said] = []
        self.log: list[str] = []
        self._process: Forked | None = None
        self._reader: threading.Thread | None = None

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        arguments = ["tests.chaos.app", json.dumps(self._settings)]
        self._process = await asyncio.to_thread(Forked, arguments, None)
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout])
        self._reader.start()
        deadline = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(*UNAVAILABLE):
                await self.state()
                return
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            await asyncio.sleep(0.02)

    def _read(self, output: Any) -> None:
        with output:
            for line in output:
                if line.startswith("say: "):
                    text = line.removeprefix("say: ").rstrip()
                    self.said.append(Said(time.perf_counter(), text))
                elif line.strip() and not any(text in line for text in EXPECTED):
                    self.log.append(line)

    def send_signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    @property
    def cpu_seconds(self) -> float:
        """How much time of a CPU the process has used."""
        assert self._process is not None
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    async def kill(self) -> None:
        """End it at once."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> None:
        """Have it shut down, and wait."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            await asyncio.to_thread(process.wait, TIMEOUT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            assert self._reader is not None
            await asyncio.to_thread(self._reader.join, TIMEOUT)

    async def state(self) -> dict[str, Any]:
        """Return what the worker has."""
        state: dict[str, Any] = await self.request("GET", "/state")
        return state

    async def request(self, method: str, path: str) -> Any:
        """Return the parsed JSON of a response.

        Raises:
            OSError: The worker is not there, or cannot do it.
            EOFError: It was killed meanwhile.
            TimeoutError: It does not answer.
        """
        return await asyncio.wait_for(self._request(method, path), TIMEOUT)

    async def _request(self, method: str, path: str) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nHost: chaos\r\nContent-Length: 0\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            answer = await reader.read()
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head:
            raise EOFError
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(f"{path}: {answer.decode()}")
        return json.loads(body)
