"""Setting, inheriting and rejecting options."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from fastapi_sse_fast import (
    EventSourceResponse,
    EventTemplate,
    ServerSentEvent,
    Slot,
    encode_event,
)
from fastapi_sse_fast.options import StreamOptions

from ..support.apps import Summaries
from ..support.asgi import fetch


@pytest.mark.parametrize("value", [0, -1, 0.0, float("inf"), float("nan"), True, "5"])
def test_a_bad_ping_interval_is_refused_where_it_is_set(value: Any) -> None:
    with pytest.raises(ValueError, match="ping_interval must be a positive number"):
        EventSourceResponse.with_options(ping_interval=value)
    with pytest.raises(ValueError, match="ping_interval must be a positive number"):
        type("Bad", (EventSourceResponse,), {}, ping_interval=value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ping", 5),
        ("ping", None),
        ("ping_form", "comment"),
        ("retry", -1),
        ("retry", 1.5),
        ("retry", True),
        ("send_timeout", 0),
        ("send_timeout", -1),
        ("max_pending", -1),
        ("max_pending", 1.5),
        ("error_window", -1),
        ("error_window", None),
        ("max_duration", 0),
        ("on_error", "log"),
        ("on_close", 5),
        ("shutdown_grace", -1),
        ("shutdown_grace", float("nan")),
        ("farewell", "bye"),
        ("on_open", 5),
        ("on_shutdown", "log"),
        ("close_timeout", 0),
        ("close_timeout", None),
        ("headers", 5),
        ("headers", {"x": 1}),
        ("headers", ["x-name"]),
    ],
)
def test_bad_values_are_refused_where_they_are_set(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        EventSourceResponse.with_options(**{name: value})
    with pytest.raises(ValueError, match=f"^{name} must be"):
        type("Bad", (EventSourceResponse,), {}, **{name: value})


def test_an_event_that_cannot_be_sent_is_refused_where_it_is_set() -> None:
    event = ServerSentEvent()
    event.event = "a\nb"
    with pytest.raises(ValueError, match="single line"):
        EventSourceResponse.with_options(farewell=event)


def test_only_a_text_can_be_a_line() -> None:
    with pytest.raises(ValueError, match="needs a ping that is a str, not"):
        EventSourceResponse.with_options(
            ping=ServerSentEvent(comment="x"), ping_form="line"
        )


@pytest.mark.parametrize("option", [{"ping": "\ud800"}, {"retry": 10**5000}])
def test_what_could_never_be_sent_is_refused_where_it_is_set(option: Any) -> None:
    with pytest.raises(ValueError, match=r"surrogates|Exceeds the limit"):
        EventSourceResponse.with_options(**option)


@pytest.mark.parametrize(
    "option", ["ping", "on_open", "on_error", "on_close", "on_shutdown", "farewell"]
)
def test_a_hook_that_could_not_be_called_is_refused_where_it_is_set(
    option: str,
) -> None:
    def method(self: object, event: object) -> None:
        pass

    def named(*, given: object) -> None:
        pass

    taken = 1 if option.startswith("on_") else 0
    wrong = (lambda: None) if taken else (lambda error: None)
    for hook in (method, named, wrong):
        message = rf"{option} is called with.*{hook.__name__}.* does not accept"
        with pytest.raises(ValueError, match=message):
            EventSourceResponse.with_options(**{option: hook})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["ping", "on_shutdown", "farewell"])
def test_what_is_not_awaited_cannot_be_async(option: str) -> None:
    async def event(data: object = 1) -> ServerSentEvent:
        return ServerSentEvent(data=data)

    async def events() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(data=1)

    class Events:
        async def __call__(self) -> ServerSentEvent:
            return ServerSentEvent(data=1)

    asynchronous: list[Any] = [event, functools.partial(event, 2), events, Events()]
    for made in asynchronous:
        with pytest.raises(
            ValueError, match=f"{option} must not be async, because it is not awaited"
        ):
            EventSourceResponse.with_options(**{option: made})


@pytest.mark.parametrize("option", ["ping", "farewell"])
def test_nobody_fills_the_slots_of_an_option(option: str) -> None:
    template = EventTemplate({"a": Slot("a")})
    with pytest.raises(ValueError, match=f"{option} is called without arguments"):
        EventSourceResponse.with_options(**{option: template})  # type: ignore[arg-type]
    made: dict[str, Any] = {option: EventTemplate({"a": 1})}
    assert (
        getattr(EventSourceResponse.with_options(**made).options, option)
        is made[option]
    )


@pytest.mark.parametrize(
    "option", ["ping", "on_open", "on_error", "on_close", "on_shutdown", "farewell"]
)
def test_a_hook_may_take_more_than_it_is_given(option: str) -> None:
    def optional(given: object = None, more: object = None, *, last: int = 1) -> None:
        pass

    def variadic(*given: object, **named: object) -> None:
        pass

    hooks: list[Any] = [optional, variadic, functools.partial(variadic, 1), print]
    for hook in hooks:
        chosen: Any = {option: hook}
        assert (
            getattr(EventSourceResponse.with_options(**chosen).options, option) is hook
        )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"ping": 5}, r"a str .*, an event, or .* between pings with ping_interval"),
        ({"ping": None}, r"a str .*, an event, or .* between pings with ping_interval"),
        (
            {"farewell": "bye"},
            "None, an event, or a callable that returns an event, not",
        ),
        ({"on_close": "x"}, "on_close must be callable, or None, not 'x'"),
        ({"retry": 1.5}, r"non-negative integer \(milliseconds\), or None, not 1.5"),
        ({"max_pending": None}, "max_pending must be a non-negative integer, not None"),
        (
            {"ping_interval": 0},
            "positive number of seconds, at least 0.001, or None, not",
        ),
        (
            {"send_timeout": 1e10},
            r"positive number of seconds, at most 1e\+09, or None",
        ),
        ({"error_window": -1}, "error_window must be a non-negative number of seconds"),
    ],
)
def test_a_bad_option_is_told_what_it_can_be(option: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EventSourceResponse.with_options(**option)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="ping_intervall"):
        EventSourceResponse.with_options(ping_intervall=5)  # type: ignore[call-arg]


def test_a_time_beyond_all_clocks_is_refused() -> None:
    with pytest.raises(ValueError, match="ping_interval"):
        EventSourceResponse.with_options(ping_interval=10**400)


# Sources of options


def test_options_are_inherited_and_replaced() -> None:
    class Quiet(EventSourceResponse, ping_interval=None):
        pass

    class Sub(Quiet):
        pass

    faster = Sub.with_options(ping_interval=2)
    assert Sub.options == StreamOptions(ping_interval=None)
    assert faster.options.ping_interval == 2
    assert faster.with_options().options == faster.options
    assert issubclass(faster, Sub)
    assert faster.__name__ == "Sub"
    assert EventSourceResponse.options == StreamOptions()


def test_whole_options_are_taken_everywhere() -> None:
    options = StreamOptions(retry=5, max_pending=7)

    class Mine(EventSourceResponse, options=options, max_pending=8):
        pass

    made = EventSourceResponse.with_options(options, max_pending=8)
    response = EventSourceResponse([1], options=options, max_pending=8)
    assert Mine.options == made.options == response.options
    assert response.options == StreamOptions(retry=5, max_pending=8)
    # `options` replaces all options, also those with the default value.
    quiet = EventSourceResponse.with_options(ping_interval=None)
    assert quiet.with_options(options).options == options


def test_options_cannot_be_changed() -> None:
    options = StreamOptions()
    assert repr(options).startswith("StreamOptions(ping_interval=15.0, ping=")
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.ping_interval = 5  # type: ignore[misc]


def test_options_follow_the_method_resolution_order() -> None:
    class First(EventSourceResponse, ping_interval=1.0, retry=1):
        pass

    class Second(EventSourceResponse, ping_interval=2.0, max_pending=2):
        pass

    class Both(Second, First, error_window=0):
        pass

    assert Both.options == StreamOptions(
        ping_interval=2.0, retry=1, max_pending=2, error_window=0
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ping_interval", "ping_interval"),
        ("on_close", "on_close"),
        ("ping_intervall", "ping_interval"),
        ("pingInterval", "ping_interval"),
        ("onClose", "on_close"),
        ("max_durations", "max_duration"),
        ("options", "options"),
    ],
)
def test_options_are_no_attributes_of_a_class(name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"class Mine\(\.\.\., {meant}=\.\.\.\)"):
        type("Mine", (EventSourceResponse,), {name: 3})


def test_a_class_may_have_other_attributes() -> None:
    class Mine(EventSourceResponse):
        media_type = "text/event-stream; version=2"
        charset = "utf-8"
        retries = 3
        errors: list[str] = []  # noqa: RUF012

        def pause(self) -> None: ...

    assert Mine.options == StreamOptions()


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("ping_intervall", "did you mean 'ping_interval'?"),
        ("on_closed", "did you mean 'on_close'?"),
        ("timeout", "the options are close_timeout, error_window, farewell,"),
    ],
)
def test_an_unknown_option_is_an_error_everywhere(name: str, rest: str) -> None:
    options: Any = {name: 3}
    error = pytest.raises(
        TypeError, match=re.escape(f"unknown option {name!r}; {rest}")
    )
    with error:
        type("Mine", (EventSourceResponse,), {}, **options)
    with error:
        EventSourceResponse.with_options(**options)
    with error:
        EventSourceResponse([1], **options)


def test_options_of_a_returned_response() -> None:
    summaries = Summaries()
    response = EventSourceResponse([1], retry=5, on_close=summaries)
    assert fetch(response).body == b"retry: 5\ndata: 1\n\n"
    assert summaries.reasons == ["finished"]
    with pytest.raises(ValueError, match="retry must be a non-negative integer"):
        EventSourceResponse([1], retry=-5)


def test_hooks_of_a_subclass() -> None:
    summaries = Summaries()

    def on_error(error: Exception) -> ServerSentEvent:
        return ServerSentEvent(comment="failed")

    class Mine(EventSourceResponse, retry=7, on_close=summaries, on_error=on_error):
        pass

    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    app = FastAPI()
    app.get("/", response_class=Mine)(items)
    assert fetch(app).body == b"retry: 7\ndata: 1\n\n: failed\n\n"
    assert summaries.reasons == ["error"]


# The spelling of JSON


class Item(BaseModel):
    a: int | str = 1


DATA = {"text": "é中😀", "n": [1, 2.5]}


@pytest.mark.parametrize(
    ("json", "text"),
    [
        ("fastapi", r'{"text": "\u00e9\u4e2d\ud83d\ude00", "n": [1, 2.5]}'),
        ("compact", '{"text":"é中😀","n":[1,2.5]}'),
    ],
)
def test_the_spelling_of_json(json: Any, text: str) -> None:
    app = FastAPI()
    response_class = EventSourceResponse.with_options(json=json)

    async def plain() -> AsyncIterator[Any]:
        yield DATA
        yield ServerSentEvent(data=DATA)
        yield Item(a="é")

    async def typed() -> AsyncIterator[Item]:
        yield Item(a="é")
        yield ServerSentEvent(data=DATA)  # type: ignore[misc]

    app.get("/plain", response_class=response_class, response_model=None)(plain)
    app.get("/typed", response_class=response_class)(typed)
    returned = response_class(plain())
    once = EventSourceResponse(plain(), json=json)

    item = encode_event(Item(a="é"), json=json)
    event = f"data: {text}\n\n".encode()
    assert fetch(app, "/plain").body == event * 2 + bytes(item)
    assert fetch(returned).body == fetch(once).body == event * 2 + bytes(item)
    # pydantic always uses the compact spelling.
    assert fetch(app, "/typed").body == 'data: {"a":"é"}\n\n'.encode() + event


def test_a_spelling_that_does_not_exist_is_refused() -> None:
    for bad in ("short", None, 1):
        with pytest.raises(
            ValueError, match="json must be 'fastapi' or 'compact', not"
        ):
            EventSourceResponse.with_options(json=bad)  # type: ignore[arg-type]


def test_events_of_options_are_spelled_alike() -> None:
    async def broken() -> AsyncIterator[Any]:
        yield ["é"]
        raise LookupError

    event = ServerSentEvent(data=["é"])
    response = EventSourceResponse(
        broken(), json="compact", on_error=lambda error: event
    )
    assert fetch(response).body == 'data: ["é"]\n\n'.encode() * 2
