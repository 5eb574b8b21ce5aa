"""The clients: for one response, for many streams, and for repeated requests.

They have a core to themselves, and do as little as possible per event, so that they do
not limit the server.
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
"""Seconds without a byte after which the benchmark fails."""

RECEIVE = 64 * 1024
"""The maximum number of bytes to receive at once."""

AT_ONCE = 50
"""How many streams to open before waiting for their first events.

This must be less than the backlog of a listening socket. Otherwise the system would
retry a connection after a second.
"""


def request(path: str, connection: str = "keep-alive") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: {connection}\r\n\r\n"
    ).encode()


def fetch(address: Address, path: str) -> bytes:
    """Return the response to one request, as received from the socket."""
    parts = []
    with socket.create_connection(address, timeout=TIMEOUT) as client:
        client.sendall(request(path, "close"))
        while part := client.recv(RECEIVE):
            parts.append(part)
    return b"".join(parts)


def content_of(response: bytes) -> bytes:
    """Return what follows the head of a successful response."""
    head, _, rest = response.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"not a stream: {response[:500]!r}")
    return rest


def chunks_of(response: bytes) -> tuple[list[bytes], bool]:
    """Return the HTTP chunks of a successful response, and whether it is complete."""
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
    """Return the decoded body of a complete, successful response."""
    chunks, complete = chunks_of(response)
    if not complete:
        sys.exit(f"the stream was cut off: {response[-500:]!r}")
    return b"".join(chunks)


def beginning_of(address: Address, path: str, events: int) -> bytes:
    """Return the body of a stream up to a number of events, then disconnect."""
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
    """Return the events of a body. `data` is decoded as JSON where that is expected."""
    events = []
    *frames, rest = body.decode().split("\n\n")
    if rest:
        sys.exit(f"incomplete event: {rest!r}")
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
    """One stream of a crowd.

    Attributes:
        answered: Whether the head of the response has been received.
        begun: Whether an event has been received.
        half: Whether the received bytes end with the first of the two line feeds that
            end an event.
    """

    __slots__ = ("answered", "begun", "half", "socket")

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket
        self.answered = False
        self.begun = False
        self.half = False


class Crowd:
    """Many concurrent streams, whose events are only counted.

    Attributes:
        events: The number of events received from all streams, without pings.
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
        """Open more streams, and wait for the first event of each.

        Args:
            count: The number of streams.
            interval: Seconds between two streams, to spread paced streams evenly.
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
        """Read until a moment on the clock of `time.perf_counter`."""
        while (left := moment - time.perf_counter()) > 0:
            self._read(left)

    def read_events(self, count: int) -> None:
        """Read until a number of events have been received."""
        while self.events < count:
            self._read_or_exit()

    def read_to_the_end(self) -> None:
        while len(self):
            self._read_or_exit()

    def _read_or_exit(self) -> None:
        if not len(self) or not self._read(TIMEOUT):
            sys.exit(f"nothing received after {self.events} events")

    def _read(self, timeout: float) -> bool:
        """Read what is available, and return whether there was anything."""
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
            # Only the end of an event or a ping has two consecutive line feeds.
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
    """Connections that request one short stream after another.

    Attributes:
        visits: The number of responses received. All have the same body.
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

    def visit_until(self, moment: float) -> None:
        """Send requests until a moment on the clock of `time.perf_counter`."""
        while (left := moment - time.perf_counter()) > 0:
            for key, _ in self._selector.select(left):
                client, response = _socket_of(key), key.data
                data = client.recv(RECEIVE)
                if not data:
                    sys.exit("the server has closed a keep-alive connection")
                response += data
                if response.endswith(b"\r\n0\r\n\r\n"):
                    if body_of(bytes(response)) != self._body:
                        sys.exit(f"the response differs: {response!r}")
                    response.clear()
                    self.visits += 1
                    client.sendall(self._request)


def _socket_of(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def latencies(address: Address, path: str, count: int) -> list[float]:
    """Return the seconds from the creation of each event to its arrival here."""
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
