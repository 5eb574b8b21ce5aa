"""The parser of the tests against the `format-*` cases of web-platform-tests.

Then the events of all kinds of streams, as this parser reads them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
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
)

from ..support import reference
from ..support.asgi import fetch
from ..support.eventsource import Event, EventSource, is_event_stream, parse
from ..support.values import FIELDS

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"

LONG = b"x" * 2048


@dataclasses.dataclass
class Case:
    """A response, and the events that a client reads from it.

    Args:
        again: Body after a reconnection. `%s` in it is the `Last-Event-ID` of the
            client.
    """

    checks: str
    body: bytes
    events: list[Event]
    retry: int | None = None
    content_type: str = "text/event-stream"
    again: bytes | None = None


CASES = {
    "bom": Case(
        "one byte order mark at the start of a stream is skipped, any other is text",
        b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n",
        [Event("1"), Event("3")],
    ),
    "bom-2": Case(
        "a second byte order mark at the start is text",
        b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\ndata:3\n\n",
        [Event("2"), Event("3")],
    ),
    "comments": Case(
        "comments are ignored, wherever they are and however long they are",
        b"data:1\r:\0\n:\r\ndata:2\n:%b\rdata:3\n:data:no\r:%b\ndata:4\n\n"
        % (LONG, LONG),
        [Event("1\n2\n3\n4")],
    ),
    "data-before-final-empty-line": Case(
        "an event without a blank line after it is not dispatched",
        b"retry:1000\ndata:1\n\nid:lost\ndata:2",
        [Event("1")],
        retry=1000,
    ),
    "field-data": Case(
        "`data` without a value is an empty line, and makes an event",
        b"data:\n\ndata\ndata\n\ndata:test\n\n",
        [Event(""), Event("\n"), Event("test")],
    ),
    "field-event": Case(
        "`event` applies to one event, not to the next",
        b"event:test\ndata:x\n\ndata:x\n\n",
        [Event("x", "test"), Event("x")],
    ),
    "field-event-empty": Case(
        "an empty `event` means `message`",
        b"event: \ndata:data\n\n",
        [Event("data")],
    ),
    "field-id": Case(
        "`id` is sent as `Last-Event-ID` after a reconnection, non-ASCII text included",
        "id: …\nretry: 200\ndata: hello\n\n".encode(),
        [Event("hello", last_event_id="…"), Event("…", last_event_id="…")],
        retry=200,
        again=b"data: %s\n\n",
    ),
    "field-id-2": Case(
        "an `id` from before a reconnection applies until another one arrives",
        "id: …\nretry: 200\ndata: hello\n\n".encode(),
        [
            Event("hello", last_event_id="…"),
            Event("…", last_event_id="…"),
            Event("again", last_event_id="…"),
        ],
        retry=200,
        again=b"data: %s\n\ndata: again\n\n",
    ),
    "field-id-3": Case(
        "an `id` applies to the events after it, until an empty `id`",
        b"id:1\ndata:a\n\ndata:b\n\nid:2\ndata:c\n\nid\ndata:d\n\ndata:e\n\n",
        [
            Event("a", last_event_id="1"),
            Event("b", last_event_id="1"),
            Event("c", last_event_id="2"),
            Event("d"),
            Event("e"),
        ],
    ),
    "field-id-null": Case(
        "an `id` that contains NUL is ignored",
        b"id:\0\0\nid:x\0\nid:\0x\nid:x\0x\nid: \0\ndata:hello\n\n",
        [Event("hello")],
    ),
    "field-parsing": Case(
        "field names match exactly: case, spaces and NUL matter",
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\r"
        b"data_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        [Event("\0\n 2\n1\n3\n\n4")],
    ),
    "field-retry": Case(
        "`retry` of digits is the reconnection time, even with a leading zero",
        b"retry:02000\ndata:x\n\n",
        [Event("x")],
        retry=2000,
    ),
    "field-retry-bogus": Case(
        "any other `retry` is ignored",
        b"retry:2000\nretry:1000x\ndata:x\n\n",
        [Event("x")],
        retry=2000,
    ),
    "field-retry-empty": Case(
        "a `retry` without a value is ignored", b"retry\ndata:test\n\n", [Event("test")]
    ),
    "field-unknown": Case(
        "unknown fields are ignored",
        b"data:test\n data\ndata\nother:x\nonlytext\n:comment\ndata:test\n\n",
        [Event("test\n\ntest")],
    ),
    "leading-space": Case(
        "one space after the colon is not part of the value, but a tab is",
        b"data:\ttest\rdata: \ndata:test\n\n",
        [Event("\ttest\n\ntest")],
    ),
    "mime-bogus": Case(
        "an invalid content type is refused",
        b"data:x\n\n",
        [],
        content_type="x bogus",
    ),
    "mime-trailing-semicolon": Case(
        "the content type can end with a semicolon",
        b"data:x\n\n",
        [Event("x")],
        content_type="text/event-stream;",
    ),
    "mime-valid-bogus": Case(
        "any other content type is refused",
        b"data:x\n\n",
        [],
        content_type="text/x-bogus",
    ),
    "newlines": Case(
        "CRLF, LF and CR end a line, and can be mixed",
        b"data:test\r\ndata\ndata:test\r\n\r",
        [Event("test\n\ntest")],
    ),
    "null-character": Case("NUL in `data` is data", b"data:\0\n\n", [Event("\0")]),
    "utf-8": Case(
        "a stream is UTF-8, whatever its content type says",
        "data:ok…\n\n".encode(),
        [Event("ok…")],
        content_type="text/event-stream;charset=windows-1252",
    ),
}
"""Cases that check the same as the cases of that name in web-platform-tests."""


@pytest.mark.parametrize("piece", [1, 2, 3, 10**6])
@pytest.mark.parametrize("name", CASES)
def test_format(name: str, piece: int) -> None:
    case = CASES[name]
    source = EventSource()

    def connect(body: bytes) -> None:
        if is_event_stream(case.content_type):
            for start in range(0, len(body), piece):
                source.feed(body[start : start + piece])

    connect(case.body)
    if case.again is not None:
        first = source
        source = EventSource(last_event_id=first.last_event_id)
        connect(case.again % first.last_event_id.encode())
        assert source.last_event_id == first.last_event_id
        source.events[:0] = first.events
        source.reconnection_time = first.reconnection_time
    assert source.events == case.events
    assert source.reconnection_time == case.retry


def test_the_published_table_is_that_of_the_cases() -> None:
    rows = re.findall(r"^\| `format-([\w-]+)` \| (.*) \|$", PAGE.read_text(), re.M)
    assert len(rows) == 23
    assert rows == [(name, case.checks) for name, case in CASES.items()]


def test_the_id_of_an_unfinished_event_is_not_kept() -> None:
    assert parse(b"id: 1\ndata: a\n\nid: 2\ndata: b\n").last_event_id == "1"


@pytest.mark.parametrize("breaks_off", [False, True])
def test_all_that_a_stream_emits_is_read(breaks_off: bool, anyio_backend: str) -> None:
    app = FastAPI()
    response_class = EventSourceResponse.with_options(
        retry=1234,
        ping_interval=0.02,
        ping=lambda: EncodedEvent(comment="still\nthere"),
        on_error=lambda error: ServerSentEvent(event="error", data=str(error)),
    )

    @app.get("/", response_class=response_class)
    async def stream() -> AsyncIterator[object]:
        yield {"text": "a\nb\u2028"}
        yield ServerSentEvent(raw_data="a\nb\r\nc\n", event="é", id="1", comment="c")
        await anyio.sleep(0.1)
        yield EncodedEvent(raw_data="", id="")
        if breaks_off:
            raise LookupError("gone")

    reply = fetch(app, backend=anyio_backend)
    assert is_event_stream(dict(reply.headers)[b"content-type"].decode())
    source = parse(reply.body)
    assert source.events == [
        Event('{"text":"a\\nb\u2028"}'),
        Event("a\nb\nc\n", "é", "1"),
        Event(""),
        *([Event('"gone"', "error")] if breaks_off else []),
    ]
    assert source.reconnection_time == 1234
    comment, *pings = source.comments
    assert comment == "c"
    assert len(pings) >= 2
    assert pings == ["still", "there"] * (len(pings) // 2)


class Token(ServerSentEvent):
    """A user's subclass of the event."""

    event: str | None = "token"


TEMPLATE = EventTemplate({"text": Slot("text")}, event="filled", id=Slot("id"))
MAKERS = [ServerSentEvent, EncodedEvent, fastapi.sse.ServerSentEvent, Token]
KEYS = st.text().filter(lambda key: not key.startswith("_sa"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(-1e300, 1e300),
    lambda items: st.lists(items) | st.dictionaries(KEYS, items),
    max_leaves=8,
)
TYPED = st.lists(st.text() | st.integers(), max_size=3)
"""Items for a stream with an item type."""


@dataclasses.dataclass
class Sent:
    """An item, and the event that a client must read from it.

    Args:
        data: Data of the event. A tuple holds the value of which it is the JSON.
        comment: Text of the comment before the event.
    """

    item: Any
    data: str | tuple[Any] | None
    event: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None


@st.composite
def sent(draw: st.DrawFn) -> Sent:
    kind: Any = draw(st.sampled_from(["plain", "filled", *MAKERS]))
    value: Any = draw(TYPED)
    if kind == "plain":
        return Sent(value, (value,))
    if kind == "filled":
        text, id = draw(st.text()), str(draw(FIELDS).get("id", ""))
        item = TEMPLATE(text=text, id=id)
        return Sent(item, ({"text": text},), event="filled", id=id)
    fields: dict[str, Any] = draw(FIELDS)
    data = fields.pop("data", None)
    name = fields.setdefault("event", "token" if kind is Token else None)
    rest = {**fields, "event": name}
    if data is None and draw(st.booleans()):
        value = draw(JSON)
        data = None if value is None else (value,)
        return Sent(kind(data=value, **fields), data, **rest)
    return Sent(kind(raw_data=data, **fields), data, **rest)


@given(
    st.lists(sent(), max_size=8),
    st.sampled_from(["fastapi", "compact"]),
    st.booleans(),
    st.integers(1, 7),
)
def test_any_stream_is_read_as_it_was_meant(
    items: list[Sent], spelling: Any, typed: bool, piece: int
) -> None:
    app = FastAPI()

    async def stream():  # type: ignore[no-untyped-def]
        for each in items:
            yield each.item

    if typed:
        stream.__annotations__["return"] = AsyncIterator[list[str | int]]
    response_class = EventSourceResponse.with_options(json=spelling)
    app.get("/", response_class=response_class)(stream)
    reply = fetch(app)
    assert reply.complete
    source = EventSource()
    for start in range(0, len(reply.body), piece):
        source.feed(reply.body[start : start + piece])
    last_event_id = ""
    retry: int | None = None
    comments: list[str] = []
    events = iter(source.events)
    for each in items:
        last_event_id = last_event_id if each.id is None else each.id
        retry = retry if each.retry is None else each.retry
        if each.comment is not None:
            comments += reference.split_lines(each.comment)
        if each.data is None:
            continue
        event = next(events)
        assert event[1:] == (each.event or "message", last_event_id)
        if isinstance(each.data, str):
            assert event.data == "\n".join(reference.split_lines(each.data))
        else:
            assert json.loads(event.data) == each.data[0]
    assert next(events, None) is None
    assert source.reconnection_time == retry
    assert source.comments == comments
