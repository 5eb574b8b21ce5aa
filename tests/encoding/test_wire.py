"""The bytes of events, through the public functions."""

from __future__ import annotations

import itertools
from typing import Any

import fastapi.sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastapi_sse_fast
from fastapi_sse_fast import EncodedEvent, format_sse_event

from ..support import reference, values
from ..support.eventsource import Event, parse


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, b"\n"),
        ({"data_str": ""}, b"data: \n\n"),
        ({"data_str": "a"}, b"data: a\n\n"),
        ({"data_str": " a"}, b"data:  a\n\n"),
        ({"data_str": "a\nb\r\nc\rd"}, b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        ({"data_str": "a\n"}, b"data: a\ndata: \n\n"),
        ({"data_str": "a\u2028b\x0bc\x85"}, "data: a\u2028b\x0bc\x85\n\n".encode()),
        ({"comment": "a\nb"}, b": a\n: b\n\n"),
        ({"event": "e", "data_str": "d"}, b"event: e\ndata: d\n\n"),
        ({"id": ""}, b"id: \n\n"),
        ({"retry": 0}, b"retry: 0\n\n"),
        ({"retry": 10**30}, b"retry: 1" + b"0" * 30 + b"\n\n"),
        (
            {"retry": 1, "id": "i", "data_str": "d", "event": "e", "comment": "c"},
            b": c\nevent: e\ndata: d\nid: i\nretry: 1\n\n",
        ),
    ],
)
def test_a_frame_is_its_fields_in_fastapis_order(
    fields: dict[str, Any], expected: bytes
) -> None:
    assert format_sse_event(**fields) == expected


@given(values.FIELDS)
def test_frames_equal_the_reference(fields: dict[str, Any]) -> None:
    expected = reference.frame(**fields)
    data = fields.pop("data", None)
    assert format_sse_event(data_str=data, **fields) == expected
    assert bytes(EncodedEvent(raw_data=data, **fields)) == expected


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\n\r", "\r\r\n\n"])
def test_a_line_break_is_found_wherever_it_is(line_break: str) -> None:
    """Text is searched in blocks of 16 and 64 bytes."""
    for length in (*range(70), 113, 127, 128, 129, 200):
        for at in range(length + 1):
            text = "x" * at + line_break + "y" * (length - at)
            event = EncodedEvent(raw_data=text, comment=text)
            assert bytes(event) == reference.frame(data=text, comment=text)


@given(values.FIELDS)
def test_a_parser_reads_back_what_was_written(fields: dict[str, Any]) -> None:
    source = parse(
        bytes(EncodedEvent(raw_data=fields.get("data"), **without_data(fields)))
    )
    if "data" in fields and fields["data"] is not None:
        data = "\n".join(reference.split_lines(fields["data"]))
        name = fields.get("event") or "message"
        assert source.events == [Event(data, name, fields.get("id", ""))]
    else:
        assert source.events == []
    assert source.reconnection_time == fields.get("retry")
    comment = fields.get("comment")
    assert source.comments == (
        [] if comment is None else reference.split_lines(comment)
    )


@given(
    st.lists(values.FIELDS, max_size=5),
    st.lists(st.integers(1, 50), min_size=1, max_size=10),
)
def test_any_split_of_the_stream_parses_the_same(
    events: list[dict[str, Any]], sizes: list[int]
) -> None:
    body = b"".join(
        bytes(EncodedEvent(raw_data=fields.get("data"), **without_data(fields)))
        for fields in events
    )
    whole, split = parse(body), parse(b"")
    for size in itertools.cycle(sizes):
        if not body:
            break
        split.feed(body[:size])
        body = body[size:]
    assert split.events == whole.events
    assert split.comments == whole.comments


@pytest.mark.parametrize("name", ["event", "id"])
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\r\nb", "\n", "a\r", "a\ndata: x"])
def test_a_line_break_cannot_be_injected(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"SSE '{name}' must be a single line"):
        format_sse_event(**{name: value})  # type: ignore[arg-type]


def test_nul_in_an_id_is_refused() -> None:
    with pytest.raises(ValueError, match="SSE 'id' must not contain null characters"):
        format_sse_event(id="a\0")


@pytest.mark.parametrize("retry", [-1, -(10**30), 1.5, "x", "-1", "1\n", ""])
def test_a_retry_that_parsers_would_ignore_is_refused(retry: Any) -> None:
    with pytest.raises(ValueError, match="SSE 'retry' must be"):
        format_sse_event(retry=retry)


@pytest.mark.parametrize("name", ["data_str", "comment"])
def test_text_must_be_text(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a str"):
        format_sse_event(**{name: 5})  # type: ignore[arg-type]


def test_numbers_are_formatted_as_fastapi_formats_them() -> None:
    fields: dict[str, Any] = {"event": 1, "id": 2, "retry": "3"}
    expected = fastapi.sse.format_sse_event(**fields)
    assert format_sse_event(**fields) == expected == b"event: 1\nid: 2\nretry: 3\n\n"


def test_a_lone_surrogate_cannot_be_sent() -> None:
    for make in (format_sse_event, fastapi.sse.format_sse_event):
        with pytest.raises(UnicodeEncodeError):
            make(data_str="\ud800")


def test_the_ping_is_fastapis() -> None:
    assert fastapi.sse.KEEPALIVE_COMMENT == fastapi_sse_fast.KEEPALIVE_COMMENT
    assert parse(fastapi_sse_fast.KEEPALIVE_COMMENT).events == []


def without_data(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "data"}
