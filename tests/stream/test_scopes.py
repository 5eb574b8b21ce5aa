"""Timeouts, cancel scopes and task groups in a generator, and around it (PEP 789)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_sse_fast import EncodedEvent, EventSourceResponse

from ..support.apps import MS, Log, app_of, numbers
from ..support.asgi import Reply, call, fetch, receive_nothing, scope
from ..support.middlewares import PAUSES, with_pause
from ..support.releases import NEEDS_TIMEOUT


def test_scopes_inside_the_generator_work_and_close(anyio_backend: str) -> None:
    log = Log()

    async def items() -> AsyncIterator[int]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            with anyio.move_on_after(20 * MS):
                yield 1
                await anyio.sleep_forever()
            log("moved on")
            try:
                yield 2
                await anyio.sleep_forever()
            finally:
                tasks.cancel_scope.cancel()
                log("closed")

    async def main() -> Reply:
        leave = anyio.Event()

        async def leave_later() -> None:
            while "moved on" not in log.lines:
                await anyio.sleep(MS)
            await anyio.sleep(5 * MS)
            leave.set()

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave_later)
                return await call(app_of(items), disconnect_at=leave)
        raise AssertionError

    reply = anyio.run(main, backend=anyio_backend)
    assert reply.error is None
    assert numbers(reply.body) == [1, 2]
    assert log.lines == ["moved on", "closed"]


@contextlib.asynccontextmanager
async def moving_on(seconds: float) -> AsyncIterator[None]:
    with anyio.move_on_after(seconds):
        yield


@contextlib.asynccontextmanager
async def cancelling_a_group(seconds: float) -> AsyncIterator[None]:
    async def cancel(scope: anyio.CancelScope) -> None:
        await anyio.sleep(seconds)
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel, tasks.cancel_scope)
        yield


@contextlib.asynccontextmanager
async def timing_out(seconds: float) -> AsyncIterator[None]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # type: ignore[attr-defined, unused-ignore]
            yield


SCOPES = [moving_on, cancelling_a_group, pytest.param(timing_out, marks=NEEDS_TIMEOUT)]


class Numbers(list[int]):
    """The numbers that a generator has yielded."""

    def next(self) -> int:
        self.append(len(self))
        return self[-1]


@pytest.mark.parametrize("open_scope", SCOPES)
@pytest.mark.parametrize("pause", PAUSES)
def test_a_scope_over_a_yield_ends_while_the_generator_stands_there(
    open_scope: Callable[[float], Any], pause: float | None
) -> None:
    yielded = Numbers()
    stood = []

    async def items() -> AsyncIterator[int]:
        for _ in range(3):  # A leftover of one scope would break the next.
            async with open_scope(5 * MS):
                try:
                    while True:
                        yield yielded.next()
                        # This ends the time slice, so the next `yield` pauses.
                        time.sleep(2 * MS)  # noqa: ASYNC251
                except asyncio.CancelledError:
                    stood.append(True)
                    raise
            yield yielded.next()
            await asyncio.sleep(MS)
            yield yielded.next()

    reply = fetch(with_pause(app_of(items), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == yielded
    assert stood == [True] * 3


@pytest.mark.parametrize("open_scope", SCOPES)
@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("wait", [0.0, MS, 3600])
def test_a_scope_over_a_yield_ends_while_the_generator_awaits(
    open_scope: Callable[[float], Any], pause: float | None, wait: float
) -> None:
    yielded = Numbers()

    async def items() -> AsyncIterator[int]:
        for _ in range(3):
            async with open_scope(5 * MS):
                while True:
                    yield yielded.next()
                    yield yielded.next()
                    await asyncio.sleep(wait)
            yield yielded.next()
            await asyncio.sleep(MS)
            yield yielded.next()

    reply = fetch(with_pause(app_of(items), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == yielded


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("awaits", [True, False])
def test_nothing_is_lost_where_a_scope_is_cancelled_before_its_events_are_sent(
    pause: float | None, awaits: bool
) -> None:
    """The memory streams of this middleware check whether their task is cancelled."""

    class OwnResponse(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    app = FastAPI(middleware=[Middleware(OwnResponse), Middleware(OwnResponse)])
    yielded = Numbers()

    @app.get("/", response_class=EventSourceResponse)
    async def items() -> AsyncIterator[int]:
        for _ in range(30):
            with anyio.CancelScope() as scope:
                yield yielded.next()
                scope.cancel()
                yield yielded.next()
                if awaits:
                    await anyio.sleep(3600)
                else:
                    time.sleep(1.5 * MS)  # noqa: ASYNC251 - it has to give way
                    yield yielded.next()
            yield yielded.next()
            await asyncio.sleep(0)

    reply = fetch(with_pause(app, pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == yielded


@pytest.mark.parametrize("open_scope", SCOPES)
@pytest.mark.parametrize("pause", PAUSES)
def test_a_generator_can_await_and_yield_while_it_handles_its_interruption(
    open_scope: Callable[[float], Any], pause: float | None
) -> None:
    yielded = Numbers()

    async def items() -> AsyncIterator[int]:
        async with open_scope(5 * MS):
            try:
                while True:
                    yield yielded.next()
                    time.sleep(2 * MS)  # noqa: ASYNC251 - it stands at the `yield`
            except asyncio.CancelledError:
                with anyio.CancelScope(shield=True):
                    await asyncio.sleep(MS)
                    yield yielded.next()
                    await asyncio.sleep(MS)
                    yield yielded.next()
                    time.sleep(2 * MS)  # noqa: ASYNC251
                    yield yielded.next()
                raise
            finally:
                yield yielded.next()
        yield yielded.next()

    reply = fetch(with_pause(app_of(items), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == yielded


@pytest.mark.parametrize("open_scope", SCOPES)
def test_a_scope_ends_while_the_client_keeps_the_generator_waiting(
    open_scope: Callable[[float], Any], anyio_backend: str
) -> None:
    if (open_scope, anyio_backend) == (timing_out, "trio"):
        pytest.skip("a timeout of asyncio")
    ended = anyio.Event()

    async def items() -> AsyncIterator[int]:
        # A leftover of the first scope would break the second.
        for number in (1, 2):
            async with open_scope(5 * MS):
                while True:
                    yield number
            if number == 1:
                ended.set()
        yield 3

    app = app_of(items, max_pending=100)
    body = b""

    async def send(message: Any) -> None:
        nonlocal body
        body += message.get("body", b"")
        if body and not ended.is_set():
            await ended.wait()

    async def main() -> None:
        with anyio.fail_after(20):
            await app(scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)
    found = numbers(body)
    assert found == sorted(found)
    assert set(found) == {1, 2, 3}
    assert found.count(3) == 1


def test_nested_scopes_around_a_yield(anyio_backend: str) -> None:
    log: list[str] = []

    async def items() -> AsyncIterator[int]:
        with anyio.move_on_after(60 * MS):
            async with anyio.create_task_group() as outer:
                outer.start_soon(anyio.sleep_forever)
                try:
                    with anyio.move_on_after(5 * MS) as inner:
                        async with anyio.create_task_group() as tasks:
                            tasks.start_soon(anyio.sleep_forever)
                            while True:
                                yield 1
                    assert inner.cancelled_caught
                    log.append("inner")
                    while True:
                        yield 2
                finally:
                    log.append("outer")
        yield 3
        log.append("end")

    reply = fetch(app_of(items), backend=anyio_backend)
    assert reply.error is None
    assert reply.complete
    assert reply.body.endswith(b"data: 2\n\ndata: 3\n\n")
    assert log == ["inner", "outer", "end"]


@NEEDS_TIMEOUT
def test_two_timeouts_around_a_yield_that_end_together() -> None:
    async def items(apart: float) -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(5 * MS + apart):
                try:
                    async with asyncio.timeout(5 * MS):
                        while True:
                            yield 1
                            time.sleep(MS / 5)  # noqa: ASYNC251
                except TimeoutError:
                    yield 2
                while True:
                    yield 3
                    time.sleep(MS / 5)  # noqa: ASYNC251
        except TimeoutError:
            yield 4

    for step in range(50):
        reply = fetch(EventSourceResponse(items(step * MS / 50)))
        assert reply.error is None
        assert reply.complete
        assert reply.body.endswith(b"data: 4\n\n")


def test_a_timeout_around_a_whole_generator(anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            with anyio.fail_after(20 * MS):
                while True:
                    yield 1
                    await anyio.sleep(MS)
        finally:
            closed.append(True)

    reply = fetch(app_of(items), backend=anyio_backend)
    assert isinstance(reply.error, TimeoutError)
    assert not reply.complete
    assert closed == [True]


def test_a_scope_around_a_yield_hides_no_error(anyio_backend: str) -> None:
    async def cancel_scope() -> AsyncIterator[Any]:
        with anyio.CancelScope():
            yield 1
            yield [object()]

    async def task_group() -> AsyncIterator[Any]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            yield 1
            yield [object()]

    for endpoint in (cancel_scope, task_group):
        endpoint.__annotations__ = {}
        reply = fetch(app_of(endpoint), backend=anyio_backend)
        assert isinstance(reply.error, ValueError)
        assert reply.body == b"data: 1\n\n"


def test_a_generator_can_be_closed_at_a_yield_inside_a_scope(
    anyio_backend: str,
) -> None:
    log = Log()

    async def items() -> AsyncIterator[EncodedEvent]:
        frame = EncodedEvent(raw_data="x" * 1000)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                while True:
                    yield frame
        finally:
            log("closed")

    reply = fetch(app_of(items), backend=anyio_backend, disconnect_after=2)
    assert reply.error is None
    assert log.lines == ["closed"]
