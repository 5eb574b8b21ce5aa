"""One stream, from the user's generator to the server's `send`.

Three parts of a stream run side by side:

* the *producer* iterates the generator, from the first item to its close in one task
  (a sync generator in worker threads, one batch after another), and pushes every item
  into the `EventBuffer`, which encodes it;
* the *writer* sleeps until something is pending and then sends all of it at once, or a
  ping when nothing came for `ping_interval`; an alarm is set to the deadline of
  whichever of the two it does;
* the *watcher* waits for the client to disconnect.

The first event wakes the writer, later ones find it awake: what has come together by
the time it runs goes out together, so there is no timer that would hold an event back.
When the buffer says "give way" the producer lets the loop turn, and waits while the
buffer is full.

A stream ends when the generator has ended, when the writer ends it (`max_duration`, the
server's shutdown), or when the client does not take it any more: gone, as the watcher
says, or frozen, as the alarm says. The last two cancel the writer. However it ends, the
generator is closed before `Stream.run` returns, unless it takes longer than
`CLOSE_TIMEOUT`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import inspect
import logging
import math
import sys
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from pydantic import BaseModel

from ._core import KEEPALIVE_COMMENT, EventBuffer, ItemEncoder
from ._shutdown import EndedAtShutdown
from ._wakeup import AsyncioAlarm, AsyncioSleep, TrioAlarm, TrioSleep, done
from .options import CloseHook, Reason, StreamOptions, StreamSummary

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # which anyio needs too

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Send

    from ._shutdown import Opening
    from ._wakeup import Alarm, Sleep

logger = logging.getLogger("fastapi_sse_fast")

T = TypeVar("T")

LOOP_SLICE = 0.001
"""Seconds that an async generator with ready events may keep the loop."""

THREAD_SLICE = 0.005
"""Seconds that a sync generator may keep its worker thread."""

SENDS_PER_TURN = 8
"""Sends after which the writer lets the loop turn, even if there is always more.

A thread can fill the buffer as fast as it is emptied.
"""

MOST_AT_ONCE = 256 * 1024
"""Bytes that are sent at once: a slow client that reads more is not frozen."""

CLOSE_TIMEOUT = 10.0
"""Seconds that a generator may take to close."""

LEAST_DURATION = 0.1
"""Seconds that a stream has to end by itself, whenever the server stops.

A short one, of a request that came just then, is not to be cut.
"""

LAST_SEND_TIMEOUT = 0.5
"""Seconds that a client may hold up the end of its stream when the server stops."""


class Head(NamedTuple):
    """What the response starts with, and under which name the server knows it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    message_type: str = "http.response"

    @property
    def message(self) -> Message:
        return {
            "type": f"{self.message_type}.start",
            "status": self.status,
            "headers": self.headers,
        }

    @property
    def body_type(self) -> str:
        return f"{self.message_type}.body"


class Stream:
    """One response body on its way.

    Args:
        source: What yields the items.
        encoder: What makes frames of them.
        head: Start of the response; sent with the first event, at the latest after
            `error_window`.
        options: How the stream behaves.
        opening: Of the request, if that could be told of the server's shutdown.
    """

    __slots__ = (
        "_alarm",
        "_body_type",
        "_buffer",
        "_bytes",
        "_cancel_producer",
        "_clock",
        "_close_by",
        "_closing",
        "_encoder",
        "_ends_at",
        "_ends_for",
        "_error",
        "_events",
        "_finished",
        "_first_event_at",
        "_given_up",
        "_head",
        "_is_async",
        "_items",
        "_opening",
        "_options",
        "_over_at",
        "_pending",
        "_raised",
        "_reason",
        "_room",
        "_run_in_loop",
        "_send_timeout",
        "_sending",
        "_sending_last",
        "_shield",
        "_source",
        "_started_at",
        "_stop_sending",
        "_stops_at",
        "_turn",
    )

    _alarm: Alarm
    _buffer: EventBuffer
    _cancel_producer: Callable[[], object]
    _clock: Callable[[], float]
    _close_by: float
    _ends_at: float
    _pending: Sleep
    _room: Sleep
    _run_in_loop: Callable[[Callable[[], object]], object]
    _shield: Callable[[], object]
    _started_at: float
    _stop_sending: Callable[[], object]
    _turn: Callable[[], Awaitable[object]]

    def __init__(
        self,
        source: AsyncIterable[Any] | Iterable[Any],
        encoder: ItemEncoder,
        head: Head,
        options: StreamOptions,
        opening: Opening | None,
    ) -> None:
        self._source = source
        self._is_async = isinstance(source, AsyncIterable)
        self._encoder = encoder
        self._head = head
        self._body_type = head.body_type
        self._options = options
        self._opening = opening
        self._items: Any = None  # the iterator of the source
        self._closing = False  # the generator
        self._given_up = False  # which does not close
        self._finished = False  # the generator, however it ended
        self._error: Exception | None = None
        self._raised: list[BaseException] = []  # in a thread
        self._sending = False  # or the writer sleeps; see `_ring`
        # To `receive` a response that has ended is a disconnect, while `send` may go on
        # in a middleware around it.
        self._sending_last = False
        self._reason: Reason | None = None
        self._over_at: float | None = None
        self._events = self._bytes = 0
        self._first_event_at: float | None = None
        self._send_timeout = options.seconds_to_send
        self._ends_for: Reason = "max_duration"  # at `_ends_at`
        self._stops_at = math.inf  # because the server does

    async def run(self, receive: Receive, send: Send) -> None:
        """Streams until the source ends, fails or the client is gone.

        Raises:
            Exception: What the source or the encoding of an item raised. All that was
                yielded before it has been sent, and the response has not been ended.
        """
        run = self._run_asyncio if _in_asyncio_task() else self._run_trio
        try:
            await run(receive, send)
        except BaseException:
            self._reason = "cancelled"
            # What cancels all tasks of a loop cancels the producer too.
            if self._error is not None and not _is_cancelled(self._error.__cause__):
                self._log_unraised(self._error)
            raise
        finally:
            self._over_at = self._clock()
            # So that nothing of the stream is left to the garbage collector.
            self._cancel_producer = self._stop_sending = _nothing
            for waiting in (self._alarm, self._pending, self._room):
                waiting.close()
            error, self._error = self._error, None
        try:
            if error is not None:
                self._reason = "error"
                raise error
        finally:
            del error  # which has this frame in its traceback: a cycle

    def summary(self) -> StreamSummary:
        """What became of the stream, once it is over."""
        first = self._first_event_at
        assert self._over_at is not None
        return StreamSummary(
            reason=self._reason or "finished",
            events=self._events,
            bytes=self._bytes,
            seconds_to_first_event=None if first is None else first - self._started_at,
            seconds_open=self._over_at - self._started_at,
        )

    def shut_down(self) -> None:
        """Ends the stream after `shutdown_grace`; called from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._run_in_loop(self._shut_down)

    def _shut_down(self) -> None:
        ends_at = max(
            self._clock() + self._options.shutdown_grace,
            self._started_at + LEAST_DURATION,
        )
        if ends_at < self._ends_at:  # not the second time
            self._ends_at = ends_at
            self._ends_for = "shutdown"
            self._pending.wake()
        # A client that does not read must not keep the generator.
        self._stops_at = self._ends_at
        drop_at = self._stops_at + LAST_SEND_TIMEOUT
        if self._sending and drop_at < self._alarm.deadline:
            self._alarm.set(drop_at)

    async def _run_asyncio(self, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self._run_in_loop = loop.call_soon_threadsafe
        self._turn = functools.partial(asyncio.sleep, 0)
        self._alarm = AsyncioAlarm(loop, self._ring, self._send_timeout)
        self._open(loop.time, AsyncioSleep(loop), AsyncioSleep(loop))
        # Plain tasks, not a task group: cancelling one throws into the generator once,
        # so that its clean-up can await without a shield.
        self._shield = _nothing
        # Not in the task of the request: resuming that one goes through all of the
        # application around us, which for every event would take as long as the rest.
        writer = loop.create_task(self._write(send))
        self._stop_sending = writer.cancel
        producer = loop.create_task(self._produce())
        self._cancel_producer = producer.cancel
        # A task that is cancelled before its first step does not run at all.
        producer.add_done_callback(self._end)
        watcher = loop.create_task(self._watch(receive))

        async def end() -> None:
            await done(writer)
            await self._close_generator()
            await done(watcher)
            if self._finished:
                await done(producer)
            if producer.done() and not producer.cancelled():
                producer.exception()  # the loop has raised it, if there is one

        try:
            await done(writer)
            if not writer.cancelled():
                writer.result()  # raises what is no `Exception`
            elif self._reason is None:
                raise asyncio.CancelledError  # as `send` did
        finally:
            writer.cancel()
            watcher.cancel()
            with anyio.CancelScope(shield=True):
                await _uncancelled(end)

    async def _run_trio(self, receive: Receive, send: Send) -> None:
        from trio.lowlevel import current_trio_token  # it is there: we run in it

        self._run_in_loop = current_trio_token().run_sync_soon
        self._turn = anyio.lowlevel.checkpoint
        alarm = self._alarm = TrioAlarm(self._ring)
        self._open(anyio.current_time, TrioSleep(), TrioSleep())
        producer = anyio.CancelScope()
        # Around the generator's own scopes from the start: scopes have to nest.
        closing = anyio.CancelScope()

        def cancel_producer() -> None:
            (closing if self._given_up else producer).cancel()

        def shield() -> None:
            closing.shield = True

        async def produce() -> None:
            with producer, closing:
                await self._produce()

        self._cancel_producer = cancel_producer
        self._shield = shield
        sending = anyio.CancelScope()
        self._stop_sending = sending.cancel
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alarm.run)
            tasks.start_soon(self._watch, receive)
            tasks.start_soon(produce)
            try:
                with sending:
                    await self._write(send)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close_generator()
                tasks.cancel_scope.cancel()

    def _open(self, clock: Callable[[], float], pending: Sleep, room: Sleep) -> None:
        self._clock = clock
        self._pending = pending
        self._room = room
        wake = pending.wake
        self._buffer = EventBuffer(
            self._encoder,
            wake if self._is_async else functools.partial(self._run_in_loop, wake),
            source=self._source,
            high_water=self._options.max_pending,
            time_slice=LOOP_SLICE if self._is_async else THREAD_SLICE,
        )
        self._started_at = clock()
        self._ends_at = self._started_at + self._options.seconds_to_live()

    # The writer

    async def _write(self, send: Send) -> None:
        try:
            with EndedAtShutdown(self, self._opening):
                await self._send_all(send)
        except OSError as error:
            # ASGI's word for a client that is gone, which is a way for a stream to end;
            # but anything around us that fails with one would say the same.
            logger.debug("send failed: %r", error)
            self._over("disconnected")
        except Exception as error:
            self._fail(error)

    async def _send_all(self, send: Send) -> None:
        options, pending = self._options, self._pending
        max_pending = options.max_pending
        ping_interval = options.seconds_to_ping
        started = False
        sends = 0  # without a sleep
        deadline = self._started_at + options.error_window
        if options.error_window == 0:
            pending.wake()
        while True:
            if not pending.awake:
                sends = 0
                ends_at = self._ends_at
                # As `min`, which takes as long as the rest of a sleep.
                self._alarm.set(deadline if deadline < ends_at else ends_at)
                await pending.woken()
            elif sends == SENDS_PER_TURN:
                sends = 0
                await self._turn()
            pending.awake = False
            # Before `take`: then `body` is all there is.
            finished = self._finished or self._given_up
            body = self._buffer.take()
            if len(body) >= max_pending:
                self._room.wake()
            now = self._clock()
            ending = now >= self._ends_at and self._error is None
            if body:
                if self._first_event_at is None:
                    self._first_event_at = now
            elif self._error is not None and not finished:
                await self._close_generator()  # nobody hears of the error before
                pending.wake()
                continue
            elif not finished and not ending:
                if now < deadline:
                    continue
                if started and not self._buffer.mid_event:
                    body = KEEPALIVE_COMMENT
                    with _logged("ping"):
                        body = options.ping_frame()
            failed = self._error is not None
            if not started:
                if failed and not body:
                    return  # nothing is sent: it can still be an error response
                await self._send_message(send, self._head.message)
                started = True
                body = options.opening_line() + body
            if finished and not failed:
                await self._send(send, body, more_body=False)
                self._over("finished")
                return
            if ending and not finished:
                await self._end_early(send, body)
                return
            if body:
                await self._send(send, body)
            if finished:
                await self._send_last_words(send)
                return
            if failed:
                pending.wake()  # to see to it that the generator is closed
            sends += 1
            deadline = self._clock() + ping_interval

    async def _send(self, send: Send, body: bytes, *, more_body: bool = True) -> None:
        last = max(len(body) - 1, 0) // MOST_AT_ONCE * MOST_AT_ONCE
        for start in range(0, last, MOST_AT_ONCE):
            part = body[start : start + MOST_AT_ONCE]
            await self._send_body(send, part, more_body=True)
        await self._send_body(send, body[last:], more_body=more_body)
        self._events = self._buffer.taken_events

    async def _send_body(self, send: Send, body: bytes, *, more_body: bool) -> None:
        self._sending_last = not more_body
        message = {"type": self._body_type, "body": body, "more_body": more_body}
        await self._send_message(send, message)
        self._bytes += len(body)

    async def _send_message(self, send: Send, message: Message) -> None:
        now = self._clock()
        if self._stops_at == math.inf:
            self._alarm.deadline = now + self._send_timeout
        else:
            drop_at = max(now, self._stops_at) + LAST_SEND_TIMEOUT
            self._alarm.set(min(now + self._send_timeout, drop_at))
        self._sending = True
        try:
            await send(message)
        finally:
            self._sending = False

    async def _end_early(self, send: Send, body: bytes) -> None:
        """Ends the response as a complete one, though the generator would go on.

        The last word is sent after the generator is closed: a server may exit then.
        """
        self._over(self._ends_for)
        if self._reason == "shutdown":
            with _logged("farewell"):
                body += self._last_word("farewell", self._options.farewell_frame())
        if body:
            await self._send(send, body)
        await self._close_generator()
        if self._error is None:
            await self._send(send, b"", more_body=False)

    async def _send_last_words(self, send: Send) -> None:
        """What `on_error` has to say about the error that ends the response."""
        hook = self._options.on_error
        if hook is None or self._error is None:
            return
        body = b""
        with _logged("on_error"):
            event = await _awaited(hook(self._error))
            if event is not None:
                frame = self._options.frame("on_error", event)
                body = self._last_word("on_error", frame)
        if body:
            await self._send(send, body)

    def _last_word(self, name: str, frame: bytes) -> bytes:
        """The frame, unless it would become a part of an event that is not complete."""
        if frame and self._buffer.mid_event:
            logger.warning(
                "%r ended inside an event: that of %s is not sent", self._source, name
            )
            return b""
        return frame

    # What stops the writer, whatever it waits for

    def _over(self, reason: Reason) -> None:
        """Notes why the stream is over, if nothing else ended it before."""
        if self._reason is None:
            self._reason = reason

    def _fail(self, error: Exception) -> None:
        """Has `run` raise an error; one that comes too late for that is logged."""
        if self._error is None and not self._given_up:
            self._error = error
        else:
            self._log_unraised(error)

    def _log_unraised(self, error: Exception) -> None:
        logger.error("%r failed besides", self._source, exc_info=error)

    def _ring(self) -> None:
        """At the deadline of what the writer does: send, or sleep."""
        if self._sending:
            stopped = self._clock() >= self._stops_at
            self._over("shutdown" if stopped else "send_timeout")
            self._stop_sending()
        else:
            self._pending.wake()

    async def _watch(self, receive: Receive) -> None:
        try:
            while True:
                message = await receive()
                if message["type"] in ("http.disconnect", "websocket.disconnect"):
                    break
        except Exception as error:
            self._fail(error)
        if self._sending_last:
            self._alarm.set(min(self._alarm.deadline, self._clock() + CLOSE_TIMEOUT))
        else:
            self._over("disconnected")
            self._stop_sending()

    # The producer

    async def _close_generator(self) -> None:
        """Has the producer close the generator, wherever it is, and waits for that."""
        if not self._closing:
            self._begin_to_close()
            self._buffer.close()
            self._room.wake()
            self._interrupt()
        # This may have been cancelled in the middle, and is called again.
        while not (self._finished or self._given_up):
            self._alarm.set(self._close_by)
            await self._pending.woken()
            if not self._finished and self._clock() >= self._close_by:
                self._given_up = True
                logger.warning(
                    "%r did not close within %g seconds", self._source, CLOSE_TIMEOUT
                )
                self._interrupt()

    def _begin_to_close(self) -> None:
        self._closing = True
        self._close_by = self._clock() + CLOSE_TIMEOUT

    def _interrupt(self) -> None:
        # A thread is interrupted only where it asks anyio; from anywhere else it comes
        # back when it is done, and closes the generator then.
        if not self._finished:
            self._cancel_producer()

    async def _produce(self) -> None:
        try:
            await self._iterate_and_close()
        except Exception as error:
            self._fail(error)
        except BaseException as error:
            cancelled = _is_cancelled(error)
            if not (cancelled and self._closing):
                self._fail(_as_exception(error, f"{self._source!r} raised {error!r}"))
            if cancelled or isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            self._end()

    def _end(self, producer: asyncio.Task[None] | None = None) -> None:
        self._finished = True
        self._pending.wake()

    async def _iterate_and_close(self) -> None:
        # One context for all batches of a thread; a copy, as in a task.
        run: Any = None if self._is_async else contextvars.copy_context().run
        try:
            if isinstance(self._source, AsyncIterable):
                # Not in a coroutine of its own: every event resumes all there are.
                self._items = aiter(self._source)
                push = self._buffer.push
                async for item in self._items:
                    if push(item) and not await self._give_way():
                        break
            else:
                await self._iterate_in_thread(self._source, run)
        except Exception as error:
            # Nobody hears of it before the generator is closed; the writer sees to it
            # that this has an end.
            self._fail(error)
            if not self._closing:
                self._begin_to_close()
            self._pending.wake()
            try:
                await self._close(run)
            except Exception:  # is not to hide the first one
                logger.exception("closing %r failed after %r", self._source, error)
            return
        except BaseException:
            await self._close(run)
            raise
        await self._close(run)

    async def _iterate_in_thread(
        self, source: Iterable[Any], run: Callable[..., Any]
    ) -> None:
        # A scope, for that is what `anyio.from_thread` looks at; and it does not take
        # the task away from the thread, as cancelling the task does.
        with anyio.CancelScope() as scope:
            self._cancel_producer = scope.cancel
            while await anyio.to_thread.run_sync(run, self._push_batch, source):
                if not await self._give_way():
                    break
        if self._raised:
            error = self._raised.pop()
            try:
                if not (self._closing and _is_cancelled_in_thread(error)):
                    raise error
                error.__traceback__ = None  # with anyio's future in it: a cycle
            finally:
                del error  # as in `run`

    async def _close(self, run: Callable[..., Any]) -> None:
        self._shield()
        close = getattr(self._items, "aclose" if self._is_async else "close", None)
        if close is None:
            return
        try:
            await (close() if self._is_async else anyio.to_thread.run_sync(run, close))
        except BaseException as error:
            if not _is_only(error, GeneratorExit):
                raise

    def _push_batch(self, source: Iterable[Any]) -> bool:
        """Pushes until it is time to give way. Returns whether items are left.

        An error is not raised through anyio, where it would be in a cycle.
        """
        try:
            if self._closing:  # while it waited for a thread
                return False
            items = self._items = iter(source) if self._items is None else self._items
            push = self._buffer.push
            # No `any(map(…))`: it takes a StopIteration that `push` raises for the end.
            for item in items:
                if push(item):
                    return True
        except BaseException as error:
            self._raised.append(error)
        return False

    async def _give_way(self) -> bool:
        """Lets the loop turn and the client catch up. Returns whether to go on."""
        while True:
            try:
                await self._turn()
                while not self._closing and self._buffer.full:
                    await self._room.woken()
                self._buffer.resume()
                if self._is_async:
                    # If it runs before the next push, the generator has awaited.
                    self._run_in_loop(self._buffer.turned)
                return not self._closing
            except anyio.get_cancelled_exc_class() as error:  # noqa: PERF203
                if not await self._was_for_the_generator(error):
                    return False

    async def _was_for_the_generator(self, error: BaseException) -> bool:
        """Hands the generator what cancelled this task while it was at a `yield`.

        A timeout or a cancel scope that is open around a `yield` (PEP 789) cancels the
        task, wherever that is. The generator closes its scope and goes on. Returns
        whether it does.

        Raises:
            BaseException: `error`, if it was not for the generator.
        """
        try:
            with anyio.CancelScope(shield=True):
                try:
                    # The writer may have been cancelled too.
                    await _uncancelled(self._turn)
                except asyncio.CancelledError as again:
                    error = again  # by a second scope: one exception is for both
            throw = getattr(self._items, "athrow", None)
            if self._closing or throw is None:
                raise error
            try:
                item = await throw(error)
            except StopAsyncIteration:
                return False
            self._buffer.push(item)
            return True
        finally:
            del error  # as in `run`


class NotAStreamError(TypeError):
    """The content of a response is no iterable of items."""


def checked_content(content: Any) -> AsyncIterable[Any] | Iterable[Any]:
    """Refuses what is one item, or text, rather than an iterable of items."""
    if isinstance(content, AsyncIterable):
        return content
    if not isinstance(content, Iterable) or isinstance(
        content, (str, bytes, bytearray, memoryview, Mapping, BaseModel)
    ):
        if inspect.iscoroutine(content):
            instead = "await it, or have its function `yield`"
        elif callable(content):
            instead = "call it, and pass what it returns"
        else:
            instead = "pass a generator, or a list of events"
        raise NotAStreamError(
            "EventSourceResponse streams an async or sync iterable of events, not "
            f"{type(content).__name__!r}: {instead}"
        )
    return content


async def send_head_only(head: Head, send: Send) -> None:
    """Answers HEAD."""
    await send(head.message)
    await send({"type": head.body_type, "body": b"", "more_body": False})


async def call_on_close(hook: CloseHook, summary: StreamSummary) -> None:
    """Calls the hook, also where the task has been cancelled; its errors are logged."""
    with anyio.CancelScope(shield=True), _logged("on_close"):
        await _awaited(hook(summary))


@contextlib.contextmanager
def _logged(name: str) -> Iterator[None]:
    """Stands around a hook, which must not hold up or break what it is called for."""
    try:
        with anyio.move_on_after(CLOSE_TIMEOUT) as time:
            yield
        if time.cancelled_caught:
            logger.warning("%s did not end within %g seconds", name, CLOSE_TIMEOUT)
    except Exception:
        logger.exception("%s failed", name)


async def _awaited(value: T | Awaitable[T]) -> T:
    return await value if isinstance(value, Awaitable) else value


async def _uncancelled(step: Callable[[], Awaitable[object]]) -> None:
    """Repeats a step until it is done, and only then is cancelled itself.

    No scope is a shield against `task.cancel()`.
    """
    cancelled = None
    while True:
        try:
            await step()
            break
        except asyncio.CancelledError as error:
            cancelled = error
    try:
        if cancelled is not None:
            raise cancelled
    finally:
        del cancelled  # as in `Stream.run`


def _as_exception(error: BaseException, message: str) -> Exception:
    exception = RuntimeError(message)
    exception.__cause__ = error
    return exception


def _is_cancelled(error: BaseException | None) -> bool:
    return _is_only(error, anyio.get_cancelled_exc_class())


def _is_cancelled_in_thread(error: BaseException) -> bool:
    """Whether an error is what `anyio.from_thread` raises in a cancelled scope."""
    return _is_cancelled(error) or _is_only(error, concurrent.futures.CancelledError)


def _is_only(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an error is of a kind, if need be in the exception groups around it.

    That is what a task group around a `yield` makes of what is thrown into it.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split(kind)[1] is None
    return isinstance(error, kind)


def _nothing() -> None:
    pass


def _in_asyncio_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
