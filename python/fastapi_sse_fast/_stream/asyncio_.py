"""A stream on asyncio: its tasks, its clock, and whose a send is.

Three tasks: that of the request, where the outlet runs; one for the source; and one
that waits for the client to leave. They are plain tasks and not a task group, since
cancelling one throws into it once, so that clean-up can await without a shield.
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
from .limits import LATE, SECOND_LOOK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from starlette.types import Message, Send

    from .stream import Stream


class AsyncioBackend:
    """What a stream asks of its event loop."""

    __slots__ = (
        "_cancelled_by_others",
        "_is_over",
        "_loop",
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
        # Of all sends, whichever task begins one or goes on with it.
        self._run_send = contextvars.copy_context().run
        # How often others have cancelled the request, while we do.
        self._cancelled_by_others: int | None = None
        self.alarm = AsyncioAlarm(loop)
        self._watcher: asyncio.Task[None] | None = None
        self._is_over = False

    def clock(self) -> float:
        """Return the time of the loop, in seconds."""
        return self._loop.time()

    def turn(self) -> Awaitable[None]:
        """Let the loop turn."""
        return asyncio.sleep(0)

    def run_in_loop(self, function: Callable[[], object]) -> None:
        """Run a function in the loop; called from any thread.

        Raises:
            RuntimeError: The loop is closed.
        """
        self._loop.call_soon_threadsafe(function)

    def sleep(self) -> AsyncioSleep:
        """Return what one task can sleep on."""
        return AsyncioSleep(self._loop)

    async def run(self, stream: Stream) -> None:
        """Run a stream until its source is closed and its tasks are done."""
        loop = self._loop
        self.alarm.look_with(stream.look)
        self._source = source = loop.create_task(stream.run_source())
        # A task that is cancelled before its first step does not run at all.
        source.add_done_callback(stream.source_is_done)
        stream.watch_with(functools.partial(self._watch, stream))
        self._watch_later(stream, UNWATCHED)

        try:
            await stream.respond()
        finally:
            self._is_over = True
            stream.watch_with(None)
            if self._watcher is not None:
                self._watcher.cancel()
            if self._watcher is not None or not source.done() or stream.has_failed:
                end = functools.partial(self._end, stream, source)
                with anyio.CancelScope(shield=True):
                    await uncancelled(end)

    async def _end(self, stream: Stream, source: asyncio.Task[None]) -> None:
        await stream.close_source()
        if self._watcher is not None:
            await self._end_watch(self._watcher)
        if not stream.source_is_abandoned:
            await _done(source)
        if source.done() and not source.cancelled():
            source.exception()  # the loop has raised it, if there is one

    def _watch_later(self, stream: Stream, turns: int) -> None:
        """Wait for the client to leave, if the stream is not over by then."""
        if self._is_over or self._source is None:
            return
        if turns == 0:
            self._watch(stream)
        else:
            self._loop.call_soon(self._watch_later, stream, turns - 1)

    def _watch(self, stream: Stream) -> None:
        if self._watcher is None:
            self._watcher = self._loop.create_task(stream.watch())

    async def _end_watch(self, watcher: asyncio.Task[None]) -> None:
        """Wait for the end of the watch, whatever stands around `receive`."""
        for _ in range(3):
            if not watcher.done():
                await self.turn()
        for _ in range(WATCH_CANCELS):
            if watcher.done():
                return
            watcher.cancel()  # once more: a middleware may have caught the first
            await asyncio.wait([watcher], timeout=0.05)
        logger.warning("receive goes on although it was cancelled: it is left alone")

    def close(self) -> None:
        """Forget everything: nothing is left to the garbage collector."""
        self.alarm.close()
        self._source = self._request = None
        self._scope_around = self._watcher = None

    # The source

    def interrupt_source(self) -> bool:
        """Cancel the source's task, unless it is shielded. Return whether it was."""
        if self._source is None or _is_shielded(self._source):
            return False
        self._source.cancel()
        return True

    def abandon_source(self) -> None:
        """Cancel the source's task once more."""
        self.interrupt_source()

    def shield_source(self) -> None:
        """Do nothing: a task is cancelled once."""

    def cancel_again(self, scope: anyio.CancelScope) -> float:
        """Cancel what has begun in a cancelled scope. Return when to do so again.

        AnyIO does so only until nothing is left there, while a thread can begin to wait
        at any time.
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
        """Return what sends in a step of the source, as the request's task.

        Args:
            send: Sends parts of the body.
            body_type: Of their messages.
            head: What sends the message that starts the response, and that message.
        """
        if self._source is None or self._request is None:
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
        """Send a message, in the context of the sends."""
        waiting = self._run_send(begin_send, send, message)
        if waiting is not None:
            await self.rest_of(*waiting, None)

    @types.coroutine
    def rest_of(
        self, send: Any, waits_for: Any, error: BaseException | None
    ) -> Generator[Any, Any, None]:
        """Go on with a send that has begun, in the context of the sends."""
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
            del error  # which has this frame in its traceback: a cycle

    async def interruptible(self, send: Awaitable[None]) -> None:
        """Await a send, and return when `interrupt_send` has cancelled it."""
        try:
            await send
        except asyncio.CancelledError:
            if not self._is_ours():
                raise
        finally:
            self._is_ours()

    def interrupt_send(self) -> None:
        """Cancel the send that the task of the request is in, unless it is shielded."""
        request = self._request
        if request is not None and not _is_shielded(request, self._scope_around):
            if self._cancelled_by_others is None:
                self._cancelled_by_others = _cancelling(request)
            request.cancel()

    def _is_ours(self) -> bool:
        """Take our cancellation back. Return whether it is the only one."""
        request, others = self._request, self._cancelled_by_others
        if request is None or others is None:
            return False
        self._cancelled_by_others = None
        while _cancelling(request) > others:
            request.uncancel()
        return True


def _cancelling(task: asyncio.Task[Any]) -> int:
    return task.cancelling() if sys.version_info >= (3, 11) else 0


def _scope_of(task: asyncio.Task[Any] | None) -> Any:
    """Return the innermost cancel scope that a task is in."""
    try:
        from anyio._backends._asyncio import _task_states

        state = _task_states.get(task) if task is not None else None
        return None if state is None else state.cancel_scope
    except (ImportError, AttributeError) as error:
        _warn_of_unknown_scopes(error)
        return None


def _is_shielded(task: asyncio.Task[Any], outermost: Any = None) -> bool:
    """Return whether a task is in a cancel scope that protects it.

    AnyIO itself would know only for a scope of ours around all of the task, and when
    that one is cancelled, so is everything that the clean-up awaits.

    Args:
        task: The task.
        outermost: The scope that it was in before, which does not count.
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
        f"fastapi_sse_fast does not know this AnyIO ({error}): a shielded cancel scope "
        "does not protect a generator whose stream is over",
        RuntimeWarning,
        stacklevel=2,
    )


WATCH_CANCELS = 100
"""How often a `receive` is cancelled that goes on, twenty times a second."""

UNWATCHED = 3
"""Turns of the loop before a stream waits for its client to leave."""


class AsyncioAlarm:
    """Looks at deadlines that move far more often than they are reached.

    `look` does what is due and returns when to look again. A deadline that has moved
    on costs nothing: the timer notices when it fires.

    A loop that stood still (a blocking call, a stopped process) finds its timers due
    before it has seen what its sockets have done. It looks a second time, a moment
    later: only then is a deadline missed.
    """

    __slots__ = ("_fires_at", "_is_second_look", "_look", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._look: Callable[[], float] = _never
        self._fires_at = math.inf
        self._is_second_look = False
        self._timer: asyncio.TimerHandle | None = None

    def look_with(self, look: Callable[[], float]) -> None:
        """Set what looks, once there is something to look at."""
        self._look = look

    def set(self, time: float) -> None:
        """Look at that time, or before."""
        if time < self._fires_at:
            self._cancel()
            # Not `timer.when()`: uvloop's timer has none when less than 0.5 ms are
            # left.
            self._fires_at = time
            self._timer = self._loop.call_at(time, self._fire)

    def close(self) -> None:
        """Forget what to call, for good: the two know each other."""
        self._look = _never
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        now = self._loop.time()
        is_late = now - self._fires_at > LATE
        self._fires_at = math.inf
        if is_late and not self._is_second_look:
            self._is_second_look = True
            self.set(now + SECOND_LOOK)
            return
        self._is_second_look = False
        self.set(self._look())


class AsyncioSleep:
    """Lets one task sleep until it is woken, at the price of a future.

    Attributes:
        awake: Whether it was woken since the task set this to `False`: it is not to
            sleep then.
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

    def woken(self) -> asyncio.Future[None]:
        """Return what to sleep on; not asked for while awake."""
        future = self._future = self._loop.create_future()
        return future

    def close(self) -> None:
        """Forget the future: if cancelled, it knows all that waited for it."""
        self._future = None


async def _done(task: asyncio.Task[Any]) -> None:
    """Wait until a task is done, as `asyncio.wait` does at five times the cost."""
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
