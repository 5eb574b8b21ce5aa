"""Several streams on one HTTP/2 connection, with hypercorn."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import hypercorn
import hypercorn.asyncio
import hypercorn.trio
import pytest
from fastapi import Depends, FastAPI, HTTPException
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from typing_extensions import Self

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent, shutdown

from ..support.apps import MS, Summaries
from ..support.server import TIMEOUT, wait_until

STREAMS = 20
EVENTS = 50


@contextlib.contextmanager
def serve(
    app: Any, backend: str, *, keep_alive_timeout: float = TIMEOUT
) -> Iterator[int]:
    """Run hypercorn in a thread, and yield its port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    config.keep_alive_timeout = keep_alive_timeout
    stop = threading.Event()

    async def stopped() -> None:
        while not stop.is_set():
            await anyio.sleep(5 * MS)

    async def main() -> None:
        module: Any = hypercorn.asyncio if backend == "asyncio" else hypercorn.trio
        await module.serve(app, config, shutdown_trigger=stopped)

    thread = threading.Thread(
        target=anyio.run, args=[main], kwargs={"backend": backend}
    )
    thread.start()
    try:
        yield port
    finally:
        stop.set()
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the server did not stop"


class Connection:
    """Requests over one connection, and the responses."""

    def __init__(self, port: int) -> None:
        self._protocol = H2Connection(H2Configuration(client_side=True))
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.status: dict[int, int] = {}
        self.body: dict[int, bytes] = {}
        self.ended: dict[int, str] = {}
        self._protocol.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def get(self, path: str) -> int:
        """Send a request, and return the identifier of its stream."""
        stream = self._protocol.get_next_available_stream_id()
        self.body[stream] = b""
        headers = [(":method", "GET"), (":scheme", "http"), (":authority", "test")]
        self._protocol.send_headers(stream, [*headers, (":path", path)], True)
        self._flush()
        return stream

    def reset(self, stream: int) -> None:
        self._protocol.reset_stream(stream)
        self._flush()

    def receive(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise EOFError("connection closed")
        for event in self._protocol.receive_data(data):
            if isinstance(event, ResponseReceived):
                status = dict(event.headers)[b":status"]
                self.status[event.stream_id] = int(status)
            elif isinstance(event, DataReceived):
                self.body[event.stream_id] += event.data
                self._protocol.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            elif isinstance(event, StreamEnded):
                self.ended[event.stream_id] = "END_STREAM"
            elif isinstance(event, StreamReset):
                self.ended[event.stream_id] = "RST_STREAM"
        self._flush()

    def read_until(self, stream: int, text: bytes) -> None:
        while text not in self.body[stream]:
            self.receive()

    def read_to_end(self, stream: int) -> bytes:
        """Return the body of a stream that completes."""
        while stream not in self.ended:
            self.receive()
        assert self.ended[stream] == "END_STREAM"
        return self.body[stream]

    def _flush(self) -> None:
        self._socket.sendall(self._protocol.data_to_send())


class App(FastAPI):
    """Streams of all kinds, and how they have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.summaries = Summaries()
        self.seen = threading.Semaphore(0)
        response_class = EventSourceResponse.with_options(
            on_close=self.summaries, farewell=ServerSentEvent(event="bye")
        )
        for endpoint in (self.numbers, self.steps, self.sync_steps, self.endless):
            self.get(
                f"/{endpoint.__name__}",
                response_class=response_class,
                dependencies=[Depends(self.resource)],
            )(endpoint)
        self.get("/broken", response_class=response_class)(self.broken)
        self.get("/forbidden", response_class=response_class)(self.forbidden)

    async def resource(self) -> AsyncIterator[None]:
        yield
        self.log.append("dependency")

    async def numbers(self, stream: int) -> AsyncIterator[list[int]]:
        for number in range(EVENTS):
            yield [stream, number]
            if number % 5 == stream % 5:
                await anyio.sleep(MS)

    async def steps(self) -> AsyncIterator[int]:
        for number in range(3):
            yield number
            while not self.seen.acquire(blocking=False):
                await anyio.sleep(MS)

    def sync_steps(self) -> Iterator[int]:
        for number in range(3):
            yield number
            assert self.seen.acquire(timeout=TIMEOUT)

    async def endless(self) -> AsyncIterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
                await anyio.sleep(MS)
        finally:
            self.log.append("generator")

    async def broken(self) -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(5 * MS)
        raise LookupError("mid-stream")

    async def forbidden(self) -> AsyncIterator[int]:
        raise HTTPException(403)
        yield 1


def test_events_arrive_one_by_one(anyio_backend: str) -> None:
    app = App()
    with serve(app, anyio_backend) as port, Connection(port) as connection:
        for path in ("/steps", "/sync_steps"):
            stream = connection.get(path)
            for number in range(3):
                connection.read_until(stream, b"data: %d\n\n" % number)
                app.seen.release()
            body = connection.read_to_end(stream)
            assert body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_streams_on_one_connection_are_complete_and_unmixed(
    anyio_backend: str,
) -> None:
    with serve(App(), anyio_backend) as port, Connection(port) as connection:
        streams = [connection.get(f"/numbers?stream={n}") for n in range(STREAMS)]
        bodies = [connection.read_to_end(stream) for stream in streams]
    for n, body in enumerate(bodies):
        assert body == b"".join(
            b"data: [%d,%d]\n\n" % (n, number) for number in range(EVENTS)
        )


def test_an_error_before_the_first_event_is_the_response(anyio_backend: str) -> None:
    with serve(App(), anyio_backend) as port, Connection(port) as connection:
        stream = connection.get("/forbidden")
        assert b"Forbidden" in connection.read_to_end(stream)
        assert connection.status[stream] == 403


def test_an_error_in_mid_stream_is_no_end(anyio_backend: str) -> None:
    """hypercorn sends nothing at the end of such a stream, not even RST_STREAM."""
    app = App()
    with serve(app, anyio_backend) as port, Connection(port) as connection:
        other = connection.get("/endless")
        broken = connection.get("/broken")
        connection.read_until(broken, b"data: 1\n\n")
        wait_until(lambda: app.summaries)
        length = len(connection.body[other])
        while len(connection.body[other]) < length + 1000:  # It continues.
            connection.receive()
        assert app.summaries.reasons == ["error"]
        assert connection.ended.get(broken) != "END_STREAM"


def test_a_connection_with_nothing_but_a_broken_stream_is_closed(
    anyio_backend: str,
) -> None:
    with (
        serve(App(), anyio_backend, keep_alive_timeout=50 * MS) as port,
        Connection(port) as connection,
    ):
        broken = connection.get("/broken")
        with pytest.raises((EOFError, ConnectionResetError)):
            connection.read_to_end(broken)
        assert connection.body[broken] == b"data: 1\n\n"
        assert broken not in connection.ended


def test_a_reset_closes_the_generator_and_concerns_no_other_stream(
    anyio_backend: str,
) -> None:
    app = App()
    with serve(app, anyio_backend) as port, Connection(port) as connection:
        leaving, staying = connection.get("/endless"), connection.get("/endless")
        for stream in (leaving, staying):
            connection.read_until(stream, b"data: 1\n\n")
        connection.reset(leaving)
        wait_until(lambda: app.summaries)
        assert app.log == ["generator", "dependency"]
        assert app.summaries.reasons == ["disconnected"]
        length = len(connection.body[staying])
        while len(connection.body[staying]) < length + 1000:
            connection.receive()
        assert connection.read_to_end(connection.get("/numbers?stream=7"))


def test_closing_the_connection_closes_all_generators(anyio_backend: str) -> None:
    app = App()
    with serve(app, anyio_backend) as port:
        with Connection(port) as connection:
            streams = [connection.get("/endless") for _ in range(STREAMS)]
            for stream in streams:
                connection.read_until(stream, b"data: 1\n\n")
        wait_until(lambda: len(app.summaries) == STREAMS)
        assert len(app.log) == 2 * STREAMS
    assert app.summaries.reasons == ["disconnected"] * STREAMS


def test_shutdown_ends_all_streams_of_a_connection(anyio_backend: str) -> None:
    app = App()
    with serve(app, anyio_backend) as port, Connection(port) as connection:
        streams = [connection.get("/endless") for _ in range(STREAMS)]
        for stream in streams:
            connection.read_until(stream, b"data: 1\n\n")
        shutdown()
        for stream in streams:
            assert connection.read_to_end(stream).endswith(b"event: bye\n\n")
    assert app.summaries.reasons == ["shutdown"] * STREAMS
