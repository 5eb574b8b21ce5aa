"""Delivery of events: complete, in order and without delay."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    ServerSentEvent,
    shutdown,
)

from ..support.apps import KINDS, MS, app_of, numbers
from ..support.asgi import fetch
from ..support.server import Client, serve


def test_streams_on_every_backend(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(1000):
            yield number
            if number % 100 == 0:
                await anyio.sleep(MS)

    def sync_items() -> Iterator[int]:
        yield from range(1000)

    for endpoint in (items, sync_items):
        reply = fetch(app_of(endpoint), backend=anyio_backend)
        assert reply.error is None
        assert reply.complete
        assert numbers(reply.body) == list(range(1000))


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_not_held_back_for_later_ones(kind: str) -> None:
    go_on = threading.Event()

    async def items() -> AsyncIterator[str]:
        for name in ("first", "second", "third"):
            yield name
            while not go_on.is_set():
                await asyncio.sleep(MS)
            go_on.clear()

    def sync_items() -> Iterator[str]:
        for name in ("first", "second", "third"):
            yield name
            go_on.wait()
            go_on.clear()

    with serve(app_of(items if kind == "async" else sync_items)) as port:
        with Client(port) as client:
            for name in ("first", "second", "third"):
                client.read_until(f'data: "{name}"\n\n'.encode())
                go_on.set()
            assert client.read_chunk() == b""


def test_an_event_before_blocking_work_is_not_held_back() -> None:
    """The generator blocks the event loop. With models this is a common mistake."""
    times = []

    async def items() -> AsyncIterator[int]:
        for number in range(6):
            times.append(time.perf_counter())
            yield number
            time.sleep(30 * MS)  # noqa: ASYNC251

    with serve(app_of(items)) as port, Client(port) as client:
        for number in range(6):
            client.read_until(b"data: %d\n\n" % number)
            assert len(times) <= number + 1 or (
                time.perf_counter() - times[number] < 25 * MS
            )
        assert client.read_chunk() == b""


def test_nothing_gets_into_an_event_that_comes_in_parts(
    caplog: pytest.LogCaptureFixture, anyio_backend: str
) -> None:
    """A relay of another server's stream yields such parts."""

    async def chunks(*, fails: bool = False) -> AsyncIterator[str]:
        for chunk in ["data: Hel", "lo", "\n", "\ndata: {", "}\r\n\r", "\n"]:
            yield chunk
            await anyio.sleep(30 * MS)
        yield "data: never"
        if fails:
            raise LookupError
        shutdown()
        await anyio.sleep(3600)

    last = ServerSentEvent(event="bye")
    options: Any = {
        "ping_interval": 10 * MS,
        "on_error": lambda error: last,
        "farewell": last,
    }
    for fails in (False, True):
        response = EventSourceResponse(chunks(fails=fails), **options)
        reply = fetch(response, backend=anyio_backend)
        assert not reply.complete
        body = reply.body.replace(b": ping\n\n", b"")
        assert body == b"data: Hello\n\ndata: {}\r\n\r\ndata: never"
        assert b": ping\n\ndata: never" in reply.body  # Between events there are pings.
    assert "so the event of farewell is not sent" in caplog.text
    assert "so the event of on_error is not sent" in caplog.text


@pytest.mark.parametrize("kind", ["raw", "compact", "text", "bytes", "sync"])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_no_part_of_a_large_event_ends_inside_a_character(
    shift: int, kind: str, anyio_backend: str
) -> None:
    data = "x" * shift + "中" * (1024 * 1024 // 3)
    event = EncodedEvent(raw_data=data)

    async def items() -> AsyncIterator[Any]:
        yield {
            "raw": event,
            "compact": [data],
            "text": bytes(event).decode(),
            "bytes": bytes(event),
        }[kind]

    content = iter([event]) if kind == "sync" else items()
    response = EventSourceResponse(content, json="compact")
    reply = fetch(response, backend=anyio_backend)
    assert reply.complete
    assert len(reply.chunks) > 2
    for chunk in reply.chunks:
        chunk.decode()  # This raises if a character is cut.
    expected = data if kind != "compact" else f'["{data}"]'
    assert reply.body.decode() == f"data: {expected}\n\n"
