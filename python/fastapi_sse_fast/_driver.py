"""One stream, from the user's generator to the server's `send`.

Three parts of a stream run side by side:

* the *producer* iterates the generator, from the first item to its close in one task
  (a sync generator in worker threads, one batch after another), and pushes every item
  into the `EventBuffer`, which encodes it;
* the *writer*, the request's own task, sleeps until something is pending and then sends
  all of it at once, or a ping when nothing came for `ping_interval`;
* the *watcher* waits for the client to disconnect.

The first event wakes the writer, later ones find it awake: what has come together by
the time it runs goes out together, so there is no timer that would hold an event back.
When the buffer says "give way" the producer lets the loop turn, and waits while the
buffer is full.

However a stream ends, the generator is closed before `Stream.run` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import math
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from ._core import KEEPALIVE_COMMENT, EventBuffer, ItemEncoder

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Send

logger = logging.getLogger("fastapi_sse_fast")

MAX_PENDING = 64 * 1024
"""Bytes that may wait for the client before the producer waits too."""

LOOP_SLICE = 0.001
"""Seconds that an async generator with ready events may keep the loop."""

THREAD_SLICE = 0.005
"""Seconds that a sync generator may keep its worker thread."""

SENDS_PER_TURN = 8
"""Sends after which the writer lets the loop turn, even if more is always pending.

A thread can fill the buffer as fast as it is emptied. And anyio cancels only a task
that waits: one that is about to wake up each time it looks would never be.
"""

ERROR_WINDOW = 0.1
"""Seconds that the response head waits for the first event."""

CLOSE_TIMEOUT = 10.0
"""Seconds that a generator may take to close."""


class Head(NamedTuple):
    """What the response starts with, and under which name the server knows it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    message_type: str = "http.response"


class _Sleep(Protocol):
    """Lets one task sleep until it is woken. Waking it early is kept, not lost."""

    def wake(self) -> None: ...

    async def until(self, deadline: float) -> None:
        """Returns when woken, at the latest at `deadline` on the loop's clock."""

    def close(self) -> None: ...


class _AsyncioSleep:
    """Costs one future a sleep; its timer moves only when it fires."""

    __slots__ = ("_awake", "_deadline", "_future", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._awake = False
        self._future: asyncio.Future[None] | None = None
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        self._awake = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def until(self, deadline: float) -> None:
        if not self._awake:
            self._arm(deadline)
            self._future = self._loop.create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._awake = False

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, deadline: float) -> None:
        self._deadline = deadline
        if self._timer is not None and self._timer.when() > deadline:
            self.close()
        if self._timer is None and deadline < math.inf:
            self._timer = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._loop.time() >= self._deadline:
            self.wake()
        else:
            self._arm(self._deadline)


class _AnyioSleep:
    """The same on any backend of anyio."""

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


class Stream:
    """One response body on its way.

    Args:
        source: What yields the items.
        encoder: What makes frames of them.
        head: Start of the response; sent with the first event, or after `ERROR_WINDOW`.
        ping_interval: Seconds without an event before a ping; `math.inf` for none.
    """

    __slots__ = (
        "_buffer",
        "_clock",
        "_closing",
        "_encoder",
        "_error",
        "_finished",
        "_head",
        "_is_async",
        "_items",
        "_pending",
        "_ping_interval",
        "_room",
        "_sending",
        "_source",
    )

    _buffer: EventBuffer
    _clock: Callable[[], float]
    _pending: _Sleep
    _room: _Sleep
    _sending: anyio.CancelScope

    def __init__(
        self,
        source: AsyncIterable[Any] | Iterable[Any],
        encoder: ItemEncoder,
        head: Head,
        *,
        ping_interval: float,
    ) -> None:
        self._source = source
        self._is_async = isinstance(source, AsyncIterable)
        self._encoder = encoder
        self._head = head
        self._ping_interval = ping_interval
        self._items: Iterator[Any] | None = None
        self._closing = False
        self._finished = False
        self._error: Exception | None = None

    async def run(self, receive: Receive, send: Send) -> None:
        """Streams until the source ends, fails or the client is gone.

        Raises:
            Exception: What the source or the encoding of an item raised. Everything
            yielded
                before it has been sent, and the response has not been ended.
        """
        self._sending = anyio.CancelScope()
        if _in_asyncio_task():
            await self._run_asyncio(receive, send)
        else:
            await self._run_anyio(receive, send)
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame, through its traceback

    async def _run_asyncio(self, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._pending = _AsyncioSleep(loop)
        self._room = _AsyncioSleep(loop)
        self._open_buffer(
            functools.partial(loop.call_soon_threadsafe, self._pending.wake)
        )
        # Plain tasks, not a task group: cancelling one throws into the generator once,
        # so that its clean-up can await.
        producer = loop.create_task(self._produce())
        watcher = loop.create_task(self._watch(receive))
        try:
            await self._write(send)
        finally:
            self._stop()
            watcher.cancel()
            if self._is_async and not self._finished:
                producer.cancel()
            with anyio.CancelScope(shield=True):
                await self._join(producer, watcher)

    async def _join(self, *tasks: asyncio.Task[None]) -> None:
        _, late = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)
        if late:
            logger.warning(
                "%r did not close within %g seconds", self._source, CLOSE_TIMEOUT
            )
        for task in late:
            task.cancel()

    async def _run_anyio(self, receive: Receive, send: Send) -> None:
        self._clock = anyio.current_time
        self._pending = _AnyioSleep()
        self._room = _AnyioSleep()
        self._open_buffer(
            functools.partial(anyio.from_thread.run_sync, self._pending.wake)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, receive)
            tasks.start_soon(self._produce)
            try:
                await self._write(send)
            except Exception as error:
                self._error = error  # raised by `run`, out of the group's wrapping
            finally:
                self._stop()
                tasks.cancel_scope.cancel()

    def _open_buffer(self, wake_from_thread: Callable[[], object]) -> None:
        self._buffer = EventBuffer(
            self._encoder,
            self._pending.wake if self._is_async else wake_from_thread,
            high_water=MAX_PENDING,
            time_slice=LOOP_SLICE if self._is_async else THREAD_SLICE,
        )

    def _stop(self) -> None:
        """Makes the producer end at its next item, at the latest."""
        self._closing = True
        self._buffer.close()
        self._pending.close()
        self._room.wake()

    # The writer

    async def _write(self, send: Send) -> None:
        # A transport's error says that the client is gone: a way for a stream to end.
        with self._sending, contextlib.suppress(OSError):
            await self._send_all(send)

    async def _send_all(self, send: Send) -> None:
        message_type = self._head.message_type
        body_type = f"{message_type}.body"
        started = False
        sends = 0
        deadline = self._clock() + ERROR_WINDOW
        while True:
            finished = self._finished  # before `take`: then `body` is all there is
            body = self._buffer.take()
            self._room.wake()
            if not body and not finished:
                if self._clock() < deadline:
                    await self._pending.until(deadline)
                    continue
                if started:
                    body = KEEPALIVE_COMMENT
            failed = self._error is not None
            if not started:
                if failed and not body:
                    return  # nothing is sent: it can still be an error response
                await send(self._start_message())
                started = True
            if finished and not failed:
                await send({"type": body_type, "body": body, "more_body": False})
                return
            if body:
                await send({"type": body_type, "body": body, "more_body": True})
            if finished:
                return
            sends += 1
            if sends % SENDS_PER_TURN == 0:
                await anyio.lowlevel.checkpoint()
            deadline = self._clock() + self._ping_interval

    def _start_message(self) -> Message:
        return {
            "type": f"{self._head.message_type}.start",
            "status": self._head.status,
            "headers": self._head.headers,
        }

    # The watcher

    async def _watch(self, receive: Receive) -> None:
        """Stops the writer when the client is gone, whatever it waits for."""
        try:
            while True:
                message = await receive()
                if message["type"] in ("http.disconnect", "websocket.disconnect"):
                    break
        except Exception as error:
            self._error = error
        self._sending.cancel()

    # The producer

    async def _produce(self) -> None:
        try:
            if isinstance(self._source, AsyncIterable):
                await self._iterate(self._source)
            else:
                await self._iterate_in_thread(self._source)
        except Exception as error:
            self._error = error
        except BaseException:
            if not self._closing:
                self._error = RuntimeError("the generator cancelled its own stream")
            raise
        finally:
            self._finished = True
            self._pending.wake()

    async def _iterate(self, source: AsyncIterable[Any]) -> None:
        items = aiter(source)
        push = self._buffer.push
        try:
            async for item in items:
                if push(item) and not await self._give_way():
                    break
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                with _grace():
                    await close()

    async def _iterate_in_thread(self, source: Iterable[Any]) -> None:
        # One context for all batches, as in one thread; a copy, as in a task.
        run = contextvars.copy_context().run
        try:
            while await anyio.to_thread.run_sync(run, self._push_batch, source):
                if not await self._give_way():
                    break
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                with _grace():
                    await anyio.to_thread.run_sync(run, close)

    def _push_batch(self, source: Iterable[Any]) -> bool:
        """Pushes until it is time to give way. Returns whether items are left."""
        if self._items is None:
            self._items = iter(source)
        return any(map(self._buffer.push, self._items))

    async def _give_way(self) -> bool:
        """Lets the loop turn and the client catch up. Returns whether to go on."""
        await anyio.lowlevel.checkpoint()
        while not self._closing and self._buffer.full:
            await self._room.until(math.inf)
        return not self._closing


def _in_asyncio_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _grace() -> contextlib.AbstractContextManager[object]:
    """Time to close a generator in, also where the task has been cancelled."""
    return anyio.move_on_after(CLOSE_TIMEOUT, shield=True)
