"""The response class."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import fastapi.sse
from starlette.datastructures import Headers

from ._body import Body, chunks
from ._request import client_of, opened_request
from ._stream import Head, Limits, Stream, call_on_close
from .content import LogContent, checked_content
from .options import OptionArguments, StreamOptions, check_attribute

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.types import Receive, Scope, Send
    from typing_extensions import Self, Unpack

    from ._body import EncoderFactory
    from ._request import OpenRequest
    from .options import CloseHook, ResponseOptionArguments

_DEFAULT_HEADERS = {
    b"cache-control": b"no-cache",
    b"x-accel-buffering": b"no",  # keeps nginx from buffering events
}
_SINGLE_HEADERS = frozenset({b"content-type", *_DEFAULT_HEADERS})


_Base = fastapi.sse.EventSourceResponse


class EventSourceResponse(_Base):
    r"""A response that streams Server-Sent Events.

    Set it as the `response_class` of a path operation that uses `yield`, instead of
    FastAPI's class of the same name:

        @app.get("/items/stream", response_class=EventSourceResponse)
        async def stream_items() -> AsyncIterable[Item]:
            for item in items:
                yield item

    Or return it, from FastAPI or from Starlette, with an async or sync iterable. Items
    are encoded the same way, but `str` and bytes are sent unchanged, as in a
    `StreamingResponse`:

        return EventSourceResponse(events())

    A subclass, `with_options` and a returned response all accept options as keyword
    arguments: the fields of `StreamOptions`, or a whole `StreamOptions` as `options`:

        class Tokens(EventSourceResponse, ping_interval=5.0, on_close=count): ...

        Tokens = EventSourceResponse.with_options(ping_interval=5.0, on_close=count)

        return EventSourceResponse(events(), ping_interval=5.0, on_close=count)

    Attributes:
        options: The options of the class or of the response.

    Args:
        content: An async or sync iterable of items.
        status_code: The HTTP status code.
        headers: Additional headers. They replace default headers, and headers of the
            options, of the same name.
        media_type: The content type, if it is not `text/event-stream`.
        background: A background task to run after the stream.
        options: Options to use instead of those of the class.
        **changes: Single options to change.

    Raises:
        TypeError: `content` is not an iterable of items, or an option does not exist.
        ValueError: An option has an invalid value.
    """

    options: ClassVar[StreamOptions] = StreamOptions()
    _chosen: ClassVar[OptionArguments] = {}
    _limits: ClassVar[Limits] = Limits()

    def __init_subclass__(
        cls,
        *,
        options: StreamOptions | None = None,
        **changes: Unpack[OptionArguments],
    ) -> None:
        """Set the options of a subclass.

        Args:
            options: Options to use instead of those of the base class.
            **changes: Single options to change.

        Raises:
            TypeError: An option does not exist, or is set as a class attribute.
            ValueError: An option has an invalid value.
        """
        super().__init_subclass__()
        for name in vars(cls):
            if not name.startswith("_") and not hasattr(_Base, name):
                check_attribute(cls.__name__, name)
        cls._chosen = {**(options.changes() if options else {}), **changes}
        chosen: OptionArguments = {}
        for class_ in reversed(cls.__mro__):
            chosen.update(vars(class_).get("_chosen", {}))
        cls.options = StreamOptions().replace(chosen)

    @classmethod
    def with_options(
        cls,
        options: StreamOptions | None = None,
        **changes: Unpack[OptionArguments],
    ) -> type[Self]:
        """Return a subclass with some options changed.

        Args:
            options: Options to use instead of those of this class.
            **changes: Single options to change.

        Raises:
            TypeError: An option does not exist.
            ValueError: An option has an invalid value.

        Examples:
            >>> EventSourceResponse.with_options(retry=3000).options.retry
            3000
        """
        new_class: Any = type(cls)
        namespace = {"__module__": cls.__module__}
        made: type[Self] = new_class(
            cls.__name__, (cls,), namespace, options=options, **changes
        )
        return made

    def __init__(
        self,
        content: AsyncIterable[Any] | Iterable[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        *,
        options: StreamOptions | None = None,
        **changes: Unpack[ResponseOptionArguments],
    ) -> None:
        if options is not None or changes:
            chosen = (options or self.options).replace(changes)
            self.options = chosen  # type: ignore[misc]
        self.body_iterator = self._body = Body(checked_content(content), self.options)
        self.status_code = status_code
        if media_type is not None:
            self.media_type = media_type
        self.background = background
        self.init_headers(headers)

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Set the headers: those given, then the options, then the defaults."""
        if self.options.headers:
            chosen = Headers(self.options.headers).mutablecopy()
            chosen.update(headers or {})
            headers = chosen
        super().init_headers(headers)
        given = {name for name, _ in self.raw_headers}
        self.raw_headers.extend(
            header for header in _DEFAULT_HEADERS.items() if header[0] not in given
        )

    def encode_items_with(self, encoder_for: EncoderFactory) -> Self:
        """Set the factory of the encoder, which is called for each request."""
        self._body.encoder_for = encoder_for
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream the items, then run the background task.

        A response to HEAD has no body, so nothing is iterated for it.

        Raises:
            Exception: The iterable raised it. Before the first event nothing has been
                sent, so FastAPI's exception handlers can still respond.
        """
        head = Head.of(scope, self.status_code, self._final_headers())
        if scope.get("method") == "HEAD":
            for message in head.without_body:
                await send(message)
            if self.background is not None:
                await self.background()
            return
        if self.body_iterator is self._body:
            source, encoder_for = self._body.items, self._body.encoder_for
        else:  # A middleware or a decorator has replaced it, usually with bytes.
            source, encoder_for = self.body_iterator, chunks
            if isinstance(source, AsyncIterable):
                source = self._body.wrapped(source)
        if isinstance(source, LogContent):
            await source.open()
        encoder = encoder_for(scope, self.options.json)
        request = opened_request(scope)
        pending = None if request is None else request.pending
        stream = Stream(
            source,
            encoder,
            head,
            self.options,
            self._limits,
            pending,
            scope,
        )
        error: Exception | None = None
        try:
            try:
                await stream.run(client_of(request, receive), send)
            except Exception as raised:
                error = raised
                raise
            if self.background is not None:
                await self.background()
        finally:
            try:
                if self.options.on_close is not None:
                    await self._call_on_close(
                        self.options.on_close, stream, error, request
                    )
            finally:
                del error  # Its traceback refers to this frame: a reference cycle.

    async def _call_on_close(
        self,
        on_close: CloseHook,
        stream: Stream,
        error: Exception | None,
        request: OpenRequest | None,
    ) -> None:
        """Call the hook, after the dependencies are closed if the request is ours."""
        summary = stream.summary(error)
        call = functools.partial(
            call_on_close, on_close, summary, self.options.close_timeout
        )
        if request is None:
            await call()
        else:
            request.stack.push_async_callback(call)

    def _final_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers without defaults that a dependency has overridden.

        FastAPI appends the headers that dependencies set, so the last value counts.
        """
        last = {name: index for index, (name, _) in enumerate(self.raw_headers)}
        return [
            header
            for index, header in enumerate(self.raw_headers)
            if header[0] not in _SINGLE_HEADERS or last[header[0]] == index
        ]
