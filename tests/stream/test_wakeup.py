"""The alarm and the sleep of a stream under asyncio, by themselves."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_sse_fast._wakeup import AsyncioAlarm, AsyncioSleep


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.0004, 0.0006, 0.002])
def test_a_sleep_can_end_just_before_its_deadline(seconds: float) -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    sleep = AsyncioSleep(loop)
    alarm = AsyncioAlarm(loop, sleep.wake)

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
