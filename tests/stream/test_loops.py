"""Event loops: several at once, with other kinds of tasks, and in debug mode."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fastapi_sse_fast import EventSourceResponse, shutdown

from ..support.apps import KINDS, MS, Summaries, app_of, logged, numbers
from ..support.asgi import Application, Reply, call, fetch
from ..support.internals import forget_open_streams
from ..support.middlewares import PAUSES, with_pause


def test_two_loops_in_two_threads() -> None:
    def items() -> Iterator[int]:
        yield from range(5000)

    app = app_of(items)
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: replies.append(fetch(app))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [numbers(reply.body) for reply in replies] == [list(range(5000))] * 4


def test_a_loop_that_ends_beside_a_stream_is_no_error_to_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`asyncio.run` cancels all tasks, including the stream's own."""
    closed: list[bool] = []
    tasks = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    async def main() -> None:
        tasks.append(asyncio.create_task(call(app_of(items))))
        await asyncio.sleep(20 * MS)

    asyncio.run(main())
    assert closed == [True]
    assert logged(caplog) == []


def test_a_loop_that_is_closed_under_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_open_streams(monkeypatch)  # This stream stays open.
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    task = loop.create_task(call(app_of(items)))
    loop.run_until_complete(asyncio.sleep(20 * MS))
    loop.close()
    shutdown()
    assert fetch(EventSourceResponse([1])).body == b"data: 1\n\n"
    assert not task.done()


# Other tasks, and the debug mode


HAS_EAGER_TASKS = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="eager tasks are new in 3.12"
)


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return all log messages, except about slow steps in debug mode."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and " took " not in record.getMessage()
    ]


def run_with(
    factory: Any, app: Application, *, debug: bool = False, **more: Any
) -> Reply:
    """Make a request in an event loop with a task factory."""

    async def main() -> Reply:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        # The request is such a task too.
        reply = await loop.create_task(call(app, **more))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return reply

    return asyncio.run(main(), debug=debug)


def eager(*args: Any, **kwargs: Any) -> Any:
    return asyncio.eager_task_factory(*args, **kwargs)  # type: ignore[attr-defined, unused-ignore]


def wrapping(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
    """Create tasks as Sentry does, around its own coroutine."""

    async def wrapped() -> Any:
        return await coroutine

    return asyncio.Task(wrapped(), loop=loop, **kwargs)


class OtherTask(asyncio.Task):  # type: ignore[type-arg]
    """A user's class of tasks."""


def subclassing(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
    return OtherTask(coroutine, loop=loop, **kwargs)


FACTORIES = [pytest.param(eager, marks=HAS_EAGER_TASKS), wrapping, subclassing]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("end", ["finished", "disconnected", "max_duration", "error"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("waits", [True, False])
def test_streams_of_other_tasks_end_as_all_do(
    factory: Any, end: str, kind: str, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    begun, closed = [], []
    endless = end in ("disconnected", "max_duration")

    async def items() -> AsyncIterator[int]:
        begun.append(True)
        try:
            number = 0
            while endless or number < 5:
                yield number
                number += 1
                if waits:
                    await asyncio.sleep(MS)
            if end == "error":
                raise LookupError
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        begun.append(True)
        try:
            number = 0
            while endless or number < 5:
                yield number
                number += 1
                if waits:
                    time.sleep(MS)
            if end == "error":
                raise LookupError
        finally:
            closed.append(True)

    summaries = Summaries()
    app = app_of(
        items if kind == "async" else sync_items,
        on_close=summaries,
        max_duration=10 * MS if end == "max_duration" else None,
    )
    leaves = 2 if end == "disconnected" else None
    reply = run_with(factory, app, disconnect_after=leaves)
    assert isinstance(reply.error, LookupError) == (end == "error")
    assert reply.complete == (end == "finished")
    found = numbers(reply.body)
    assert found == list(range(len(found)))
    assert endless or len(found) == 5
    # A generator whose thread starts too late never begins.
    assert begun == [True] or (kind, end) == ("sync", "max_duration")
    assert closed == begun
    assert summaries.reasons == [end]
    assert problems(caplog) == []


@HAS_EAGER_TASKS
@pytest.mark.parametrize("kind", KINDS)
def test_a_max_duration_that_is_over_at_once_with_eager_tasks(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    endpoint = items if kind == "async" else sync_items
    for duration in (1e-9, 1e-6, 1e-4, 1e-3):
        summaries = Summaries()
        app = app_of(endpoint, max_duration=duration, on_close=summaries)
        closed.clear()
        reply = run_with(eager, app)
        assert reply.error is None
        assert not reply.complete
        assert summaries.reasons == ["max_duration"]
        # A generator whose thread starts too late never begins.
        assert closed == [True] or (kind == "sync" and closed == [])
    assert problems(caplog) == []


@pytest.mark.parametrize("end", ["finished", "disconnected", "max_duration", "error"])
@pytest.mark.parametrize("pause", PAUSES)
def test_streams_in_a_loop_in_debug_mode(
    end: str, pause: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            for number in range(5):
                yield number
                await asyncio.sleep(MS)
            if end == "error":
                raise LookupError
            if end != "finished":
                await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    summaries = Summaries()
    limit = 50 * MS if end == "max_duration" else None
    app = app_of(items, on_close=summaries, max_duration=limit)
    leaves = 2 if end == "disconnected" else None
    reply = run_with(None, with_pause(app, pause), debug=True, disconnect_after=leaves)
    found = numbers(reply.body)
    assert found == list(range(len(found)))
    assert isinstance(reply.error, LookupError) == (end == "error")
    assert summaries.reasons == [end]
    assert closed == [True]
    assert problems(caplog) == []
