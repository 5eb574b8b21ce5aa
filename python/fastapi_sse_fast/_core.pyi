"""Types of the compiled module, which encodes items and sends their frames.

Names that `fastapi_sse_fast` exports are public. All other names are private.
"""

from asyncio import Task
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    MutableMapping,
    Sequence,
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
    "EventLog",
    "EventTemplate",
    "ItemEncoder",
    "LogReader",
    "Pump",
    "__version__",
    "begin_send",
    "encode_event",
    "fill_event",
    "format_sse_event",
    "parse_last_event_id",
    "slot_digits",
    "slot_name",
    "slot_text",
    "split_events",
    "sse_starlette_bytes",
    "sse_starlette_check",
    "sse_starlette_frame",
]

__version__: str
"""The version of the package."""

DEBUG: bool
"""Whether this is a debug build. Do not measure the speed of one."""

KEEPALIVE_COMMENT: bytes
"""The frame of a ping: a comment, which every client ignores."""

def format_sse_event(
    *,
    data_str: str | None = None,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    r"""Return the frame of an event whose data is text already.

    This is `fastapi.sse.format_sse_event`, with the same order of fields: comment,
    event, data, id, retry. Unlike FastAPI's function, it raises an error for a value
    that would add a line to the stream.

    Args:
        data_str: Text of the `data` field. Each line of it becomes a `data:` line.
        event: Name of the event, on a single line.
        id: Id of the event, on a single line and without NUL.
        retry: Milliseconds that a client waits before it reconnects.
        comment: Text that clients ignore.

    Returns:
        The frame, which ends with a blank line.

    Raises:
        ValueError: `event` or `id` contains a line break, `id` contains NUL, or `retry`
            is not a non-negative integer.
        TypeError: `data_str` or `comment` is not a `str`.

    Examples:
        >>> format_sse_event(event="token", data_str="Hello")
        b'event: token\ndata: Hello\n\n'
    """

@final
class EncodedEvent:
    r"""A pre-encoded event: it is encoded once and can be sent any number of times.

    It takes the arguments of `ServerSentEvent`, with the same rules. Any stream can
    yield it, and several streams can yield the same event. Use it when you send an
    event to many clients, or when you yield many small events, such as tokens.

    Args:
        data: Payload, sent as JSON.
        raw_data: Text that is sent as it is, instead of `data`.
        event: Name that `addEventListener` listens for, on a single line.
        id: Id that a browser sends back in `Last-Event-ID`, on a single line and
            without NUL.
        retry: Milliseconds that a browser waits before it reconnects.
        comment: Text that every client ignores.
        json: Spelling of the JSON of `data`; see `StreamOptions`.

    Raises:
        pydantic.ValidationError: As for `ServerSentEvent`.
        ValueError: `data` cannot be encoded.
        TypeError: `data` cannot be encoded, or an argument is unknown.

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
        r"""Return an event of bytes that are complete events already.

        Use it to relay the events of another server. The bytes are sent as they are,
        and a `StreamSummary` counts them as one event.

        Args:
            frames: One or more events, each of which ends with a blank line.

        Raises:
            ValueError: The bytes are not complete events in UTF-8, or they begin with a
                byte order mark.

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
    r"""An event that is encoded once, with slots for the values that differ.

    Use it for streams whose events differ only in a few values, such as the tokens of a
    chat completion. Filling a slot costs a small part of encoding the whole event. The
    frame is the same as that of an `EncodedEvent` with the values in `data`.

    A template cannot change. You can pickle it if you can pickle its data.

    Args:
        data: Any data of an event, with a `Slot` in place of each value that differs.
        event: Name that `addEventListener` listens for, or a `Slot`.
        id: Id that a browser sends back in `Last-Event-ID`, or a `Slot`.
        retry: Milliseconds that a browser waits before it reconnects.
        comment: Text that every client ignores.
        json: Spelling of the JSON of `data`; see `StreamOptions`.

    Raises:
        pydantic.ValidationError: As for `ServerSentEvent`.
        ValueError: `data` cannot be encoded. Or a slot is a key, is part of a longer
            string, is used twice, is missing from the encoded data, or is in a set or
            an iterator.
        TypeError: `data` cannot be encoded, or an argument is unknown.

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
            *args: The value, if the template has one slot.
            **values: A value for each slot: any data of an event, or a `str` or `None`
                for the slot of `event` or `id`.

        Raises:
            TypeError: A slot has no value, a value has no slot, or a value cannot be
                encoded.
            ValueError: A value cannot be encoded.

        Examples:
            >>> EventTemplate({"text": Slot("text")}, id=Slot("id"))(text="a", id="7")
            <EncodedEvent b'data: {"text": "a"}\nid: 7\n\n'>
        """

    def partial(self, **values: Any) -> EventTemplate:
        """Return a template with some of the slots filled.

        Use it for values that are the same in all events of a stream.

        Args:
            **values: Values for some of the slots, as in a call.

        Raises:
            TypeError: A value has no slot, or it cannot be encoded.
            ValueError: A value cannot be encoded, or only once, such as an iterator.

        Examples:
            >>> chunk = EventTemplate({"id": Slot("id"), "text": Slot("text")})
            >>> chunk.partial(id="chat-1").slots
            ('text',)
        """

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots, in the order of the frame."""

    def __copy__(self) -> EventTemplate: ...
    def __deepcopy__(self, memo: Any, /) -> EventTemplate: ...
    def __reduce__(self) -> tuple[Callable[..., EventTemplate], tuple[Any, ...]]: ...

def encode_event(
    item: Any, /, *, json: Literal["fastapi", "compact"] = "fastapi"
) -> EncodedEvent:
    r"""Return the pre-encoded event of any item that a stream can yield.

    Args:
        item: An event, or data, which is encoded as in a stream without an item type.
        json: Spelling of the JSON of data; see `StreamOptions`.

    Raises:
        ValueError: The item cannot be encoded, or a field of the event is not valid.
        TypeError: The item cannot be encoded.

    Examples:
        >>> encode_event({"n": 1})
        <EncodedEvent b'data: {"n": 1}\n\n'>
    """

@final
class ItemEncoder:
    """Encodes the items of a stream.

    `ItemEncoder()` is for items without a type, whose JSON is that of
    `json.dumps(jsonable_encoder(item))`. Every encoder encodes events as events.

    Args:
        json: Spelling of the JSON of data, except for the data of models; see
            `StreamOptions`.
        allow_id: Whether events may have an `id`.

    Raises:
        ValueError: `json` is neither `"fastapi"` nor `"compact"`.
    """

    def __new__(
        cls, *, json: Literal["fastapi", "compact"] = "fastapi", allow_id: bool = True
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
        """Return an encoder for items of one type.

        Args:
            validate: Returns the valid value of an item, or raises `ValidationError`.
            serialize: Returns the JSON of a valid value.
            invalid: Returns the exception to raise for an item and its
                `ValidationError`.
            validate_options: Keyword arguments of `validate`.
            serialize_options: Keyword arguments of `serialize`.
            valid: Class whose instances need no call of `validate`, because it would
                return them unchanged. This does not include subclasses.
            json: Spelling of the JSON of events' data.
        """

    @staticmethod
    def chunks(
        *,
        json: Literal["fastapi", "compact"] = "fastapi",
        no_event: Callable[[str], object] | None = None,
    ) -> ItemEncoder:
        """Return an encoder that treats `str` and bytes as parts of the body.

        Args:
            json: Spelling of the JSON of data.
            no_event: Called with the first part if it is text that cannot begin an
                event.
        """

    @staticmethod
    def sse_starlette(sep: str, /) -> ItemEncoder:
        """Return an encoder that encodes items as sse-starlette does.

        Args:
            sep: Line end.

        Raises:
            ValueError: `sep` is not a line end.
        """

@final
class EventBuffer:
    """The frames that wait for the next send.

    `push` and `take` may run in different threads.

    Args:
        encoder: Encodes the items.
        source: Iterator or generator of the items. Errors name it.
        max_pending: Bytes from which on the producer should wait. 0 is lockstep: the
            producer should wait until all bytes that were taken have been sent.
        time_slice: Seconds after which the producer should let other tasks run.
        opening: Bytes that come before all frames. They can also be taken alone.
        wake: Called by `push` when the buffer was empty before.
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
        """Append the frame of an item and return whether the producer should pause.

        Raises:
            Exception: The item cannot be encoded. The buffer did not change. A note on
                the exception says which item it was.
        """

    def take(self) -> bytes:
        """Return the bytes of the next send, or empty bytes if nothing is pending.

        Small frames are joined. A large frame is returned without a copy. A frame that
        is too large for one send is returned in several parts.
        """

    def sent(self) -> None:
        """Record that all bytes that were taken have been sent."""

    def resume(self) -> None:
        """Begin the next time slice of the producer."""

    def close(self) -> None:
        """Drop all pending frames and all items that are pushed from now on."""

    def shrink(self) -> None:
        """Free the memory that a burst has needed."""

    @property
    def sent_events(self) -> int:
        """The number of events that were sent."""

    @property
    def sent_bytes(self) -> int:
        """The number of bytes that were sent."""

    @property
    def seconds_to_first_event(self) -> float | None:
        """The seconds from the creation of the buffer until an event was taken."""

    @property
    def seconds_idle(self) -> float:
        """The seconds since bytes were last taken, or since the buffer was created."""

    @property
    def mid_event(self) -> bool:
        """Whether the bytes that were taken end inside an event."""

    @property
    def full(self) -> bool:
        """Whether the producer should wait because the buffer is full or closed."""

    def __len__(self) -> int:
        """Return the number of pending bytes."""

@final
class EventLog:
    """The frames of a channel or a run, from the oldest that is kept to the newest.

    It belongs to one event loop, and only that appends to it.

    Args:
        epoch: The name of this life of the log, which positions begin with.
        most: How many frames to keep.
        call_soon: Schedules a function in the event loop, as `loop.call_soon` does.
        top: The offset of the newest event, if the log continues another one.
        earlier: The epochs before this one, each with the last offset whose event is
            the same in both.
    """

    def __new__(
        cls,
        epoch: str,
        /,
        *,
        most: int,
        call_soon: Callable[[Callable[[], None]], Any],
        top: int = 0,
        earlier: list[tuple[str, int]] = ...,
    ) -> EventLog: ...
    def append(self, frames: bytes, /) -> int:
        """Append events, and return the offset of the last one that is complete.

        The beginning of another one is kept until the rest of it is appended. Readers
        are served soon, and never in this call.

        Raises:
            ValueError: An event has an `id`, or the log has ended.
        """

    def end(
        self, frame: bytes | None = None, *, without_id: bytes | None = None
    ) -> None:
        """End the log: readers are over when they have taken everything.

        Args:
            frame: The last event.
            without_id: What readers that send no positions get instead of it.
        """

    def prepend(self, frames: list[bytes], /) -> None:
        """Put older events in front of the others, as far as there is room.

        Args:
            frames: An event each, in their order, up to the one before `first`.
        """

    def restart(
        self, epoch: str, top: int, /, *, earlier: list[tuple[str, int]] = ...
    ) -> None:
        """Drop all frames, and continue in another epoch or at another offset.

        Readers continue after `top`. They have a gap, unless `earlier` says that their
        position is valid in the new epoch, too, and no event is missing.
        """

    def fail(self, error: BaseException, /) -> None:
        """Fail the streams of all readers.

        Each stream raises an exception of its own, which is made from the arguments of
        this one.
        """

    def resume(
        self, epoch: str, offset: int, /
    ) -> tuple[int, Literal["trimmed", "reset", "unknown"] | None, int | None]:
        """Return where a reader continues from a position.

        Returns:
            The offset of the last event that it does not get, why events are missing
            before the next one, if they are, and how many.
        """

    def deliver(self) -> None:
        """Serve the readers; called by the event loop."""

    def position(self, offset: int | None = None) -> str:
        """Return the position of an event, by default of the newest."""

    @property
    def epoch(self) -> str:
        """The name of this life of the log."""

    @property
    def earlier(self) -> list[tuple[str, int]]:
        """The epochs before this one, each with the last offset that is the same."""

    @property
    def undelivered(self) -> int:
        """How many events have been appended since all readers were served."""

    @property
    def first(self) -> int:
        """The offset of the oldest frame that is kept, or of the next one."""

    @property
    def top(self) -> int:
        """The offset of the newest frame, 0 before the first one."""

    @property
    def is_over(self) -> bool:
        """Whether the log has ended."""

    @property
    def lag(self) -> int:
        """How many events the slowest reader is behind."""

    @property
    def readers(self) -> int:
        """The number of readers that are attached."""

    @property
    def seconds_unread(self) -> float:
        """Seconds for which there has been no reader."""

@final
class LogReader:
    """Takes the frames of logs for one stream, from a cursor on.

    To an outlet it is what an `EventBuffer` is.

    Args:
        logs: The logs.
        positions: For each log, its epoch and the offset of the last event that the
            client has.
        most_bytes: The bytes of one send, unless a single event is larger.
        with_ids: Whether the client is sent positions.
        gap: Called where events are missing, with the reason, the position before them,
            their number if it is known, and the position behind them. Returns bytes to
            send, and whether the stream ends with them; or `None`, and nothing is read
            until these are passed to `report`.
    """

    def __new__(
        cls,
        logs: Sequence[EventLog],
        positions: Sequence[tuple[str, int]],
        /,
        *,
        most_bytes: int,
        with_ids: bool,
        gap: Callable[
            [Literal["reset", "overflow"], str, int | None, str],
            tuple[bytes, bool] | None,
        ],
    ) -> LogReader: ...
    def report(self, told: bytes, ends: bool, /) -> None:
        """Send what reports a gap, and continue or end."""

    def fail(self, error: BaseException, /) -> None:
        """Fail the stream of this reader."""

    def open_with(self, opening: bytes, /) -> None:
        """Send bytes before everything else."""

    def attach(self, outlet: _Outlet, /) -> None:
        """Have the logs serve this reader from now on, and wake an outlet."""

    def send_with(self, direct: DirectSend | None, /) -> None:
        """Send when there is something to send, or wake the outlet instead."""

    def take(self) -> bytes:
        """Return what is to be sent next, in one send; nothing when nothing waits."""

    def sent(self) -> None:
        """Note that all that was taken has been sent."""

    def close(self) -> None:
        """Take nothing more, and let the logs forget this reader."""

    def end(self) -> None:
        """End the stream: nothing more is read from the logs."""

    def shrink(self) -> None:
        """Do nothing."""

    @property
    def position(self) -> str:
        """The position of the last event that was taken."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes, except what is pending."""

    @property
    def lag(self) -> int:
        """How many events the client is behind."""

    @property
    def sent_events(self) -> int:
        """How many events were sent."""

    @property
    def sent_bytes(self) -> int:
        """How many bytes were sent."""

    @property
    def seconds_to_first_event(self) -> float | None:
        """Seconds until an event was taken."""

    @property
    def seconds_idle(self) -> float:
        """Seconds since something was taken, or since the reader was made."""

    @property
    def mid_event(self) -> bool:
        """Whether what was taken last ends inside an event: it is sent in parts."""

    @property
    def full(self) -> bool:
        """`False`: no producer waits for a reader."""

    def __len__(self) -> int:
        """Return how many bytes wait."""

def parse_last_event_id(text: str, /) -> list[tuple[str, int]] | None:
    """Return the epoch and the offset of each position in a `Last-Event-ID`.

    It is `None` if the text is not well-formed.
    """

def split_events(frames: bytes, /) -> tuple[list[bytes], bytes]:
    """Split bytes into events. Return what follows the last of them, too.

    Raises:
        ValueError: An event has an `id`, which only a log gives.
    """

class _Outlet(Protocol):
    def begun(self) -> None: ...
    def wake(self) -> None: ...
    def hand_over(self, send: Any, waits_for: Any, /) -> None: ...
    def send_failed(self, error: BaseException, /) -> None: ...
    def interrupt_source(self) -> None: ...

@final
class Pump:
    """Runs an async iterator and sends its items in the same step of the task.

    A pump is an awaitable. Its result is `True` if the iterator has paused to let other
    tasks run; then await the pump again. It is `False` if the iterator has ended.

    Args:
        items: Async iterator.
        buffer: Buffer of the items.
        outlet: Object that sends in another task. The pump calls `begun` when it sends
            the head, `wake` when frames are pending that it cannot send itself,
            `hand_over` with a send that has to wait, and `send_failed` with the error
            of a send. While `interrupting` is set, it calls `interrupt_source` each
            time the iterator begins to wait.

    Raises:
        Exception: The iterator raised it, or an item could not be encoded.
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
        """Close the current step, as closing a coroutine closes what it awaits."""

    def begin(self, awaitable: Awaitable[Any], /) -> None:
        """Use an awaitable, such as `items.athrow(error)`, as the next step."""

    def send_with(self, direct: DirectSend | None, /) -> None:
        """Send with `direct` from now on, or with the outlet if it is `None`."""

    @property
    def waits(self) -> bool:
        """Whether the iterator waits for something in the middle of a step."""

    @property
    def thrown(self) -> bool:
        """Whether an exception was thrown into the iterator since its last item."""

    interrupting: bool
    """Whether to call `interrupt_source` each time the iterator begins to wait."""

@final
class DirectSend:
    """Sends a response in the steps of the stream's task.

    While it calls `send`, the task of the request is the current task. A cancel scope
    or a timeout that a middleware opens in `send` then belongs to the request's task,
    which awaits a send that has to wait.

    Args:
        send: Sends parts of the body.
        head: Function that sends the first ASGI message, and that message.
        body_type: Type of all other ASGI messages.
        run: Runs a function in the `contextvars` context of the sends.
        request: Task of the request.
        stream: Task that runs while it is called, if it is a task.
    """

    def __new__(
        cls,
        send: Callable[[Any], Awaitable[None]],
        *,
        head: tuple[Callable[[Any], Awaitable[None]], MutableMapping[str, Any]],
        body_type: str,
        run: Callable[..., Any],
        request: Task[Any],
        stream: Task[Any] | None,
    ) -> DirectSend: ...
    def forget_head(self) -> None:
        """Do not send the head, because other code sends it."""

def begin_send(
    send: Callable[[Any], Awaitable[None]], message: Any, /
) -> tuple[Any, Any] | None:
    """Call `send` and run it until it waits or returns.

    Returns:
        The iterator of a send that waits and the object that it waits for, or `None` if
        `send` has returned.
    """

def fill_event(event: ServerSentEvent, fields: dict[str, Any], /) -> bool:
    """Fill a new event from keyword arguments that need no coercion.

    Returns:
        Whether the event was filled. If not, it did not change, and pydantic has to
        validate the arguments.
    """

def slot_text(name: str, /) -> str:
    """Return the text that is the placeholder of a slot."""

def slot_digits(name: str, /) -> str:
    """Return the digits of the number that is the placeholder of a slot."""

def slot_name(value: object, /) -> str | None:
    """Return the name of the slot whose placeholder a value is, if it is one."""

def sse_starlette_bytes(data: object, sep: str, /) -> bytes:
    """Return the bytes that sse-starlette sends for an item.

    Args:
        data: The item.
        sep: Line end. An event may have its own.

    Raises:
        ValueError: `sep` is not a line end.
        TypeError: The item cannot be encoded.
    """

def sse_starlette_check(sep: object, /) -> None:
    """Check that `sep` is a line end.

    Raises:
        ValueError: `sep` is not CRLF, LF or CR.
    """

def sse_starlette_frame(event: object, /) -> bytes:
    """Return the frame of an event of `fastapi_sse_fast.sse_starlette`."""
