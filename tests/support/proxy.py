"""A proxy on the loopback interface that fails as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from ssl import SSLContext

import anyio

MESSAGE = b"*3\r\n$7\r\nmessage"
"""How a message of a channel of Redis begins."""

CONFIRMATION = b"*3\r\n$9\r\nsubscribe"
"""How the confirmation of a subscription begins."""


def is_message(answer: bytes) -> bool:
    return answer.startswith(MESSAGE)


class Proxy:
    """Passes on what a client and a server send each other.

    It runs in the event loop of the test.

    Attributes:
        port: Where clients connect.
        server_port: Where new connections are passed on to.
        connects: How often they have.
        is_silent: Whether nothing is passed on any more, in either direction.
        refuses: Whether new connections are closed at once.
        cut_before: Returns whether to cut the connection instead of passing on what the
            server has answered. The server has then done what it was asked to.
        drops: Returns whether not to pass on what the server has sent.
        holds: Returns whether not to pass on yet what somebody has sent. It is asked
            again and again.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving = 0
        self.port = 0
        self.connects = 0
        self.is_silent = False
        self.refuses = False
        self.cut_before: Callable[[bytes], bool] = lambda answer: False
        self.drops: Callable[[bytes], bool] = lambda answer: False
        self.holds: Callable[[bytes], bool] = lambda data: False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connects += 1
        self._serving += 1
        try:
            if not self.refuses:
                await self._serve(reader, writer)
        finally:
            await closed(writer)
            self._serving -= 1

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there = await asyncio.open_connection("127.0.0.1", self.server_port)
        self._writers |= {writer, there[1]}
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass_on, reader, there[1], False)
                await self._pass_on(there[0], writer, True)
                tasks.cancel_scope.cancel()
        finally:
            self._writers -= {writer, there[1]}
            await closed(there[1])

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_answer: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                while self.is_silent or self.holds(data):
                    await asyncio.sleep(0.005)
                if is_answer and self.cut_before(data):
                    break
                if not (is_answer and self.drops(data)):
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def proxy_of(
    server_port: int, ssl: SSLContext | None = None
) -> AsyncIterator[Proxy]:
    """Run a proxy for a server, which clients may have to reach with TLS."""
    proxy = Proxy(server_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=ssl)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.is_silent = False
        while proxy._serving:
            proxy.cut()
            await asyncio.sleep(0.001)
        if ssl is not None:
            await asyncio.sleep(0.05)  # for handshakes that fail
