"""What stands around `send`, and what it raises."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import pytest

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import KINDS, MS, Summaries, app_of
from ..support.asgi import fetch, receive_nothing, scope
from ..support.middlewares import around_send


class ClientDisconnectedError(OSError):
    """As Starlette's: that of a server with a class of its own."""


GONE = [
    ConnectionResetError(104, "reset"),
    BrokenPipeError(32, "broken pipe"),
    ConnectionAbortedError(),
    OSError("the socket is gone"),
    ClientDisconnectedError(),
]


BROKEN = [
    TimeoutError("a middleware's own"),
    PermissionError(13, "its log file"),
    FileNotFoundError(2, "its log file"),
    LookupError("its mistake"),
]


WHERES = ["the head", "an event", "a later event", "after waiting", "a ping", "the end"]


@pytest.mark.parametrize("error", [*GONE, *BROKEN], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_send_raises_tells_of_the_client_or_is_an_error(
    kind: str, where: str, error: Exception, anyio_backend: str
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(5 * MS)
            yield 2
            if where == "a ping":
                await anyio.sleep(3600)
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            yield 1
            time.sleep(5 * MS)
            yield 2
            while where == "a ping":
                anyio.from_thread.check_cancelled()
                time.sleep(MS)
        finally:
            closed.append(True)

    def is_there(message: Any) -> bool:
        body = message.get("body", b"")
        if where == "the head":
            return bool(message["type"] == "http.response.start")
        if where == "an event":
            return b"data: 1" in body
        if where in ("a later event", "after waiting"):
            return b"data: 2" in body
        if where == "a ping":
            return b": ping" in body
        return message.get("more_body") is False

    async def failing(send: Any, message: Any) -> None:
        if is_there(message):
            if where == "after waiting":
                await anyio.sleep(MS)
            raise error
        await send(message)

    summaries = Summaries()
    app = around_send(
        app_of(
            items if kind == "async" else sync_items,
            on_close=summaries,
            ping_interval=20 * MS if where == "a ping" else None,
        ),
        failing,
    )
    reply = fetch(app, backend=anyio_backend)
    error.__traceback__ = None
    assert not reply.complete
    assert closed == [True]
    if error in GONE:
        assert reply.error is None
        assert summaries.reasons == ["disconnected"]
    else:
        assert reply.error is error
        assert summaries.reasons == ["error"]


def test_a_client_that_is_gone_before_its_stream_began(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        async def send(message: object) -> None:
            raise OSError("the socket is gone")

        response = EventSourceResponse(items(), error_window=0)
        started = time.perf_counter()
        await response(scope(), receive_nothing, send)
        assert time.perf_counter() - started < 5

    anyio.run(main, backend=anyio_backend)
