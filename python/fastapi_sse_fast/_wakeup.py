"""Waking a task and ringing at a deadline, cheaply on asyncio and also on trio.

A stream's deadlines move with every event and are hardly ever reached, so moving one
must cost nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Alarm(Protocol):
    """Calls something at a deadline that is moved far more often than it is reached."""

    def set(self, deadline: float) -> None:
        """Moves the deadline; infinity for none."""

    def close(self) -> None:
        """Forgets what to call, for good: the two may keep each other."""


class AsyncioAlarm:
    """A timer that looks at the deadline only when it fires."""

    __slots__ = ("_deadline", "_fires_at", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], object]):
        self._loop = loop
        self._ring = ring
        self._deadline = math.inf
        # Not `timer.when()`: uvloop's timer has none when less than 0.5 ms are left.
        self._fires_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < math.inf:
            if self._timer is not None and self._fires_at > deadline:
                self._cancel()
            if self._timer is None:
                self._fires_at = deadline
                self._timer = self._loop.call_at(deadline, self._fire)

    def close(self) -> None:
        self._cancel()
        self._ring = _nothing

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._loop.time() >= self._deadline:
            self._ring()
        else:
            self.set(self._deadline)


class TrioAlarm:
    """The deadline of a cancel scope that a task waits in."""

    __slots__ = ("_ring", "_scope")

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring
        self._scope = anyio.CancelScope()

    def set(self, deadline: float) -> None:
        self._scope.deadline = deadline

    def close(self) -> None:
        self._ring = _nothing

    async def run(self) -> None:
        with self._scope:
            await anyio.sleep_forever()
        self._ring()


class Sleep(Protocol):
    """Lets one task sleep until it is woken. Waking it early is kept, not lost."""

    def wake(self) -> None: ...

    async def until(self, deadline: float) -> None:
        """Returns when woken, at the latest at `deadline` on the loop's clock."""

    def close(self) -> None: ...


class AsyncioSleep:
    """Costs one future a sleep."""

    __slots__ = ("_alarm", "_awake", "_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._awake = False
        self._future: asyncio.Future[None] | None = None
        self._alarm = AsyncioAlarm(loop, self.wake)

    def wake(self) -> None:
        self._awake = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def until(self, deadline: float) -> None:
        if not self._awake:
            self._alarm.set(deadline)
            self._future = self._loop.create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._awake = False

    def close(self) -> None:
        self._alarm.close()


class TrioSleep:
    """The same on trio."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def wake(self) -> None:
        self._event.set()

    async def until(self, deadline: float) -> None:
        with anyio.CancelScope(deadline=deadline):
            await self._event.wait()
        self._event = anyio.Event()

    def close(self) -> None:
        pass


def _nothing() -> None:
    pass
