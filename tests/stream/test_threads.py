"""Sync generators, which run in worker threads."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from fastapi_sse_fast import EventSourceResponse

from ..support import releases
from ..support.apps import MS, Summaries, app_of
from ..support.asgi import Reply, call, fetch, receive_nothing, scope
from ..support.internals import nothing_for_the_collector


def test_a_sync_generator_never_runs_in_the_loops_thread(anyio_backend: str) -> None:
    threads: list[int] = []

    def items() -> Iterator[int]:
        threads.append(threading.get_ident())
        try:
            while True:
                yield 1
                threads.append(threading.get_ident())
                time.sleep(MS)
        finally:
            threads.append(threading.get_ident())

    fetch(app_of(items), backend=anyio_backend, disconnect_after=3)
    assert len(threads) > 3
    assert threading.get_ident() not in threads


def test_a_sync_generator_does_not_start_when_its_client_has_left(
    anyio_backend: str,
) -> None:
    """It waits for a thread. Its request must not wait longer than its client."""
    started = []

    def items() -> Iterator[int]:
        started.append(True)
        yield 1

    summaries = Summaries()
    app = app_of(items, on_close=summaries)

    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        left = anyio.Event()
        async with limiter, anyio.create_task_group() as tasks:
            tasks.start_soon(functools.partial(call, app, disconnect_at=left))
            await anyio.wait_all_tasks_blocked()
            left.set()
        # The only thread runs this after everything that has waited for it.
        await anyio.to_thread.run_sync(int)

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["disconnected"]
    assert summaries[0].seconds_open < 5
    assert started == []


def test_a_sync_generator_does_not_start_when_its_client_leaves_as_a_thread_is_free(
    anyio_backend: str,
) -> None:
    """The generator has got its thread but has not begun in it."""
    started = []

    def items() -> Iterator[int]:
        started.append(True)
        yield 1

    summaries = Summaries()
    app = app_of(items, error_window=0, on_close=summaries)

    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1

        async def send(message: Any) -> None:
            await anyio.wait_all_tasks_blocked()  # One waits for a thread.
            limiter.total_tokens = 2
            raise ConnectionResetError

        async with limiter:
            with anyio.fail_after(5):
                await app(scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["disconnected"]
    assert started == []


def test_a_generator_that_another_thread_runs_is_an_error(anyio_backend: str) -> None:
    entered, leave = threading.Event(), threading.Event()

    def generate() -> Iterator[int]:
        entered.set()
        leave.wait(10)
        yield 1

    generator = generate()
    other = threading.Thread(target=next, args=[generator])
    other.start()
    entered.wait(10)
    try:
        reply = fetch(EventSourceResponse(generator), backend=anyio_backend)
    finally:
        leave.set()
        other.join()
    assert isinstance(reply.error, ValueError)
    assert "already executing" in str(reply.error)
    assert not reply.complete


# Threads that wait for the event loop


def visit(app: Any, backend: str, leaves_at: threading.Event) -> Reply:
    """Make a request, and disconnect when an event is set."""

    async def main() -> Reply:
        gone = anyio.Event()

        async def leave() -> None:
            while not leaves_at.is_set():
                await anyio.sleep(MS)
            gone.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            reply = await call(app, disconnect_at=gone)
            tasks.cancel_scope.cancel()
        return reply

    return anyio.run(main, backend=backend)


async def wait_in_loop(waiting: threading.Event) -> None:
    waiting.set()
    await anyio.sleep(5)


@pytest.mark.parametrize("end", ["disconnected", "max_duration"])
@pytest.mark.parametrize("wait", ["run", "check_cancelled"])
def test_a_sync_generator_that_waits_by_the_loop_is_cancelled(
    wait: str, end: str, anyio_backend: str
) -> None:
    log: list[str] = []
    waiting = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            if wait == "run":
                anyio.from_thread.run(wait_in_loop, waiting)
            waiting.set()
            for _ in range(5000):
                anyio.from_thread.check_cancelled()
                time.sleep(MS)
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        finally:
            anyio.from_thread.run_sync(log.append, "closed")

    summaries = Summaries()
    limit = 200 * MS if end == "max_duration" else None
    app = app_of(items, on_close=summaries, max_duration=limit)
    leaves_at = waiting if end == "disconnected" else threading.Event()
    reply = visit(app, anyio_backend, leaves_at)
    assert reply.body == b"data: 1\n\n"
    assert reply.error is None
    assert not reply.complete
    assert log in (["CancelledError", "closed"], ["Cancelled", "closed"])
    assert summaries.reasons == [end]
    assert summaries[0].seconds_open < 5


def test_a_sync_generator_that_is_cancelled_leaves_no_garbage(
    anyio_backend: str,
) -> None:
    if anyio_backend == "asyncio" and not releases.IDLE_THREADS_LET_GO:
        pytest.skip("an idle thread of this AnyIO keeps what it called last")
    waiting = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        anyio.from_thread.run(wait_in_loop, waiting)

    app = app_of(items)
    visit(app, anyio_backend, waiting)  # The first one fills caches.
    waiting.clear()
    with nothing_for_the_collector():
        reply = visit(app, anyio_backend, waiting)
        assert reply.error is None
        del reply


def test_a_sync_generator_that_raises_when_it_is_cancelled(anyio_backend: str) -> None:
    waiting = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        try:
            anyio.from_thread.run(wait_in_loop, waiting)
        except BaseException:
            raise LookupError from None

    reply = visit(app_of(items), anyio_backend, waiting)
    assert isinstance(reply.error, LookupError)


@pytest.mark.parametrize("end", ["disconnected", "max_duration"])
@pytest.mark.parametrize("waits", [1, 3])
def test_a_thread_that_begins_to_wait_when_its_client_has_left_is_interrupted(
    waits: int, end: str, anyio_backend: str
) -> None:
    log: list[str] = []
    begun = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            begun.set()
            time.sleep(100 * MS)  # The stream is ending by then.
            for number in range(waits):
                # The generator continues and waits once more.
                goes_on = number < waits - 1
                with contextlib.suppress(*[BaseException] * goes_on):
                    anyio.from_thread.run(anyio.sleep, 10)
                    log.append("waited")
                time.sleep(20 * MS)
        finally:
            log.append("closed")

    summaries = Summaries()
    limit = 50 * MS if end == "max_duration" else None
    app = app_of(items, on_close=summaries, max_duration=limit)
    leaves_at = begun if end == "disconnected" else threading.Event()
    reply = visit(app, anyio_backend, leaves_at)
    assert reply.error is None
    assert log == ["closed"]
    assert summaries.reasons == [end]
    assert summaries[0].seconds_open < 5
