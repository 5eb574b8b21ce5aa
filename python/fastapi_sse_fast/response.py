"""The response class, and its options."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import fastapi.sse

from ._body import Body, chunks
from ._request import client_of, opened_request
from ._stream import Head, Limits, Stream, call_on_close
from .content import checked_content
from .options import (
    OPTION_NAMES,
    CloseHook,
    ErrorHook,
    Event,
    Json,
    OptionArguments,
    PingForm,
    StreamOptions,
)

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.types import Receive, Scope, Send
    from typing_extensions import Self, Unpack

    from ._body import EncoderFactory

_DEFAULT_HEADERS = {
    b"cache-control": b"no-cache",
    b"x-accel-buffering": b"no",  # nginx would collect events before it passes them on
}
_SINGLE_HEADERS = frozenset({b"content-type", *_DEFAULT_HEADERS})


class EventSourceResponse(fastapi.sse.EventSourceResponse):
    r"""Streams Server-Sent Events.

    As `response_class=` of a path operation that uses `yield`, in place of FastAPI's
    class of the same name:

        @app.get("/items/stream", response_class=EventSourceResponse)
        async def stream_items() -> AsyncIterable[Item]:
            for item in items:
                yield item

    Or returned, from FastAPI or from plain Starlette, with an async or sync iterable.
    Items are then encoded the same way, but `str` and bytes are taken for parts of the
    body, as in a `StreamingResponse`:

        return EventSourceResponse(events())

    Options are class attributes, set in a subclass or with `with_options`; a returned
    response takes them as keyword arguments too.

    Args:
        content: What yields the items.
        status_code: Status of the response.
        headers: More headers, in place of the default ones of the same name.
        media_type: Another content type.
        background: Run when the stream is over.
        **options: Any of the attributes of `StreamOptions`.

    Raises:
        TypeError: `content` is not an iterable of items, or there is no such option.
        ValueError: An option has a bad value.
    """

    ping_interval: ClassVar[float | None] = 15.0
    """Seconds without an event before a ping; `None` switches pings off."""

    ping: ClassVar[str | Event | Callable[[], Event]] = "ping"
    """What a ping is: the text of a comment, an event, or what makes one."""

    ping_form: ClassVar[PingForm] = "block"
    """Whether a comment is a `"block"`, ended by a blank line, or just a `"line"`."""

    retry: ClassVar[int | None] = None
    """Milliseconds before a browser reconnects, sent at the head of the stream."""

    send_timeout: ClassVar[float | None] = 60.0
    """Seconds that a client may take nothing for before it is dropped."""

    max_pending: ClassVar[int] = 64 * 1024
    """Bytes that may wait for the client before the generator has to; 0 is lockstep."""

    error_window: ClassVar[float] = 0.1
    """Seconds that the response head waits for the first event or an error."""

    max_duration: ClassVar[float | None] = None
    """Seconds, 10 % more or less, after which the stream is ended cleanly."""

    on_error: ClassVar[ErrorHook | None] = None
    """Called with an error in mid-stream; an event that it returns is sent."""

    on_close: ClassVar[CloseHook | None] = None
    """Called with a `StreamSummary` when all of the request is over."""

    shutdown_grace: ClassVar[float] = 0.0
    """Seconds that a stream may go on for once the server stops."""

    farewell: ClassVar[Event | Callable[[], Event] | None] = None
    """An event to send when the server stops, or what makes one."""

    json: ClassVar[Json] = "fastapi"
    """How JSON is spelled: as `"fastapi"` does, or `"compact"`."""

    _options: ClassVar[StreamOptions] = StreamOptions()
    _limits: ClassVar[Limits] = Limits()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Takes the options among the attributes of a subclass.

        Raises:
            ValueError: An option has a bad value.
        """
        super().__init_subclass__(**kwargs)
        chosen: Any = {}
        for class_ in cls.__mro__[: cls.__mro__.index(EventSourceResponse)]:
            for name in OPTION_NAMES & vars(class_).keys():
                value = vars(class_)[name]
                if isinstance(value, staticmethod):
                    value = value.__func__
                chosen.setdefault(name, value)
        cls._options = StreamOptions().replace(chosen)

    @classmethod
    def with_options(cls, **options: Unpack[OptionArguments]) -> type[Self]:
        """Returns a subclass with other options; those not given stay as they are.

        Args:
            **options: Any of the attributes of `StreamOptions`.

        Raises:
            TypeError: There is no such option.
            ValueError: An option has a bad value.

        Examples:
            >>> EventSourceResponse.with_options(ping_interval=5.0).ping_interval
            5.0
        """
        cls._options.replace(options)  # before the class, for the sake of the error
        attributes: dict[str, Any] = dict(options)
        for name, value in attributes.items():
            if callable(value):
                attributes[name] = staticmethod(value)
        return type(cls.__name__, (cls,), {"__module__": cls.__module__, **attributes})

    def __init__(
        self,
        content: AsyncIterable[Any] | Iterable[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        **options: Unpack[OptionArguments],
    ) -> None:
        self.body_iterator = self._body = Body(checked_content(content))
        self.status_code = status_code
        if media_type is not None:
            self.media_type = media_type
        self.background = background
        self.init_headers(headers)
        if options:
            self._options = self._options.replace(options)  # type: ignore[misc]
        self._body.json = self._options.json

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Adds the headers of an event stream to those given."""
        super().init_headers(headers)
        given = {name for name, _ in self.raw_headers}
        self.raw_headers.extend(
            header for header in _DEFAULT_HEADERS.items() if header[0] not in given
        )

    def encode_items_with(self, encoder_for: EncoderFactory) -> Self:
        """Has items encoded by what `encoder_for` returns for a request."""
        self._body.encoder_for = encoder_for
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams the items, then runs the background task.

        The answer to HEAD has no body, so nothing is iterated for it.

        Raises:
            Exception: What the iterable raised. Before the first event nothing has been
                sent, so FastAPI's exception handlers can still answer.
        """
        message_type = "http.response"
        if scope["type"] == "websocket":  # a denied handshake may have a body
            message_type = "websocket.http.response"
        head = Head(self.status_code, self._final_headers(), message_type)
        if scope.get("method") == "HEAD":
            await send(head.message)
            await send({"type": head.body_type, "body": b"", "more_body": False})
            if self.background is not None:
                await self.background()
            return
        if self.body_iterator is self._body:
            source, encoder_for = self._body.items, self._body.encoder_for
        else:  # somebody wrapped it, and has bytes for us
            source, encoder_for = self.body_iterator, chunks
            if isinstance(source, AsyncIterable):
                source = self._body.wrapped(source)
        encoder = encoder_for(scope, self._options.json)
        request = opened_request(scope)
        opening = None if request is None else request.opening
        stream = Stream(source, encoder, head, self._options, self._limits, opening)
        try:
            await stream.run(client_of(request, receive), send)
            if self.background is not None:
                await self.background()
        finally:
            if self._options.on_close is not None:
                close = functools.partial(
                    call_on_close,
                    self._options.on_close,
                    stream.summary(),
                    self._limits,
                )
                if request is None:
                    await close()
                else:  # dependencies are closed first
                    request.stack.push_async_callback(close)

    def _final_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers, where a dependency's `Cache-Control` replaces the default one.

        FastAPI appends the headers that dependencies set; the last one counts.
        """
        last = {name: index for index, (name, _) in enumerate(self.raw_headers)}
        return [
            header
            for index, header in enumerate(self.raw_headers)
            if header[0] not in _SINGLE_HEADERS or last[header[0]] == index
        ]
