"""The trio backend of a stream: tasks, clock and cancellation.

Under trio, what a generator waits for cannot be told from what a send waits for.
Nothing is sent within a step of the source, so the outlet is woken for every write.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from .limits import BLOCKED_AFTER, RECHECK_DELAY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Send

    from .stream import Stream


class TrioBackend:
    """The operations of trio that a stream needs."""

    __slots__ = ("_sending", "_source", "_source_closing", "alarm", "run_in_loop")

    def __init__(self) -> None:
        # trio is optional, but it is installed if we run in it.
        from trio.lowlevel import current_trio_token

        self.run_in_loop: Callable[..., object] = current_trio_token().run_sync_soon
        self._sending = anyio.CancelScope()
        self._source = anyio.CancelScope()
        # Scopes have to nest, so this one is opened before those of the source.
        self._source_closing = anyio.CancelScope()
        self.alarm = TrioAlarm()

    def clock(self) -> float:
        """Return the time of the event loop, in seconds."""
        return anyio.current_time()

    async def turn(self) -> None:
        """Let the event loop run other tasks once."""
        await anyio.lowlevel.checkpoint()

    def sleep(self) -> TrioSleep:
        """Return an object that one task can sleep on."""
        return TrioSleep()

    async def run(self, stream: Stream) -> None:
        """Run a stream until its source is closed and its tasks are done."""

        async def run_source() -> None:
            with self._source, self._source_closing:
                await stream.run_source()

        stream.start_watch_with(_do_nothing)  # The task group starts the watch.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.alarm.run, stream.check_deadlines)
            tasks.start_soon(stream.watch)
            if stream.has_source_task:
                tasks.start_soon(run_source)
            try:
                await stream.respond()
            finally:
                with anyio.CancelScope(shield=True):
                    await stream.close_source()
                tasks.cancel_scope.cancel()

    def close(self) -> None:
        """Close the alarm."""
        self.alarm.close()

    @property
    def all_are_cancelled(self) -> bool:
        """Return `False`: trio delivers a cancellation at every checkpoint."""
        return False

    def interrupt_source(self) -> bool:
        """Cancel what the source waits for. trio respects its shields.

        Returns:
            `True`, because the call does not have to be repeated.
        """
        self._source.cancel()
        return True

    def abandon_source(self) -> None:
        """Cancel what the source awaits while it closes."""
        self._source_closing.cancel()

    def shield_source(self) -> None:
        """Protect what the source awaits while it closes."""
        self._source_closing.shield = True

    def cancel_again(self, scope: anyio.CancelScope) -> float:
        """Return infinity, because trio repeats a cancellation by itself."""
        return math.inf

    def direct_send(
        self, send: Send, body_type: str, head: tuple[Send, Message]
    ) -> None:
        """Return `None`: nothing is sent within a step of the source."""

    async def deliver(self, send: Send, message: Message) -> None:
        """Send a message."""
        await send(message)

    async def finish_send(self, send: Any, waits_for: Any, error: Any) -> None:
        """Raise an error, because nothing is sent within a step of the source."""
        raise NotImplementedError

    async def interruptible(self, send: Awaitable[None]) -> None:
        """Await a send. Return early if `interrupt_send` cancels it."""
        with self._sending:
            await send
        if self._sending.cancel_called:
            return
        self._sending = anyio.CancelScope()

    def interrupt_send(self) -> None:
        """Cancel the send that the request's task awaits."""
        self._sending.cancel()


class TrioAlarm:
    """A timer like `AsyncioAlarm`, made of a task that waits in a cancel scope."""

    __slots__ = ("_fires_at", "_scope")

    def __init__(self) -> None:
        self._fires_at = math.inf
        self._scope = anyio.CancelScope()

    def set(self, time: float) -> None:
        """Fire at a time, or earlier if the alarm is already set to an earlier time."""
        if time < self._fires_at:
            # The scope alone would not do: it may have expired already.
            self._fires_at = self._scope.deadline = time

    def close(self) -> None:
        """Do nothing, because the task is cancelled."""

    async def run(self, check: Callable[[], float]) -> None:
        """Call a function at every deadline. It returns the next one."""
        while True:
            self._scope = anyio.CancelScope(deadline=self._fires_at)
            with self._scope:
                await anyio.sleep_forever()
            # The alarm may have been set again since the scope expired.
            late = anyio.current_time() - self._fires_at
            if late >= 0:
                if late > BLOCKED_AFTER:
                    await anyio.sleep(RECHECK_DELAY)
                self._fires_at = math.inf
                self.set(check())


class TrioSleep:
    """A wake-up call for one task, like `AsyncioSleep`."""

    __slots__ = ("_event", "awake")

    def __init__(self) -> None:
        self.awake = False
        self._event = anyio.Event()

    def wake(self) -> None:
        """Wake the task, or keep it awake."""
        self.awake = True
        self._event.set()

    def wait(self) -> Awaitable[object]:
        """Return an awaitable that waits for `wake`. Must not be called while awake."""
        self._event = anyio.Event()
        return self._event.wait()

    def close(self) -> None:
        """Do nothing, because an event has no references to drop."""


def _do_nothing() -> None:
    pass
