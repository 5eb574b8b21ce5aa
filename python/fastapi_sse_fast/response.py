"""The response class, and its options."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import fastapi.sse
from starlette.datastructures import Headers

from ._body import Body, chunks
from ._request import client_of, opened_request
from ._stream import Head, Limits, Stream, call_on_close
from .content import checked_content
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
    b"x-accel-buffering": b"no",  # nginx would collect events before it passes them on
}
_SINGLE_HEADERS = frozenset({b"content-type", *_DEFAULT_HEADERS})


_Base = fastapi.sse.EventSourceResponse


class EventSourceResponse(_Base):
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

    Options are keywords: of a subclass, of `with_options`, and of a returned response.
    All of them take the fields of `StreamOptions`, or whole `options`:

        class Tokens(EventSourceResponse, ping_interval=5.0, on_close=count): ...

        Tokens = EventSourceResponse.with_options(ping_interval=5.0, on_close=count)

        return EventSourceResponse(events(), ping_interval=5.0, on_close=count)

    Attributes:
        options: What is set, of a class or a response.

    Args:
        content: What yields the items.
        status_code: Status of the response.
        headers: More headers, in place of the default ones of the same name, and of
            those of the options.
        media_type: Another content type.
        background: Run when the stream is over.
        options: The options, in place of those of the class.
        **changes: Single options.

    Raises:
        TypeError: `content` is not an iterable of items, or there is no such option.
        ValueError: An option has a bad value.
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
        """Sets the options of a subclass.

        Args:
            options: The options, in place of those of the base class.
            **changes: Single options.

        Raises:
            TypeError: There is no such option, or it is an attribute of the class.
            ValueError: An option has a bad value.
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
        """Returns a subclass with other options; those not given stay as they are.

        Args:
            options: The options, in place of those of this class.
            **changes: Single options.

        Raises:
            TypeError: There is no such option.
            ValueError: An option has a bad value.

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
        """Adds those of the options, and those of an event stream, to those given."""
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
        head = Head.of(scope, self.status_code, self._final_headers())
        if scope.get("method") == "HEAD":
            for message in head.without_body:
                await send(message)
            if self.background is not None:
                await self.background()
            return
        if self.body_iterator is self._body:
            source, encoder_for = self._body.items, self._body.encoder_for
        else:  # somebody wrapped it, and has bytes for us
            source, encoder_for = self.body_iterator, chunks
            if isinstance(source, AsyncIterable):
                source = self._body.wrapped(source)
        encoder = encoder_for(scope, self.options.json)
        request = opened_request(scope)
        opening = None if request is None else request.opening
        stream = Stream(
            source,
            encoder,
            head,
            self.options,
            self._limits,
            opening,
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
                    await self._tell(self.options.on_close, stream, error, request)
            finally:
                del error  # which has this frame in its traceback: a cycle

    async def _tell(
        self,
        on_close: CloseHook,
        stream: Stream,
        error: Exception | None,
        request: OpenRequest | None,
    ) -> None:
        """Call the hook, if there is a request when its dependencies are closed."""
        summary = stream.summary(error)
        tell = functools.partial(
            call_on_close, on_close, summary, self.options.close_timeout
        )
        if request is None:
            await tell()
        else:
            request.stack.push_async_callback(tell)

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
