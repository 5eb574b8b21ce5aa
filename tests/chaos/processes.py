"""The processes of a chaos test, and a proxy between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from typing import Any

from tests.support.forking import Forked
from tests.support.redis import free_port

from .worker import Settings

TIMEOUT = 20.0
"""Seconds after which something that does not answer is a fault."""


class Worker:
    """A server with channels and runs, which can be killed and started again.

    Args:
        number: Number of the worker.
        settings: Its settings, but for its port and its clock.

    Attributes:
        port: Its port, which stays the same.
        said: Lines that its application has printed.
        log: All other lines.
    """

    def __init__(self, number: int, settings: Settings) -> None:
        self.port = free_port()
        # The clock of each worker is wrong, and no result depends on it.
        self._settings = settings._replace(port=self.port, clock=3600.0 * number)
        self.said: list[str] = []
        self.log: list[str] = []
        self._process: Forked | None = None
        self._reader: threading.Thread | None = None

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        arguments = ["tests.chaos.worker", json.dumps(self._settings)]
        self._process = await asyncio.to_thread(Forked, arguments, None)
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout])
        self._reader.start()
        deadline = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(OSError, EOFError):
                await self.request("GET", "/state")
                return
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            await asyncio.sleep(0.02)

    def _read(self, output: Any) -> None:
        with output:
            for line in output:
                said = line.startswith("say: ")
                (self.said if said else self.log).append(line.removeprefix("say: "))

    def send_signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """End it at once."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> None:
        """Have it shut down, and wait."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            try:
                await asyncio.to_thread(process.wait, TIMEOUT)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
            assert self._reader is not None
            await asyncio.to_thread(self._reader.join, TIMEOUT)

    async def request(self, method: str, path: str, timeout: float = TIMEOUT) -> Any:
        """Return the parsed JSON of a response.

        Raises:
            OSError: The worker is not there, or cannot do it.
            EOFError: It was killed meanwhile.
        """
        return await asyncio.wait_for(self._request(method, path), timeout)

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


class Proxy:
    """Forwards connections to a port, while nobody tells it otherwise.

    Attributes:
        port: Where it listens.
        target: The port to which it forwards new connections.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._listeners_too = asyncio.Event()
        self._listeners_too.set()
        self._server: asyncio.Server
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def cut(self) -> None:
        """Close all connections."""
        for task in self._connections:
            task.cancel()

    def go_silent(self, *, listeners_only: bool = False) -> None:
        """Forward nothing. Connections stay open, and new ones are accepted.

        Args:
            listeners_only: Whether that is so only for connections that subscribe.
        """
        self._listeners_too.clear()
        if not listeners_only:
            self._flows.clear()

    def go_on(self) -> None:
        """Forward what has come meanwhile, and everything else."""
        self._flows.set()
        self._listeners_too.set()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        there = None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._flows.wait()
            there = await asyncio.open_connection("127.0.0.1", self.target)
            listens = asyncio.Event()
            both = [
                asyncio.create_task(self._forward(reader, there[1], listens)),
                asyncio.create_task(self._forward(there[0], writer, listens)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        for each in (writer, *([there[1]] if there else [])):
            each.close()
        self._connections.discard(task)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        listens: asyncio.Event,
    ) -> None:
        while data := await reader.read(1 << 16):
            if b"SUBSCRIBE" in data:
                listens.set()
            await self._flows.wait()
            if listens.is_set():
                await self._listeners_too.wait()
            writer.write(data)
            await writer.drain()
