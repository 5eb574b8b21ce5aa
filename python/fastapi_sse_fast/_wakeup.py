"""Waking a task and ringing at a deadline, cheaply on asyncio and also on trio.

A stream's deadlines move with every event and are hardly ever reached, so moving one
must cost nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import anyio

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable


class Alarm(Protocol):
    """Calls something at a deadline that is moved far more often than it is reached.

    Attributes:
        deadline: On the loop's clock. It may be assigned to, which costs nothing, if it
            is not sooner than a period from now.
    """

    deadline: float

    def set(self, deadline: float) -> None:
        """Moves the deadline, also to one that is sooner."""

    def close(self) -> None:
        """Forgets what to call, for good: the two may keep each other."""


class AsyncioAlarm:
    """A timer that looks at the deadline only when it fires, at least once a period."""

    __slots__ = ("_fires_at", "_loop", "_period", "_ring", "_timer", "deadline")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ring: Callable[[], object],
        period: float = math.inf,
    ) -> None:
        self.deadline = math.inf
        self._loop = loop
        self._ring = ring
        self._period = period
        self._fires_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        if period < math.inf:
            self._fire_at(loop.time() + period)

    def set(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self._fires_at:
            self._fire_at(deadline)

    def close(self) -> None:
        self._ring = _nothing
        self._cancel()

    def _fire_at(self, time: float) -> None:
        self._cancel()
        # Not `timer.when()`: uvloop's timer has none when less than 0.5 ms are left.
        self._fires_at = time
        if time < math.inf:
            self._timer = self._loop.call_at(time, self._fire)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        now = self._loop.time()
        is_over = now >= self.deadline
        if is_over:
            self.deadline = math.inf
        self._fire_at(min(self.deadline, now + self._period))
        if is_over:
            self._ring()


class TrioAlarm:
    """The deadline of a cancel scope that a task of its own waits in."""

    __slots__ = ("_deadline", "_ring", "_scope")

    def __init__(self, ring: Callable[[], object]) -> None:
        self._deadline = math.inf
        self._ring = ring
        self._scope = anyio.CancelScope()

    @property
    def deadline(self) -> float:
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        # Not in the scope alone: one that is over does not come back.
        self._deadline = self._scope.deadline = deadline

    def set(self, deadline: float) -> None:
        self.deadline = deadline

    def close(self) -> None:
        self._ring = _nothing

    async def run(self) -> None:
        while True:
            self._scope = anyio.CancelScope(deadline=self._deadline)
            with self._scope:
                await anyio.sleep_forever()
            # It may have been moved since the scope was over.
            if anyio.current_time() >= self._deadline:
                self._deadline = math.inf
                self._ring()


class Sleep(Protocol):
    """Lets one task sleep until it is woken.

    Attributes:
        awake: Whether it was woken since the task set this to `False`: it is not to
            sleep then.
    """

    awake: bool

    def wake(self) -> None: ...

    def woken(self) -> Awaitable[object]:
        """Sleeps; not asked of a task that is awake."""

    def close(self) -> None: ...


class AsyncioSleep:
    """Costs one future a sleep."""

    __slots__ = ("_future", "_loop", "awake")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.awake = False
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        self.awake = True
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def woken(self) -> asyncio.Future[None]:
        future = self._future = self._loop.create_future()
        return future

    def close(self) -> None:
        self._future = None  # if cancelled, it holds all that waited for it


class TrioSleep:
    """The same on trio."""

    __slots__ = ("_event", "awake")

    def __init__(self) -> None:
        self.awake = False
        self._event = anyio.Event()

    def wake(self) -> None:
        self.awake = True
        self._event.set()

    def woken(self) -> Awaitable[object]:
        self._event = anyio.Event()
        return self._event.wait()

    def close(self) -> None:
        pass


async def done(task: asyncio.Task[Any]) -> None:
    """Returns when a task is done, as `asyncio.wait` does at five times the cost."""
    if not task.done():
        waiter = task.get_loop().create_future()

        def wake(_: object) -> None:
            if not waiter.done():
                waiter.set_result(None)

        task.add_done_callback(wake)
        try:
            await waiter
        finally:
            task.remove_done_callback(wake)


def _nothing() -> None:
    pass
