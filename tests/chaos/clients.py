"""Clients that reconnect as an `EventSource` does, each time to any of the workers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

from .courses import Course
from .stage import Stage


class Client:
    """A client that reads a path until it is stopped, or has nothing more to read.

    Args:
        course: Checks what it receives.
        path: What it reads.
        stage: The workers to choose from.
        on_event: Called with the data of each event.
        buffers: Bytes that its socket buffers. `None` leaves it to the system.

    Attributes:
        connects: Number of responses that have begun.
        answers: Other answers than a stream, by their status.
        longest_silence: The longest time between two events.
        served_at: When it was told its position on the last connection.
        ended_at: When it received the end of a run.
        stops_at_end: Whether it does not come back when it has received the end.
    """

    def __init__(
        self,
        course: Course,
        path: str,
        stage: Stage,
        on_event: Callable[[str], None] | None = None,
        buffers: int | None = None,
    ) -> None:
        self.course = course
        self.connects = 0
        self.answers: list[int] = []
        self.longest_silence = 0.0
        self.served_at = 0.0
        self.ended_at = 0.0
        self.stops_at_end = False
        self._path = path
        self._stage = stage
        self._on_event = on_event
        self._buffers = buffers
        self._heard_at = 0.0
        self._is_over = False
        self._connection: Connection | None = None

    async def run(self) -> None:
        """Read until a worker says that there is nothing."""
        while not self._is_over:
            connection = self._connection = Connection(self)
            with contextlib.suppress(OSError):
                try:
                    await self._connect(self._stage.any_worker.port, connection)
                    await connection.closed
                finally:
                    connection.close()
            if self._stage.gate.is_set():
                await asyncio.sleep(self._stage.randomness.uniform(0.02, 0.3))
            await self._stage.gate.wait()

    async def _connect(self, port: int, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        made = socket.socket()
        try:
            made.setblocking(False)
            if self._buffers is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffers)
            await loop.sock_connect(made, ("127.0.0.1", port))
            await loop.create_connection(lambda: connection, sock=made)
        except BaseException:
            made.close()
            raise

    def request(self) -> bytes:
        last = self.course.last_event_id
        header = f"Last-Event-ID: {last}\r\n" if last else ""
        return f"GET {self._path} HTTP/1.1\r\nHost: chaos\r\n{header}\r\n".encode()

    def begin(self, status: int) -> bool:
        """Take the status of a response, and return whether a stream follows."""
        if status == 200:
            self.connects += 1
            self.course.open()
            return True
        self.answers.append(status)
        self._is_over = status == 204
        return False

    def take(self, frame: bytes) -> None:
        """Take an event."""
        fields = dict(
            line.split(": ", 1) for line in frame.decode().split("\n") if line[0] != ":"
        )
        if not fields:
            return  # a ping
        type, data = fields.get("event", "message"), fields.get("data")
        now = time.perf_counter()
        course = self.course
        if course.end is None:
            self.ended_at = now
        course.take(fields.get("id", ""), type, data)
        if data is None:
            self.served_at = now
        else:
            if self._heard_at:
                silence = now - self._heard_at
                self.longest_silence = max(self.longest_silence, silence)
            self._heard_at = now
            if self._on_event is not None and type != "gap":
                self._on_event(data)
        if course.end is not None and self.stops_at_end:
            self._is_over = True
            self.cut()

    def cut(self) -> None:
        """Close the connection. It will come back."""
        if self._connection is not None:
            self._connection.close()

    def freeze(self) -> None:
        """Stop reading."""
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.pause_reading()

    def thaw(self) -> None:
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.resume_reading()


class Connection(asyncio.Protocol):
    """One request. Parses the response as it arrives."""

    def __init__(self, client: Client) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._client = client
        self._raw = b""
        self._body = b""
        self._has_begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._client.request())

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._raw += data
        if not self._has_begun:
            head, found, rest = self._raw.partition(b"\r\n\r\n")
            if not found:
                return
            self._has_begun, self._raw = True, rest
            if not self._client.begin(int(head.split(b" ", 2)[1])):
                self.close()
                return
        if self._take_chunks():
            *frames, self._body = self._body.split(b"\n\n")
            for frame in frames:
                self._client.take(frame)

    def _take_chunks(self) -> bool:
        """Move complete chunks into the body, and return whether there are any."""
        raw, at, pieces = self._raw, 0, []
        while (line_end := raw.find(b"\r\n", at)) >= 0:
            size = int(raw[at:line_end], 16)
            if size == 0:
                self.close()
                break
            begin = line_end + 2
            if len(raw) < begin + size + 2:
                break
            pieces.append(raw[begin : begin + size])
            at = begin + size + 2
        self._raw = raw[at:]
        self._body += b"".join(pieces)
        return bool(pieces)
