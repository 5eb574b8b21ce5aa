"""sse-starlette's response, streamed by this package.

Its arguments are translated to `StreamOptions`, with `max_pending=0` (lockstep). This
module adds only what a `Stream` does not have: `data_sender_callable`,
`client_close_handler_callable`, `shutdown_event`, `AppStatus` and `SendTimeoutError`.
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
from .._shutdown import shutdown, shutdown_callbacks
from .._stream import Head, Limits, Stream
from .._stream.hooks import log_errors
from ..content import checked_content
from ..options import MAX_SECONDS, StreamOptions
from . import _original
from .event import ServerSentEvent, ensure_bytes

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # a dependency of AnyIO as well

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.types import Message, Receive, Scope, Send

Content: TypeAlias = str | bytes | dict[str, Any] | ServerSentEvent | Any
SyncContentStream: TypeAlias = Iterable[Content]
AsyncContentStream: TypeAlias = AsyncIterable[Content]
ContentStream: TypeAlias = AsyncContentStream | SyncContentStream

logger = logging.getLogger("sse_starlette.sse")
"""The logger has sse-starlette's name, because applications configure it by that."""

MAX_GRACE = 30.0
"""Seconds after which the response to a POST is ended on server shutdown, even if the
server would wait for longer."""

CLEANUP_TURNS = 10
"""Iterations of the event loop that cleanup gets after `cleanup_timeout`."""

DISCONNECT_TURNS = 10
"""Iterations of the event loop in which `receive` may report a disconnect after `send`
has failed."""

MIN_SECONDS = 0.001
"""The shortest timeout. With 0, not even a cleanup without an `await` would run."""


class SendTimeoutError(TimeoutError):
    """The client accepted nothing within `send_timeout`."""


class _Status(type):
    """The metaclass of `AppStatus`: setting `should_exit = True` ends the streams."""

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "should_exit" and value:
            shutdown()


class AppStatus(metaclass=_Status):
    """The shutdown status of the streams of this process.

    Attributes:
        should_exit: Whether streams end, including those that are opened later. Set it
            to `True` to end all streams. It also becomes `True` when the server shuts
            down while a stream is open.
        enable_automatic_graceful_drain: Whether streams end on server shutdown.
        original_handler: A signal handler that `handle_exit` calls as well.
    """

    should_exit: ClassVar[bool] = False
    enable_automatic_graceful_drain: ClassVar[bool] = True
    original_handler: ClassVar[Callable[..., Any] | None] = None

    @staticmethod
    def disable_automatic_graceful_drain() -> None:
        """Keep streams open on server shutdown.

        The application then has to set `AppStatus.should_exit = True`. Otherwise the
        server waits for its streams.
        """
        AppStatus.enable_automatic_graceful_drain = False

    @staticmethod
    def enable_automatic_graceful_drain_mode() -> None:
        """End streams on server shutdown. This is the default."""
        AppStatus.enable_automatic_graceful_drain = True

    @staticmethod
    def handle_exit(*args: Any, **kwargs: Any) -> None:
        """End the streams, unless that is disabled, then call the original handler."""
        if AppStatus.enable_automatic_graceful_drain:
            AppStatus.should_exit = True
        if AppStatus.original_handler is not None:
            AppStatus.original_handler(*args, **kwargs)


class EventSourceResponse(Response):
    r"""A response that streams Server-Sent Events, with sse-starlette's arguments.

    Items are events, dicts with the fields of an event, bytes that are sent unchanged,
    or other objects, whose `str()` becomes the data of an event. The code after a
    `yield` runs once the event has been sent.

        async def events():
            yield {"event": "price", "data": "0.5"}

        return EventSourceResponse(events(), ping=5)

    Args:
        content: An async or sync iterable of items.
        status_code: The HTTP status code.
        headers: Additional headers. `Cache-Control` defaults to `no-store`;
            `Connection` and `X-Accel-Buffering` are always set.
        media_type: The content type.
        background: A background task to run after the stream, unless it failed.
        ping: Seconds without an event before a ping is sent. 0 disables pings.
        sep: The line separator: `"\r\n"`, `"\r"` or `"\n"`. Events have their own.
        ping_message_factory: A function that returns a ping: an event, or another item.
        data_sender_callable: An async function that runs concurrently with the stream,
            to send the items that `content` receives.
        send_timeout: Seconds that a client may accept nothing while bytes are pending.
            `None` disables the timeout.
        client_close_handler_callable: An async function that is called with the ASGI
            message when the client disconnects, before the iterable is interrupted.
        shutdown_event: An event that is set on server shutdown, so that the iterable
            can return by itself.
        shutdown_grace_period: Seconds that the iterable has to return after server
            shutdown has begun. With 0 and no `shutdown_event`, a response to GET ends
            at once. A response to another method ends when the server would cut it
            off, or after 30 s.
        cleanup_timeout: Seconds that the iterable may take to close. `None` disables
            the timeout.

    Attributes:
        active: Whether the stream is open and the client is connected.

    Raises:
        TypeError: `content` is not an iterable of items, or an argument has a wrong
            type.
        ValueError: An argument is out of range.
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
        self._options()  # raises if one is invalid
        self.init_headers(_headers(headers))
        self.active = True

    @property
    def ping_interval(self) -> float:
        """Seconds without an event before a ping is sent. 0 disables pings."""
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, value: float) -> None:
        if not isinstance(value, (int, float)):
            raise TypeError("ping interval must be int or float")
        if value < 0:
            raise ValueError("ping interval must be >= 0 (0 disables ping)")
        self._ping_interval = value

    def enable_compression(self, force: bool = False) -> None:
        """Raise an error, as in sse-starlette: the stream cannot be compressed.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("EventSourceResponse does not support compression")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream the items, then run the background task.

        Raises:
            SendTimeoutError: The client accepted nothing within `send_timeout`.
            Exception: The iterable raised it.
        """
        if scope["type"] == "http" and scope["method"].upper() == "HEAD":
            await self._answer_head(scope, send)
        else:
            await self._stream(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _answer_head(self, scope: Scope, send: Send) -> None:
        """Respond to HEAD. The response has no body, so nothing is iterated."""
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
            None if request is None else request.pending,
            scope,
        )
        stream.response = self
        run = stream.run(client_of(request, receive), send)
        try:
            if self.data_sender_callable is None:
                await run
            else:
                await _run_with_sender(self.data_sender_callable, run)
        finally:
            self.active = False
            if channel is not None and channel.holds_item:
                with (
                    anyio.CancelScope(shield=True),
                    log_errors("aclose", options.close_timeout),
                ):
                    await channel.aclose()
        if stream.reason == "send_timeout":
            raise self._timeout_error()

    def _timeout_error(self) -> Exception:
        error_class = _original.combined_exception(SendTimeoutError)
        return error_class(
            f"the client accepted nothing for {self.send_timeout:g} seconds"
        )

    def _options(self) -> StreamOptions:
        interval, timeout = self._ping_interval, self.send_timeout
        close_timeout, stopping = self._cleanup_timeout, self._shutdown_event
        grace: float | None = min(self._shutdown_grace_period, MAX_SECONDS)
        if not grace and stopping is None:
            grace = None  # 0 is the default here, not a request to end at once.
        times = (
            min(max(float(interval), MIN_SECONDS), MAX_SECONDS) if interval else None,
            _capped(timeout),
            grace,
            MAX_SECONDS if close_timeout is None else min(close_timeout, MAX_SECONDS),
        )
        factory = self.ping_message_factory
        if factory is None and stopping is None:
            return _cached_options(self.sep, *times)
        ping = (
            functools.partial(_ping_with_time, self.sep)
            if factory is None
            else functools.partial(_ping, factory, self.sep)
        )
        return _options(ping, *times, stopping=stopping)


def _capped(seconds: Any) -> Any:
    """Limit a number of seconds. Other values are left to the check of the options."""
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
        close_timeout=max(close_timeout, MIN_SECONDS),
        on_shutdown=None if stopping is None else lambda _: stopping.set(),
    )


@functools.lru_cache(maxsize=64)
def _cached_options(sep: str, *times: Any) -> StreamOptions:
    """Return cached options. Many responses have the same, and a check takes 20 µs."""
    return _options(functools.partial(_ping_with_time, sep), *times)


def _ping(factory: Callable[[], Content], sep: str) -> EncodedEvent:
    return EncodedEvent.from_bytes(ensure_bytes(factory(), sep))


def _ping_with_time(sep: str) -> EncodedEvent:
    comment = f"ping - {datetime.now(timezone.utc)}"
    return EncodedEvent.from_bytes(ServerSentEvent(comment=comment, sep=sep).encode())


class _Stream(Stream):
    """A stream that ends in the way of sse-starlette.

    Attributes:
        response: The response that the stream belongs to.
    """

    __slots__ = ("_disconnect_handled", "response")

    open_count: ClassVar[int] = 0
    response: EventSourceResponse

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._disconnect_handled = anyio.Event()

    async def respond(self) -> None:
        """Send the response, until it is complete or aborted."""
        _Stream.open_count += 1
        try:
            if AppStatus.should_exit:
                self.shut_down()
            await super().respond()
        finally:
            _Stream.open_count -= 1

    async def watch(self) -> None:
        """Wait for the client to disconnect, and call the handler for that."""
        # The head is sent with an event that is ready at once, or without one. It must
        # not wait, because some clients do, such as that of MCP.
        self._outlet.send_head_now()
        await self._client.watch(self._backend.turn, _do_nothing)
        if self._client.gone is None:
            return
        self.response.active = False
        try:
            if self._source.is_over and not self.has_failed:
                # `receive` also reports a disconnect when the response is complete. A
                # middleware gets some time to return from the last send.
                self._disconnect_handled.set()
                await anyio.sleep(self._limits.last_send_timeout)
                self._outlet.stop()
            else:
                await self._client_disconnected()
        finally:
            self._disconnect_handled.set()

    async def _client_disconnected(self) -> None:
        handler = self.response.client_close_handler_callable
        message = self._client.gone
        try:
            if handler is not None and message is not None:
                await handler(message)
        except Exception as error:
            self._source.fail(error)
            self._outlet.stop()
        else:
            self._outlet.client_disconnected()

    async def _fail_to_send(self, error: Exception) -> None:
        # An in-memory transport closes its streams when its client disconnects. What
        # `send` raises because of that is not an error of the application.
        self._client.begin_watch()
        for _ in range(DISCONNECT_TURNS):
            if self._client.gone is not None:
                await self._disconnect_handled.wait()
                return
            await self._backend.turn()
        await super()._fail_to_send(error)

    def shut_down(self) -> None:
        """End the stream, unless the application does that itself."""
        if AppStatus.enable_automatic_graceful_drain or AppStatus.should_exit:
            super().shut_down()

    def _shut_down(self) -> None:
        super()._shut_down()
        self._outlet.shut_down(MAX_GRACE)

    async def close_source(self) -> None:
        """Close the source. Wait a little even if it has been abandoned."""
        await super().close_source()
        if self.source_is_abandoned:
            for _ in range(CLEANUP_TURNS):
                await self._backend.turn()

    def _close(self) -> None:
        # An error of the cleanup must not hide the reason why the stream ended.
        error, reason = self._source.error, self._ending.reason
        if error is not None and reason not in (None, "cancelled"):
            self._source.log_unraised(error)
            self._source.error = None
        super()._close()


def _do_nothing() -> None:
    pass


def _set_should_exit() -> None:
    """Show the shutdown to generators: some check `AppStatus.should_exit`."""
    if AppStatus.enable_automatic_graceful_drain and _Stream.open_count:
        AppStatus.should_exit = True


shutdown_callbacks.append(_set_should_exit)


def _is_channel(content: Any) -> bool:
    return (
        isinstance(content, AsyncIterator)
        and not isinstance(content, AsyncGenerator)
        and hasattr(content, "aclose")
    )


class _Channel:
    """An async iterator that is not a generator, such as a memory stream.

    Other code may share it, or continue to read from it. It is therefore closed only
    if its last item has not been sent.

    Attributes:
        holds_item: Whether the last item has not been sent yet.
    """

    def __init__(self, items: Any) -> None:
        self._items = items
        self.holds_item = False
        self.__qualname__ = type(items).__qualname__  # the name in log messages
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
            "EventSourceResponse needs the receiving end of a memory object stream: "
            "pass only that end, and a function that sends to the other end as "
            "data_sender_callable"
        )
    return checked_content(content)


def _check_seconds(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must be >= 0, not {value!r}")


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
    """Return a `send` that logs the body, as sse-starlette does at level DEBUG."""

    async def log_and_send(message: Message) -> None:
        if message.get("body"):
            logger.debug("chunk: %s", message["body"])
        await send(message)

    return log_and_send


async def _run_with_sender(
    sender: Callable[[], Coroutine[None, None, None]],
    run: Coroutine[None, None, None],
) -> None:
    """Run a stream and its sender concurrently. The sender ends with the stream.

    Raises:
        BaseException: One of them raised it. It is not wrapped in an exception group
            if it is the only one.
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
