"""Clients that read slowly, or not at all."""

from __future__ import annotations

import concurrent.futures
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from fastapi_sse_fast import EncodedEvent, EventSourceResponse

from ..support.apps import KINDS, MS, Summaries, app_of, numbers
from ..support.asgi import fetch, receive_nothing, scope
from ..support.closings import SOON, Closings, wait_until_frozen
from ..support.server import Client, get, serve, wait_until

# The generator waits


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_does_not_read_stops_the_producer(kind: str) -> None:
    produced = 0
    frame = EncodedEvent(raw_data="x" * 1000)

    async def items() -> AsyncIterator[EncodedEvent]:
        nonlocal produced
        for _ in range(100_000):
            produced += 1
            yield frame

    def sync_items() -> Iterator[EncodedEvent]:
        nonlocal produced
        for _ in range(100_000):
            produced += 1
            yield frame

    with serve(app_of(items if kind == "async" else sync_items)) as port:
        with Client(port, buffer_size=4096) as client:
            client.read_until(b"x")
            counts = [-1]

            def settled() -> bool:
                counts.append(produced)
                time.sleep(20 * MS)
                return counts[-1] == counts[-2]

            wait_until(settled)
            assert produced * 1000 < 10_000_000  # Buffers of sockets and loop.


def test_a_slow_client_delays_nobody_else() -> None:
    """One client reads 1 KiB/s while a hundred read as fast as they can."""
    frame = EncodedEvent(raw_data="x" * 1000)
    produced = 0

    async def items(n: int) -> AsyncIterator[EncodedEvent]:
        nonlocal produced
        for _ in range(n):
            yield frame
            if n > 1000:
                produced += 1

    def read_fast(_: int) -> bool:
        return get(port, "/?n=300") == bytes(frame) * 300

    with (
        serve(app_of(items)) as port,
        Client(port, "/?n=100000", buffer_size=4096) as slow,
        concurrent.futures.ThreadPoolExecutor(100) as pool,
    ):
        stop = threading.Event()

        def crawl() -> None:
            while not stop.wait(0.1):
                slow.socket.recv(102)

        crawler = threading.Thread(target=crawl)
        crawler.start()
        wait_until(lambda: produced)
        started = time.perf_counter()
        assert all(pool.map(read_fast, range(100)))
        elapsed = time.perf_counter() - started
        stop.set()
        crawler.join()
    assert elapsed < 10  # The slow one would take 100 s.
    assert 0 < produced * 1000 < 10_000_000  # Limits of all buffers.


def test_a_slow_client_is_not_a_frozen_one(anyio_backend: str) -> None:
    """The client reads a large event in more time than `send_timeout`."""
    event = EncodedEvent(raw_data="x" * 2_000_000)
    taken: list[bytes] = []

    async def items() -> AsyncIterator[EncodedEvent]:
        yield event

    async def send(message: Any) -> None:
        body = message.get("body", b"")
        taken.append(body)
        await anyio.sleep(len(body) * 0.1e-6)

    summaries = Summaries()
    app = app_of(items, send_timeout=100 * MS, on_close=summaries)
    anyio.run(app, scope(), receive_nothing, send, backend=anyio_backend)
    assert b"".join(taken) == bytes(event)
    assert summaries.reasons == ["finished"]
    assert summaries[0].bytes == len(event)


# The client is dropped


@pytest.mark.parametrize("takes", [1, 2, 3])
@pytest.mark.parametrize("pace", ["paced", "busy", "idle"])
def test_a_client_that_stops_reading_is_dropped_wherever_that_is(
    pace: str, takes: int, anyio_backend: str
) -> None:
    """The send may have been started by the generator or by a ping."""
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
                if pace == "paced":
                    await anyio.sleep(MS)
                if pace == "idle":
                    await anyio.sleep(3600)
        finally:
            closed.append(True)

    summaries = Summaries()
    app = app_of(
        items,
        send_timeout=30 * MS,
        ping_interval=5 * MS,
        max_pending=1000,
        on_close=summaries,
    )
    reply = fetch(app, backend=anyio_backend, freeze_after=takes)
    assert reply.error is None
    assert not reply.complete
    assert len(reply.chunks) == takes
    assert numbers(reply.body) == list(range(len(numbers(reply.body))))
    assert closed == [True]
    assert summaries.reasons == ["send_timeout"]
    assert summaries[0].seconds_open < 5


def test_a_frozen_client_is_dropped_on_a_real_socket() -> None:
    async def items() -> AsyncIterator[EncodedEvent]:
        frame = EncodedEvent(raw_data="x" * 1000)
        while True:
            yield frame

    summaries = Summaries()
    with serve(app_of(items, send_timeout=100 * MS, on_close=summaries)) as port:
        with Client(port, buffer_size=4096) as client:
            client.read_until(b"x")
            wait_until(lambda: summaries)
    assert summaries.reasons == ["send_timeout"]


def test_a_client_that_does_not_take_the_head_is_dropped(anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            closed.append(True)

    async def send(message: Any) -> None:
        await anyio.sleep_forever()

    async def main() -> None:
        with anyio.fail_after(5):
            await app(scope(), receive_nothing, send)

    summaries = Summaries()
    app = app_of(items, send_timeout=30 * MS, on_close=summaries)
    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["send_timeout"]
    assert closed == [True]


def test_a_last_message_that_is_never_taken(anyio_backend: str) -> None:
    summaries = Summaries()
    response = EventSourceResponse(
        [], send_timeout=None, on_close=summaries, close_timeout=20 * MS
    )

    is_last = anyio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            is_last.set()
            await anyio.sleep_forever()

    async def receive() -> Any:
        await is_last.wait()
        return {"type": "http.disconnect"}

    async def main() -> None:
        with anyio.fail_after(5):
            await response(scope(), receive, send)

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["send_timeout"]


def test_events_that_were_not_sent_do_not_count(anyio_backend: str) -> None:
    event = EncodedEvent(raw_data="x" * 1000)

    async def items() -> AsyncIterator[EncodedEvent]:
        while True:
            yield event

    async def main() -> None:
        taken = 0

        async def send(message: Any) -> None:
            nonlocal taken
            if message["type"] == "http.response.body":
                if taken > 100_000:
                    await anyio.sleep_forever()
                taken += len(message["body"])

        await app(scope(), receive_nothing, send)
        assert summaries[0].bytes == taken

    summaries = Summaries()
    app = app_of(items, send_timeout=50 * MS, on_close=summaries)
    anyio.run(main, backend=anyio_backend)
    (summary,) = summaries
    assert summary.reason == "send_timeout"
    assert summary.events * len(event) == summary.bytes > 0


# The client disconnects


def test_a_frozen_client_that_leaves_is_noticed_soon() -> None:
    closings = Closings()
    for endpoint in (closings.busy, closings.sync_busy):
        times = []
        with serve(app_of(endpoint)) as port:
            for _ in range(10):
                with Client(port, buffer_size=4096) as client:
                    client.read_until(b"x")
                    wait_until_frozen(closings)
                    left = time.perf_counter()
                # Closing a socket with unread data resets the connection.
                wait_until(lambda: closings.times)
                times.append(closings.times.pop() - left)
        assert statistics.median(times) < SOON


def test_a_frozen_client_that_half_closes_is_dropped_by_send_timeout() -> None:
    """uvicorn reports a FIN only after it has sent everything, so never here."""
    closings, summaries = Closings(), Summaries()
    response_class = EventSourceResponse.with_options(
        send_timeout=100 * MS, on_close=summaries
    )
    app = app_of(closings.busy, response_class=response_class)
    with serve(app) as port, Client(port, buffer_size=4096) as client:
        client.read_until(b"x")
        wait_until_frozen(closings)
        client.socket.shutdown(socket.SHUT_WR)
        wait_until(lambda: summaries)
    assert summaries.reasons == ["send_timeout"]
    assert len(closings.times) == 1
