"""Errors of `send`, and middleware around it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import pytest

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import KINDS, MS, Summaries, app_of, bursts, numbers
from ..support.asgi import Reply, call, fetch, receive_nothing, scope
from ..support.middlewares import around_send, with_pause
from ..support.releases import NEEDS_TIMEOUT

# Errors


class ClientDisconnectedError(OSError):
    """An error class of a server, like Starlette's."""


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


# Middleware around `send`


def in_a_scope() -> Any:
    @contextlib.asynccontextmanager
    async def guard() -> AsyncIterator[None]:
        with anyio.CancelScope(), anyio.fail_after(20):
            yield

    return guard


def in_a_timeout() -> Any:
    return lambda: asyncio.timeout(20)  # type: ignore[attr-defined, unused-ignore]


def in_a_lock_of_anyio() -> Any:
    lock = anyio.Lock()
    return lambda: lock


def in_a_lock_of_asyncio() -> Any:
    lock = asyncio.Lock()
    return lambda: lock


def in_a_limiter() -> Any:
    limiter = anyio.CapacityLimiter(1)
    return lambda: limiter


def in_a_task_group() -> Any:
    return anyio.create_task_group


GUARDS = [
    in_a_scope,
    pytest.param(in_a_timeout, marks=NEEDS_TIMEOUT),
    in_a_lock_of_anyio,
    in_a_lock_of_asyncio,
    in_a_limiter,
    in_a_task_group,
]


@pytest.mark.parametrize("make_guard", GUARDS)
@pytest.mark.parametrize("pause", [0.0, 2 * MS])
def test_what_a_middleware_opens_around_a_send_it_can_close(
    make_guard: Callable[[], Any], pause: float
) -> None:
    async def main() -> Reply:
        guard = make_guard()

        async def guarded(send: Any, message: Any) -> None:
            async with guard():
                await send(message)

        # The guard is around the client's pause, so the send waits inside the guard.
        app = around_send(app_of(bursts, ping_interval=4 * MS), guarded)
        return await call(with_pause(app, pause))

    reply = asyncio.run(main())
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == list(range(12))
    assert b": ping\n\n" in reply.body
