"""The response class and its options."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator
from typing import Any

import anyio
import fastapi.routing
import fastapi.sse
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from fastapi_sse_fast import (
    EventSourceResponse,
    EventTemplate,
    ServerSentEvent,
    Slot,
    encode_event,
)
from fastapi_sse_fast.options import UNSET, StreamOptions

from .support.asgi import fetch


class Item(BaseModel):
    a: int | str = 1


def test_it_is_a_subclass_of_fastapis() -> None:
    response = EventSourceResponse([1])
    assert isinstance(response, fastapi.sse.EventSourceResponse)
    assert isinstance(response, StreamingResponse)
    assert response.media_type == "text/event-stream"
    assert response.status_code == 200


def test_its_headers_are_those_of_an_event_stream() -> None:
    assert EventSourceResponse([]).raw_headers == [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]


def test_given_headers_replace_the_default_ones() -> None:
    response = EventSourceResponse(
        [], headers={"Cache-Control": "no-store", "X-Mine": "1"}, status_code=299
    )
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    reply = fetch(response)
    assert reply.status == 299
    names = [name for name, _ in reply.headers]
    assert sorted(names) == sorted(set(names))


def test_headers_and_cookies_can_be_set_later() -> None:
    response = EventSourceResponse([])
    response.headers["Cache-Control"] = "private"
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    reply = fetch(response)
    assert (b"cache-control", b"private") in reply.headers
    assert [name for name, _ in reply.headers].count(b"set-cookie") == 2


def test_another_media_type() -> None:
    response = EventSourceResponse([], media_type="text/plain")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "content",
    ["text", b"bytes", bytearray(), memoryview(b""), {"a": 1}, Item(), None, 5],
)
def test_content_that_is_no_iterable_of_events_is_refused(content: Any) -> None:
    with pytest.raises(TypeError, match="async or sync iterable of events, not"):
        EventSourceResponse(content)


def test_what_a_generator_function_forgot_to_call_is_refused() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="not 'function': call it"):
        EventSourceResponse(items)  # type: ignore[arg-type]


def test_what_an_async_function_forgot_to_yield_is_refused() -> None:
    async def items() -> list[int]:
        return [1]

    coroutine = items()
    with pytest.raises(TypeError, match="not 'coroutine': await it"):
        EventSourceResponse(coroutine)  # type: ignore[arg-type]
    coroutine.close()


def test_an_iterable_without_close() -> None:
    assert fetch(EventSourceResponse([1, 2])).body == b"data: 1\n\ndata: 2\n\n"
    assert fetch(EventSourceResponse(range(2))).body == b"data: 0\n\ndata: 1\n\n"


def test_an_async_iterator_class() -> None:
    class Countdown:
        left = 3

        def __aiter__(self) -> Countdown:
            return self

        async def __anext__(self) -> int:
            if self.left == 0:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    body = fetch(EventSourceResponse(Countdown())).body
    assert body == b"data: 2\n\ndata: 1\n\ndata: 0\n\n"


def test_the_answer_to_head_has_no_body_so_nothing_is_iterated() -> None:
    ran: list[str] = []

    async def items() -> AsyncIterator[int]:
        ran.append("items")
        yield 1

    response = EventSourceResponse(
        items(),
        status_code=201,
        headers={"x-a": "1"},
        background=BackgroundTask(ran.append, "background"),
    )
    reply = fetch(response, method="HEAD")
    assert (reply.status, reply.body, reply.complete) == (201, b"", True)
    assert (b"x-a", b"1") in reply.headers
    assert ran == ["background"]


def test_an_empty_stream_is_a_complete_response() -> None:
    reply = fetch(EventSourceResponse([]))
    assert (reply.status, reply.body, reply.complete) == (200, b"", True)


@pytest.mark.parametrize("value", [0, -1, 0.0, float("inf"), float("nan"), True, "5"])
def test_a_bad_ping_interval_is_refused_where_it_is_set(value: Any) -> None:
    with pytest.raises(ValueError, match="ping_interval must be a positive number"):
        EventSourceResponse.with_options(ping_interval=value)
    with pytest.raises(ValueError, match="ping_interval must be a positive number"):
        type("Bad", (EventSourceResponse,), {"ping_interval": value})


@pytest.mark.parametrize("option", [{"ping": "\ud800"}, {"retry": 10**5000}])
def test_what_could_never_be_sent_is_refused_where_it_is_set(option: Any) -> None:
    with pytest.raises(ValueError, match=r"surrogates|Exceeds the limit"):
        EventSourceResponse.with_options(**option)


@pytest.mark.parametrize("option", ["ping", "on_error", "on_close", "farewell"])
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
        message = rf"{option} is called with .*{hook.__name__}.* does not take"
        with pytest.raises(ValueError, match=message):
            EventSourceResponse.with_options(**{option: hook})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="in the body of a class"):
            type("Bad", (EventSourceResponse,), {option: hook})


@pytest.mark.parametrize("option", ["ping", "farewell"])
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
        with pytest.raises(ValueError, match=f"{option} is not awaited"):
            EventSourceResponse.with_options(**{option: made})


@pytest.mark.parametrize("option", ["ping", "farewell"])
def test_nobody_fills_the_slots_of_an_option(option: str) -> None:
    template = EventTemplate({"a": Slot("a")})
    with pytest.raises(ValueError, match=f"{option} is called with nothing"):
        EventSourceResponse.with_options(**{option: template})  # type: ignore[arg-type]
    made: dict[str, Any] = {option: EventTemplate({"a": 1})}
    assert getattr(EventSourceResponse.with_options(**made), option) is made[option]


@pytest.mark.parametrize("option", ["ping", "on_error", "on_close", "farewell"])
def test_a_hook_may_take_more_than_it_is_given(option: str) -> None:
    def optional(given: object = None, more: object = None, *, last: int = 1) -> None:
        pass

    def variadic(*given: object, **named: object) -> None:
        pass

    hooks: list[Any] = [optional, variadic, functools.partial(variadic, 1), print]
    for hook in hooks:
        chosen: Any = {option: hook}
        assert getattr(EventSourceResponse.with_options(**chosen), option) is hook


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"ping": 5}, "a comment's text, an event, or .* ping_interval is the time"),
        ({"ping": None}, "a comment's text, an event, or .* ping_interval is the time"),
        ({"farewell": "bye"}, "None, an event, or a callable that makes one, not"),
        ({"on_close": "x"}, "on_close must be callable, or None, not 'x'"),
        ({"retry": 1.5}, "from 0 up .milliseconds., or None, not 1.5"),
        ({"max_pending": None}, "max_pending must be an integer from 1 up, not None"),
    ],
)
def test_a_bad_option_is_told_what_it_can_be(option: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EventSourceResponse.with_options(**option)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="ping_intervall"):
        EventSourceResponse.with_options(ping_intervall=5)  # type: ignore[call-arg]


def test_options_are_inherited_and_replaced() -> None:
    class Quiet(EventSourceResponse):
        ping_interval = None

    class Sub(Quiet):
        pass

    faster = Sub.with_options(ping_interval=2)
    assert Sub._options.seconds_to_ping == float("inf")
    assert faster._options.seconds_to_ping == 2
    assert faster.ping_interval == 2
    assert faster.with_options().ping_interval == 2
    assert issubclass(faster, Sub)
    assert faster.__name__ == "Sub"
    assert EventSourceResponse.ping_interval == 15.0


def test_fastapis_own_interval_counts_where_none_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert EventSourceResponse._options.seconds_to_ping == 15.0
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.5)
    assert EventSourceResponse._options.seconds_to_ping == 0.5
    assert EventSourceResponse.with_options(ping_interval=15)._options == (
        StreamOptions(ping_interval=15)
    )


def test_options_cannot_be_changed() -> None:
    options = StreamOptions()
    assert repr(options).startswith("StreamOptions(ping_interval=UNSET, ping=")
    assert options.ping_interval is UNSET
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.ping_interval = 5  # type: ignore[misc]


def test_options_follow_the_method_resolution_order() -> None:
    class Mixin:
        ping_interval = 5.0

    class First(EventSourceResponse):
        ping_interval = 1.0
        retry = 1

    class Second(EventSourceResponse):
        ping_interval = 2.0
        max_pending = 2

    class Mixed(Mixin, EventSourceResponse):  # type: ignore[misc]
        pass

    class Both(Second, First):
        pass

    assert Mixed._options.ping_interval == 5.0
    assert Both._options == StreamOptions(ping_interval=2.0, retry=1, max_pending=2)


def test_a_time_beyond_all_clocks_is_refused() -> None:
    with pytest.raises(ValueError, match="ping_interval"):
        EventSourceResponse.with_options(ping_interval=10**400)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_the_body_can_be_read_as_bytes(kind: str) -> None:
    async def items() -> AsyncIterator[Any]:
        yield Item()
        yield ServerSentEvent(raw_data="x")

    content: Any = [Item(), ServerSentEvent(raw_data="x")]
    response = EventSourceResponse(items() if kind == "async" else content)

    async def read() -> list[Any]:
        return [chunk async for chunk in response.body_iterator]

    assert anyio.run(read) == [b'data: {"a": 1}\n\n', b"data: x\n\n"]


def test_the_body_can_be_wrapped() -> None:
    async def counted(body: Any) -> AsyncIterator[bytes]:
        async for chunk in body:
            yield b": %d bytes\n" % len(chunk) + chunk

    response = EventSourceResponse([1, 22])
    response.body_iterator = counted(response.body_iterator)
    body = fetch(response).body
    assert body == b": 9 bytes\ndata: 1\n\n: 10 bytes\ndata: 22\n\n"


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
    # pydantic's own spelling is always compact.
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
