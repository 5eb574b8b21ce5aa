"""The deadlines of a stream: their reasons, their timer, and a blocked event loop.

These are the only tests of private modules of the stream. They move with the modules.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from fastapi_sse_fast._stream.asyncio_ import AsyncioAlarm, AsyncioSleep
from fastapi_sse_fast._stream.ending import Ending
from fastapi_sse_fast._stream.limits import Limits

from ..support.apps import MS, Summaries, app_of, logged, numbers
from ..support.asgi import fetch, receive_nothing, scope

# Reasons and deadlines, with a made-up clock


LIMITS = Limits(min_duration=0.1, last_send_timeout=0.5)


def ending(seconds_to_live: float = math.inf) -> Ending:
    """Return the ending of a stream that began at 1000."""
    return Ending(1000.0, seconds_to_live=seconds_to_live, limits=LIMITS)


def test_the_first_reason_counts() -> None:
    end = ending()
    assert end.reason is None
    end.note("disconnected")
    end.note("finished")
    assert end.reason == "disconnected"


@pytest.mark.parametrize(
    ("lives", "stopped_at", "grace", "ends_at", "end_reason"),
    [
        (60.0, None, 0.0, 1060.0, "max_duration"),
        (math.inf, 1005.0, 0.0, 1005.0, "shutdown"),
        (math.inf, 1005.0, 3.0, 1008.0, "shutdown"),
        # One that has just begun may go on for `min_duration`.
        (math.inf, 1000.02, 0.0, 1000.1, "shutdown"),
        (math.inf, 1000.02, 3.0, 1003.02, "shutdown"),
        # `max_duration` is earlier.
        (4.0, 1003.0, 5.0, 1004.0, "max_duration"),
        (60.0, 1003.0, 5.0, 1008.0, "shutdown"),
    ],
)
def test_when_and_why_it_is_ended(
    lives: float,
    stopped_at: float | None,
    grace: float,
    ends_at: float,
    end_reason: str,
) -> None:
    end = ending(lives)
    if stopped_at is not None:
        end.shut_down(stopped_at, grace=grace)
        end.shut_down(stopped_at + 1, grace=grace)  # A second Ctrl+C.
    assert end.ends_at == pytest.approx(ends_at)
    assert end.end_reason == end_reason


@pytest.mark.parametrize(
    ("began_at", "stopped_at", "send_by", "reason"),
    [
        (1010.0, None, 1070.0, "send_timeout"),
        (1010.0, 1020.0, 1020.5, "shutdown"),
        # A send that begins after the end has the same time.
        (1030.0, 1020.0, 1030.5, "shutdown"),
        # A shutdown does not extend the time of a client.
        (1010.0, 1069.9, 1070.0, "shutdown"),
    ],
)
def test_how_long_a_client_may_hold_up_a_send(
    began_at: float, stopped_at: float | None, send_by: float, reason: str
) -> None:
    end = ending()
    if stopped_at is not None:
        end.shut_down(stopped_at, grace=0.0)
    assert end.send_by(began_at, 60.0) == pytest.approx(send_by)
    end.note_missed_send(send_by)
    assert end.reason == reason


# The alarm and the sleep of asyncio


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.0004, 0.0006, 0.002])
def test_a_sleep_can_end_just_before_its_deadline(seconds: float) -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    sleep = AsyncioSleep(loop)

    def look() -> float:
        sleep.wake()
        return math.inf

    alarm = AsyncioAlarm(loop)
    alarm.check_with(look)

    async def woken_early() -> None:
        for _ in range(3):
            loop.call_soon(sleep.wake)
            alarm.set(loop.time() + seconds)
            await sleep.wait()
        alarm.set(loop.time() + seconds)
        await sleep.wait()  # at the deadline
        alarm.close()

    try:
        loop.run_until_complete(asyncio.wait_for(woken_early(), 20))
    finally:
        loop.close()


def test_a_deadline_that_has_moved_on_is_noticed_when_the_timer_fires() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        looks: list[float] = []
        looked = asyncio.Event()
        deadline = loop.time() + 30 * MS

        def look() -> float:
            looks.append(loop.time())
            if loop.time() < deadline:
                return deadline
            looked.set()
            return math.inf

        alarm = AsyncioAlarm(loop)
        alarm.check_with(look)
        alarm.set(loop.time() + 5 * MS)
        alarm.set(loop.time() + 10_000)  # The timer does not change.
        await looked.wait()
        assert len(looks) >= 2
        assert looks[-1] >= deadline
        alarm.close()

    asyncio.run(main())


# A blocked event loop


def test_a_loop_that_stood_still_sees_its_sockets_before_a_deadline_is_missed() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        events: list[str] = []
        looked = asyncio.Event()

        def look() -> float:
            events.append("look")
            looked.set()
            return math.inf

        alarm = AsyncioAlarm(loop)
        alarm.check_with(look)
        alarm.set(loop.time() + 5 * MS)
        time.sleep(50 * MS)  # noqa: ASYNC251
        # Data on the sockets takes a few iterations of the loop to arrive.
        for _ in range(3):
            await asyncio.sleep(0)
        events.append("arrived")
        await looked.wait()
        assert events == ["arrived", "look"]
        alarm.close()

    asyncio.run(main())


def runs(backend: str) -> range:
    """Return how often to repeat a test. trio orders tasks at random."""
    return range(5 if backend == "trio" else 1)


@pytest.mark.parametrize("late", [0.0, 5 * MS])
def test_a_loop_that_stood_still_drops_no_client(
    late: float, anyio_backend: str
) -> None:
    """The blocked loop could not see that the client was reading."""
    send_timeout = 60 * MS

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await anyio.sleep(MS)

    summaries = Summaries()
    app = app_of(items, send_timeout=send_timeout, on_close=summaries)
    taken: list[bytes] = []

    async def main() -> None:
        waits = anyio.Event()
        goes_on = anyio.Event()

        async def send(message: Any) -> None:
            if message.get("body") and not waits.is_set():
                taken.append(message["body"])
                waits.set()
                await goes_on.wait()
            else:
                taken.append(message.get("body", b""))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, scope(), receive_nothing, send)
            await waits.wait()
            await anyio.sleep(2 * MS)  # The deadline is set by then.
            time.sleep(2 * send_timeout)  # noqa: ASYNC251
            await anyio.sleep(late)
            goes_on.set()

    for _ in runs(anyio_backend):
        taken.clear()
        summaries.clear()
        anyio.run(main, backend=anyio_backend)
        assert summaries.reasons == ["finished"]
        assert numbers(b"".join(taken)) == [0, 1, 2]


@pytest.mark.parametrize("late", [0.0, 5 * MS])
@pytest.mark.parametrize("end", ["disconnected", "max_duration"])
def test_a_loop_that_stood_still_gives_up_no_generator(
    end: str,
    late: float,
    anyio_backend: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    close_timeout = 60 * MS
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2 * MS)
                time.sleep(2 * close_timeout)  # noqa: ASYNC251
                await anyio.sleep(late)
                closed.append(True)

    for _ in runs(anyio_backend):
        closed.clear()
        app = app_of(
            items,
            max_duration=10 * MS if end == "max_duration" else None,
            close_timeout=close_timeout,
        )
        leaves = 1 if end == "disconnected" else None
        reply = fetch(app, backend=anyio_backend, disconnect_after=leaves)
        assert reply.error is None
        assert closed == [True]
        assert logged(caplog) == []
