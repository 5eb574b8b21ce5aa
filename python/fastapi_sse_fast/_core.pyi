"""Types of the compiled module: from a yielded item to the bytes on the wire."""

from collections.abc import Callable
from typing import Any, final

from fastapi.sse import ServerSentEvent
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, ValidationError

__all__ = [
    "DEBUG",
    "KEEPALIVE_COMMENT",
    "EncodedEvent",
    "EventBuffer",
    "ItemEncoder",
    "encode_event",
    "fill_event",
    "format_sse_event",
]

DEBUG: bool
"""Whether this is a debug build, whose speed says nothing."""

KEEPALIVE_COMMENT: bytes
"""The frame that is sent as a ping: a comment, which every client ignores."""

def format_sse_event(
    *,
    data_str: str | None = None,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    r"""Make the bytes of one event from data that is text already.

    As `fastapi.sse.format_sse_event`, with FastAPI's field order: comment, event, data,
    id, retry. It refuses what would inject a line.

    Args:
        data_str: Text of the `data` field, a line for each of its lines.
        event: Name of the event; a single line.
        id: Id of the event; a single line without NUL.
        retry: Milliseconds before a client reconnects.
        comment: Text that clients ignore.

    Returns:
        The frame, ending in a blank line.

    Raises:
        ValueError: A line break in `event` or `id`, NUL in `id`, or a `retry` that is
        not a
            non-negative integer.

    Example:
        >>> format_sse_event(event="token", data_str="Hello")
        b'event: token\ndata: Hello\n\n'
    """

@final
class EncodedEvent:
    r"""An event that is already its frame: encoded once, sent any number of times.

    Takes the arguments of `ServerSentEvent`, with the same rules, and can be yielded in
    any stream and by several streams at once. It is what the hot path of a token stream
    yields.

    Args:
        data: Payload, sent as JSON.
        raw_data: Text that is sent as it is, instead of `data`.
        event: Name that `addEventListener` listens for; a single line.
        id: What a browser sends back as `Last-Event-ID`; a single line without NUL.
        retry: Milliseconds that a browser waits before it reconnects.
        comment: Lines that every client ignores.

    Raises:
        pydantic.ValidationError: As for `ServerSentEvent`.
        ValueError: `data` cannot be encoded.
        TypeError: An unknown argument, or `data` cannot be encoded.

    Example:
        >>> bytes(EncodedEvent(raw_data=" tok", event="token"))
        b'event: token\ndata:  tok\n\n'
    """

    def __new__(
        cls,
        *,
        data: Any = None,
        raw_data: str | None = None,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> EncodedEvent: ...
    def __bytes__(self) -> bytes:
        """Return the frame."""

    def __len__(self) -> int:
        """Return the size of the frame in bytes."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Callable[[bytes], EncodedEvent], tuple[bytes]]: ...
    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler, /
    ) -> CoreSchema: ...
    @staticmethod
    def _restore(frame: bytes, /) -> EncodedEvent: ...

def encode_event(item: Any, /) -> EncodedEvent:
    r"""Make a ready frame of anything that a stream without an item type accepts.

    Args:
        item: An event, or data that becomes one.

    Raises:
        ValueError: The item cannot be encoded, or breaks a rule of its fields.
        TypeError: The item cannot be encoded.

    Example:
        >>> encode_event({"n": 1})
        <EncodedEvent b'data: {"n": 1}\n\n'>
    """

@final
class ItemEncoder:
    """What makes frames of the items of a stream.

    `ItemEncoder()` writes `json.dumps(jsonable_encoder(item))`. Events are written as
    events by every encoder.
    """

    def __new__(cls) -> ItemEncoder: ...
    @staticmethod
    def typed(
        *,
        validate: Callable[[Any], Any],
        serialize: Callable[[Any], bytes],
        invalid: Callable[[Any, ValidationError], Exception],
    ) -> ItemEncoder:
        """Return an encoder of items of one type.

        Args:
            validate: Makes a valid value of an item, or raises a `ValidationError`.
            serialize: Makes JSON of a valid value.
            invalid: Makes the exception to raise for an item and its `ValidationError`.
        """

    @staticmethod
    def chunks() -> ItemEncoder:
        """Return an encoder that takes `str` and bytes for parts of the body."""

@final
class EventBuffer:
    """Frames that wait for the next send.

    `push` and `take` may run in different threads.

    Args:
        encoder: Makes frames of items.
        wake: Called from `push` when something waits that did not before.
        high_water: Bytes from which on a producer should give way.
        time_slice: Seconds after which it should give way in any case.
    """

    def __new__(
        cls,
        encoder: ItemEncoder,
        wake: Callable[[], object],
        *,
        high_water: int,
        time_slice: float,
    ) -> EventBuffer: ...
    def push(self, item: Any, /) -> bool:
        """Append the frame of an item and return whether the producer should give way.

        Raises:
            Exception: The item cannot be encoded. Nothing was appended.
        """

    def take(self) -> bytes:
        """Return everything that waits, which may be nothing."""

    def close(self) -> None:
        """Drop what waits and what is pushed from now on."""

    @property
    def taken_events(self) -> int:
        """How many events were in what was taken so far."""

    @property
    def full(self) -> bool:
        """Whether `high_water` is reached."""

    def __len__(self) -> int:
        """Return how many bytes wait."""

def fill_event(event: ServerSentEvent, fields: dict[str, Any], /) -> bool:
    """Fill a new event from keyword arguments that need no coercion.

    Returns:
        Whether it was filled. If not, it was not touched and pydantic must validate.
    """
