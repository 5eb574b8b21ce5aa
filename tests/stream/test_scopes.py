"""Timeouts, cancel scopes and task groups in a generator, and around it (PEP 789)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from fastapi_sse_fast import EncodedEvent, EventSourceResponse

from ..support.apps import MS, Log, app_of, numbers
from ..support.asgi import Reply, call, fetch, receive_nothing, scope, send_for_ever


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


def with_move_on_after() -> Any:
    return anyio.move_on_after(5 * MS)


@contextlib.asynccontextmanager
async def with_asyncio_timeout() -> AsyncIterator[None]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5 * MS):  # type: ignore[attr-defined, unused-ignore]
            yield


@contextlib.asynccontextmanager
async def with_task_group() -> AsyncIterator[None]:
    async def cancel_soon(scope: anyio.CancelScope) -> None:
        await anyio.sleep(5 * MS)
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_soon, tasks.cancel_scope)
        yield


@contextlib.asynccontextmanager
async def with_scope() -> AsyncIterator[None]:
    with with_move_on_after():
        yield


SCOPES = [with_scope, with_task_group, with_asyncio_timeout]


@pytest.mark.parametrize("open_scope", SCOPES)
def test_a_scope_ends_while_the_client_keeps_the_generator_waiting(
    open_scope: Callable[[], Any], anyio_backend: str
) -> None:
    if open_scope is with_asyncio_timeout and (
        anyio_backend == "trio" or sys.version_info < (3, 11)
    ):
        pytest.skip("no asyncio.timeout here")
    ended = anyio.Event()

    async def items() -> AsyncIterator[int]:
        # Twice: what the first left behind would spoil the second.
        for number in (1, 2):
            async with open_scope():
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


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new there")
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


def test_a_scope_that_encloses_the_stream_ends_it(anyio_backend: str) -> None:
    log = Log()

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.sleep(MS)
            log("closed")

    async def main() -> None:
        with anyio.CancelScope() as around:

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    around.cancel()
                await send_for_ever(message)

            await app_of(items)(scope(), receive_nothing, send)
        assert around.cancelled_caught

    anyio.run(main, backend=anyio_backend)
    assert log.lines == ["closed"]
