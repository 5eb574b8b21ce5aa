"""The options of a stream."""

from __future__ import annotations

import dataclasses
import inspect
import math
import random
from dataclasses import dataclass, fields
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    Protocol,
    TypeAlias,
    TypedDict,
)

import fastapi.sse
from starlette.datastructures import Headers

from ._core import EncodedEvent, EventTemplate, ItemEncoder, encode_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from typing_extensions import Self, TypeIs

    from .event_stream import EventStream
    from .summary import StreamSummary

Event: TypeAlias = fastapi.sse.ServerSentEvent | EncodedEvent
"""An event that an option can send."""

Json: TypeAlias = Literal["fastapi", "compact"]
"""How data is written as JSON; see `StreamOptions`."""

PingForm: TypeAlias = Literal["block", "line"]
"""How a ping comment ends; see `StreamOptions`."""


class ErrorHook(Protocol):
    """The signature of `on_error`."""

    def __call__(self, error: Exception, /) -> Event | Awaitable[Event | None] | None:
        """Return an event to send before the response is aborted, or `None`."""


class CloseHook(Protocol):
    """The signature of `on_close`."""

    def __call__(self, summary: StreamSummary, /) -> object:
        """Handle the end of a stream. An async hook is awaited."""


class OpenHook(Protocol):
    """The signature of `on_open`."""

    def __call__(self, stream: EventStream, /) -> object:
        """Handle the start of a stream. An async hook is awaited."""


class ShutdownHook(Protocol):
    """The signature of `on_shutdown`."""

    def __call__(self, stream: EventStream, /) -> object:
        """Handle the server shutdown while the stream is open. Must not be async."""


class ResponseOptionArguments(TypedDict, total=False):
    """The options that a returned response takes as keyword arguments.

    `headers` is missing because the response has a parameter of that name.
    """

    ping_interval: float | None
    ping: str | Event | Callable[[], Event]
    ping_form: PingForm
    retry: int | None
    send_timeout: float | None
    max_pending: int
    error_window: float
    max_duration: float | None
    on_open: OpenHook | None
    on_error: ErrorHook | None
    on_close: CloseHook | None
    on_shutdown: ShutdownHook | None
    shutdown_grace: float | None
    farewell: Event | Callable[[], Event] | None
    close_timeout: float
    json: Json


class OptionArguments(ResponseOptionArguments, total=False):
    """All options as keyword arguments; see `StreamOptions`."""

    headers: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The options of a stream. Times are in seconds, except for `retry`.

    Attributes:
        ping_interval: Seconds without an event before a ping is sent. `None` disables
            pings.
        ping: The text of a ping comment, an event, or a function that returns an event.
        ping_form: `"block"` ends a ping comment with a blank line, as FastAPI does.
            `"line"` omits the blank line, for clients that take it for an empty event.
        retry: Milliseconds that a browser waits before it reconnects. Sent once, at the
            start of the stream.
        send_timeout: Seconds that a client may accept nothing while bytes are pending.
            Then it is dropped. `None` disables the timeout.
        max_pending: Bytes that may be pending before the generator has to wait for the
            client. 0 is lockstep: the code after a `yield` runs once the event has been
            sent.
        error_window: Seconds that the response head waits for the first event. If the
            generator raises an exception within this time, the client gets an error
            response. 0 sends the head at once.
        max_duration: Seconds after which the stream is ended, so that clients
            reconnect. It varies by up to 10 %, so that they do not all reconnect at
            once.
        on_open: Called with an `EventStream` before the first item is requested. May be
            async.
        on_error: Called with an exception that is raised mid-stream. If it returns an
            event, that event is sent before the response is aborted. The exception
            still reaches the server's log. May be async.
        on_close: Called with a `StreamSummary` after the background tasks have run and
            the dependencies are closed. If a route with another `response_class`
            returns the response, it is called before the dependencies are closed. May
            be async.
        on_shutdown: Called with an `EventStream` when the server shuts down while the
            stream is open, at the start of `shutdown_grace`. Must not be async.
        shutdown_grace: Seconds that the generator may continue after server shutdown
            has begun. `None` means 0 for GET, because an `EventSource` repeats its
            request. For other methods it means a little less than the time that the
            server waits for open responses, or 30 s if that is unknown.
        farewell: A final event, or a function that returns one. It is sent when the
            stream is ended before its generator: by server shutdown, `max_duration` or
            `EventStream.end`. It completes the response; without it, the response is
            aborted.
        close_timeout: Seconds that the generator may take to close, and that an async
            hook may take to run.
        headers: Response headers. They replace default headers of the same name.
        json: How data is written as JSON. `"fastapi"` writes it as `json.dumps` does,
            with spaces and with non-ASCII characters escaped. `"compact"` writes it as
            orjson and pydantic do, without spaces and as UTF-8. Items of a route with
            an item type, and models as the data of an event, are always compact,
            because pydantic writes them.

    Raises:
        ValueError: A value is invalid.
    """

    ping_interval: float | None = 15.0
    ping: str | Event | Callable[[], Event] = "ping"
    ping_form: PingForm = "block"
    retry: int | None = None
    send_timeout: float | None = 60.0
    max_pending: int = 64 * 1024
    error_window: float = 0.1
    max_duration: float | None = None
    on_open: OpenHook | None = None
    on_error: Callable[[Exception], Event | Awaitable[Event | None] | None] | None = (
        None
    )
    on_close: CloseHook | None = None
    on_shutdown: ShutdownHook | None = None
    shutdown_grace: float | None = None
    farewell: Event | Callable[[], Event] | None = None
    close_timeout: float = 10.0
    headers: Mapping[str, str] | None = None
    json: Json = "fastapi"

    def __post_init__(self) -> None:
        """Check the values."""
        _check_time("ping_interval", self.ping_interval, or_none=True, minimum=0.001)
        _check_time("send_timeout", self.send_timeout, or_none=True)
        _check_time("max_duration", self.max_duration, or_none=True)
        _check_time("error_window", self.error_window, or_zero=True)
        _check_time("shutdown_grace", self.shutdown_grace, or_none=True, or_zero=True)
        _check_time("close_timeout", self.close_timeout)
        _check_count("max_pending", self.max_pending)
        if self.retry is not None:
            _check_count("retry", self.retry, rest=" (milliseconds), or None")
        # This raises if `retry` has more digits than Python converts to text.
        EncodedEvent(retry=self.retry)
        if self.ping_form not in ("block", "line"):
            raise ValueError(
                f"ping_form must be 'block' or 'line', not {self.ping_form!r}"
            )
        if isinstance(self.ping, str):
            EncodedEvent(comment=self.ping)  # raises if it cannot be encoded as UTF-8
        else:
            _check_event("ping", self.ping, "a str (the text of a comment), an event")
            if self.ping_form == "line":
                raise ValueError(
                    f"ping_form='line' needs a ping that is a str, not {self.ping!r}"
                )
        if self.farewell is not None:
            _check_event("farewell", self.farewell, "None, an event")
        ItemEncoder(json=self.json)  # raises if the value is unknown
        if self.on_shutdown is not None:
            _check_sync("on_shutdown", self.on_shutdown)
        for name, given in _HOOKS.items():
            hook = getattr(self, name)
            if hook is not None:
                if not callable(hook):
                    raise ValueError(f"{name} must be callable, or None, not {hook!r}")
                _check_call(name, hook, given)
        if self.headers is not None:
            _check_headers(self.headers)

    def replace(self, changes: OptionArguments | ResponseOptionArguments) -> Self:
        """Return a copy with some options changed.

        Args:
            changes: The new values by option name.

        Raises:
            TypeError: An option does not exist.
            ValueError: A value is invalid.
        """
        if unknown := changes.keys() - OPTION_NAMES:
            name = min(unknown)
            similar = similar_option(name)
            hint = f"did you mean {similar!r}?"
            if similar is None:
                hint = f"the options are {', '.join(sorted(OPTION_NAMES))}"
            raise TypeError(f"unknown option {name!r}; {hint}")
        return dataclasses.replace(self, **changes)

    def changes(self) -> OptionArguments:
        """Return all options as changes that `replace` accepts."""
        values: Any = {name: getattr(self, name) for name in OPTION_NAMES}
        chosen: OptionArguments = values
        return chosen

    def seconds_to_live(self) -> float:
        """Return `max_duration` with a random variation, or infinity."""
        if self.max_duration is None:
            return math.inf
        return self.max_duration * random.uniform(0.9, 1.1)


_HOOKS: Final = {
    "on_open": "the stream",
    "on_error": "the error",
    "on_close": "the summary",
    "on_shutdown": "the stream",
}
"""The hooks, each with the argument that it is called with."""

MAX_SECONDS: Final = 1e9
"""The longest time, about 32 years. The clock of an event loop can still add it."""

OPTION_NAMES: Final = frozenset(field.name for field in fields(StreamOptions))


def similar_option(name: str) -> str | None:
    """Return the option whose name is most similar, if any is similar enough."""
    from difflib import get_close_matches  # only an error needs it

    return next(iter(get_close_matches(name, OPTION_NAMES, n=1, cutoff=0.8)), None)


def check_attribute(class_name: str, name: str) -> None:
    """Reject a class attribute that was probably meant as an option.

    Raises:
        TypeError: The attribute has the name of an option, or a similar one.
    """
    option = "options" if name == "options" else similar_option(name)
    if option is not None:
        raise TypeError(
            f"{name!r} is set as a class attribute; set options as class keyword "
            f"arguments: class {class_name}(..., {option}=...)"
        )


def _check_time(
    name: str,
    value: Any,
    *,
    or_none: bool = False,
    or_zero: bool = False,
    minimum: float = 0.0,
) -> None:
    if value is None and or_none:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and (
        max(minimum, 5e-324) <= value <= MAX_SECONDS or (or_zero and not value)
    ):
        return
    allowed = "a non-negative" if or_zero else "a positive"
    bounds = f", at least {minimum:g}" if minimum else ""
    if is_number and value > MAX_SECONDS:
        bounds += f", at most {MAX_SECONDS:g}"
    rest = ", or None" if or_none else ""
    raise ValueError(
        f"{name} must be {allowed} number of seconds{bounds}{rest}, not {value!r}"
    )


def _check_count(name: str, value: Any, *, rest: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a non-negative integer{rest}, not {value!r}")


def is_event(value: object) -> TypeIs[Event]:
    """Return whether a value is an event, pre-encoded or not."""
    return isinstance(value, (fastapi.sse.ServerSentEvent, EncodedEvent))


def _is_async(value: object) -> bool:
    return inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)


def _check_sync(name: str, function: Any) -> None:
    if _is_async(function) or _is_async(type(function).__call__):
        raise ValueError(
            f"{name} must not be async, because it is not awaited: {function!r}"
        )


def _check_headers(headers: Any) -> None:
    try:
        Headers(headers)
    except Exception as error:
        raise ValueError(
            f"headers must be a mapping of str to str, or None, not {headers!r}"
        ) from error


def _check_event(name: str, value: Any, allowed: str) -> None:
    if is_event(value):
        encode_event(value)  # raises if it is invalid
    elif callable(value):
        _check_sync(name, value)
        if isinstance(value, EventTemplate) and value.slots:
            raise ValueError(
                f"{name} is called without arguments, so {value!r} must not have slots"
            )
        _check_call(name, value)
    else:
        hint = "; set the time between pings with ping_interval"
        raise ValueError(
            f"{name} must be {allowed}, or a callable that returns an event, "
            f"not {value!r}{hint if name == 'ping' else ''}"
        )


def _check_call(name: str, function: Any, *given: str) -> None:
    """Reject a function whose call would fail, perhaps much later.

    Only plain functions are checked. `inspect.signature` would be slow, and it follows
    `__wrapped__`, although a decorator may call the function with other arguments.
    """
    if type(function) is not FunctionType:
        return
    code = function.__code__
    minimum = code.co_argcount - len(function.__defaults__ or ())
    maximum = math.inf if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    keyword_only = code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
    if keyword_only or not minimum <= len(given) <= maximum:
        arguments = f"with {' and '.join(given)}" if given else "without arguments"
        raise ValueError(
            f"{name} is called {arguments}, which {function.__qualname__}() does not "
            "accept"
        )
