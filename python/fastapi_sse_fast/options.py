"""What can be set for a stream."""

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
"""What an option can send: one event, ready or not."""

Json: TypeAlias = Literal["fastapi", "compact"]
"""How JSON is spelled."""


PingForm: TypeAlias = Literal["block", "line"]
"""How a ping that is a comment ends."""


class ErrorHook(Protocol):
    """An `on_error`."""

    def __call__(self, error: Exception, /) -> Event | Awaitable[Event | None] | None:
        """Returns the last event of a broken stream, if there should be one."""


class CloseHook(Protocol):
    """An `on_close`."""

    def __call__(self, summary: StreamSummary, /) -> object:
        """Is told of the end of a stream; awaited if it is async."""


class OpenHook(Protocol):
    """An `on_open`."""

    def __call__(self, stream: EventStream, /) -> object:
        """Is told of the start of a stream; awaited if it is async."""


class ShutdownHook(Protocol):
    """An `on_shutdown`."""

    def __call__(self, stream: EventStream, /) -> object:
        """Is told that the server stops while a stream is open."""


class ResponseOptionArguments(TypedDict, total=False):
    """The options as keywords of a response, whose `headers` are an argument before."""

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
    """The options as keyword arguments; see `StreamOptions`."""

    headers: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream behaves. All times are in seconds, but for `retry`.

    Attributes:
        ping_interval: Time without an event before a ping. `None` switches pings off.
        ping: What a ping is: the text of a comment, an event, or what makes one.
        ping_form: Whether the comment is a `"block"`, ended by a blank line as that of
            FastAPI, or just a `"line"`: some clients take the blank line for an event.
        retry: Milliseconds that a browser waits before it reconnects, sent once at the
            head of the stream.
        send_timeout: Time that a client may take nothing for while bytes wait for it;
            then it is dropped. `None` waits for ever.
        max_pending: Bytes that may wait for the client; then the generator has to. 0 is
            lockstep: the code after a `yield` runs once the event has been sent.
        error_window: Time that the response head waits for the first event, so that an
            error before it becomes the real HTTP response. 0 sends the head at once.
        max_duration: Time after which the stream is ended, so that clients reconnect;
            10 % more or less, so that they do not all come back at once.
        on_open: Called with an `EventStream` before the first item is asked for. May be
            async.
        on_error: Called with an exception that is raised mid-stream. An event that it
            returns is sent as the last one; the stream still ends as a broken one, and
            the exception still reaches the server's log. May be async.
        on_close: Called with a `StreamSummary` last of all, when background tasks
            have run and dependencies are closed (except those of a route with another
            `response_class`, which returns the response). May be async.
        on_shutdown: Called with an `EventStream` when the server stops while the stream
            is open, at the beginning of `shutdown_grace`. Must not be async.
        shutdown_grace: Time that the generator may go on for once the server stops.
            `None` is 0 for GET, as an `EventSource` asks again; for other methods it is
            the time that the server waits for its responses, or 30 s.
        farewell: An event to send when the stream is ended before its generator, as the
            server stops or `max_duration` is over, or what makes one. It completes the
            response, which breaks off without it.
        close_timeout: Time that a generator may take to close when its stream is over,
            and a hook to run.
        headers: Headers of the response, in place of the default ones of the same name.
        json: How data is spelled that no model spells itself: `"fastapi"` is that of
            `json.dumps`, with spaces and everything but ASCII escaped; `"compact"` is
            that of orjson and pydantic, without spaces and as UTF-8.

    Raises:
        ValueError: A value is out of range.
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
        """Checks the values."""
        _check_time("ping_interval", self.ping_interval, or_none=True, least=0.001)
        _check_time("send_timeout", self.send_timeout, or_none=True)
        _check_time("max_duration", self.max_duration, or_none=True)
        _check_time("error_window", self.error_window, or_zero=True)
        _check_time("shutdown_grace", self.shutdown_grace, or_none=True, or_zero=True)
        _check_time("close_timeout", self.close_timeout)
        _check_count("max_pending", self.max_pending, least=0)
        if self.retry is not None:
            _check_count("retry", self.retry, least=0, rest=" (milliseconds), or None")
        # Raises where `retry` has more digits than Python prints.
        EncodedEvent(retry=self.retry)
        if self.ping_form not in ("block", "line"):
            raise ValueError(
                f"ping_form must be 'block' or 'line', not {self.ping_form!r}"
            )
        if isinstance(self.ping, str):
            EncodedEvent(comment=self.ping)  # raises where it is not UTF-8
        else:
            _check_event("ping", self.ping, "a comment's text, an event")
            if self.ping_form == "line":
                raise ValueError("ping_form='line' needs a ping that is a text")
        if self.farewell is not None:
            _check_event("farewell", self.farewell, "None, an event")
        ItemEncoder(json=self.json)  # raises what is wrong with it
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
        """These options with some changed.

        Raises:
            TypeError: There is no such option.
            ValueError: A value is out of range.
        """
        if unknown := changes.keys() - OPTION_NAMES:
            name = min(unknown)
            meant = meant_option(name)
            hint = f"did you mean {meant!r}?"
            if meant is None:
                hint = f"there are {', '.join(sorted(OPTION_NAMES))}"
            raise TypeError(f"unknown option {name!r}; {hint}")
        return dataclasses.replace(self, **changes)

    def changes(self) -> OptionArguments:
        """Return all of these options, as `replace` takes them."""
        values: Any = {name: getattr(self, name) for name in OPTION_NAMES}
        chosen: OptionArguments = values
        return chosen

    def seconds_to_live(self) -> float:
        """Return `max_duration`, different each time, or infinity."""
        if self.max_duration is None:
            return math.inf
        return self.max_duration * random.uniform(0.9, 1.1)


_HOOKS: Final = {
    "on_open": "the stream",
    "on_error": "the error",
    "on_close": "the summary",
    "on_shutdown": "the stream",
}
"""What each hook is called with."""

LONGEST: Final = 1e9
"""Seconds, three decades: less than what a loop's clock stumbles over."""

OPTION_NAMES: Final = frozenset(field.name for field in fields(StreamOptions))


def meant_option(name: str) -> str | None:
    """Return the option that a name was meant for, if it is like one."""
    from difflib import get_close_matches  # only an error needs it

    return next(iter(get_close_matches(name, OPTION_NAMES, n=1, cutoff=0.8)), None)


def check_attribute(class_name: str, name: str) -> None:
    """Refuses an attribute of a response class that would be no option.

    Raises:
        TypeError: It is called like an option, or nearly.
    """
    if name == "options":
        raise TypeError(
            f"options are keywords of a class, not attributes: "
            f"class {class_name}(..., options=...)"
        )
    meant = meant_option(name)
    if meant is not None:
        raise TypeError(
            f"{name!r} is an attribute of the class; options are its keywords: "
            f"class {class_name}(..., {meant}=...)"
        )


def _check_time(
    name: str,
    value: Any,
    *,
    or_none: bool = False,
    or_zero: bool = False,
    least: float = 0.0,
) -> None:
    if value is None and or_none:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and (
        max(least, 5e-324) <= value <= LONGEST or (or_zero and not value)
    ):
        return
    allowed = "zero or a positive" if or_zero else "a positive"
    bound = f" from {least:g} up" if least else ""
    rest = ", or None" if or_none else ""
    raise ValueError(
        f"{name} must be {allowed} number of seconds{bound}{rest}, not {value!r}"
    )


def _check_count(name: str, value: Any, *, least: int, rest: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"{name} must be an integer from {least} up{rest}, not {value!r}"
        )


def is_event(value: object) -> TypeIs[Event]:
    """Return whether a value is an event, ready or not."""
    return isinstance(value, (fastapi.sse.ServerSentEvent, EncodedEvent))


def _is_async(value: object) -> bool:
    return inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)


def _check_sync(name: str, function: Any) -> None:
    if _is_async(function) or _is_async(type(function).__call__):
        raise ValueError(f"{name} is not awaited, so it cannot be async: {function!r}")


def _check_headers(headers: Any) -> None:
    try:
        Headers(headers)
    except Exception as error:
        raise ValueError(
            f"headers must be a mapping of texts, or None, not {headers!r}"
        ) from error


def _check_event(name: str, value: Any, allowed: str) -> None:
    if is_event(value):
        encode_event(value)  # raises what is wrong with it
    elif callable(value):
        _check_sync(name, value)
        if isinstance(value, EventTemplate) and value.slots:
            raise ValueError(
                f"{name} is called with nothing, so {value!r} cannot have slots"
            )
        _check_call(name, value)
    else:
        hint = "; ping_interval is the time between pings" if name == "ping" else ""
        raise ValueError(
            f"{name} must be {allowed}, or a callable that makes one, "
            f"not {value!r}{hint}"
        )


def _check_call(name: str, function: Any, *given: str) -> None:
    """Refuses a function that would fail when it is called, perhaps much later.

    Other callables are not looked into: `inspect.signature` is slow, and trusts the
    `__wrapped__` of a decorator that may pass something else on.
    """
    if type(function) is not FunctionType:
        return
    code = function.__code__
    least = code.co_argcount - len(function.__defaults__ or ())
    most = math.inf if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    named = code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
    if named or not least <= len(given) <= most:
        raise ValueError(
            f"{name} is called with {' and '.join(given) or 'nothing'}, which "
            f"{function.__qualname__}() does not take"
        )
