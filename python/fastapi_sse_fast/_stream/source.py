"""Where the items of a stream come from, from the first one to the close.

    RUNNING ── the source returns, or raises ─▶ CLOSING    by itself
    RUNNING ── close() ───────────────────────▶ CLOSING    the stream is over
    CLOSING ── its clean-up has run ──────────▶ CLOSED
    CLOSING ── close_timeout has passed ──────▶ ABANDONED  it may still close

A source runs in one task from its first item to its close, so that cancel scopes and
task groups can be open around a `yield`. An error moves it to CLOSING at once, but is
not reported before it is CLOSED.

What interrupts it: where it waits in an `await`, a cancellation, but never inside a
shielded cancel scope; where it stands at a `yield`, it is closed; in a thread, where it
asks AnyIO.
"""

from __future__ import annotations

import contextvars
import enum
import math
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from .._core import EventBuffer, Pump
from .cancellation import (
    as_exception,
    is_cancelled,
    is_cancelled_in_thread,
    is_only,
    uncancelled,
)
from .hooks import logger

if TYPE_CHECKING:
    from .._core import DirectSend
    from .asyncio_ import AsyncioBackend
    from .outlet import Outlet
    from .trio_ import TrioBackend


class Phase(enum.Enum):
    """Where a source is; see the table at the top of this file."""

    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"
    ABANDONED = "abandoned"


class Source:
    """What async and sync sources have in common.

    Args:
        content: The iterable of items.
        buffer: Where the items go.
        backend: What runs the stream.
        close_timeout: Seconds that it may take to close.

    Attributes:
        phase: Where it is.
        error: The first thing that went wrong in the stream.
        close_by: When it is given up, once it is closing.
    """

    __slots__ = (
        "_backend",
        "_buffer",
        "_close_timeout",
        "_content",
        "_items",
        "_outlet",
        "_room",
        "close_by",
        "error",
        "phase",
    )

    runs_beside = False
    """Whether it goes on, in a thread, while the loop does something else."""

    _outlet: Outlet | None

    def __init__(
        self,
        content: Any,
        buffer: EventBuffer,
        backend: AsyncioBackend | TrioBackend,
        close_timeout: float,
    ) -> None:
        self._content = content
        self._items: Any = None  # the iterator of `content`
        self._buffer = buffer
        self._backend = backend
        self._close_timeout = close_timeout
        self._room = backend.sleep()  # while the client has to catch up
        self.phase = Phase.RUNNING
        self.error: Exception | None = None
        self.close_by = math.inf

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.phase is Phase.CLOSED or self.phase is Phase.ABANDONED

    @property
    def name(self) -> str:
        """What the log calls it; its `repr` may fail."""
        name = getattr(self._content, "__qualname__", None)
        return name if isinstance(name, str) else type(self._content).__qualname__

    def forget(self) -> None:
        """Forget what knows it, when the stream is over."""
        self._outlet = None
        self._room.close()

    # What the outlet does with it

    def feed(self, outlet: Outlet) -> None:
        """Tell it whom to wake when something is pending, or when it is over."""
        self._outlet = outlet

    def send_with(self, direct: DirectSend | None) -> None:
        """Have it send what is pending by itself, or not any more."""

    def make_room(self) -> None:
        """Let it go on, if it waits for the client."""
        self._room.wake()

    def close(self) -> None:
        """Ask it to close, wherever it is."""
        if self.phase is Phase.RUNNING:
            self._begin_to_close()
            self.interrupt()
        self._buffer.close()
        self._room.wake()

    def interrupt(self) -> None:
        """Interrupt it where it waits."""
        raise NotImplementedError

    def interrupt_again(self) -> float:
        """Interrupt what waits since then. Return after how long to do so again."""
        return math.inf

    def abandon(self) -> None:
        """Wait for it no longer; it is interrupted once more."""
        self.phase = Phase.ABANDONED
        logger.warning(
            "%s did not close within %g seconds", self.name, self._close_timeout
        )
        self._backend.abandon_source()

    def fail(self, error: Exception) -> None:
        """Have the stream raise an error; log one that comes too late for that."""
        if self.error is None and self.phase is not Phase.ABANDONED:
            self.error = error
        else:
            self.log_unraised(error)

    def log_unraised(self, error: Exception) -> None:
        """Log an error that nothing raises."""
        logger.error("%s failed besides", self.name, exc_info=error)

    # The task of the source

    async def run(self) -> None:
        """Iterate it, and close it: all that its task does.

        Every event resumes all coroutines between this and the iterator, so there is
        only one.
        """
        try:
            try:
                await self._iterate()
            except Exception as error:
                await self._fail_and_close(error)
            except BaseException:
                await self._close()
                raise
            else:
                await self._close()
        except Exception as error:
            self.fail(error)
        except BaseException as error:
            cancelled = is_cancelled(error)
            if not (cancelled and self.phase is not Phase.RUNNING):
                message = f"{self.name} raised {type(error).__qualname__}"
                self.fail(as_exception(error, message))
            if cancelled or isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            self.end()

    def end(self) -> None:
        """Note that its task is over, which may never have begun."""
        if self.phase is not Phase.ABANDONED:
            self.phase = Phase.CLOSED
        self._wake()

    async def _fail_and_close(self, error: Exception) -> None:
        self.fail(error)
        # The outlet sees to it that the close has an end.
        self._begin_to_close()
        self._wake()
        try:
            await self._close()
        except Exception:  # is not to hide the first one
            logger.exception("closing %s failed after an error", self.name)

    def _wake(self) -> None:
        if self._outlet is not None:
            self._outlet.wake()

    def _begin_to_close(self) -> None:
        if self.phase is Phase.RUNNING:
            self.phase = Phase.CLOSING
            self.close_by = self._backend.clock() + self._close_timeout

    async def _close(self) -> None:
        self._backend.shield_source()
        try:
            await self._close_items()
        except BaseException as error:
            if not is_only(error, GeneratorExit):
                raise

    def _is_ours(self, generator: type) -> bool:
        """Return whether to close the iterator: it was made for this stream.

        Others may go on with an object that is its own iterator: a memory stream, a
        file. A generator is not shared.
        """
        return self._items is not self._content or isinstance(self._items, generator)

    async def _iterate(self) -> None:
        raise NotImplementedError

    async def _close_items(self) -> None:
        raise NotImplementedError

    async def _give_way(self) -> bool:
        """Let the loop turn or the client catch up. Return whether to go on."""
        if not self._buffer.full:
            await self._backend.turn()
        while self.phase is Phase.RUNNING and self._buffer.full:
            self._room.awake = False
            await self._room.woken()
        return self.phase is Phase.RUNNING


class AsyncSource(Source):
    """An async iterable, which the pump drives."""

    __slots__ = ("_direct", "_pump")

    _direct: DirectSend | None
    _pump: Pump | None

    def feed(self, outlet: Outlet) -> None:
        """Tell it where to send what is pending."""
        super().feed(outlet)
        self._pump = None
        self._direct = None

    def send_with(self, direct: DirectSend | None) -> None:
        """Have it send in the steps of its own task, or wake the outlet."""
        self._direct = direct
        if self._pump is not None:
            self._pump.send_with(direct)

    def interrupt(self) -> None:
        """Throw a cancellation into the iterator, if it waits for something."""
        pump = self._pump
        if pump is not None and pump.waits:
            # Where it is shielded, it is looked at again after each of its steps.
            pump.interrupting = not self._backend.interrupt_source()

    async def _iterate(self) -> None:
        assert self._outlet is not None
        self._items = aiter(self._content)
        self._pump = pump = Pump(self._items, self._buffer, self._outlet)
        pump.send_with(self._direct)
        try:
            while await pump:
                if not await self._give_way():
                    break
        finally:
            pump.send_with(None)
            self._pump = None  # which knows the outlet

    async def _give_way(self) -> bool:
        if self.phase is not Phase.RUNNING:
            return False
        try:
            return await super()._give_way()
        except anyio.get_cancelled_exc_class() as error:
            await self._hand_to_the_iterator(error)
            return True

    async def _hand_to_the_iterator(self, error: BaseException) -> None:
        """Hand the iterator what cancelled its task while it stood at a `yield`.

        A timeout or a cancel scope that is open around a `yield` (PEP 789) cancels the
        task, wherever that is. The iterator closes its scope, and goes on.

        Raises:
            BaseException: `error`, if it was not for the iterator.
        """
        try:
            with anyio.CancelScope(shield=True):
                try:
                    await uncancelled(self._backend.turn)
                except anyio.get_cancelled_exc_class() as again:
                    error = again  # by a second scope: one exception is for both
            throw = getattr(self._items, "athrow", None)
            if self.phase is not Phase.RUNNING or throw is None or self._pump is None:
                raise error
            self._pump.begin(throw(error))
        finally:
            del error  # which has this frame in its traceback: a cycle

    async def _close_items(self) -> None:
        close = getattr(self._items, "aclose", None)
        if close is not None and self._is_ours(AsyncGenerator):
            await close()


class ThreadSource(Source):
    """A sync iterable, which runs in worker threads: one batch of events, one call."""

    __slots__ = ("_raised", "_run", "_scope")

    runs_beside = True

    _scope: anyio.CancelScope

    def feed(self, outlet: Outlet) -> None:
        """Tell it whom to wake."""
        super().feed(outlet)
        self._raised: list[BaseException] = []
        # One context for all batches, a copy as in a task.
        self._run = contextvars.copy_context().run
        # `anyio.from_thread` looks at the scope of the caller; cancelling a scope does
        # not take the task away from its thread, as cancelling the task does.
        self._scope = anyio.CancelScope()

    def interrupt(self) -> None:
        """Cancel what the thread waits for in `anyio.from_thread`."""
        self._scope.cancel()

    def interrupt_again(self) -> float:
        """Cancel what the thread has begun to wait for there since then."""
        return self._backend.cancel_again(self._scope)

    async def _iterate(self) -> None:
        with self._scope:
            while await anyio.to_thread.run_sync(self._run, self._push_batch):
                if not await self._give_way():
                    break
                self._buffer.resume()
        if self._raised:
            error = self._raised.pop()
            try:
                if not (
                    self.phase is not Phase.RUNNING and is_cancelled_in_thread(error)
                ):
                    raise error
                error.__traceback__ = None  # with AnyIO's future in it: a cycle
            finally:
                del error  # which has this frame in its traceback: a cycle

    def _push_batch(self) -> bool:
        """Push until it is time to give way. Return whether items are left.

        An error is not raised through AnyIO, where it would be in a cycle.
        """
        try:
            if self.phase is not Phase.RUNNING:  # since it began to wait for a thread
                return False
            if self._items is None:
                self._items = iter(self._content)
            push = self._buffer.push
            # No `any(map(…))`: it takes a StopIteration that `push` raises for the end.
            for item in self._items:
                if push(item):
                    return True
        except BaseException as error:
            self._raised.append(error)
        return False

    async def _close_items(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None and self._is_ours(Generator):
            await anyio.to_thread.run_sync(self._run, close)
