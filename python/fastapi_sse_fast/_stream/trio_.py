"""A stream on trio: its tasks, its clock, its cancellations.

What a generator waits for cannot be told from what a send waits for, so nothing is sent
in the steps of the source: the outlet is woken for every write.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from .limits import LATE, SECOND_LOOK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Send

    from .stream import Stream


class TrioBackend:
    """What a stream asks of trio."""

    __slots__ = ("_sending", "_source", "_source_closing", "alarm", "run_in_loop")

    def __init__(self) -> None:
        from trio.lowlevel import current_trio_token  # it is there: we run in it

        self.run_in_loop: Callable[..., object] = current_trio_token().run_sync_soon
        self._sending = anyio.CancelScope()
        self._source = anyio.CancelScope()
        # Around the source's own scopes from the start: scopes have to nest.
        self._source_closing = anyio.CancelScope()
        self.alarm = TrioAlarm()

    def clock(self) -> float:
        """Return the time of the loop, in seconds."""
        return anyio.current_time()

    async def turn(self) -> None:
        """Let the loop turn."""
        await anyio.lowlevel.checkpoint()

    def sleep(self) -> TrioSleep:
        """Return what one task can sleep on."""
        return TrioSleep()

    async def run(self, stream: Stream) -> None:
        """Run a stream until its source is closed and its tasks are done."""

        async def run_source() -> None:
            with self._source, self._source_closing:
                await stream.run_source()

        stream.watch_with(_nothing)  # it begins by itself
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.alarm.run, stream.look)
            tasks.start_soon(stream.watch)
            tasks.start_soon(run_source)
            try:
                await stream.respond()
            finally:
                with anyio.CancelScope(shield=True):
                    await stream.close_source()
                tasks.cancel_scope.cancel()

    def close(self) -> None:
        """Forget what to call."""
        self.alarm.close()

    def interrupt_source(self) -> bool:
        """Cancel what the source waits for. Return that it was, but for its shields."""
        self._source.cancel()
        return True

    def abandon_source(self) -> None:
        """Cancel what the source waits for to close."""
        self._source_closing.cancel()

    def shield_source(self) -> None:
        """Let the source await while it closes."""
        self._source_closing.shield = True

    def cancel_again(self, scope: anyio.CancelScope) -> float:
        """Return when to cancel again: never, as trio does so by itself."""
        return math.inf

    def direct_send(
        self, send: Send, body_type: str, head: tuple[Send, Message]
    ) -> None:
        """Return nothing: see the top of this file."""

    async def deliver(self, send: Send, message: Message) -> None:
        """Send a message."""
        await send(message)

    async def rest_of(self, send: Any, waits_for: Any, error: Any) -> None:
        """Not called: nothing is sent in a step of the source."""
        raise NotImplementedError

    async def interruptible(self, send: Awaitable[None]) -> None:
        """Await a send, and return when `interrupt_send` has cancelled it."""
        with self._sending:
            await send
        if self._sending.cancel_called:
            return
        self._sending = anyio.CancelScope()

    def interrupt_send(self) -> None:
        """Cancel the send that the task of the request is in."""
        self._sending.cancel()


class TrioAlarm:
    """Looks at deadlines: see `AsyncioAlarm`. It is a scope that a task waits in."""

    __slots__ = ("_looks_at", "_scope")

    def __init__(self) -> None:
        self._looks_at = math.inf
        self._scope = anyio.CancelScope()

    def set(self, time: float) -> None:
        """Look at that time, or before."""
        if time < self._looks_at:
            # Not in the scope alone: one that is over does not come back.
            self._looks_at = self._scope.deadline = time

    def close(self) -> None:
        """Do nothing: the task is cancelled."""

    async def run(self, look: Callable[[], float]) -> None:
        """Look at every deadline."""
        while True:
            self._scope = anyio.CancelScope(deadline=self._looks_at)
            with self._scope:
                await anyio.sleep_forever()
            # It may have been moved since the scope was over.
            late = anyio.current_time() - self._looks_at
            if late >= 0:
                if late > LATE:
                    await anyio.sleep(SECOND_LOOK)
                self._looks_at = math.inf
                self.set(look())


class TrioSleep:
    """Lets one task sleep until it is woken: see `AsyncioSleep`."""

    __slots__ = ("_event", "awake")

    def __init__(self) -> None:
        self.awake = False
        self._event = anyio.Event()

    def wake(self) -> None:
        """Wake the task, or keep it awake."""
        self.awake = True
        self._event.set()

    def woken(self) -> Awaitable[object]:
        """Return what to sleep on; not asked for while awake."""
        self._event = anyio.Event()
        return self._event.wait()

    def close(self) -> None:
        """Do nothing: events know nobody."""


def _nothing() -> None:
    pass
