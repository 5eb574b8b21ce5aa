"""The outlet of a stream: sends the response in the request's task.

    BEGIN ── an event is pending, error_window has passed, the source ends ──▶ FLOW
    BEGIN ── the source fails, and nothing is pending ──▶ closed: the error can still
                                                          become an error response
    FLOW ─── the source returns ──▶ END: the last bytes complete the response
    FLOW ─── the source fails ────▶ END: `on_error` is called, the response is aborted
    FLOW ─── max_duration, shutdown, end() ──▶ END: the source is closed, then
                               `farewell` completes the response, or it is aborted
    any ──── stop(): the client has disconnected or timed out ──▶ closed

The outlet mostly sleeps, because an async source sends pending bytes in the steps of
its own task, including the head with the first event. The outlet sends what no step of
the source can: a head that cannot wait for an event, pings, events from a thread, the
rest of a send that has to wait for the client, and the end. At most one send is under
way: the outlet stops the source from sending until it sleeps again.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from .._core import KEEPALIVE_COMMENT
from . import frames
from .hooks import log_errors, logger, maybe_await
from .shortcut import unwrap_starlette
from .source import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import Message, Scope, Send

    from .._core import DirectSend, EventBuffer, LogReader
    from ..options import StreamOptions
    from .asyncio_ import AsyncioBackend, AsyncioSleep
    from .ending import Ending
    from .limits import Limits
    from .source import Source
    from .trio_ import TrioBackend, TrioSleep


class Head(NamedTuple):
    """The head of a response.

    Attributes:
        status: The HTTP status code.
        headers: The headers, as in ASGI.
        message_type: The prefix of the types of the ASGI messages.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    message_type: str

    @classmethod
    def of(cls, scope: Scope, status: int, headers: list[tuple[bytes, bytes]]) -> Head:
        """Return the head of the response to a request."""
        # A rejected WebSocket handshake is an HTTP response, too.
        prefix = "websocket." if scope["type"] == "websocket" else ""
        return cls(status, headers, f"{prefix}http.response")

    @property
    def message(self) -> Message:
        """The message that starts the response."""
        return {
            "type": f"{self.message_type}.start",
            "status": self.status,
            "headers": self.headers,
        }

    @property
    def body_type(self) -> str:
        """The type of body messages."""
        return f"{self.message_type}.body"

    @property
    def without_body(self) -> tuple[Message, Message]:
        """The messages of a complete response without a body."""
        return self.message, {"type": self.body_type, "body": b"", "more_body": False}


class StopSending(Exception):  # noqa: N818 - It is not an error.
    """The client has disconnected or timed out, so nothing more is sent."""


class Outlet:
    """The part of a stream that sends the response.

    Args:
        send: The `send` of the server.
        head: The head of the response. It is sent with the first event, or after
            `error_window`.
        options: The options of the stream.
        work: The object that the outlet sleeps on while there is nothing to do.
        buffer: The pending bytes.
        source: The source that fills the buffer.
        ending: The reason and the deadline of the end.
        backend: The backend of the stream.
        limits: The limits of the stream.

    Attributes:
        aborted: Whether the stream was ended before its source, without a final event.
        extra_bytes: How many bytes of the body did not come from the source.
        has_begun: Whether the head has been sent, or is being sent.
        seconds_waiting: Seconds that sends have waited for the client.
    """

    __slots__ = (
        "_backend",
        "_buffer",
        "_closing",
        "_direct",
        "_ending",
        "_error",
        "_handed_over",
        "_head",
        "_idle_since",
        "_is_last",
        "_limits",
        "_options",
        "_ping_interval",
        "_send",
        "_send_began_at",
        "_send_by",
        "_send_part",
        "_send_timeout",
        "_sending",
        "_source",
        "_stopped",
        "_wait_until",
        "_work",
        "aborted",
        "extra_bytes",
        "has_begun",
        "seconds_waiting",
    )

    def __init__(
        self,
        send: Send,
        head: Head,
        options: StreamOptions,
        *,
        work: AsyncioSleep | TrioSleep,
        buffer: EventBuffer | LogReader,
        source: Source,
        ending: Ending,
        backend: AsyncioBackend | TrioBackend,
        limits: Limits,
    ) -> None:
        self._send = send
        self._send_part = unwrap_starlette(send)
        self._head = head
        self._options = options
        self._buffer = buffer
        self._source = source
        self._ending = ending
        self._backend = backend
        self._limits = limits
        self._work = work
        self._direct: DirectSend | None = None
        # A send that the source has begun, and the object that it waits for.
        self._handed_over: tuple[Any, Any] | None = None
        # The exception that a send of the source raised.
        self._error: BaseException | None = None
        self.has_begun = False
        self._stopped = False
        self._sending = False
        # `receive` also reports a disconnect when the response is complete, and the
        # last `send` may still be running in a middleware then.
        self._is_last = False
        self._send_began_at = 0.0
        self._send_by = math.inf
        self._closing = False
        self._wait_until = backend.clock() + options.error_window
        self._idle_since = self._wait_until
        self._ping_interval = _or_infinity(options.ping_interval)
        self._send_timeout = _or_infinity(options.send_timeout)
        self.aborted = False
        self.extra_bytes = 0
        self.seconds_waiting = 0.0

    def forget(self) -> None:
        """Drop references that form cycles, when the stream is closed."""
        self._source.send_with(None)
        self._direct = self._error = None
        self._work.close()

    # Called by the pump, within a step of the source

    def begun(self) -> None:
        """Note that the head is being sent."""
        self.has_begun = True
        self._idle_since = now = self._backend.clock()
        self._backend.alarm.set(self._next_deadline(now))

    def wake(self) -> None:
        """Wake the outlet, because there may be something to do."""
        self._work.wake()

    def hand_over(self, send: Any, waits_for: Any) -> None:
        """Take over a send of the source that has to wait."""
        self._handed_over = send, waits_for
        self._work.wake()

    def send_failed(self, error: BaseException) -> None:
        """Raise the exception of a send of the source in the request's task."""
        self._error = error
        self._work.wake()

    def interrupt_source(self) -> None:
        """Interrupt the source, if it is not shielded any more."""
        self._source.interrupt()

    # Called from elsewhere in the event loop

    def stop(self) -> None:
        """Stop sending, because the client has disconnected or timed out."""
        self._stopped = True
        if self._sending:
            self._backend.interrupt_send()
            # A middleware may catch the cancellation and continue.
            self._send_by = self._backend.clock() + self._limits.last_send_timeout
            self._backend.alarm.set(self._send_by)
        else:
            self._work.wake()

    def send_head_now(self) -> None:
        """Send the head now, without waiting for the first event."""
        self._wait_until = self._backend.clock()
        self._work.wake()

    def client_disconnected(self) -> None:
        """Stop, unless `receive` reports a disconnect because the response is complete.

        Called by the watch.
        """
        if self._is_last:
            # A middleware gets some time to return from the last send.
            self._send_by = self._backend.clock() + self._options.close_timeout
            self._backend.alarm.set(self._send_by)
        else:
            self._ending.note("disconnected")
            self.stop()

    def shut_down(self, grace: float) -> None:
        """Bring the end forward because the server is shutting down.

        Args:
            grace: Seconds that the source may continue.
        """
        now = self._backend.clock()
        self._ending.shut_down(now, grace=grace)
        self._reschedule(now)

    def end(self) -> None:
        """End the stream before its source."""
        now = self._backend.clock()
        self._ending.end(now)
        self._reschedule(now)

    def _reschedule(self, now: float) -> None:
        """Set the alarm for a deadline that has been brought forward."""
        if self._sending:
            send_by = self._ending.send_by(self._send_began_at, self._send_timeout)
            self._send_by = min(self._send_by, send_by)
        self._backend.alarm.set(self._next_deadline(now))

    def check_deadlines(self) -> float:
        """Act on deadlines that have passed, and return the next one."""
        now = self._backend.clock()
        deadline = self._next_deadline(now)
        if now < deadline:
            if self._closing and not self._sending and not self._source.is_over:
                deadline = min(deadline, now + self._source.interrupt_again())
            return deadline
        if self._sending:
            if not self._stopped:
                self._ending.note_missed_send(now)
            self.stop()
            return self._send_by
        self._work.wake()
        return math.inf

    def _next_deadline(self, now: float) -> float:
        if self._sending:
            return self._send_by
        if self._closing:
            return self._source.close_by
        if not self.has_begun:
            return min(self._wait_until, self._ending.ends_at)
        return min(self._next_ping(now), self._ending.ends_at)

    def _next_ping(self, now: float) -> float:
        if self._ping_interval == math.inf:
            return math.inf
        idle_since = max(self._idle_since, now - self._buffer.seconds_idle)
        return idle_since + self._ping_interval

    # The request's task

    async def run(self) -> None:
        """Send the response, until it is complete or aborted.

        Raises:
            StopSending: The client has disconnected or timed out.
            Exception: `send` raised it.
        """
        if await self._begin():
            await self._end(await self._flow())

    async def close_source(self) -> None:
        """Ask the source to close, and wait until it is closed or abandoned.

        If this is cancelled, it can be called again.
        """
        self._closing = True
        self._source.close()
        while not self._source.is_over:
            if self._backend.clock() >= self._source.close_by:
                self._source.abandon()
                return
            self._work.awake = False
            self._backend.alarm.set(self.check_deadlines())
            await self._work.wait()

    async def _begin(self) -> bool:
        """Wait for the first event, then send the head.

        Returns:
            Whether the head was sent.
        """
        source, buffer = self._source, self._buffer
        if not source.runs_in_thread:
            head = (self._send, self._head.message)
            self._direct = self._backend.direct_send(
                self._send_part, self._head.body_type, head
            )
        while not self.has_begun:
            if len(buffer) or source.phase is not Phase.RUNNING or self._is_due():
                break
            source.send_with(self._direct)
            await self._sleep()
            source.send_with(None)
        if self.has_begun:
            return True
        if source.error is not None and not len(buffer):
            await self.close_source()
            return False
        self.begun()
        if self._direct is not None:
            self._direct.forget_head()
        await self._send_message(self._send, self._head.message)
        if not len(buffer) and source.phase is Phase.RUNNING:
            # "Protocol servers need not flush the data generated by this event to the
            # send buffer until the first Response Body event is processed." (ASGI)
            await self._send_body(b"")
        return True

    def _is_due(self) -> bool:
        now = self._backend.clock()
        return now >= self._next_deadline(now)

    async def _flow(self) -> bytes:
        """Send pending bytes and pings until the source or the stream ends.

        Returns:
            Bytes that are still to be sent.
        """
        source, buffer = self._source, self._buffer
        while True:
            if self._handed_over is not None:
                await self._finish_handed_over()
            # If the source is over before `take`, no more bytes can come after it.
            is_over = source.is_over
            is_late = self._backend.clock() >= self._ending.ends_at
            body = buffer.take()
            if is_over and not len(buffer):
                return body
            # If the source has ended by itself, all of its events are sent, even after
            # the deadline.
            if is_late and not is_over and source.error is None:
                return body
            if not body and source.error is not None:
                return b""
            if body:
                await self._send_body(body)
                buffer.sent()
                if not buffer.full:
                    source.resume()
                if source.runs_in_thread and len(buffer):
                    # A thread can fill the buffer as fast as it is emptied here, and
                    # other tasks have to run, too.
                    await self._backend.turn()
            elif self._is_due():
                await self._ping()
            else:
                source.send_with(self._direct)
                await self._sleep()
                source.send_with(None)
                continue
            self._idle_since = self._backend.clock()

    async def _ping(self) -> None:
        if self._buffer.mid_event:
            return
        body = KEEPALIVE_COMMENT
        with log_errors("ping", self._options.close_timeout):
            body = frames.ping(self._options)
        self._buffer.shrink()
        await self._send_extra(body)

    async def _end(self, body: bytes) -> None:
        """Send the last bytes, then complete or abort the response."""
        source, ending = self._source, self._ending
        if source.error is None and source.is_over:
            await self._send_last(body)
            self._buffer.sent()
            ending.note("finished")
            return
        if source.error is None:
            ending.note(ending.end_reason)
        # Events that the source yields from now on are dropped.
        left = len(self._buffer)
        while body:
            await self._send_body(body)
            self._buffer.sent()
            body = self._buffer.take() if left > 0 else b""
            left -= len(body)
        await self.close_source()
        if source.error is not None:
            await self._send_error_event(source.error)
            return
        body = b""
        with log_errors("farewell", self._options.close_timeout):
            body = self._unless_mid_event("farewell", frames.farewell(self._options))
        if not body:
            # The response must not look complete.
            self.aborted = True
            return
        await self._send_last(body)
        self.extra_bytes += len(body)

    async def _send_error_event(self, error: Exception) -> None:
        """Send the event that `on_error` returns."""
        hook = self._options.on_error
        if hook is None or self._stopped:  # If stopped, the client cannot get it.
            return
        body = b""
        with log_errors("on_error", self._options.close_timeout):
            event = await maybe_await(hook(error))
            if event is not None:
                frame = frames.from_hook("on_error", event, self._options)
                body = self._unless_mid_event("on_error", frame)
        if body:
            await self._send_extra(body)

    def _unless_mid_event(self, name: str, frame: bytes) -> bytes:
        """Return a frame, unless it would become part of an incomplete event."""
        if frame and self._buffer.mid_event:
            logger.warning(
                "%s ended inside an event, so the event of %s is not sent",
                self._source.name,
                name,
            )
            return b""
        return frame

    # One send

    async def _send_body(self, body: bytes) -> None:
        await self._send_message(
            self._send_part,
            {"type": self._head.body_type, "body": body, "more_body": True},
        )

    async def _send_extra(self, body: bytes) -> None:
        await self._send_body(body)
        self.extra_bytes += len(body)

    async def _send_last(self, body: bytes) -> None:
        self._is_last = True
        await self._send_message(
            self._send_part,
            {"type": self._head.body_type, "body": body, "more_body": False},
        )

    async def _send_message(self, send: Send, message: Message) -> None:
        if self._stopped:
            raise StopSending
        await self._finish(self._backend.deliver(send, message))

    async def _finish_handed_over(self, error: BaseException | None = None) -> None:
        assert self._handed_over is not None
        send, waits_for = self._handed_over
        self._handed_over = None
        await self._finish(self._backend.finish_send(send, waits_for, error))
        self._buffer.sent()
        if not self._buffer.full:
            self._source.resume()

    async def _drop_handed_over(self) -> None:
        """Cancel a send of the source, because nothing more is sent."""
        if self._handed_over is not None:
            cancelled = anyio.get_cancelled_exc_class()
            with contextlib.suppress(cancelled):
                await self._finish_handed_over(cancelled())

    async def _finish(self, send: Awaitable[None]) -> None:
        """Await a send, with a deadline."""
        self._send_began_at = self._backend.clock()
        self._send_by = self._ending.send_by(self._send_began_at, self._send_timeout)
        if self._stopped:
            self._send_by = self._send_began_at + self._limits.last_send_timeout
        self._backend.alarm.set(self._send_by)
        self._sending = True
        # The clock of uvloop has only a resolution of milliseconds.
        waits_since = time.perf_counter()
        try:
            await self._backend.interruptible(send)
        finally:
            self._sending = False
            self.seconds_waiting += time.perf_counter() - waits_since
        if self._stopped:
            raise StopSending

    async def _sleep(self) -> None:
        """Sleep until there is something to do, or a deadline is reached."""
        if not self._work.awake:
            now = self._backend.clock()
            self._backend.alarm.set(self._next_deadline(now))
            try:
                await self._work.wait()
            except anyio.get_cancelled_exc_class() as cancelled:
                if self._handed_over is not None:
                    await self._finish_handed_over(cancelled)
                raise
        self._work.awake = False
        if self._stopped:
            await self._drop_handed_over()
            raise StopSending
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # Its traceback refers to this frame: a reference cycle.


def _or_infinity(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
