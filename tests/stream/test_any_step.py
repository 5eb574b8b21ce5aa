"""Streams that are ended at each step of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI

from fastapi_sse_fast import EventSourceResponse, StreamSummary, shutdown

from ..support.apps import KINDS, MS, Summaries, logged
from ..support.asgi import call
from ..support.internals import limits, open_streams


def steps() -> Iterator[int]:
    """Yield numbers of steps. They become sparser, because threads take many steps."""
    number = 0
    while number < 1_000_000:
        yield number
        number += 1 + number // 30


STOPS = ["cancelled", "disconnected", "shutdown"]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_can_be_stopped_at_any_step(
    kind: str,
    stop: str,
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everything that has begun is ended, once and in order."""
    limits(monkeypatch, least_duration=0)
    log: list[str] = []
    summaries = Summaries()
    ends = {"generator": "generator closed", "dependency": "dependency closed"}

    async def resource() -> AsyncIterator[None]:
        log.append("dependency")
        try:
            yield
        finally:
            log.append("dependency closed")

    async def items() -> AsyncIterator[int]:
        log.append("generator")
        try:
            for number in range(5):
                yield number
                await anyio.lowlevel.checkpoint()
        except BaseException:
            with anyio.CancelScope(shield=True):  # trio cancels every `await`.
                await anyio.lowlevel.checkpoint()
            raise
        finally:
            log.append("generator closed")

    def sync_items() -> Iterator[int]:
        log.append("generator")
        try:
            for number in range(5):
                yield number
                time.sleep(MS / 2)  # The loop runs hundreds of steps meanwhile.
        finally:
            log.append("generator closed")

    async def on_close(summary: StreamSummary) -> None:
        await anyio.lowlevel.checkpoint()
        summaries(summary)
        log.append("over")

    app = FastAPI()
    app.get(
        "/",
        response_class=EventSourceResponse.with_options(on_close=on_close),
        dependencies=[Depends(resource)],
    )(items if kind == "async" else sync_items)

    def moment() -> str:
        if "generator" not in log:
            return "before the generator"
        return "after the stream" if "over" in log else "during the stream"

    async def main(number: int) -> str:
        leave = anyio.Event()
        around = anyio.CancelScope()

        async def request() -> None:
            with around:
                await call(app, disconnect_at=leave)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request)
            for _ in range(number):
                await anyio.lowlevel.checkpoint()
            stopped = moment()
            if stop == "cancelled":
                around.cancel()
            elif stop == "disconnected":
                leave.set()
            else:
                shutdown()
        return stopped

    met = []
    for number in steps():
        log.clear()
        met.append(anyio.run(main, number, backend=anyio_backend))
        begun = [name for name in log if name in ends]
        # The order of ending is the reverse, and `on_close` comes last.
        ended = [name for name in log if name not in ends]
        over = ["over"] if "over" in log else []
        assert ended == [*(ends[name] for name in reversed(begun)), *over], number
        assert "generator" not in begun or over, number
        assert not open_streams(), number
        if met[-3:] == ["after the stream"] * 3:
            break
    assert set(met) == {"before the generator", "during the stream", "after the stream"}
    assert set(summaries.reasons) == {stop, "finished"}
    assert logged(caplog) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_can_be_cancelled_at_any_step_and_again(kind: str) -> None:
    """The test cancels the task itself, without a cancel scope."""
    log: list[str] = []
    logs = set()

    async def items() -> AsyncIterator[int]:
        log.append("begun")
        try:
            for number in range(5):
                yield number
                await asyncio.sleep(0)
        except (asyncio.CancelledError, GeneratorExit):
            await asyncio.sleep(0)  # No second cancellation may interrupt it.
            await asyncio.sleep(0)
            log.append("interrupted")
            raise
        finally:
            log.append("closed")

    def sync_items() -> Iterator[int]:
        log.append("begun")
        try:
            yield from range(5)
        finally:
            log.append("closed")

    async def main(first: int | None, second: int) -> None:
        task = asyncio.create_task(
            call(EventSourceResponse(items() if kind == "async" else sync_items()))
        )
        while first is None and not log:
            await asyncio.sleep(0)
        for pause in (first or 0, second):
            for _ in range(pause):
                await asyncio.sleep(0)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    # A thread begins after an unknown number of steps. `None` waits for that.
    for first in (*range(20), None):
        for second in range(5):
            log.clear()
            asyncio.run(main(first, second))
            logs.add(tuple(log))
            assert not open_streams()
    assert logs <= {
        (),
        ("begun", "closed"),
        ("begun", "interrupted", "closed"),
    }
    assert len(logs) == (3 if kind == "async" else 2)
