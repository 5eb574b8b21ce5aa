"""The parser that the tests trust, on the `format-*` cases of web-platform-tests.

Then everything that a stream emits, read by that parser.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from fastapi import FastAPI

from fastapi_sse_fast import EncodedEvent, EventSourceResponse, ServerSentEvent

from .asgi import fetch
from .eventsource import Event, EventSource, is_event_stream, parse

LONG = b"x" * 2048


@pytest.mark.parametrize(
    ("body", "events"),
    [
        pytest.param(
            b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n",
            [Event("1"), Event("3")],
            id="bom",
        ),
        pytest.param(
            b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\ndata:3\n\n",
            [Event("2"), Event("3")],
            id="bom-2",
        ),
        pytest.param(
            b"data:1\r:\0\n:\r\ndata:2\n:%b\rdata:3\n:data:no\r:%b\ndata:4\n\n"
            % (LONG, LONG),
            [Event("1\n2\n3\n4")],
            id="comments",
        ),
        pytest.param(
            b"retry:1000\ndata:1\n\nid:lost\ndata:2",
            [Event("1")],
            id="data-before-final-empty-line",
        ),
        pytest.param(
            b"data:\n\ndata\ndata\n\ndata:test\n\n",
            [Event(""), Event("\n"), Event("test")],
            id="field-data",
        ),
        pytest.param(
            b"event:test\ndata:x\n\ndata:x\n\n",
            [Event("x", "test"), Event("x")],
            id="field-event",
        ),
        pytest.param(
            b"event: \ndata:data\n\n", [Event("data")], id="field-event-empty"
        ),
        pytest.param(
            b"id:1\ndata:a\n\ndata:b\n\nid:2\ndata:c\n\nid\ndata:d\n\ndata:e\n\n",
            [
                Event("a", last_event_id="1"),
                Event("b", last_event_id="1"),
                Event("c", last_event_id="2"),
                Event("d"),
                Event("e"),
            ],
            id="field-id-3",
        ),
        pytest.param(
            b"id:\0\0\nid:x\0\nid:\0x\nid:x\0x\nid: \0\ndata:hello\n\n",
            [Event("hello")],
            id="field-id-null",
        ),
        pytest.param(
            b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\r"
            b"data_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
            [Event("\0\n 2\n1\n3\n\n4")],
            id="field-parsing",
        ),
        pytest.param(
            b"data:test\n data\ndata\nother:x\nonlytext\n:comment\ndata:test\n\n",
            [Event("test\n\ntest")],
            id="field-unknown",
        ),
        pytest.param(
            b"data:\ttest\rdata: \ndata:test\n\n",
            [Event("\ttest\n\ntest")],
            id="leading-space",
        ),
        pytest.param(
            b"data:test\r\ndata\ndata:test\r\n\r",
            [Event("test\n\ntest")],
            id="newlines",
        ),
        pytest.param(b"data:\0\n\n", [Event("\0")], id="null-character"),
        pytest.param("data:ok…\n\n".encode(), [Event("ok…")], id="utf-8"),
    ],
)
def test_what_is_dispatched(body: bytes, events: list[Event]) -> None:
    assert parse(body).events == events
    split = EventSource()
    for number in range(len(body)):
        split.feed(body[number : number + 1])
    assert split.events == events


@pytest.mark.parametrize(
    ("body", "time"),
    [
        pytest.param(b"retry:02000\ndata:x\n\n", 2000, id="field-retry"),
        pytest.param(b"retry:2000\nretry:1000x\n", 2000, id="field-retry-bogus"),
        pytest.param(b"retry\ndata:test\n\n", None, id="field-retry-empty"),
    ],
)
def test_the_time_before_reconnecting(body: bytes, time: int | None) -> None:
    assert parse(body).reconnection_time == time


def test_the_last_event_id_outlives_its_connection() -> None:
    """The cases field-id and field-id-2."""
    first = parse("id: …\nretry: 200\ndata: hello\n\n".encode())
    assert first.events == [Event("hello", last_event_id="…")]
    assert first.last_event_id == "…"
    for _ in range(2):
        again = EventSource(last_event_id=first.last_event_id)
        again.feed("data: …\n\n".encode())
        assert again.events == [Event("…", last_event_id="…")]
        assert again.last_event_id == "…"


def test_the_id_of_an_unfinished_event_is_not_kept() -> None:
    assert parse(b"id: 1\ndata: a\n\nid: 2\ndata: b\n").last_event_id == "1"


@pytest.mark.parametrize(
    ("content_type", "opens"),
    [
        pytest.param("x bogus", False, id="mime-bogus"),
        pytest.param("text/event-stream;", True, id="mime-trailing-semicolon"),
        pytest.param("text/x-bogus", False, id="mime-valid-bogus"),
        pytest.param("text/event-stream;charset=windows-1252", True, id="utf-8"),
    ],
)
def test_which_responses_are_event_streams(content_type: str, opens: bool) -> None:
    assert is_event_stream(content_type) == opens


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
