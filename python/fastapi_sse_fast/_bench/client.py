"""The clients: one that reads a response, many at once, and some that come again.

They share a core with nobody, and do as little as they can: what they do for an event
must not be what limits the server.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    Address = tuple[str, int]

TIMEOUT = 60.0
"""Seconds without a byte."""

RECEIVE = 64 * 1024
"""Bytes to take from a socket at once."""

AT_ONCE = 50
"""Streams that are opened before the first of them has to have an event.

Fewer than a listening socket queues, or the system would retry after a second.
"""


def request(path: str, connection: str = "keep-alive") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: {connection}\r\n\r\n"
    ).encode()


def fetch(address: Address, path: str) -> bytes:
    """The response to one request, as it came over the socket."""
    parts = []
    with socket.create_connection(address, timeout=TIMEOUT) as client:
        client.sendall(request(path, "close"))
        while part := client.recv(RECEIVE):
            parts.append(part)
    return b"".join(parts)


def content_of(response: bytes) -> bytes:
    """What follows the head of a successful response."""
    head, _, rest = response.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"not a stream: {response[:500]!r}")
    return rest


def chunks_of(response: bytes) -> tuple[list[bytes], bool]:
    """The HTTP chunks of a successful response, and whether it is complete."""
    rest = content_of(response)
    chunks: list[bytes] = []
    at = 0
    while (end := rest.find(b"\r\n", at)) >= 0:
        size = int(rest[at:end], 16)
        at = end + 2
        if size == 0:
            return chunks, True
        chunks.append(rest[at : at + size])
        at += size + 2
    return chunks, False


def body_of(response: bytes) -> bytes:
    """What a complete, successful response carries, without its transfer coding."""
    chunks, complete = chunks_of(response)
    if not complete:
        sys.exit(f"the stream was cut off: {response[-500:]!r}")
    return b"".join(chunks)


def beginning_of(address: Address, path: str, events: int) -> bytes:
    """The body of a stream until it has had so many events; then we leave."""
    response = b""
    with socket.create_connection(address, timeout=TIMEOUT) as client:
        client.sendall(request(path, "close"))
        while response.count(b"\n\n\r\n") < events:
            data = client.recv(RECEIVE)
            if not data:
                sys.exit(f"the stream has ended: {response!r}")
            response += data
    return b"".join(chunks_of(response)[0])


def decode(body: bytes, expected: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of a body. `data` is taken for JSON where that is expected."""
    events = []
    *frames, rest = body.decode().split("\n\n")
    if rest:
        sys.exit(f"an event is not finished: {rest!r}")
    for index, frame in enumerate(frames):
        fields: dict[str, Any] = {}
        for line in frame.split("\n"):
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        if index < len(expected) and not isinstance(expected[index]["data"], str):
            fields["data"] = json.loads(fields["data"])
        events.append(fields)
    return events


class _Stream:
    """One of a crowd.

    Attributes:
        answered: Whether the head of the response has come.
        begun: Whether an event has come.
        half: Whether what has come ends in the first half of an event's end.
    """

    __slots__ = ("answered", "begun", "half", "socket")

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket
        self.answered = False
        self.begun = False
        self.half = False


class Crowd:
    """Many streams at once. Their events are counted and thrown away.

    Attributes:
        events: How many have come, of all streams; pings are none.
    """

    def __init__(self, address: Address, path: str) -> None:
        self.events = 0
        self._begun = 0  # streams
        self._address = address
        self._request = request(path, "close")
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()

    def __len__(self) -> int:
        return len(self._selector.get_map())

    def grow(self, count: int, interval: float = 0.0) -> None:
        """Opens more streams, and waits for the first event of each.

        Args:
            count: How many.
            interval: Seconds between two of them, so that paced ones are spread evenly.
        """
        began = time.perf_counter()
        for index in range(count):
            self.read_until(began + index * interval)
            client = socket.create_connection(self._address, timeout=TIMEOUT)
            client.sendall(self._request)
            client.setblocking(False)
            self._selector.register(client, selectors.EVENT_READ, _Stream(client))
            if index % AT_ONCE == AT_ONCE - 1 or index == count - 1:
                while self._begun < len(self):
                    self._read_or_exit()

    def read_until(self, moment: float) -> None:
        """Reads what comes until then, on the clock of `time.perf_counter`."""
        while (left := moment - time.perf_counter()) > 0:
            self._read(left)

    def read_events(self, count: int) -> None:
        """Reads until so many events have come."""
        while self.events < count:
            self._read_or_exit()

    def read_to_the_end(self) -> None:
        while len(self):
            self._read_or_exit()

    def _read_or_exit(self) -> None:
        if not len(self) or not self._read(TIMEOUT):
            sys.exit(f"nothing comes any more after {self.events} events")

    def _read(self, timeout: float) -> bool:
        """Reads what is there. Returns whether that is anything."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            stream: _Stream = key.data
            data = stream.socket.recv(RECEIVE)
            if not data:
                self._selector.unregister(stream.socket)
                stream.socket.close()
                continue
            if not stream.answered:
                content_of(data)
                stream.answered = True
            # Only the end of an event has two line feeds in a row, and that of a ping.
            events = data.count(b"\n\n") - data.count(b"\n: ping")
            if stream.half and data[0] == 10:
                events += 1
            if events and not stream.begun:
                stream.begun = True
                self._begun += 1
            self.events += events
            stream.half = data[-1] == 10 and data[-2:] not in (b"\n\n", b"\r\n")
        return bool(ready)


class Visitors:
    """Connections that send one request after another, each for a stream that ends.

    Attributes:
        visits: How many responses have come, each with the events of the first.
    """

    def __init__(self, address: Address, path: str, count: int) -> None:
        self.visits = 0
        self._request = request(path)
        self._body = body_of(fetch(address, path))
        self._selector = selectors.DefaultSelector()
        for _ in range(count):
            client = socket.create_connection(address, timeout=TIMEOUT)
            self._selector.register(client, selectors.EVENT_READ, bytearray())
            client.sendall(self._request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for key in list(self._selector.get_map().values()):
            _socket_of(key).close()
        self._selector.close()

    def come_and_go_until(self, moment: float) -> None:
        """Until then, on the clock of `time.perf_counter`."""
        while (left := moment - time.perf_counter()) > 0:
            for key, _ in self._selector.select(left):
                client, response = _socket_of(key), key.data
                data = client.recv(RECEIVE)
                if not data:
                    sys.exit("the server has closed a connection that it should keep")
                response += data
                if response.endswith(b"\r\n0\r\n\r\n"):
                    if body_of(bytes(response)) != self._body:
                        sys.exit(f"not the same again: {response!r}")
                    response.clear()
                    self.visits += 1
                    client.sendall(self._request)


def _socket_of(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def latencies(address: Address, path: str, count: int) -> list[float]:
    """Seconds from when an event was made, as it says, to when it is here."""
    seconds: list[float] = []
    pending = b""
    with socket.create_connection(address, timeout=TIMEOUT) as client:
        client.sendall(request(path, "close"))
        while len(seconds) < count:
            data = client.recv(RECEIVE)
            now = time.perf_counter_ns()
            if not data:
                sys.exit("the stream has ended")
            *events, pending = (pending + data).split(b"\n\n")
            for event in events:
                made_at = json.loads(event.partition(b"data: ")[2])["at"]
                seconds.append((now - made_at) / 1e9)
    return seconds
