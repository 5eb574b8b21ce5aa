"""`max_pending`: how far a generator runs ahead of its client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fastapi_sse_fast import EncodedEvent

from ..support.apps import KINDS, MS, Summaries, app_of, numbers
from ..support.asgi import fetch, receive_nothing, scope, send_for_ever
from ..support.middlewares import around_send


def test_the_generator_waits_at_max_pending() -> None:
    produced = 0

    async def items() -> AsyncIterator[EncodedEvent]:
        nonlocal produced
        frame = EncodedEvent(raw_data="x" * 100)
        while True:
            produced += 1
            yield frame

    app = app_of(items, max_pending=1000, send_timeout=100 * MS)

    async def main() -> None:
        await app(scope(), receive_nothing, send_for_ever)

    anyio.run(main)
    # The first is sent alone, ten fill the buffer, and one more is yielded.
    assert produced <= 12


def test_the_loop_turns_whenever_the_buffer_was_full(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[EncodedEvent]:
        frame = EncodedEvent(raw_data="x" * 1000)
        while True:
            yield frame

    # A server notices a disconnect only when the event loop runs. Otherwise the stream
    # would send without a client for a whole time slice of the generator.
    app = app_of(items, max_pending=1000)
    reply = fetch(app, disconnect_after=10, backend=anyio_backend)
    assert reply.error is None
    assert not reply.complete
    assert len(reply.chunks) <= 15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pause", [None, 0.0, 2 * MS])
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("error_window", [0.0, 0.1])
def test_without_pending_bytes_the_code_after_a_yield_runs_once_it_is_sent(
    error_window: float,
    waits: bool,
    pause: float | None,
    kind: str,
    anyio_backend: str,
) -> None:
    log: list[str] = []

    async def items() -> AsyncIterator[int]:
        for number in range(5):
            yield number
            log.append(f"after {number}")
            if waits:
                await anyio.sleep(MS)

    def sync_items() -> Iterator[int]:
        for number in range(5):
            yield number
            log.append(f"after {number}")
            if waits:
                time.sleep(MS)

    async def noting(send: Any, message: Any) -> None:
        if pause is not None:
            await anyio.sleep(pause)
        await send(message)
        log.extend(f"sent {number}" for number in numbers(message.get("body", b"")))

    endpoint = items if kind == "async" else sync_items
    app = app_of(endpoint, max_pending=0, error_window=error_window)
    reply = fetch(around_send(app, noting), backend=anyio_backend)
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == list(range(5))
    assert log == [f"{what} {n}" for n in range(5) for what in ("sent", "after")]


@pytest.mark.parametrize("kind", KINDS)
def test_without_pending_bytes_a_client_that_does_not_read_stops_the_generator(
    kind: str, anyio_backend: str
) -> None:
    yielded: list[int] = []

    async def items() -> AsyncIterator[int]:
        for number in range(100):
            yielded.append(number)
            yield number
            await anyio.lowlevel.checkpoint()

    def sync_items() -> Iterator[int]:
        for number in range(100):
            yielded.append(number)
            yield number

    summaries = Summaries()
    endpoint = items if kind == "async" else sync_items
    app = app_of(endpoint, max_pending=0, send_timeout=30 * MS, on_close=summaries)
    reply = fetch(app, backend=anyio_backend, freeze_after=3)
    assert numbers(reply.body) == [0, 1, 2]
    assert yielded == [0, 1, 2]
    assert summaries.reasons == ["send_timeout"]
