"""Types of the compiled module: from a yielded item to the bytes on the wire."""

from asyncio import Task
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    MutableMapping,
)
from types import TracebackType
from typing import Any, Literal, Protocol, final

from fastapi.sse import ServerSentEvent
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, ValidationError

__all__ = [
    "DEBUG",
    "KEEPALIVE_COMMENT",
    "DirectSend",
    "EncodedEvent",
    "EventBuffer",
    "EventTemplate",
    "ItemEncoder",
    "Pump",
    "__version__",
    "begin_send",
    "encode_event",
    "fill_event",
    "format_sse_event",
    "slot_digits",
    "slot_name",
    "slot_text",
    "sse_starlette_bytes",
    "sse_starlette_check",
    "sse_starlette_frame",
]

__version__: str
"""The version of the package."""

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
            not a non-negative integer.

    Examples:
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
        json: How `data` is spelled; see `StreamOptions`.

    Raises:
        pydantic.ValidationError: As for `ServerSentEvent`.
        ValueError: `data` cannot be encoded.
        TypeError: An unknown argument, or `data` cannot be encoded.

    Examples:
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
        json: Literal["fastapi", "compact"] = "fastapi",
    ) -> EncodedEvent: ...
    @staticmethod
    def from_bytes(frames: bytes, /) -> EncodedEvent:
        r"""Take bytes that are complete events already, as a relay has them.

        They are sent as they are; to a `StreamSummary` they count as one event.

        Args:
            frames: One or more events, each ending with a blank line.

        Raises:
            ValueError: They are no complete events in UTF-8, or begin with a byte order
                mark.

        Examples:
            >>> EncodedEvent.from_bytes(b"data: 1\n\ndata: 2\n\n")
            <EncodedEvent b'data: 1\n\ndata: 2\n\n'>
            >>> EncodedEvent.from_bytes(b"data: 1\n")
            Traceback (most recent call last):
                ...
            ValueError: an event must end with a blank line
        """

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

@final
class EventTemplate:
    r"""A frame that is encoded once, with slots for what differs from event to event.

    For streams whose events are alike but for a few values, such as the tokens of a
    chat completion: filling a slot costs a small part of encoding the whole. The frame
    is the one that `EncodedEvent` would have made of the filled-in data.

    A template cannot change. It can be pickled where its data can be.

    Args:
        data: Anything an event can carry, with a `Slot` wherever a value differs.
        event: Name that `addEventListener` listens for, or a `Slot`.
        id: What a browser sends back as `Last-Event-ID`, or a `Slot`.
        retry: Milliseconds that a browser waits before it reconnects.
        comment: Lines that every client ignores.
        json: How `data` is spelled; see `StreamOptions`.

    Raises:
        pydantic.ValidationError: As for `ServerSentEvent`.
        ValueError: `data` cannot be encoded, or a slot is a key, is part of a longer
            text, is there twice, is left out of what is sent, or stands where no value
            can be put, as in a set.
        TypeError: An unknown argument, or `data` cannot be encoded.

    Examples:
        >>> token = EventTemplate({"index": 0, "text": Slot("text")})
        >>> token(" tok")
        <EncodedEvent b'data: {"index": 0, "text": " tok"}\n\n'>
    """

    def __new__(
        cls,
        data: Any,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
        json: Literal["fastapi", "compact"] = "fastapi",
    ) -> EventTemplate: ...
    def __call__(self, *args: Any, **values: Any) -> EncodedEvent:
        r"""Return the event with all slots filled.

        Args:
            *args: The value, where there is a single slot.
            **values: A value for every slot: anything that JSON can carry; for `event`
                and `id` a `str` or `None`.

        Raises:
            TypeError: A slot without a value, a value without a slot, or a value that
                cannot be encoded.
            ValueError: A value that cannot be encoded.

        Examples:
            >>> EventTemplate({"text": Slot("text")}, id=Slot("id"))(text="a", id="7")
            <EncodedEvent b'data: {"text": "a"}\nid: 7\n\n'>
        """

    def partial(self, **values: Any) -> EventTemplate:
        """Return a template with some of the slots filled, for one stream.

        Args:
            **values: Values as for a call.

        Raises:
            TypeError: As for a call, but for missing values.
            ValueError: A value that cannot be encoded, or only once, as an iterator.

        Examples:
            >>> chunk = EventTemplate({"id": Slot("id"), "text": Slot("text")})
            >>> chunk.partial(id="chat-1").slots
            ('text',)
        """

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots, in the order of the frame."""

    def __copy__(self) -> EventTemplate: ...
    def __deepcopy__(self, memo: Any, /) -> EventTemplate: ...
    def __reduce__(self) -> tuple[Callable[..., EventTemplate], tuple[Any, ...]]: ...

def encode_event(
    item: Any, /, *, json: Literal["fastapi", "compact"] = "fastapi"
) -> EncodedEvent:
    r"""Make a ready frame of anything that a stream without an item type accepts.

    Args:
        item: An event, or data that becomes one.
        json: How data is spelled; see `StreamOptions`.

    Raises:
        ValueError: The item cannot be encoded, or breaks a rule of its fields.
        TypeError: The item cannot be encoded.

    Examples:
        >>> encode_event({"n": 1})
        <EncodedEvent b'data: {"n": 1}\n\n'>
    """

@final
class ItemEncoder:
    """What makes frames of the items of a stream.

    `ItemEncoder()` writes `json.dumps(jsonable_encoder(item))`. Events are written as
    events by every encoder.

    Args:
        json: How data is spelled that no model spells itself; see `StreamOptions`.

    Raises:
        ValueError: There is no such spelling.
    """

    def __new__(
        cls, *, json: Literal["fastapi", "compact"] = "fastapi"
    ) -> ItemEncoder: ...
    @staticmethod
    def typed(
        *,
        validate: Callable[..., Any],
        serialize: Callable[..., bytes],
        invalid: Callable[[Any, ValidationError], Exception],
        validate_options: dict[str, Any] | None = None,
        serialize_options: dict[str, Any] | None = None,
        valid: type | None = None,
        json: Literal["fastapi", "compact"] = "fastapi",
    ) -> ItemEncoder:
        """Return an encoder of items of one type.

        Args:
            validate: Makes a valid value of an item, or raises a `ValidationError`.
            serialize: Makes JSON of a valid value.
            invalid: Makes the exception to raise for an item and its `ValidationError`.
            validate_options: Keyword arguments of `validate`.
            serialize_options: Keyword arguments of `serialize`.
            valid: A class whose instances `validate` would return as they are, so that
                it need not be called. Subclasses do not count.
            json: How the data of events is spelled.
        """

    @staticmethod
    def chunks(
        *,
        json: Literal["fastapi", "compact"] = "fastapi",
        no_event: Callable[[str], object] | None = None,
    ) -> ItemEncoder:
        """Return an encoder that takes `str` and bytes for parts of the body.

        Args:
            json: How data is spelled.
            no_event: Called with the first part if it is a text that no event begins
                with.
        """

    @staticmethod
    def sse_starlette(sep: str, /) -> ItemEncoder:
        """Return an encoder that reads items as sse-starlette does.

        Args:
            sep: What ends a line.

        Raises:
            ValueError: It is no end of a line.
        """

@final
class EventBuffer:
    """Frames that wait for the next send.

    `push` and `take` may run in different threads.

    Args:
        encoder: Makes frames of items.
        source: What the items come from, to be named in errors.
        max_pending: Bytes from which on a producer should wait. 0 is lockstep: it
            should wait until what was taken has been sent.
        time_slice: Seconds after which a producer should give way in any case.
        opening: Bytes that are taken before everything else, or alone.
        wake: Called from `push` when something waits that did not before.
    """

    def __new__(
        cls,
        encoder: ItemEncoder,
        *,
        source: object,
        max_pending: int,
        time_slice: float,
        opening: bytes | None = None,
        wake: Callable[[], object] | None = None,
    ) -> EventBuffer: ...
    def push(self, item: Any, /) -> bool:
        """Append the frame of an item and return whether the producer should give way.

        Raises:
            Exception: The item cannot be encoded. Nothing was appended. A note on it
                says which item it was.
        """

    def take(self) -> bytes:
        """Return what is to be sent next, in one send; nothing when nothing waits.

        Small frames are joined. A large one is returned as it was encoded, without a
        copy, or in parts where it is so large that a client needs its time for them.
        """

    def sent(self) -> None:
        """Note that all that was taken has been sent."""

    def resume(self) -> None:
        """Begin a new time slice: the producer goes on after it has given way."""

    def close(self) -> None:
        """Drop what waits and what is pushed from now on."""

    def shrink(self) -> None:
        """Give back the space of a burst that is over."""

    @property
    def sent_events(self) -> int:
        """How many events were sent."""

    @property
    def sent_bytes(self) -> int:
        """How many bytes were sent."""

    @property
    def seconds_to_first_event(self) -> float | None:
        """Seconds from the making of the buffer until an event was taken."""

    @property
    def seconds_idle(self) -> float:
        """Seconds since something was taken, or since the buffer was made."""

    @property
    def mid_event(self) -> bool:
        """Whether what was taken so far ends inside an event: in chunks of a body."""

    @property
    def full(self) -> bool:
        """Whether a producer should wait: `max_pending` is reached, or it is closed."""

    def __len__(self) -> int:
        """Return how many bytes wait."""

class _Outlet(Protocol):
    def begun(self) -> None: ...
    def wake(self) -> None: ...
    def hand_over(self, send: Any, waits_for: Any, /) -> None: ...
    def send_failed(self, error: BaseException, /) -> None: ...
    def interrupt_source(self) -> None: ...

@final
class Pump:
    """Drives an async iterator by hand, and sends in the same step what it yields.

    An awaitable. Its result is whether the iterator has to give way before it goes on:
    then it is awaited again. It is `False` when the iterator has ended.

    Args:
        items: The async iterator.
        buffer: Where its items go.
        outlet: Is told that the response has `begun`, to `wake` when something is
            pending that the pump cannot send, to `hand_over` a send that has to wait,
            of one that has failed, and to `interrupt_source` after a step while
            `interrupting` is set.

    Raises:
        Exception: What the iterator raised, or the encoding of an item.
    """

    def __new__(
        cls, items: AsyncIterator[Any], buffer: EventBuffer, outlet: _Outlet, /
    ) -> Pump: ...
    def __await__(self) -> Generator[Any, Any, bool]: ...
    def __iter__(self) -> Pump: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any:
        """Resume the iterator with a value."""

    def throw(
        self, kind: Any, value: Any = None, traceback: TracebackType | None = None, /
    ) -> Any:
        """Resume the iterator with an exception."""

    def close(self) -> None:
        """Close the step that the iterator is in, as a coroutine does."""

    def begin(self, awaitable: Awaitable[Any], /) -> None:
        """Take an awaitable, such as `items.athrow(error)`, for the next step."""

    def send_with(self, direct: DirectSend | None, /) -> None:
        """Send in the steps of the iterator from now on, or wake the outlet instead."""

    @property
    def waits(self) -> bool:
        """Whether the iterator waits for something, in the middle of a step."""

    interrupting: bool
    """Whether to ask the outlet to interrupt the iterator after each of its steps."""

@final
class DirectSend:
    """Sends a response in the steps of another task than that of the request.

    While it calls `send`, the task of the request is the current one: what a middleware
    opens there belongs to the task which goes on with a send that has to wait.

    Args:
        send: What parts of the body are sent with.
        head: What the message that starts the response is sent with, and that message.
        body_type: The type of the messages behind it.
        run: Runs a function in the context of the sends.
        request: The task of the request.
        stream: The task in whose steps it is called.
    """

    def __new__(
        cls,
        send: Callable[[Any], Awaitable[None]],
        *,
        head: tuple[Callable[[Any], Awaitable[None]], MutableMapping[str, Any]],
        body_type: str,
        run: Callable[..., Any],
        request: Task[Any],
        stream: Task[Any],
    ) -> DirectSend: ...
    def forget_head(self) -> None:
        """Do not send the head: it is being sent by somebody else."""

def begin_send(
    send: Callable[[Any], Awaitable[None]], message: Any, /
) -> tuple[Any, Any] | None:
    """Call `send`, and go on as far as that does without waiting.

    Returns:
        The iterator of a send that waits, and what for; `None` of one that is done.
    """

def fill_event(event: ServerSentEvent, fields: dict[str, Any], /) -> bool:
    """Fill a new event from keyword arguments that need no coercion.

    Returns:
        Whether it was filled. If not, it was not touched and pydantic must validate.
    """

def slot_text(name: str, /) -> str:
    """Return the text that stands for a slot while a template is made."""

def slot_digits(name: str, /) -> str:
    """Return the digits of the number that stands for a slot."""

def slot_name(value: object, /) -> str | None:
    """Return the name of the slot that a value is: its text, or its number."""

def sse_starlette_bytes(data: object, sep: str, /) -> bytes:
    """Return what sse-starlette sends for an item.

    Args:
        data: The item.
        sep: What ends a line; events have their own.
    """

def sse_starlette_check(sep: object, /) -> None:
    """Refuse what ends no line.

    Raises:
        ValueError: `sep` is not one of the three ends of a line.
    """

def sse_starlette_frame(event: object, /) -> bytes:
    """Return the frame of an event of `fastapi_sse_fast.sse_starlette`."""
