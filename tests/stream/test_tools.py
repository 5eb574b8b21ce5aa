"""Tools that inspect tasks, frames and calls while a stream is open."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from ..support.apps import MS, app_of, bursts, numbers
from ..support.asgi import Reply, call, fetch
from ..support.middlewares import PAUSES, around_send, with_pause


def look_at_all_tasks() -> str:
    """Inspect all tasks as a debugger or a signal handler does."""
    text = io.StringIO()
    for task in asyncio.all_tasks():
        text.write(repr(task))
        task.get_stack()
        task.print_stack(file=text)
        awaited: Any = task.get_coro()
        while awaited is not None:  # Follow the chain of awaits.
            text.write(repr(awaited))
            awaited = next(
                (
                    getattr(awaited, name)
                    for name in ("cr_await", "gi_yieldfrom", "ag_await")
                    if hasattr(awaited, name)
                ),
                None,
            )
    return text.getvalue()


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("debug", [True, False])
def test_all_tasks_can_be_looked_at_while_a_stream_is_open(
    pause: float | None, debug: bool
) -> None:
    texts: list[str] = []

    async def looking(send: Any, message: Any) -> None:
        texts.append(look_at_all_tasks())
        await send(message)

    async def items() -> AsyncIterator[int]:
        async for number in bursts():
            texts.append(look_at_all_tasks())
            yield number

    async def main() -> Reply:
        async def look_again_and_again() -> None:
            while True:
                texts.append(look_at_all_tasks())
                await asyncio.sleep(0)

        observer = asyncio.create_task(look_again_and_again())
        app = app_of(items, ping_interval=4 * MS)
        reply = await call(around_send(with_pause(app, pause), looking))
        observer.cancel()
        return reply

    reply = asyncio.run(main(), debug=debug)
    assert reply.complete
    assert numbers(reply.body) == list(range(12))
    assert all("in run" in text or "call(" in text for text in texts)


@contextlib.contextmanager
def profiled() -> Iterator[list[str]]:
    seen: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: seen.append(event))
    try:
        yield seen
    finally:
        sys.setprofile(before)


@contextlib.contextmanager
def traced() -> Iterator[list[str]]:
    seen: list[str] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        seen.append(event)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def monitored() -> Iterator[list[str]]:
    monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - not in every Python
    names = ["START", "RESUME", "YIELD", "RETURN", "UNWIND", "THROW"]
    events = {name: getattr(monitoring.events, f"PY_{name}") for name in names}
    events |= {"call": monitoring.events.CALL, "raise": monitoring.events.RAISE}
    tool = monitoring.PROFILER_ID
    seen: list[str] = []
    monitoring.use_tool_id(tool, "a test")
    try:
        for name, event in events.items():
            monitoring.register_callback(
                tool, event, lambda *arguments, name=name: seen.append(name)
            )
        monitoring.set_events(tool, sum(events.values()))
        yield seen
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)


TOOLS = [
    profiled,
    traced,
    pytest.param(
        monitored,
        marks=pytest.mark.skipif(
            sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12"
        ),
    ),
]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("end", ["finished", "disconnected", "error"])
@pytest.mark.parametrize("pause", [None, 0.0])
def test_streams_under_tools_that_see_every_call(
    tool: Callable[[], Any], end: str, pause: float | None
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            async for number in bursts():
                yield number
            if end == "error":
                raise LookupError
            if end == "disconnected":
                await asyncio.sleep(3600)
        finally:
            closed.append(True)

    app = with_pause(app_of(items, ping_interval=4 * MS), pause)
    leave = 3 if end == "disconnected" else None
    with tool() as seen:
        reply = fetch(app, disconnect_after=leave)
    assert "call" in seen
    found = numbers(reply.body)
    assert found == list(range(len(found)))
    assert end == "disconnected" or len(found) == 12
    assert isinstance(reply.error, LookupError) == (end == "error")
    assert reply.complete == (end == "finished")
    assert closed == [True]
