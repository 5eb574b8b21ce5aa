"""Cancellation of the task of a request, once or repeatedly."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import KINDS, MS, Log, Summaries, app_of, logged
from ..support.asgi import (
    call,
    call_until,
    fetch,
    receive_nothing,
    scope,
    send_for_ever,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reason", ["cancelled", "error"])
def test_cancelling_all_tasks_before_the_generator_begins(
    reason: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The generator's task never runs. The request must end, but not complete.

    Code that cancels all tasks of an event loop may exclude its own task.
    """
    started: list[bool] = []

    async def items() -> AsyncIterator[int]:
        started.append(True)
        yield 1

    def sync_items() -> Iterator[int]:
        started.append(True)
        yield 1

    summaries = Summaries()
    app = app_of(
        items if kind == "async" else sync_items, error_window=0, on_close=summaries
    )
    messages: list[Any] = []
    left_out: set[Any] = set()

    async def send(message: Any) -> None:
        """Cancel at the head: the stream has created its tasks in the same step."""
        messages.append(message)
        if reason == "error":
            left_out.add(asyncio.current_task())
        for task in asyncio.all_tasks() - left_out:
            task.cancel()

    async def main() -> None:
        left_out.add(asyncio.current_task())
        request = asyncio.create_task(app(scope(), receive_nothing, send))
        done, _ = await asyncio.wait([request], timeout=5)
        assert done, "the request hangs"
        is_cancelled = reason == "cancelled"
        with pytest.raises(asyncio.CancelledError if is_cancelled else RuntimeError):
            await request
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert started == []
    assert summaries.reasons == [reason]
    assert all(message.get("more_body", True) for message in messages)
    assert logged(caplog) == []


def test_cancelling_the_request_closes_the_generator(anyio_backend: str) -> None:
    log = Log()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            log("waits")
            await anyio.sleep(3600)
        finally:
            log("closed")

    async def main() -> None:
        await call_until(lambda: log.lines, app_of(items))
        assert log.lines == ["waits", "closed"]

    anyio.run(main, backend=anyio_backend)


@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_stream_can_be_cancelled(anyio_backend: str, kind: str) -> None:
    produced = 0
    closed = []

    async def items() -> AsyncIterator[int]:
        nonlocal produced
        try:
            while True:
                yield 1
                produced += 1
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        nonlocal produced
        try:
            while True:
                yield 1
                produced += 1
        finally:
            closed.append(True)

    async def main() -> None:
        app = app_of(items if kind == "async" else sync_items)
        await call_until(lambda: produced > 1000, app)
        assert closed == [True]

    anyio.run(main, backend=anyio_backend)


class SlowToClose:
    """An application with a stream that closes slowly.

    Attributes:
        log: Names of everything that has closed.
        begun: Set when the generator continues after an event.
        closing: Set when the generator begins to close.
        app: The application. Its stream is at "/".
    """

    def __init__(self, kind: str, *, pause: float, **options: Any) -> None:
        self.log: list[str] = []
        self.begun = threading.Event()
        self.closing = threading.Event()
        self.app = FastAPI()

        async def resource() -> AsyncIterator[None]:
            try:
                yield
            finally:
                self.log.append("dependency")

        async def items() -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
                    self.begun.set()
                    await asyncio.sleep(pause)
            finally:
                self.closing.set()
                await asyncio.sleep(20 * MS)
                self.log.append("generator")

        def sync_items() -> Iterator[int]:
            try:
                while True:
                    yield 1
                    self.begun.set()
                    time.sleep(MS)
            finally:
                self.closing.set()
                time.sleep(20 * MS)
                self.log.append("generator")

        self.app.get(
            "/",
            response_class=EventSourceResponse.with_options(**options),
            dependencies=[Depends(resource)],
        )(items if kind == "async" else sync_items)


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="tasks do not tell that they are cancelled"
)
@pytest.mark.parametrize("order", ["request first", "generator first"])
def test_the_end_of_the_event_loop_interrupts_a_generator_once(order: str) -> None:
    """All tasks are cancelled then, and the loop waits for what they clean up."""
    log: list[str] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            log.append("waits")
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            log.append("interrupted")
            raise
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            log.append("cleaned up")

    async def main() -> None:
        others = asyncio.all_tasks()
        tasks = [asyncio.create_task(call(app_of(items)))]
        while not log:
            await asyncio.sleep(0)
        tasks += asyncio.all_tasks() - others - {*tasks}
        if order == "generator first":
            tasks.reverse()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(main())
    assert log == ["waits", "interrupted", "cleaned up"]


def test_cancelling_the_request_after_the_generator_has_ignored_a_cancellation() -> (
    None
):
    """Such as one of a library that cancels the task to interrupt itself."""
    log: list[str] = []

    async def items() -> AsyncIterator[int]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        yield 1
        try:
            log.append("waits")
            await anyio.sleep_forever()
        finally:
            log.append("interrupted")

    async def main() -> None:
        request = asyncio.create_task(call(app_of(items, close_timeout=60.0)))
        while not log:
            await asyncio.sleep(0)
        await asyncio.sleep(MS)
        request.cancel()
        await asyncio.wait([request], timeout=5)
        assert request.done()

    asyncio.run(main())
    assert log == ["waits", "interrupted"]


@pytest.mark.parametrize("cancels", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_cancelling_more_than_once(kind: str, cancels: int) -> None:
    slow: SlowToClose = SlowToClose(
        kind, pause=3600, on_close=lambda summary: slow.log.append(summary.reason)
    )

    async def main() -> None:
        task = asyncio.create_task(call(slow.app))
        while not slow.begun.is_set():
            await asyncio.sleep(MS)
        for _ in range(cancels):
            task.cancel()
            while not slow.closing.is_set():
                assert not task.done()
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert slow.log == ["generator", "dependency", "cancelled"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["disconnected", "max_duration"])
def test_cancelling_while_the_generator_closes(ending: str, kind: str) -> None:
    # The duration is long, because a thread can start late on a busy machine.
    slow = SlowToClose(
        kind, pause=MS, max_duration=100 * MS if ending == "max_duration" else None
    )

    async def main() -> None:
        leave = 1 if ending == "disconnected" else None
        task = asyncio.create_task(call(slow.app, disconnect_after=leave))
        while not slow.closing.is_set():
            assert not task.done()
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert slow.log == ["generator", "dependency"]


def test_an_error_while_cancelled_is_logged(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    waits = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            waits.append(True)
            await anyio.sleep(3600)
        finally:
            raise LookupError("in finally")

    anyio.run(call_until, lambda: waits, app_of(items), backend=anyio_backend)
    assert [error for _, error in logged(caplog)] == [LookupError]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_is_cancelled_is_no_error_to_log(
    kind: str, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = threading.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        goes_on.set()
        await anyio.sleep(3600)

    def sync_items() -> Iterator[int]:
        while True:
            yield 1
            goes_on.set()
            time.sleep(MS)

    app = app_of(items if kind == "async" else sync_items)
    for _ in range(5):  # The order of tasks is random on trio.
        goes_on.clear()
        anyio.run(call_until, goes_on.is_set, app, backend=anyio_backend)
    assert logged(caplog) == []


def test_a_generator_that_cancels_itself_does_not_look_finished() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    reply = fetch(app_of(items))
    assert isinstance(reply.error, RuntimeError)
    assert reply.body == b"data: 1\n\n"
    assert not reply.complete


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
