"""No value of a field can add another field or event to the stream."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import fastapi.sse
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    EventTemplate,
    ServerSentEvent,
    Slot,
    format_sse_event,
)

from ..support import reference
from ..support.asgi import fetch
from ..support.eventsource import Event, parse
from ..support.hostile import Faked, Lying, LyingNumber, Proxy, Rubbish, outcome, push
from ..support.ids import stable_id


class Loose(ServerSentEvent):
    """An event with fields of any type. Only the encoder checks them."""

    event: Any = None
    id: Any = None
    retry: Any = None
    comment: Any = None


class Changed(fastapi.sse.ServerSentEvent):
    """An event whose fields change after its creation."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("id", "event", "raw_data", "retry", "comment"):
            return super().__getattribute__("data")[name]
        return None if name == "data" else super().__getattribute__(name)


class Formatted:
    def __init__(self, text: Any) -> None:
        self.text = text

    def __format__(self, spec: str) -> str:
        return self.text  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return self.text  # type: ignore[no-any-return]


NOTHING = dict.fromkeys(["raw_data", "event", "id", "retry", "comment"])


def assigned(model: type[fastapi.sse.ServerSentEvent], fields: dict[str, Any]) -> Any:
    event = model(raw_data="harmless", event="harmless", id="harmless")
    for name, value in fields.items():
        setattr(event, name, value)
    return event


def smuggled(fields: dict[str, Any]) -> Any:
    event = ServerSentEvent(raw_data="harmless")
    event.__dict__.update(fields)
    return event


def by_slots(fields: dict[str, Any]) -> Any:
    text = fields["raw_data"]
    slots = {name: fields[name] for name in ("event", "id")}
    template = EventTemplate(
        Slot("data"),
        event=Slot("event"),
        id=Slot("id"),
        retry=fields["retry"],
        comment=fields["comment"],
    )
    return template.partial(event=slots["event"])(
        data=None if text is None else Rubbish(text), id=slots["id"]
    )


MAKERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "EncodedEvent": lambda fields: EncodedEvent(**fields),
    "ServerSentEvent": lambda fields: ServerSentEvent(**fields).encode(),
    "theirs": lambda fields: push(fastapi.sse.ServerSentEvent(**fields)),
    "validated": lambda fields: push(ServerSentEvent.model_validate(fields)),
    "constructed": lambda fields: push(ServerSentEvent.model_construct(**fields)),
    "copied": lambda fields: push(ServerSentEvent().model_copy(update=fields)),
    "assigned": lambda fields: push(assigned(ServerSentEvent, fields)),
    "assigned_theirs": lambda fields: push(
        assigned(fastapi.sse.ServerSentEvent, fields)
    ),
    "smuggled": lambda fields: push(smuggled(fields)),
    "loose": lambda fields: push(Loose.model_construct(**fields)),
    "formatted": lambda fields: push(
        Loose.model_construct(
            **{
                name: Formatted(fields[name])
                for name in ("event", "id")
                if isinstance(fields[name], str)
            }
            | {name: fields[name] for name in ("raw_data", "retry", "comment")}
        )
    ),
    "changed": lambda fields: push(Changed(data=fields)),
    "unpickled": lambda fields: push(
        pickle.loads(pickle.dumps(ServerSentEvent.model_construct(**fields)))
    ),
    "slots": by_slots,
    "format_sse_event": lambda fields: format_sse_event(
        data_str=fields["raw_data"],
        **{name: fields[name] for name in ("event", "id", "retry", "comment")},
    ),
}
"""Every way to encode an event with given fields."""

LINE_BREAKS = ["\n", "\r", "\r\n", "\n\n"]
LINES = [
    "data: injected",
    "id: injected",
    "event: injected",
    "retry: 666",
    ": injected",
]
EVIL = st.text("\r\n\0 :\u2028\x85\x0b\ufeffadeintrvy5é\ud800", max_size=12) | st.lists(
    st.sampled_from([*LINE_BREAKS, *LINES, "\0", "\ufeff", " ", ":", "a"]), max_size=5
).map("".join)

EVIL_FIELDS = st.fixed_dictionaries(
    {
        "raw_data": st.none() | EVIL,
        "event": st.none() | EVIL,
        "id": st.none() | EVIL,
        "comment": st.none() | EVIL,
        "retry": st.none()
        | st.integers(-2, 10**20)
        | st.sampled_from([True, 1.5, 2.0, "5", "-5", "5\ndata: injected", "٣", b"5"]),
    }
)


def judged(frame: bytes, fields: dict[str, Any]) -> None:
    """Check that a client reads exactly these fields from a frame in a stream."""
    source = parse(b"data: before\n\n" + frame + b"data: after\n\n")
    before, *events, after = source.events
    assert before == Event("before")
    new_id = "" if fields["id"] is None else str(fields["id"])
    assert after == Event("after", last_event_id=new_id)
    text = fields["raw_data"]
    if text is None:
        assert events == []
    else:
        data = "\n".join(reference.split_lines(text))
        kind = fields["event"] or "message"
        assert events == [Event(data, str(kind), new_id)]
    retry = fields["retry"]
    assert source.reconnection_time == (None if retry is None else int(retry))
    comment = fields["comment"]
    assert source.comments == (
        [] if comment is None else reference.split_lines(comment)
    )


def is_evil(fields: dict[str, Any]) -> bool:
    lines = (fields["event"] or "") + (fields["id"] or "")
    return bool(set("\r\n") & set(lines)) or "\0" in (fields["id"] or "")


@pytest.mark.parametrize("maker", MAKERS)
@given(fields=EVIL_FIELDS)
def test_no_field_can_bring_another_one_along(
    maker: str, fields: dict[str, Any]
) -> None:
    try:
        frame = bytes(MAKERS[maker](fields))
    except (ValueError, TypeError):
        return
    assert not is_evil(fields)
    judged(frame, fields)


@pytest.mark.parametrize("maker", MAKERS)
def test_harmless_fields_are_written_by_all(maker: str) -> None:
    fields = {
        "raw_data": "a\nb",
        "event": "e: é",
        "id": " 1",
        "retry": 5,
        "comment": "c\r\nd",
    }
    judged(bytes(MAKERS[maker](fields)), fields)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n"])
def test_a_line_break_is_refused_by_all(
    maker: str, field: str, line_break: str
) -> None:
    for text in ("{}", "a{}", "{}a", "a{0}data: injected{0}{0}", "a{0}{0}id: 5"):
        fields = NOTHING | {"raw_data": "x", field: text.format(line_break)}
        with pytest.raises((ValueError, TypeError)):
            MAKERS[maker](fields)


@given(st.binary(max_size=40) | EVIL.map(lambda text: text.encode(errors="ignore")))
def test_bytes_that_are_taken_for_events_end_where_they_end(body: bytes) -> None:
    for make in (EncodedEvent.from_bytes, EncodedEvent().__reduce__()[0]):
        try:
            event: Any = make(body)
        except ValueError:
            continue
        assert bytes(event) == body
        around = b"data: before\n\n"
        alone = parse(around + body)
        source = parse(around + body + b"data: after\n\n")
        assert source.events[:-1] == alone.events
        assert source.events[-1].data == "after"


@given(EVIL, EVIL)
def test_text_in_json_stays_in_its_line(key: str, text: str) -> None:
    value = {key: [text, Lying(text), {Lying(key): Formatted(text)}]}
    template = EventTemplate({"a": Slot("a")})
    for way in ("push", "compact", "data", "slot", "data_slot", "model_slot"):
        frame = outcome(way, value)
        if isinstance(frame, bytes):
            assert re.fullmatch(rb"data: [^\r\n]+\n\n", frame)
    assert re.fullmatch(rb"data: [^\r\n]+\n\n", bytes(template(text)))


MARK = str(Slot("inner"))


@pytest.mark.parametrize(
    "text", [MARK, MARK[:-1], f'"{MARK}"', f"{MARK}\n{MARK}"], ids=stable_id
)
def test_values_that_look_like_slots_are_values(text: str) -> None:
    template = EventTemplate({"a": Slot("a"), "b": Slot("b")}, id=Slot("id"))
    line = text.replace("\n", "")
    bound = template.partial(a=text, id=line)
    assert bound.slots == ("b",)
    assert bound.partial(b=text).slots == ()
    whole = EncodedEvent(data={"a": text, "b": text}, id=line)
    assert bound(text) == bound.partial(b=text)() == whole
    assert EventTemplate(Slot("a"))(text) == EncodedEvent(data=text)


@pytest.mark.parametrize(
    "options",
    [
        {"ping": "a\n\ndata: injected\r\rid: injected"},
        {"ping": "\n", "ping_form": "line"},
        {"ping": ServerSentEvent(comment="a\n\ndata: injected")},
        {"ping": lambda: "\n\ndata: injected\n\n"},
        {"ping": lambda: ServerSentEvent(raw_data="p\n\nid: injected", event="ping")},
    ],
)
def test_a_ping_brings_nothing_along(options: Any, anyio_backend: str) -> None:
    async def items() -> AsyncIterator[Any]:
        yield 1
        await anyio.sleep(0.05)
        yield 2

    response = EventSourceResponse(items(), ping_interval=0.01, **options)
    source = parse(fetch(response, backend=anyio_backend).body)
    assert {event.last_event_id for event in source.events} == {""}
    plain = [event.data for event in source.events if event.type == "message"]
    pings = [data for data in plain if data not in ("1", "2")]
    assert set(pings) <= {json.dumps("\n\ndata: injected\n\n")}
    assert [data for data in plain if data in ("1", "2")] == ["1", "2"]


@pytest.mark.parametrize("field", ["event", "id"])
def test_events_of_options_are_refused_where_they_are_set(field: str) -> None:
    fields: Any = {field: "a\ndata: injected"}
    evil = ServerSentEvent.model_construct(**fields)
    for option in ("ping", "farewell"):
        with pytest.raises(ValueError, match="must be a single line"):
            EventSourceResponse.with_options(**{option: evil})  # type: ignore[arg-type]


@pytest.mark.parametrize("retry", ["5", "5\ndata: a", 5.0, LyingNumber(-1)], ids=type)
def test_a_retry_of_options_is_a_number(retry: Any) -> None:
    with pytest.raises(ValueError, match="retry"):
        EventSourceResponse.with_options(retry=retry)


def test_a_retry_of_options_is_written_as_a_number() -> None:
    response = EventSourceResponse([1], retry=LyingNumber(5))
    source = parse(fetch(response).body)
    assert source.events == [Event("1")]
    assert source.reconnection_time in (5, 7)


def test_an_event_that_on_error_makes_brings_nothing_along(anyio_backend: str) -> None:
    app = FastAPI()
    made: list[Any] = []

    @app.get(
        "/",
        response_class=EventSourceResponse.with_options(
            on_error=lambda error: made.pop()
        ),
    )
    async def stream() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    for event in (
        ServerSentEvent.model_construct(raw_data="x", id="a\nb"),
        "a\n\ndata: injected",
        Faked(),
        Proxy(),
    ):
        made.append(event)
        reply = fetch(app, backend=anyio_backend)
        assert made == []
        assert isinstance(reply.error, LookupError)
        source = parse(reply.body)
        assert source.events[0] == Event("1")
        assert [event.data for event in source.events[1:]] in (
            [],
            ["{}"],
            [json.dumps("a\n\ndata: injected")],
        )
