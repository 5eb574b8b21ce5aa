"""The response of sse-starlette, on the driver of this package.

What it is given becomes the options of a stream in lockstep: `max_pending=0`. Only what
sse-starlette has and a stream has not is here: `data_sender_callable`, the callback for
a client that leaves, the event for a server that stops, and its exceptions.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
)
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from starlette.concurrency import iterate_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.responses import Response

from .._core import EncodedEvent, ItemEncoder, sse_starlette_check
from .._request import client_of, opened_request
from .._shutdown import shutdown, tell_of_a_stop
from .._stream import Head, Limits, Stream
from .._stream.hooks import logged
from ..content import checked_content
from ..options import MAX_SECONDS, StreamOptions
from . import _original
from .event import ServerSentEvent, ensure_bytes

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # which AnyIO needs too

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.types import Message, Receive, Scope, Send

Content: TypeAlias = str | bytes | dict[str, Any] | ServerSentEvent | Any
SyncContentStream: TypeAlias = Iterable[Content]
AsyncContentStream: TypeAlias = AsyncIterable[Content]
ContentStream: TypeAlias = AsyncContentStream | SyncContentStream

logger = logging.getLogger("sse_starlette.sse")
"""Applications know it under this name, and silence it where all others are verbose."""

MOST_GRACE = 30.0
"""Seconds that a reply to a POST may go on for where the server would wait for ever."""

TURNS_OF_A_CANCELLED_CLEAN_UP = 10
"""Turns of the loop that a clean-up gets to end in, once its time is over."""

TURNS_UNTIL_A_CLIENT_HAS_LEFT = 10
"""Turns of the loop in which `receive` says so, where `send` has failed before."""

LEAST_SECONDS = 0.001
"""In no time at all, not even a clean-up that awaits nothing would run."""


class SendTimeoutError(TimeoutError):
    """The client has not taken what it was sent within `send_timeout`."""


class _Status(type):
    """Has `AppStatus.should_exit = True` end the streams."""

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "should_exit" and value:
            shutdown()


class AppStatus(metaclass=_Status):
    """Ends the streams of this process, and says whether a signal does.

    Attributes:
        should_exit: Whether streams end, also those that begin from now on. Set it to
            `True` to end them. It is so when the server is told to stop while a stream
            is open.
        enable_automatic_graceful_drain: Whether a signal that stops the server ends
            them.
        original_handler: What `handle_exit` calls besides.
    """

    should_exit: ClassVar[bool] = False
    enable_automatic_graceful_drain: ClassVar[bool] = True
    original_handler: ClassVar[Callable[..., Any] | None] = None

    @staticmethod
    def disable_automatic_graceful_drain() -> None:
        """Leave streams alone when the server is told to stop.

        Set `AppStatus.should_exit = True` then, or the server waits for its streams.
        """
        AppStatus.enable_automatic_graceful_drain = False

    @staticmethod
    def enable_automatic_graceful_drain_mode() -> None:
        """End streams when the server is told to stop, as is the default."""
        AppStatus.enable_automatic_graceful_drain = True

    @staticmethod
    def handle_exit(*args: Any, **kwargs: Any) -> None:
        """End the streams, unless that is disabled, and call the original handler."""
        if AppStatus.enable_automatic_graceful_drain:
            AppStatus.should_exit = True
        if AppStatus.original_handler is not None:
            AppStatus.original_handler(*args, **kwargs)


class EventSourceResponse(Response):
    r"""Streams Server-Sent Events, with the arguments of sse-starlette.

    Items are events, dicts with the fields of one, bytes that are sent as they are, or
    other objects, whose `str()` is the data of an event. The code after a `yield` runs
    when the event has been sent.

        async def events():
            yield {"event": "price", "data": "0.5"}

        return EventSourceResponse(events(), ping=5)

    Args:
        content: An async or sync iterable of items.
        status_code: Status of the response.
        headers: More headers. `Cache-Control` is `no-store` unless it is among them;
            `Connection` and `X-Accel-Buffering` are set.
        media_type: The content type.
        background: Run when the stream is over, unless it failed.
        ping: Seconds without an event before a ping. 0 switches pings off.
        sep: What ends a line, `"\r\n"`, `"\r"` or `"\n"`; events have their own.
        ping_message_factory: Makes a ping: an event, or another item.
        data_sender_callable: Runs besides the stream, to feed what it iterates.
        send_timeout: Seconds that a client may take nothing for while bytes wait for
            it. `None` waits for ever.
        client_close_handler_callable: Called with the message that tells that the
            client has left, before the iterable is interrupted.
        shutdown_event: Set when the server stops, for the iterable to end by itself.
        shutdown_grace_period: Seconds that it may take to do so. With 0, and without
            an event, the reply to a GET ends at once, and to another method when the
            server would cut it, after 30 s at the latest.
        cleanup_timeout: Seconds that it may take to close. `None` waits for ever.

    Attributes:
        active: Whether the stream is not over, and its client there.

    Raises:
        TypeError: `content` is not an iterable of items, or `ping` is no number.
        ValueError: An argument is out of its range.
    """

    DEFAULT_PING_INTERVAL: ClassVar[float] = 15
    DEFAULT_SEPARATOR: ClassVar[str] = "\r\n"
    DEFAULT_CLEANUP_TIMEOUT: ClassVar[float] = 30.0

    def __init__(
        self,
        content: ContentStream,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = "text/event-stream",
        background: BackgroundTask | None = None,
        ping: float | None = None,
        sep: str | None = None,
        ping_message_factory: Callable[[], ServerSentEvent] | None = None,
        data_sender_callable: Callable[[], Coroutine[None, None, None]] | None = None,
        send_timeout: float | None = None,
        client_close_handler_callable: Callable[[Message], Awaitable[None]]
        | None = None,
        shutdown_event: anyio.Event | None = None,
        shutdown_grace_period: float = 0,
        cleanup_timeout: float | None = DEFAULT_CLEANUP_TIMEOUT,
    ) -> None:
        if sep is not None:
            sse_starlette_check(sep)
        _check_seconds("shutdown_grace_period", shutdown_grace_period)
        if cleanup_timeout is not None:
            _check_seconds("cleanup_timeout", cleanup_timeout)
        _check_callables(
            ping_message_factory=ping_message_factory,
            data_sender_callable=data_sender_callable,
            client_close_handler_callable=client_close_handler_callable,
        )
        self.sep = self.DEFAULT_SEPARATOR if sep is None else sep
        self._content = _checked(content)
        self._items: AsyncIterable[Any] = (
            content
            if isinstance(content, AsyncIterable)
            else iterate_in_threadpool(content)
        )
        self.body_iterator = self._items
        self.status_code = status_code
        self.media_type = self.media_type if media_type is None else media_type
        self.background = background
        self.data_sender_callable = data_sender_callable
        self.ping_interval = self.DEFAULT_PING_INTERVAL if ping is None else ping
        self.ping_message_factory = ping_message_factory
        self.send_timeout = send_timeout
        self.client_close_handler_callable = client_close_handler_callable
        self._shutdown_event = shutdown_event
        self._shutdown_grace_period = shutdown_grace_period
        self._cleanup_timeout = cleanup_timeout
        self._options()  # raises what is wrong with them
        self.init_headers(_headers(headers))
        self.active = True

    @property
    def ping_interval(self) -> float:
        """Seconds without an event before a ping; 0 for none."""
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, value: float) -> None:
        if not isinstance(value, (int, float)):
            raise TypeError("ping interval must be int or float")
        if value < 0:
            raise ValueError("ping interval must be >= 0 (0 disables ping)")
        self._ping_interval = value

    def enable_compression(self, force: bool = False) -> None:
        """Refuse to compress.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a stream of events is not compressed here")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream the items, then run the background task.

        Raises:
            SendTimeoutError: The client has not taken something in time.
            Exception: What the iterable raised.
        """
        if scope["type"] == "http" and scope["method"].upper() == "HEAD":
            await self._answer_head(scope, send)
        else:
            await self._stream(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _answer_head(self, scope: Scope, send: Send) -> None:
        """Answer without a body, for which nothing is iterated."""
        head = Head.of(scope, self.status_code, self.raw_headers)
        for message in head.without_body:
            with anyio.move_on_after(self.send_timeout) as time:
                await send(message)
            if time.cancelled_caught:
                raise self._timeout_error()

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = Head.of(scope, self.status_code, self.raw_headers)
        content: Any = self.body_iterator
        if content is self._items:
            content = self._content
        channel = None
        if _is_channel(content):
            content = channel = _Channel(content)
        if logger.isEnabledFor(logging.DEBUG):
            send = _logging(send)
        self.active = True
        options = self._options()
        request = opened_request(scope)
        stream = _Stream(
            content,
            ItemEncoder.sse_starlette(self.sep),
            head,
            options,
            Limits(),
            None if request is None else request.opening,
            scope,
        )
        stream.response = self
        run = stream.run(client_of(request, receive), send)
        try:
            if self.data_sender_callable is None:
                await run
            else:
                await _run_beside(self.data_sender_callable, run)
        finally:
            self.active = False
            if channel is not None and channel.holds_item:
                with (
                    anyio.CancelScope(shield=True),
                    logged("aclose", options.close_timeout),
                ):
                    await channel.aclose()
        if stream.reason == "send_timeout":
            raise self._timeout_error()

    def _timeout_error(self) -> Exception:
        error_class = _original.caught_by_both(SendTimeoutError)
        return error_class(f"the client took nothing for {self.send_timeout:g} seconds")

    def _options(self) -> StreamOptions:
        interval, timeout = self._ping_interval, self.send_timeout
        close_timeout, stopping = self._cleanup_timeout, self._shutdown_event
        grace: float | None = min(self._shutdown_grace_period, MAX_SECONDS)
        if not grace and stopping is None:
            grace = None  # nobody has asked for an end at once
        times = (
            min(max(float(interval), LEAST_SECONDS), MAX_SECONDS) if interval else None,
            _at_most_longest(timeout),
            grace,
            MAX_SECONDS if close_timeout is None else min(close_timeout, MAX_SECONDS),
        )
        factory = self.ping_message_factory
        if factory is None and stopping is None:
            return _usual_options(self.sep, *times)
        ping = (
            functools.partial(_ping_with_time, self.sep)
            if factory is None
            else functools.partial(_ping, factory, self.sep)
        )
        return _options(ping, *times, stopping=stopping)


def _at_most_longest(seconds: Any) -> Any:
    """Return what is as long as nobody waits for; all else is checked as an option."""
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return min(seconds, MAX_SECONDS) if is_number else seconds


def _options(
    ping: Callable[[], EncodedEvent],
    ping_interval: float | None,
    send_timeout: float | None,
    shutdown_grace: float | None,
    close_timeout: float,
    *,
    stopping: anyio.Event | None = None,
) -> StreamOptions:
    return StreamOptions(
        max_pending=0,
        ping=ping,
        ping_interval=ping_interval,
        send_timeout=send_timeout,
        shutdown_grace=shutdown_grace,
        close_timeout=max(close_timeout, LEAST_SECONDS),
        on_shutdown=None if stopping is None else lambda _: stopping.set(),
    )


@functools.lru_cache(maxsize=64)
def _usual_options(sep: str, *times: Any) -> StreamOptions:
    """Return options that many responses have: checking them takes 20 µs."""
    return _options(functools.partial(_ping_with_time, sep), *times)


def _ping(factory: Callable[[], Content], sep: str) -> EncodedEvent:
    return EncodedEvent.from_bytes(ensure_bytes(factory(), sep))


def _ping_with_time(sep: str) -> EncodedEvent:
    comment = f"ping - {datetime.now(timezone.utc)}"
    return EncodedEvent.from_bytes(ServerSentEvent(comment=comment, sep=sep).encode())


class _Stream(Stream):
    """A stream that ends as one of sse-starlette does.

    Attributes:
        response: What it belongs to.
    """

    __slots__ = ("_told", "response")

    number_open: ClassVar[int] = 0
    response: EventSourceResponse

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told = anyio.Event()

    async def respond(self) -> None:
        """Send the response, as far as it comes."""
        _Stream.number_open += 1
        try:
            if AppStatus.should_exit:
                self.shut_down()
            await super().respond()
        finally:
            _Stream.number_open -= 1

    async def watch(self) -> None:
        """Wait for the client to leave, and tell who wants to know."""
        # The head leaves with what comes at once, and else alone. It does not wait for
        # longer: clients go by it, such as MCP's.
        self._outlet.wait_no_longer()
        await self._client.watch(self._backend.turn, _nothing)
        if self._client.gone is None:
            return
        self.response.active = False
        try:
            if self._source.is_over and not self.has_failed:
                # At the end of a response `receive` says the same. What stands around
                # us has some time to return from the last send.
                self._told.set()
                await anyio.sleep(self._limits.last_send_timeout)
                self._outlet.stop()
            else:
                await self._client_left()
        finally:
            self._told.set()

    async def _client_left(self) -> None:
        handler = self.response.client_close_handler_callable
        message = self._client.gone
        try:
            if handler is not None and message is not None:
                await handler(message)
        except Exception as error:
            self._source.fail(error)
            self._outlet.stop()
        else:
            self._outlet.client_left()

    async def _fail_to_send(self, error: Exception) -> None:
        # A transport in memory closes its own streams when its client leaves, and what
        # that makes of `send` is no error of the application.
        self._client.begin_watch()
        for _ in range(TURNS_UNTIL_A_CLIENT_HAS_LEFT):
            if self._client.gone is not None:
                await self._told.wait()
                return
            await self._backend.turn()
        await super()._fail_to_send(error)

    def shut_down(self) -> None:
        """End the stream, unless the application does so itself."""
        if AppStatus.enable_automatic_graceful_drain or AppStatus.should_exit:
            super().shut_down()

    def _shut_down(self) -> None:
        super()._shut_down()
        self._outlet.shut_down(MOST_GRACE)

    async def close_source(self) -> None:
        """Close the source and wait for that, also for one that is given up."""
        await super().close_source()
        if self.source_is_abandoned:
            for _ in range(TURNS_OF_A_CANCELLED_CLEAN_UP):
                await self._backend.turn()

    def _close(self) -> None:
        # What has ended the stream is not hidden by a clean-up that fails.
        error, reason = self._source.error, self._ending.reason
        if error is not None and reason not in (None, "cancelled"):
            self._source.log_unraised(error)
            self._source.error = None
        super()._close()


def _nothing() -> None:
    pass


def _note_stop() -> None:
    """Have generators see that the server stops: some ask `AppStatus.should_exit`."""
    if AppStatus.enable_automatic_graceful_drain and _Stream.number_open:
        AppStatus.should_exit = True


tell_of_a_stop.append(_note_stop)


def _is_channel(content: Any) -> bool:
    return (
        isinstance(content, AsyncIterator)
        and not isinstance(content, AsyncGenerator)
        and hasattr(content, "aclose")
    )


class _Channel:
    """An async iterator that is no generator, such as a memory stream.

    It may be shared, or read on by somebody else, so it is closed only where its last
    item has not been sent.

    Attributes:
        holds_item: Whether its last item is still being sent.
    """

    def __init__(self, items: Any) -> None:
        self._items = items
        self.holds_item = False
        self.__qualname__ = type(items).__qualname__  # what the log calls it
        self.aclose: Callable[[], Awaitable[None]] = items.aclose

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in self._items:
            self.holds_item = True
            yield item
            self.holds_item = False


def _checked(content: Any) -> AsyncIterable[Any] | Iterable[Any]:
    if isinstance(content, MemoryObjectSendStream) or (
        isinstance(content, tuple)
        and any(isinstance(end, MemoryObjectSendStream) for end in content)
    ):
        raise TypeError(
            "EventSourceResponse iterates the end of a memory channel that receives: "
            "pass that alone, and what sends into the other one as data_sender_callable"
        )
    return checked_content(content)


def _check_seconds(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must be >= 0")


def _check_callables(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name} must be callable, or None, not {value!r}")


def _headers(given: Mapping[str, str] | None) -> MutableHeaders:
    headers = MutableHeaders(given)
    headers.setdefault("Cache-Control", "no-store")
    headers["Connection"] = "keep-alive"
    headers["X-Accel-Buffering"] = "no"
    return headers


def _logging(send: Send) -> Send:
    """Return a `send` that logs the body: sse-starlette does so for debugging."""

    async def log_and_send(message: Message) -> None:
        if message.get("body"):
            logger.debug("chunk: %s", message["body"])
        await send(message)

    return log_and_send


async def _run_beside(
    sender: Callable[[], Coroutine[None, None, None]],
    run: Coroutine[None, None, None],
) -> None:
    """Run a stream, and besides it what feeds it; each ends when the stream does.

    Raises:
        BaseException: What the first of them raised, and not a group of that alone.
    """
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender)
            await run
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from error.__cause__
