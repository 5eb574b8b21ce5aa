"""The response class, and its options."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import fastapi.sse
from pydantic import BaseModel

from . import _fastapi
from ._core import ItemEncoder
from ._driver import Head, Stream

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.responses import AsyncContentStream
    from starlette.types import Receive, Scope, Send
    from typing_extensions import Self


class Unset(Enum):
    """The type of `UNSET`: an option that is left to FastAPI."""

    UNSET = "unset"

    def __repr__(self) -> str:
        """As it is written in signatures."""
        return self.name


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream behaves; checked when it is made.

    Attributes:
        ping_interval: Seconds without an event before a ping. `None` switches pings
        off,
            `UNSET` leaves it to FastAPI: 15 seconds.

    Raises:
        ValueError: A value is out of range.
    """

    ping_interval: float | Unset | None = UNSET

    def __post_init__(self) -> None:
        """Checks the values."""
        interval = self.ping_interval
        if interval is None or isinstance(interval, Unset):
            return
        if (
            not isinstance(interval, (int, float))
            or isinstance(interval, bool)
            or not 0 < interval < math.inf
        ):
            raise ValueError(
                "ping_interval must be a positive number of seconds, or None for no "
                f"pings, not {interval!r}"
            )

    @property
    def seconds_to_ping(self) -> float:
        """`ping_interval` with the default and infinity filled in."""
        if isinstance(self.ping_interval, Unset):
            return _fastapi.default_ping_interval()
        return math.inf if self.ping_interval is None else self.ping_interval


_OPTION_NAMES = frozenset(field.name for field in fields(StreamOptions))

_DEFAULT_HEADERS = {
    b"cache-control": b"no-cache",
    b"x-accel-buffering": b"no",  # nginx would collect events before it passes them on
}
_SINGLE_HEADERS = frozenset({b"content-type", *_DEFAULT_HEADERS})

_RETURNED_ITEMS = ItemEncoder.chunks()


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

    Options are class attributes, set in a subclass or with `with_options`.

    Args:
        content: What yields the items.
        status_code: Status of the response.
        headers: More headers, in place of the default ones of the same name.
        media_type: Another content type.
        background: Run when the stream is over.

    Raises:
        TypeError: `content` is not an iterable of items.
    """

    ping_interval: ClassVar[float | None] = 15.0
    """Seconds without an event before a `: ping` comment; `None` switches pings off."""

    _options: ClassVar[StreamOptions] = StreamOptions()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Takes the options among the attributes of a subclass.

        Raises:
            ValueError: An option has a bad value.
        """
        super().__init_subclass__(**kwargs)
        chosen = {
            name: cls.__dict__[name] for name in _OPTION_NAMES & set(cls.__dict__)
        }
        cls._options = replace(cls._options, **chosen)

    @classmethod
    def with_options(cls, *, ping_interval: float | Unset | None = UNSET) -> type[Self]:
        """Returns a subclass with other options; those not given stay as they are.

        Args:
            ping_interval: Seconds without an event before a ping, or `None` for no
            pings.

        Raises:
            ValueError: An option has a bad value.

        Example:
            >>> EventSourceResponse.with_options(ping_interval=5.0).ping_interval
            5.0
        """
        options = {"ping_interval": ping_interval}
        chosen = {name: value for name, value in options.items() if value is not UNSET}
        return type(cls.__name__, (cls,), {"__module__": cls.__module__, **chosen})

    def __init__(
        self,
        content: AsyncIterable[Any] | Iterable[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        # Items here, where other responses have bytes.
        self.body_iterator = cast("AsyncContentStream", _checked_content(content))
        self.status_code = status_code
        if media_type is not None:
            self.media_type = media_type
        self.background = background
        self.init_headers(headers)
        self._encoder_for: Callable[[Scope], ItemEncoder] = lambda scope: (
            _RETURNED_ITEMS
        )

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Adds the headers of an event stream to those given."""
        super().init_headers(headers)
        given = {name for name, _ in self.raw_headers}
        self.raw_headers.extend(
            header for header in _DEFAULT_HEADERS.items() if header[0] not in given
        )

    def encode_items_with(self, encoder_for: Callable[[Scope], ItemEncoder]) -> Self:
        """Has items encoded by what `encoder_for` returns for the request's scope."""
        self._encoder_for = encoder_for
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams the items, then runs the background task.

        Raises:
            Exception: What the iterable raised. Before the first event nothing has been
            sent,
                so FastAPI's exception handlers can still answer.
        """
        message_type = "http.response"
        if scope["type"] == "websocket":  # a denied handshake may have a body
            message_type = "websocket.http.response"
        head = Head(self.status_code, self._final_headers(), message_type)
        stream = Stream(
            self.body_iterator,
            self._encoder_for(scope),
            head,
            ping_interval=self._options.seconds_to_ping,
        )
        await stream.run(receive, send)
        if self.background is not None:
            await self.background()

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


def _checked_content(content: Any) -> AsyncIterable[Any] | Iterable[Any]:
    """Refuses what is one item, or text, rather than an iterable of items."""
    if isinstance(content, AsyncIterable):
        return content
    if not isinstance(content, Iterable) or isinstance(
        content, (str, bytes, bytearray, memoryview, Mapping, BaseModel)
    ):
        raise TypeError(
            "EventSourceResponse streams an async or sync iterable of events, not "
            f"{type(content).__name__!r}: pass a generator, or a list of one"
        )
    return content


_fastapi.take_over(EventSourceResponse)
