"""Generators and middleware that swallow a cancellation. trio prevents that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from fastapi_sse_fast import shutdown

from ..support.apps import KINDS, MS, Log, Summaries, app_of, endless_of
from ..support.asgi import call, fetch, scope
from ..support.internals import limits
from ..support.middlewares import around_receive, around_send


def test_a_generator_that_swallows_its_cancellation_is_still_closed() -> None:
    log = Log()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            log("swallowed")
            yield 2
            log("went on")
        finally:
            log("closed")

    reply = fetch(app_of(items), disconnect_after=1)
    assert log.lines == ["swallowed", "closed"]
    assert reply.body == b"data: 1\n\n"


async def retried(call: Callable[[], Any]) -> Any:
    """Await a call, and repeat it if it is cancelled."""
    try:
        return await call()
    except asyncio.CancelledError:
        return await call()


async def with_limit(call: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(call(), 30)


async def in_a_task(call: Callable[[], Any]) -> Any:
    return await asyncio.create_task(call())


WRAPS = [retried, with_limit, in_a_task]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("end", ["disconnected", "send_timeout", "shutdown"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_swallowed_cancellation_of_a_send_does_not_keep_a_stream(
    kind: str, end: str, wrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, least_duration=0, last_send_timeout=20 * MS)
    closed: list[bool] = []
    frozen = anyio.Event()
    items = endless_of(kind, closed)

    async def wrapped(send: Any, message: Any) -> None:
        await wrap(lambda: send(message))

    async def main() -> None:
        leave = asyncio.Event()

        async def receive() -> Any:
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                frozen.set()
                await anyio.sleep_forever()

        summaries = Summaries()
        inner = app_of(
            items,
            on_close=summaries,
            send_timeout=20 * MS if end == "send_timeout" else 30,
        )
        app = around_send(inner, wrapped)
        task = asyncio.create_task(app(scope(), receive, send))
        await frozen.wait()
        await asyncio.sleep(10 * MS)
        if end == "disconnected":
            leave.set()
        elif end == "shutdown":
            shutdown()
        done, _ = await asyncio.wait([task], timeout=3)
        if not done:
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(10 * MS)
        assert done, "the stream does not end"
        await task
        assert summaries.reasons == [end]

    asyncio.run(main())
    assert closed == [True]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("end", ["finished", "max_duration", "send_timeout", "error"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_swallowed_cancellation_of_a_receive_does_not_keep_a_stream(
    kind: str, end: str, wrap: Any
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(20 * MS)  # The stream watches the client by then.
            if end == "error":
                raise LookupError
            while end != "finished":
                yield 2
                await asyncio.sleep(MS)
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            yield 1
            time.sleep(20 * MS)
            if end == "error":
                raise LookupError
            while end != "finished":
                yield 2
                time.sleep(MS)
        finally:
            closed.append(True)

    summaries = Summaries()
    inner = app_of(
        items if kind == "async" else sync_items,
        on_close=summaries,
        max_duration=30 * MS if end == "max_duration" else None,
        send_timeout=20 * MS if end == "send_timeout" else 30,
    )
    app = around_receive(inner, wrap)
    freeze = 1 if end == "send_timeout" else None

    async def main() -> None:
        task = asyncio.create_task(call(app, freeze_after=freeze))
        done, _ = await asyncio.wait([task], timeout=3)
        if not done:
            for other in asyncio.all_tasks() - {asyncio.current_task()}:
                other.cancel()
            await asyncio.sleep(10 * MS)
        assert done, "the stream does not end"
        reply = await task
        assert isinstance(reply.error, LookupError) == (end == "error")

    asyncio.run(main())
    assert closed == [True]
    assert summaries.reasons == [end]
