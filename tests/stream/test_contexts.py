"""What is around a stream: context variables, loops and threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import Depends

from fastapi_sse_fast import EventSourceResponse, shutdown

from ..support.apps import MS, app_of, logged, numbers
from ..support.asgi import Reply, call, fetch
from ..support.eventsource import parse
from ..support.internals import forget_open_streams

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


def test_context_variables_are_visible_in_every_step(anyio_backend: str) -> None:
    async def dependency() -> AsyncIterator[None]:
        token = VARIABLE.set("set by a dependency")
        yield
        VARIABLE.reset(token)

    async def items() -> AsyncIterator[str]:
        yield VARIABLE.get()
        VARIABLE.set("set by the generator")
        await anyio.lowlevel.checkpoint()
        yield VARIABLE.get()

    def sync_items() -> Iterator[str]:
        yield VARIABLE.get()
        VARIABLE.set("set by the generator")
        time.sleep(10 * MS)  # the next item comes from another batch
        yield ""
        yield VARIABLE.get()

    for endpoint in (items, sync_items):
        app = app_of(endpoint, dependencies=[Depends(dependency)])
        events = parse(fetch(app, backend=anyio_backend).body).events
        assert events[0].data == '"set by a dependency"'
        assert events[-1].data == '"set by the generator"'


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


def test_an_eager_task_factory() -> None:
    eager = getattr(asyncio, "eager_task_factory", None)
    if eager is None:
        pytest.skip("this Python has no eager tasks")

    async def items() -> AsyncIterator[int]:
        for number in range(10):
            yield number

    async def main() -> Reply:
        asyncio.get_running_loop().set_task_factory(eager)
        return await call(app_of(items))

    reply = asyncio.run(main())
    assert numbers(reply.body) == list(range(10))
    assert reply.complete


def test_a_loop_that_ends_beside_a_stream_is_no_error_to_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`asyncio.run` cancels all of its tasks, also the stream's own."""
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
    forget_open_streams(monkeypatch)  # this one is open for ever
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
