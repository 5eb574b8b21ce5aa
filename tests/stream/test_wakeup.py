"""The alarm and the sleep of a stream under asyncio, by themselves.

The only test of a private module of the stream; it goes where that goes.
"""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from fastapi_sse_fast._stream.asyncio_ import AsyncioAlarm, AsyncioSleep

from ..support.apps import MS


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.0004, 0.0006, 0.002])
def test_a_sleep_can_end_just_before_its_deadline(seconds: float) -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    sleep = AsyncioSleep(loop)

    def look() -> float:
        sleep.wake()
        return math.inf

    alarm = AsyncioAlarm(loop, look)

    async def woken_early() -> None:
        for _ in range(3):
            loop.call_soon(sleep.wake)
            alarm.set(loop.time() + seconds)
            await sleep.woken()
        alarm.set(loop.time() + seconds)
        await sleep.woken()  # at the deadline
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

        alarm = AsyncioAlarm(loop, look)
        alarm.set(loop.time() + 5 * MS)
        alarm.set(loop.time() + 10_000)  # costs nothing, and changes nothing
        await looked.wait()
        assert len(looks) >= 2
        assert looks[-1] >= deadline
        alarm.close()

    asyncio.run(main())


def test_a_loop_that_stood_still_sees_its_sockets_before_a_deadline_is_missed() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        events: list[str] = []
        looked = asyncio.Event()

        def look() -> float:
            events.append("look")
            looked.set()
            return math.inf

        alarm = AsyncioAlarm(loop, look)
        alarm.set(loop.time() + 5 * MS)
        time.sleep(50 * MS)  # noqa: ASYNC251
        # What has come meanwhile takes a few turns of the loop to arrive.
        for _ in range(3):
            await asyncio.sleep(0)
        events.append("arrived")
        await looked.wait()
        assert events == ["arrived", "look"]
        alarm.close()

    asyncio.run(main())
