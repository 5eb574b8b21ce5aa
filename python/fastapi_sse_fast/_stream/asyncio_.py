"""The asyncio backend of a stream: tasks, clock, cancellation and sends.

A stream has three tasks. The request's task runs the outlet, another one runs the
source, and the watch waits for the client to disconnect. They are plain tasks and not
a task group. Cancelling a plain task raises `CancelledError` once, so cleanup can await
without a shield.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any

import anyio

from .._core import DirectSend, begin_send
from .cancellation import uncancelled
from .hooks import logger
from .limits import BLOCKED_AFTER, RECHECK_DELAY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from starlette.types import Message, Send

    from .stream import Stream


class AsyncioBackend:
    """The operations of asyncio that a stream needs."""

    __slots__ = (
        "_is_over",
        "_loop",
        "_other_cancels",
        "_request",
        "_run_send",
        "_scope_around",
        "_source",
        "_watcher",
        "alarm",
    )

    def __init__(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._request = asyncio.current_task(loop)
        self._scope_around = _scope_of(self._request)
        self._source: asyncio.Task[None] | None = None
        # All sends run in one context, whichever task begins or finishes them.
        self._run_send = contextvars.copy_context().run
        # The number of cancellations of the request by others, while one of ours is
        # pending.
        self._other_cancels: int | None = None
        self.alarm = AsyncioAlarm(loop)
        self._watcher: asyncio.Task[None] | None = None
        self._is_over = False

    def clock(self) -> float:
        """Return the time of the event loop, in seconds."""
        return self._loop.time()

    def turn(self) -> Awaitable[None]:
        """Let the event loop run other tasks once."""
        return asyncio.sleep(0)

    def run_in_loop(self, function: Callable[[], object]) -> None:
        """Run a function in the event loop. May be called from any thread.

        Raises:
            RuntimeError: The event loop is closed.
        """
        self._loop.call_soon_threadsafe(function)

    def sleep(self) -> AsyncioSleep:
        """Return an object that one task can sleep on."""
        return AsyncioSleep(self._loop)

    async def run(self, stream: Stream) -> None:
        """Run a stream until its source is closed and its tasks are done."""
        loop = self._loop
        self.alarm.check_with(stream.check_deadlines)
        source = None
        if stream.has_source_task:
            self._source = source = loop.create_task(stream.run_source())
            # `run_source` cannot report the end of a task that is cancelled before its
            # first step.
            source.add_done_callback(stream.source_is_done)
        stream.start_watch_with(functools.partial(self._watch, stream))
        self._schedule_watch(stream, TURNS_BEFORE_WATCH)

        try:
            await stream.respond()
        finally:
            self._is_over = True
            stream.start_watch_with(None)
            if self._watcher is not None:
                self._watcher.cancel()
            is_done = source is None or source.done()
            if self._watcher is not None or not is_done or stream.has_failed:
                end = functools.partial(self._end, stream, source)
                with anyio.CancelScope(shield=True):
                    await uncancelled(end)

    async def _end(self, stream: Stream, source: asyncio.Task[None] | None) -> None:
        await stream.close_source()
        if self._watcher is not None:
            await self._end_watch(self._watcher)
        if source is None:
            return
        if not stream.source_is_abandoned:
            await _done(source)
        if source.done() and not source.cancelled():
            source.exception()  # Mark it as retrieved; the event loop has raised it.

    def _schedule_watch(self, stream: Stream, turns: int) -> None:
        """Start the watch after some turns, if the stream is still open then."""
        if self._is_over or self._request is None:
            return
        if turns == 0:
            self._watch(stream)
        else:
            self._loop.call_soon(self._schedule_watch, stream, turns - 1)

    def _watch(self, stream: Stream) -> None:
        if self._watcher is None:
            self._watcher = self._loop.create_task(stream.watch())

    async def _end_watch(self, watcher: asyncio.Task[None]) -> None:
        """Wait for the watch to end, even if a middleware suppresses cancellation."""
        for _ in range(3):
            if not watcher.done():
                await self.turn()
        for _ in range(MAX_WATCH_CANCELS):
            if watcher.done():
                return
            watcher.cancel()  # again, because a middleware may have caught the first
            await asyncio.wait([watcher], timeout=0.05)
        logger.warning(
            "receive did not return after it was cancelled %d times, and is abandoned",
            MAX_WATCH_CANCELS,
        )

    def close(self) -> None:
        """Drop all references, so that nothing is left to the garbage collector."""
        self.alarm.close()
        self._source = self._request = None
        self._scope_around = self._watcher = None

    # The source

    def interrupt_source(self) -> bool:
        """Cancel the source's task, unless it is shielded.

        Returns:
            Whether the task was cancelled.
        """
        if self._source is None or _is_shielded(self._source):
            return False
        self._source.cancel()
        return True

    @property
    def all_are_cancelled(self) -> bool:
        """Whether others have cancelled both the request and the source.

        Python 3.10 does not tell.
        """
        tasks = (self._request, self._source)
        return all(task is not None and _cancelling(task) for task in tasks)

    def abandon_source(self) -> None:
        """Cancel the source's task once more."""
        self.interrupt_source()

    def shield_source(self) -> None:
        """Do nothing, because cancelling a task raises only once."""

    def cancel_again(self, scope: anyio.CancelScope) -> float:
        """Cancel what has begun in a scope since the scope was cancelled.

        AnyIO does this only while a task is waiting in the scope, but a worker thread
        can begin to wait at any time.

        Returns:
            Seconds until the next call is due.
        """
        deliver = getattr(scope, "_deliver_cancellation", None)
        if deliver is None:
            return math.inf
        deliver(scope)
        return 0.05

    # Sends

    def direct_send(
        self, send: Send, body_type: str, head: tuple[Send, Message]
    ) -> DirectSend | None:
        """Return an object that sends within a step of the source.

        Args:
            send: The `send` for body messages.
            body_type: The type of body messages.
            head: The `send` for the message that starts the response, and that message.

        Returns:
            The object, or `None` if the request or the source has no task.
        """
        if self._request is None:
            return None
        return DirectSend(
            send,
            head=head,
            body_type=body_type,
            run=self._run_send,
            request=self._request,
            stream=self._source,
        )

    async def deliver(self, send: Send, message: Message) -> None:
        """Send a message in the context of the sends."""
        waiting = self._run_send(begin_send, send, message)
        if waiting is not None:
            await self.finish_send(*waiting, None)

    @types.coroutine
    def finish_send(
        self, send: Any, waits_for: Any, error: BaseException | None
    ) -> Generator[Any, Any, None]:
        """Finish a send that has begun, in the context of the sends.

        Args:
            send: The iterator of the send.
            waits_for: The object that the send waits for, usually a future.
            error: An exception to raise in the send, or `None`.
        """
        run = self._run_send
        value = None
        try:
            while True:
                if error is None:
                    try:
                        value = yield waits_for
                    except BaseException as raised:
                        error = raised
                if error is not None:
                    if not hasattr(send, "throw"):
                        raise error
                    waits_for = run(send.throw, error)
                    error = None
                elif value is None:
                    waits_for = run(next, send)
                else:
                    waits_for = run(send.send, value)
        except StopIteration:
            return
        finally:
            del error  # Its traceback refers to this frame: a reference cycle.

    async def interruptible(self, send: Awaitable[None]) -> None:
        """Await a send. Return early if `interrupt_send` cancels it."""
        try:
            await send
        except asyncio.CancelledError:
            if not self._uncancel():
                raise
        finally:
            self._uncancel()

    def interrupt_send(self) -> None:
        """Cancel the send that the request's task awaits, unless it is shielded."""
        request = self._request
        if request is not None and not _is_shielded(request, self._scope_around):
            if self._other_cancels is None:
                self._other_cancels = _cancelling(request)
            request.cancel()

    def _uncancel(self) -> bool:
        """Take back our cancellation of the request's task.

        Returns:
            Whether there was one.
        """
        request, others = self._request, self._other_cancels
        if request is None or others is None:
            return False
        self._other_cancels = None
        while _cancelling(request) > others:
            request.uncancel()
        return True


def _cancelling(task: asyncio.Task[Any]) -> int:
    return task.cancelling() if sys.version_info >= (3, 11) else 0


def _scope_of(task: asyncio.Task[Any] | None) -> Any:
    """Return the innermost cancel scope of a task."""
    try:
        from anyio._backends._asyncio import _task_states

        state = _task_states.get(task) if task is not None else None
        return None if state is None else state.cancel_scope
    except (ImportError, AttributeError) as error:
        _warn_of_unknown_scopes(error)
        return None


def _is_shielded(task: asyncio.Task[Any], outermost: Any = None) -> bool:
    """Return whether a task is in a shielded cancel scope.

    AnyIO would respect the shield if we cancelled a scope around the whole task. But
    then it would also cancel everything that the cleanup awaits.

    Args:
        task: The task.
        outermost: The scope that was open before the stream. It does not count.
    """
    scope = _scope_of(task)
    try:
        while scope is not None and scope is not outermost:
            if scope.shield:
                return True
            scope = scope._parent_scope
    except AttributeError as error:
        _warn_of_unknown_scopes(error)
    return False


def _warn_of_unknown_scopes(error: Exception) -> None:
    warnings.warn(
        f"fastapi_sse_fast does not support this release of AnyIO ({error}): when a "
        "stream ends, a shielded cancel scope does not protect its generator",
        RuntimeWarning,
        stacklevel=2,
    )


MAX_WATCH_CANCELS = 100
"""How often to cancel a `receive` that does not return, 20 times per second."""

TURNS_BEFORE_WATCH = 3
"""Turns of the event loop before a stream starts its watch. Many streams are closed by
then."""


class AsyncioAlarm:
    """A timer for deadlines that are postponed far more often than they are reached.

    When it fires, it calls a function that does what is due and returns the next
    deadline. A deadline that has been postponed costs nothing until the timer fires.

    If the event loop was blocked, by a blocking call or because the process was
    suspended, timers are due before sockets have been processed. The alarm then waits
    a moment before it calls the function.
    """

    __slots__ = ("_check", "_fires_at", "_is_recheck", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._check: Callable[[], float] = _never
        self._fires_at = math.inf
        self._is_recheck = False
        self._timer: asyncio.TimerHandle | None = None

    def check_with(self, check: Callable[[], float]) -> None:
        """Set the function to call when a deadline is reached."""
        self._check = check

    def set(self, time: float) -> None:
        """Fire at a time, or earlier if the alarm is already set to an earlier time."""
        if time < self._fires_at:
            self._cancel()
            # `timer.when()` would fail: uvloop's timer does not have it when less than
            # 0.5 ms are left.
            self._fires_at = time
            self._timer = self._loop.call_at(time, self._fire)

    def close(self) -> None:
        """Cancel the timer, and drop the function to break a reference cycle."""
        self._check = _never
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        now = self._loop.time()
        is_late = now - self._fires_at > BLOCKED_AFTER
        self._fires_at = math.inf
        if is_late and not self._is_recheck:
            self._is_recheck = True
            self.set(now + RECHECK_DELAY)
            return
        self._is_recheck = False
        self.set(self._check())


class AsyncioSleep:
    """A wake-up call for one task, at the cost of one future per sleep.

    Attributes:
        awake: Whether `wake` was called since the task last set this to `False`. The
            task must not wait then.
    """

    __slots__ = ("_future", "_loop", "awake")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.awake = False
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Wake the task, or keep it awake."""
        self.awake = True
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """Return a future to await until `wake`. Must not be called while awake."""
        future = self._future = self._loop.create_future()
        return future

    def close(self) -> None:
        """Drop the future. If it was cancelled, its traceback refers to its waiters."""
        self._future = None


async def _done(task: asyncio.Task[Any]) -> None:
    """Wait until a task is done, at a fifth of the cost of `asyncio.wait`."""
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


def _never() -> float:
    return math.inf
