"""Pings: their content, and when they are sent."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from fastapi_sse_fast import EncodedEvent, ServerSentEvent

from ..support.apps import KINDS, MS, Summaries, app_of, logged, numbers
from ..support.asgi import fetch, receive_nothing, scope
from ..support.middlewares import around_send
from ..support.server import Client, get, serve


@pytest.mark.parametrize(
    ("ping", "ping_form", "frame"),
    [
        ("ping", "block", b": ping\n\n"),
        ("a\nb", "block", b": a\n: b\n\n"),
        ("ping", "line", b": ping\n"),
        ("a\nb", "line", b": a\n: b\n"),
        (ServerSentEvent(event="ping"), "block", b"event: ping\n\n"),
        (EncodedEvent(comment="ready"), "block", b": ready\n\n"),
        (lambda: ServerSentEvent(comment="made"), "block", b": made\n\n"),
    ],
)
def test_what_a_ping_is(
    ping: Any, ping_form: Any, frame: bytes, anyio_backend: str
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(50 * MS)

    app = app_of(items, ping=ping, ping_form=ping_form, ping_interval=10 * MS)
    body = fetch(app, backend=anyio_backend).body.removeprefix(b"data: 1\n\n")
    assert body
    assert body == frame * (len(body) // len(frame))


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_ping_that_fails_is_logged_and_the_stream_goes_on(
    error: type[Exception], anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    async def items() -> AsyncIterator[int]:
        yield 1
        while len(asked) < 2:
            await anyio.sleep(MS)
        yield 2

    def ping() -> ServerSentEvent:
        asked.append(1)
        if len(asked) == 1:
            raise error
        return ServerSentEvent(comment="ping")

    app = app_of(items, ping=ping, ping_interval=5 * MS)
    reply = fetch(app, backend=anyio_backend)
    assert reply.complete
    assert reply.body.startswith(b"data: 1\n\n: ping\n\n")
    assert reply.body.endswith(b"data: 2\n\n")
    assert logged(caplog) == [("ping failed", error)]


def test_pings_on_every_backend(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(60 * MS)
        yield 2

    app = app_of(items, ping_interval=10 * MS)
    body = fetch(app, backend=anyio_backend).body
    assert body.startswith(b"data: 1\n\n: ping\n\n")
    assert numbers(body) == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_ping_comes_in_a_pause_and_never_inside_an_event(kind: str) -> None:
    quiet = threading.Event()
    big = "x\n" * 50_000

    async def items() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(raw_data=big)
        while not quiet.is_set():
            await asyncio.sleep(MS)
        yield ServerSentEvent(raw_data=big)

    def sync_items() -> Iterator[ServerSentEvent]:
        yield ServerSentEvent(raw_data=big)
        quiet.wait()
        yield ServerSentEvent(raw_data=big)

    app = app_of(items if kind == "async" else sync_items, ping_interval=20 * MS)
    with serve(app) as port, Client(port) as client:
        while client.body.count(b": ping\n\n") < 3:
            assert client.read_chunk()
        quiet.set()
        body = client.read_to_end()
    frame = bytes(EncodedEvent(raw_data=big))
    pings = body.removeprefix(frame).removesuffix(frame)
    assert len(body) == 2 * len(frame) + len(pings)
    assert pings == b": ping\n\n" * (len(pings) // 8)


def test_events_put_pings_off() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(20):
            yield number
            await asyncio.sleep(10 * MS)

    app = app_of(items, ping_interval=150 * MS)
    with serve(app) as port:
        assert b": ping" not in get(port)


def test_no_pings_when_switched_off() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(100 * MS)

    app = app_of(items, ping_interval=None)
    with serve(app) as port:
        assert get(port) == b"data: 1\n\n"


def test_pings_that_meet_events_are_no_timeout(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(100):
            await anyio.sleep(3 * MS)
            yield number

    summaries = Summaries()
    app = app_of(items, ping_interval=3 * MS, on_close=summaries)

    async def send(message: Any) -> None:
        await anyio.sleep(MS / 5)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(app, scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["finished"] * 20


@pytest.mark.parametrize("first", [0.0, 10 * MS])
def test_pings_come_in_time_when_the_head_did_not_wait_for_its_whole_window(
    first: float, anyio_backend: str
) -> None:
    """`error_window` can be longer than `ping_interval`."""
    pinged = anyio.Event()
    waited: list[float] = []

    async def items() -> AsyncIterator[int]:
        await anyio.sleep(first)
        yield 1
        started = time.perf_counter()
        with anyio.move_on_after(1.5):
            await pinged.wait()
        waited.append(time.perf_counter() - started)

    async def noting(send: Any, message: Any) -> None:
        if message.get("body") == b": ping\n\n":
            pinged.set()
        await send(message)

    app = app_of(items, ping_interval=20 * MS, error_window=1)
    reply = fetch(around_send(app, noting), backend=anyio_backend)
    assert reply.complete
    assert b": ping\n\n" in reply.body
    assert 10 * MS < waited[0] < 0.5
