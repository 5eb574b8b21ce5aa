"""The way to the client, in the task of the request.

    BEGIN ── an event, the end of the error window, or of the source ─▶ FLOW
    BEGIN ── the source has failed, and nothing is pending ───────────▶ over: the error
                                                         can still become a response
    FLOW ─── the source has returned ─▶ END: the last bytes complete the response
    FLOW ─── the source has failed ───▶ END: last words, and the response breaks off
    FLOW ─── max_duration, shutdown, end() ▶ END: the source is closed, and the farewell
                         completes the response; without one, the response breaks off
    any ──── stop(): the client is gone, or does not take what it is sent ─▶ over

The outlet mostly sleeps: an async source sends what is pending by itself, the head with
the first event included, in the steps of its own task. The outlet is woken for what no
step of the source sends: a head that cannot wait for an event, pings, what comes from a
thread, the rest of a send that has to wait for the client, and the end. At most one
send is under way: before the outlet sends, it tells the source not to, until it sleeps
again.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from .._core import KEEPALIVE_COMMENT
from . import frames
from .hooks import awaited, logged, logger
from .shortcut import past_starlette
from .source import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import Message, Scope, Send

    from .._core import DirectSend, EventBuffer
    from ..options import StreamOptions
    from .asyncio_ import AsyncioBackend, AsyncioSleep
    from .ending import Ending
    from .limits import Limits
    from .source import Source
    from .trio_ import TrioBackend, TrioSleep


class Head(NamedTuple):
    """What the response starts with, and under which name the server knows it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    message_type: str

    @classmethod
    def of(cls, scope: Scope, status: int, headers: list[tuple[bytes, bytes]]) -> Head:
        """Return the head of the response to a request."""
        # A denied handshake may have a body.
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
        """The type of the messages behind it."""
        return f"{self.message_type}.body"

    @property
    def without_body(self) -> tuple[Message, Message]:
        """The messages of a response that has nothing else."""
        return self.message, {"type": self.body_type, "body": b"", "more_body": False}


class StopSending(Exception):  # noqa: N818 - it is no error
    """The client takes nothing more: nothing is left to send."""


class Outlet:
    """Sends a response.

    Args:
        send: The server's.
        head: Start of the response; sent with the first event, at the latest after
            `error_window`.
        options: The stream's.
        work: What the outlet sleeps on while there is nothing to do.
        buffer: What is pending.
        source: What fills it.
        ending: Why the stream ends, and by when.
        backend: What runs the stream.
        limits: The stream's.

    Attributes:
        broke_off: Whether the stream was ended before its source, without a last word.
        extra_bytes: How many bytes of the body did not come from the source.
        has_begun: Whether the head has been sent, or is being sent.
        seconds_waiting: How long sends have waited for the client.
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
        "_is_last",
        "_limits",
        "_options",
        "_ping_interval",
        "_quiet_since",
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
        "broke_off",
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
        buffer: EventBuffer,
        source: Source,
        ending: Ending,
        backend: AsyncioBackend | TrioBackend,
        limits: Limits,
    ) -> None:
        self._send = send
        self._send_part = past_starlette(send)
        self._head = head
        self._options = options
        self._buffer = buffer
        self._source = source
        self._ending = ending
        self._backend = backend
        self._limits = limits
        self._work = work
        self._direct: DirectSend | None = None
        # A send that the source has begun, and what it waits for.
        self._handed_over: tuple[Any, Any] | None = None
        # What a send of the source has raised.
        self._error: BaseException | None = None
        self.has_begun = False
        self._stopped = False
        self._sending = False
        # To `receive`, a response that has ended is a disconnect, while `send` may go
        # on in a middleware around it.
        self._is_last = False
        self._send_began_at = 0.0
        self._send_by = math.inf
        self._closing = False
        self._wait_until = backend.clock() + options.error_window
        self._quiet_since = self._wait_until
        self._ping_interval = _or_infinity(options.ping_interval)
        self._send_timeout = _or_infinity(options.send_timeout)
        self.broke_off = False
        self.extra_bytes = 0
        self.seconds_waiting = 0.0

    def forget(self) -> None:
        """Forget what knows it, when the stream is over."""
        self._source.send_with(None)
        self._direct = None
        self._work.close()

    # Called by the pump, in a step of the source

    def begun(self) -> None:
        """Note that the head is being sent."""
        self.has_begun = True
        self._quiet_since = now = self._backend.clock()
        self._backend.alarm.set(self._next_deadline(now))

    def wake(self) -> None:
        """Look whether there is something to do."""
        self._work.wake()

    def hand_over(self, send: Any, waits_for: Any) -> None:
        """Go on with a send of the source that has to wait."""
        self._handed_over = send, waits_for
        self._work.wake()

    def send_failed(self, error: BaseException) -> None:
        """Raise what a send of the source has raised."""
        self._error = error
        self._work.wake()

    def interrupt_source(self) -> None:
        """Interrupt the source if it has left its shield."""
        self._source.interrupt()

    # Called from anywhere else in the loop

    def stop(self) -> None:
        """End what is being sent or waited for: the client takes nothing more."""
        self._stopped = True
        if self._sending:
            self._backend.interrupt_send()
            # What stands around us may catch the cancellation, and go on.
            self._send_by = self._backend.clock() + self._limits.last_send_timeout
            self._backend.alarm.set(self._send_by)
        else:
            self._work.wake()

    def wait_no_longer(self) -> None:
        """Send the head, if it still waits for the first event."""
        self._wait_until = self._backend.clock()
        self._work.wake()

    def client_left(self) -> None:
        """Stop, unless the response has ended, which looks the same."""
        if self._is_last:
            # What stands around us has its time to return from the last send.
            self._send_by = self._backend.clock() + self._options.close_timeout
            self._backend.alarm.set(self._send_by)
        else:
            self._ending.note("disconnected")
            self.stop()

    def shut_down(self, grace: float) -> None:
        """Bring the end forward: the server stops, and waits for so many seconds."""
        now = self._backend.clock()
        self._ending.shut_down(now, grace=grace)
        self._hurry(now)

    def end(self) -> None:
        """End the stream, before its source."""
        now = self._backend.clock()
        self._ending.end(now)
        self._hurry(now)

    def _hurry(self, now: float) -> None:
        """Look at deadlines that have been brought forward."""
        if self._sending:
            send_by = self._ending.send_by(self._send_began_at, self._send_timeout)
            self._send_by = min(self._send_by, send_by)
        self._backend.alarm.set(self._next_deadline(now))

    def look(self) -> float:
        """Do what is due at a deadline, and return when the next one is."""
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
        quiet_since = max(self._quiet_since, now - self._buffer.seconds_idle)
        return quiet_since + self._ping_interval

    # The task of the request

    async def run(self) -> None:
        """Send the response: all of it, or until it breaks off.

        Raises:
            StopSending: The client takes nothing more.
            Exception: What `send` raised.
        """
        if await self._begin():
            await self._end(await self._flow())

    async def close_source(self) -> None:
        """Ask the source to close, and wait until it has, or is given up.

        This may be cancelled in the middle, and is called again.
        """
        self._closing = True
        self._source.close()
        while not self._source.is_over:
            if self._backend.clock() >= self._source.close_by:
                self._source.abandon()
                return
            self._work.awake = False
            self._backend.alarm.set(self.look())
            await self._work.woken()

    async def _begin(self) -> bool:
        """Wait for the first event, and send the head. Return whether it was sent."""
        source, buffer = self._source, self._buffer
        if not source.runs_beside:
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
        """Send what is pending, and pings. Return what is left to be sent."""
        source, buffer = self._source, self._buffer
        while True:
            if self._handed_over is not None:
                await self._finish_handed_over()
            # Before `take`: then that is all there is.
            is_over = source.is_over
            is_late = self._backend.clock() >= self._ending.ends_at
            body = buffer.take()
            if is_over and not len(buffer):
                return body
            # What a source that has ended has yielded is sent to its end.
            if is_late and not is_over and source.error is None:
                return body
            if not body and source.error is not None:
                return b""
            if body:
                await self._send_body(body)
                buffer.sent()
                if not buffer.full:
                    source.make_room()
                if source.runs_beside and len(buffer):
                    # It can fill the buffer as fast as it is emptied.
                    await self._backend.turn()
            elif self._is_due():
                await self._ping()
            else:
                source.send_with(self._direct)
                await self._sleep()
                source.send_with(None)
                continue
            self._quiet_since = self._backend.clock()

    async def _ping(self) -> None:
        if self._buffer.mid_event:
            return
        body = KEEPALIVE_COMMENT
        with logged("ping", self._options.close_timeout):
            body = frames.ping(self._options)
        self._buffer.shrink()
        await self._send_extra(body)

    async def _end(self, body: bytes) -> None:
        """Send the last bytes, and end the response in one of its ways."""
        source, ending = self._source, self._ending
        if source.error is None and source.is_over:
            await self._send_last(body)
            self._buffer.sent()
            ending.note("finished")
            return
        if source.error is None:
            ending.note(ending.ends_for)
        # What the source yields from now on is dropped.
        left = len(self._buffer)
        while body:
            await self._send_body(body)
            self._buffer.sent()
            body = self._buffer.take() if left > 0 else b""
            left -= len(body)
        await self.close_source()
        if source.error is not None:
            await self._send_last_words(source.error)
            return
        body = b""
        with logged("farewell", self._options.close_timeout):
            body = self._last_word("farewell", frames.farewell(self._options))
        if not body:
            # It must not look as if that had been all.
            self.broke_off = True
            return
        await self._send_last(body)
        self.extra_bytes += len(body)

    async def _send_last_words(self, error: Exception) -> None:
        """Send what `on_error` has to say about the error that ends the response."""
        hook = self._options.on_error
        if hook is None or self._stopped:  # nobody would get what it has to say
            return
        body = b""
        with logged("on_error", self._options.close_timeout):
            event = await awaited(hook(error))
            if event is not None:
                frame = frames.of_hook("on_error", event, self._options)
                body = self._last_word("on_error", frame)
        if body:
            await self._send_extra(body)

    def _last_word(self, name: str, frame: bytes) -> bytes:
        """Return a frame, unless it would become part of an event that is torn."""
        if frame and self._buffer.mid_event:
            logger.warning(
                "%s ended inside an event: that of %s is not sent",
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
        await self._finish(self._backend.rest_of(send, waits_for, error))
        self._buffer.sent()
        if not self._buffer.full:
            self._source.make_room()

    async def _drop_handed_over(self) -> None:
        """Cancel a send of the source that the client does not take any more."""
        if self._handed_over is not None:
            cancelled = anyio.get_cancelled_exc_class()
            with contextlib.suppress(cancelled):
                await self._finish_handed_over(cancelled())

    async def _finish(self, send: Awaitable[None]) -> None:
        """Await what sends, for as long as the client may take."""
        self._send_began_at = self._backend.clock()
        self._send_by = self._ending.send_by(self._send_began_at, self._send_timeout)
        if self._stopped:
            self._send_by = self._send_began_at + self._limits.last_send_timeout
        self._backend.alarm.set(self._send_by)
        self._sending = True
        waits_since = time.perf_counter()  # uvloop's clock has whole milliseconds
        try:
            await self._backend.interruptible(send)
        finally:
            self._sending = False
            self.seconds_waiting += time.perf_counter() - waits_since
        if self._stopped:
            raise StopSending

    async def _sleep(self) -> None:
        """Sleep until there is something to do or to look at."""
        if not self._work.awake:
            now = self._backend.clock()
            self._backend.alarm.set(self._next_deadline(now))
            try:
                await self._work.woken()
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
            del error  # which has this frame in its traceback: a cycle


def _or_infinity(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
