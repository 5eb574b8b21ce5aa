"""The source of a stream: iterates the content, from the first item to the close.

    RUNNING ── the content returns or raises ─▶ CLOSING    by itself
    RUNNING ── close() ───────────────────────▶ CLOSING    the stream ends
    CLOSING ── cleanup has run ───────────────▶ CLOSED
    CLOSING ── close_timeout has passed ──────▶ ABANDONED  it may still close later

A source runs in one task from its first item to its close, so that cancel scopes and
task groups can be open around a `yield`. An error moves it to CLOSING at once, but is
reported only when it is CLOSED.

How a source is interrupted depends on where it is: in an `await`, it is cancelled, but
never inside a shielded cancel scope; at a `yield`, it is closed; in a worker thread, it
is cancelled where it calls `anyio.from_thread`.
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
    from .._core import DirectSend, LogReader
    from .asyncio_ import AsyncioBackend
    from .outlet import Outlet
    from .trio_ import TrioBackend


class Phase(enum.Enum):
    """The phase of a source; see the table at the top of this file."""

    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"
    ABANDONED = "abandoned"


class Source:
    """The base class of async and sync sources.

    Args:
        content: The iterable of items.
        buffer: The buffer that items are pushed to.
        backend: The backend of the stream.
        close_timeout: Seconds that the content may take to close.

    Attributes:
        phase: The current phase.
        error: The first error of the stream, or `None`.
        close_by: When the source is abandoned, once it is closing.
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

    runs_in_thread = False
    """Whether the content is iterated in worker threads."""

    has_task = True
    """Whether `run` is to run in a task."""

    _outlet: Outlet | None

    def __init__(
        self,
        content: Any,
        buffer: EventBuffer | LogReader,
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
        """Whether no more items will come."""
        return self.phase is Phase.CLOSED or self.phase is Phase.ABANDONED

    @property
    def name(self) -> str:
        """The name for log messages. `repr()` is avoided, because it may raise."""
        name = getattr(self._content, "__qualname__", None)
        return name if isinstance(name, str) else type(self._content).__qualname__

    def forget(self) -> None:
        """Drop references that form cycles, when the stream is closed."""
        self._outlet = None
        self._room.close()

    # Called by the outlet

    def attach(self, outlet: Outlet) -> None:
        """Set the outlet to wake when bytes are pending or the source has ended."""
        self._outlet = outlet

    def send_with(self, direct: DirectSend | None) -> None:
        """Let the source send pending bytes by itself, or stop it from doing so."""

    def resume(self) -> None:
        """Resume the source if it waits for the client."""
        self._room.wake()

    def close(self) -> None:
        """Ask the source to close, and interrupt it."""
        if self.phase is Phase.RUNNING:
            self._start_closing()
            self.interrupt()
        self._buffer.close()
        self._room.wake()

    def interrupt(self) -> None:
        """Interrupt the content where it waits."""
        raise NotImplementedError

    def interrupt_again(self) -> float:
        """Interrupt what has begun to wait since the last interruption.

        Returns:
            Seconds until the next call is due.
        """
        return math.inf

    def abandon(self) -> None:
        """Interrupt the source once more, and stop waiting for it."""
        self.phase = Phase.ABANDONED
        logger.warning(
            "%s did not close within %g seconds, and is abandoned",
            self.name,
            self._close_timeout,
        )
        self._backend.abandon_source()

    def fail(self, error: Exception) -> None:
        """Make the stream raise an error. Log the error if it is not the first one."""
        if self.error is None and self.phase is not Phase.ABANDONED:
            self.error = error
        else:
            self.log_unraised(error)

    def log_unraised(self, error: Exception) -> None:
        """Log an error that the stream does not raise."""
        logger.error(
            "exception in %s after its stream had ended or failed",
            self.name,
            exc_info=error,
        )

    # The source's task

    async def run(self) -> None:
        """Iterate the content, then close it. This is the source's task.

        Every event resumes all coroutines between this one and the iterator, so there
        is only one more.
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
        """Note that the task has ended, or was cancelled before it began."""
        if self.phase is not Phase.ABANDONED:
            self.phase = Phase.CLOSED
        self._wake()

    async def _fail_and_close(self, error: Exception) -> None:
        self.fail(error)
        # From now on, the outlet limits the time that the close takes.
        self._start_closing()
        self._wake()
        try:
            await self._close()
        except Exception:  # It must not hide the first error.
            logger.exception("%s failed to close after an error", self.name)

    def _wake(self) -> None:
        if self._outlet is not None:
            self._outlet.wake()

    def _start_closing(self) -> None:
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

    def _owns_items(self, generator: type) -> bool:
        """Return whether the stream owns the iterator, and has to close it.

        It does not own an object that is its own iterator, such as a memory stream or a
        file, because other code may continue to read from it. It does own a generator.
        """
        return self._items is not self._content or isinstance(self._items, generator)

    async def _iterate(self) -> None:
        raise NotImplementedError

    async def _close_items(self) -> None:
        raise NotImplementedError

    async def _give_way(self) -> bool:
        """Let other tasks run, or wait for the client.

        Returns:
            Whether to continue.
        """
        if not self._buffer.full:
            await self._backend.turn()
        while self.phase is Phase.RUNNING and self._buffer.full:
            self._room.awake = False
            await self._room.wait()
        return self.phase is Phase.RUNNING


class AsyncSource(Source):
    """An async iterable, driven by a `Pump`."""

    __slots__ = ("_direct", "_pump")

    _buffer: EventBuffer
    _direct: DirectSend | None
    _pump: Pump | None

    def attach(self, outlet: Outlet) -> None:
        """Set the outlet to wake when bytes are pending or the source has ended."""
        super().attach(outlet)
        self._pump = None
        self._direct = None

    def send_with(self, direct: DirectSend | None) -> None:
        """Send within the steps of the source's task, or wake the outlet instead."""
        self._direct = direct
        if self._pump is not None:
            self._pump.send_with(direct)

    def interrupt(self) -> None:
        """Cancel the iterator if it waits for something."""
        pump = self._pump
        if pump is None or not pump.waits:
            return
        # The end of an event loop cancels all tasks. The iterator is cleaning up then,
        # and a second cancellation would interrupt that.
        is_interrupted = pump.thrown and self._backend.all_are_cancelled
        # Until it is cancelled here, the pump asks again after each of its steps: it
        # may be shielded, or go on after all.
        pump.interrupting = is_interrupted or not self._backend.interrupt_source()

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
            self._pump = None  # The pump refers to the outlet: a reference cycle.

    async def _give_way(self) -> bool:
        if self.phase is not Phase.RUNNING:
            return False
        try:
            return await super()._give_way()
        except anyio.get_cancelled_exc_class() as error:
            await self._throw_into_iterator(error)
            return True

    async def _throw_into_iterator(self, error: BaseException) -> None:
        """Throw a cancellation of the task into the iterator, which is at a `yield`.

        If a timeout or a cancel scope is open around the `yield` (PEP 789), it cancels
        the task although the iterator is not running. The iterator then closes its
        scope and continues.

        Raises:
            BaseException: The iterator cannot handle it, so `error` is raised again.
        """
        try:
            with anyio.CancelScope(shield=True):
                try:
                    await uncancelled(self._backend.turn)
                except anyio.get_cancelled_exc_class() as again:
                    error = again  # A second scope was cancelled; one error is enough.
            throw = getattr(self._items, "athrow", None)
            if self.phase is not Phase.RUNNING or throw is None or self._pump is None:
                raise error
            self._pump.begin(throw(error))
        finally:
            del error  # Its traceback refers to this frame: a reference cycle.

    async def _close_items(self) -> None:
        close = getattr(self._items, "aclose", None)
        if close is not None and self._owns_items(AsyncGenerator):
            await close()


class ThreadSource(Source):
    """A sync iterable, iterated in worker threads: one call per batch of events."""

    __slots__ = ("_raised", "_run", "_scope")

    runs_in_thread = True

    _buffer: EventBuffer
    _scope: anyio.CancelScope

    def attach(self, outlet: Outlet) -> None:
        """Set the outlet to wake when bytes are pending or the source has ended."""
        super().attach(outlet)
        self._raised: list[BaseException] = []
        # All batches run in one context, which is a copy, as in a task.
        self._run = contextvars.copy_context().run
        # `anyio.from_thread` checks the cancel scope of its caller. The scope is
        # cancelled rather than the task, because the task has to wait for its thread.
        self._scope = anyio.CancelScope()

    def interrupt(self) -> None:
        """Cancel what the thread waits for in `anyio.from_thread`."""
        self._scope.cancel()

    def interrupt_again(self) -> float:
        """Cancel what the thread has begun to wait for since the last interruption.

        Returns:
            Seconds until the next call is due.
        """
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
                # The traceback refers to AnyIO's future, which refers to the error.
                error.__traceback__ = None
            finally:
                del error  # Its traceback refers to this frame: a reference cycle.

    def _push_batch(self) -> bool:
        """Push items until the buffer asks to give way.

        An error is stored instead of raised, because AnyIO would keep it in a reference
        cycle.

        Returns:
            Whether there may be more items.
        """
        try:
            # The stream may have ended while this call waited for a thread.
            if self.phase is not Phase.RUNNING:
                return False
            if self._items is None:
                self._items = iter(self._content)
            push = self._buffer.push
            # `any(map(…))` would take a StopIteration that `push` raises for the end.
            for item in self._items:
                if push(item):
                    return True
        except BaseException as error:
            self._raised.append(error)
        return False

    async def _close_items(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None and self._owns_items(Generator):
            await anyio.to_thread.run_sync(self._run, close)
