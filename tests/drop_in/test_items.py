"""The frames of items, byte for byte."""

from __future__ import annotations

import enum
import sys
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any

import fastapi.sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_sse_fast import EncodedEvent
from fastapi_sse_fast.sse_starlette import (
    EventSourceResponse,
    JSONServerSentEvent,
    ServerSentEvent,
)
from fastapi_sse_fast.sse_starlette.event import ensure_bytes

from ..support import original
from ..support.asgi import fetch
from ..support.eventsource import Event, parse


@pytest.mark.parametrize(
    ("item", "frame"),
    [
        ("text", b"data: text\r\n\r\n"),
        ("", b"data: \r\n\r\n"),
        (1, b"data: 1\r\n\r\n"),
        (None, b"data: None\r\n\r\n"),
        (True, b"data: True\r\n\r\n"),
        ([1, "a"], b"data: [1, 'a']\r\n\r\n"),
        (bytearray(b"x"), b"data: bytearray(b'x')\r\n\r\n"),
        (b"as it is", b"as it is"),
        (memoryview(b"as it is"), b"as it is"),
        ({}, b"\r\n"),
        ({"data": "a", "event": "e"}, b"event: e\r\ndata: a\r\n\r\n"),
        ({"data": {"a": 1}}, b"data: {'a': 1}\r\n\r\n"),
        ({"data": None, "id": None}, b"\r\n"),
        (
            {"data": "d", "retry": 5, "event": "e", "id": "i", "comment": "c"},
            b": c\r\nid: i\r\nevent: e\r\ndata: d\r\nretry: 5\r\n\r\n",
        ),
        ({"data": "a\nb\rc\r\nd\n"}, b"data: a\r\ndata: b\r\ndata: c\r\ndata: d\r\n"),
        ({"comment": "a\nb"}, b": a\r\n: b\r\n\r\n"),
        ({"event": "a\r\nb\n", "id": "\r1"}, b"id: 1\r\nevent: ab\r\n\r\n"),
        ({"data": "\u2028\x85\x0b"}, b"data: \xe2\x80\xa8\xc2\x85\x0b\r\n\r\n"),
        ({"retry": True}, b"retry: True\r\n\r\n"),
        ({"data": "a", "sep": "nonsense"}, b"data: a\r\n\r\n"),
        (OrderedDict(id="1", data="a"), b"id: 1\r\ndata: a\r\n\r\n"),
        (ServerSentEvent("a", sep="\n"), b"data: a\n\n"),
        (JSONServerSentEvent({"a": "é"}), 'data: {"a":"é"}\r\n\r\n'.encode()),
        (JSONServerSentEvent(), b"\r\n"),
    ],
)
def test_a_frame(item: Any, frame: bytes) -> None:
    if item == {"data": "a\nb\rc\r\nd\n"}:
        frame += b"data: \r\n\r\n"
    assert ensure_bytes(item, "\r\n") == frame
    assert fetch(EventSourceResponse([item])).body == frame


@pytest.mark.parametrize("sep", ["\n", "\r", "\r\n"])
def test_a_separator(sep: str) -> None:
    frame = f"id: 1{sep}data: a{sep}data: b{sep}{sep}".encode()
    item = {"data": "a\nb", "id": "1"}
    assert fetch(EventSourceResponse([item], sep=sep)).body == frame
    assert ServerSentEvent("a\nb", id="1", sep=sep).encode() == frame
    assert parse(frame).events == [Event("a\nb", last_event_id="1")]


@pytest.mark.parametrize("sep", ["", "x", "\n\n", 1, b"\n"])
def test_what_ends_no_line(sep: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: ServerSentEvent("a", sep=sep),
        lambda: EventSourceResponse([], sep=sep),
        lambda: ensure_bytes("a", sep),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"sep must be one of: \\r\\n, \\r, \\n"):
            call()


def test_a_separator_that_is_set_on_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerSentEvent, "DEFAULT_SEPARATOR", "\n")
    assert ServerSentEvent("a").encode() == b"data: a\n\n"
    assert JSONServerSentEvent(1).encode() == b"data: 1\n\n"
    monkeypatch.setattr(EventSourceResponse, "DEFAULT_SEPARATOR", "\r")
    assert fetch(EventSourceResponse(["a"])).body == b"data: a\r\r"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"retry": "5"}, "retry argument must be int"),
        ({"retry": 5.0}, "retry argument must be int"),
        ({"id": 5}, "id argument must be str, not <class 'int'>"),
        ({"event": b"e"}, "event argument must be str, not <class 'bytes'>"),
        ({"dta": "a"}, "an event has no field 'dta': a dict can have data, event"),
        ({1: "a"}, "the keys of an event's dict must be field names, not 1"),
    ],
)
def test_a_dict_that_is_no_event(item: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ensure_bytes(item, "\r\n")
    reply = fetch(EventSourceResponse([{"data": "before"}, item]))
    assert reply.body == b"data: before\r\n\r\n"
    assert not reply.complete
    assert isinstance(reply.error, TypeError)


def test_json_that_there_is_not() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            JSONServerSentEvent(value)
    with pytest.raises(TypeError, match="not JSON serializable"):
        JSONServerSentEvent(object())


def test_fields_that_were_assigned_to() -> None:
    event = ServerSentEvent("a")
    event.data, event.id = ["b"], "1"
    assert event.encode() == b"id: 1\r\ndata: ['b']\r\n\r\n"
    event.id = 1  # type: ignore[assignment]
    with pytest.raises(TypeError, match="id argument must be str"):
        event.encode()


def test_a_subclass_with_another_encode() -> None:
    class Loud(ServerSentEvent):
        def encode(self) -> bytes:
            return super().encode().upper()

    class Wrong(ServerSentEvent):
        def encode(self) -> Any:
            return "text"

    class Quiet(ServerSentEvent):
        pass

    assert ensure_bytes(Loud("a"), "\n") == b"DATA: A\r\n\r\n"
    assert ensure_bytes(Quiet("a"), "\n") == b"data: a\r\n\r\n"
    with pytest.raises(TypeError, match=r"Wrong.encode\(\) must return bytes, not str"):
        ensure_bytes(Wrong("a"), "\n")


def test_items_that_are_hostile() -> None:
    class Hostile:
        def __str__(self) -> Any:
            return 1

    class Digits(int):
        def __format__(self, form: str) -> str:
            return "1\ndata: injected"

    class Text(str):
        def __str__(self) -> str:
            return "another text"

    class Fields(dict[Any, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("a dict is asked for its keys")

        def keys(self) -> Any:
            raise LookupError("no keys")

    changing: dict[str, Any] = {"comment": None, "data": "a"}

    class Changing:
        def __str__(self) -> str:
            changing["id"] = "2"
            return "changed"

    changing["comment"] = Changing()
    assert b"changed" in ensure_bytes(changing, "\n")
    with pytest.raises(TypeError, match="__str__ returned non-string"):
        ensure_bytes(Hostile(), "\n")
    assert ensure_bytes({"retry": Digits(5)}, "\n") == b"retry: 1data: injected\n\n"
    assert ensure_bytes(Text("a"), "\n") == b"data: another text\n\n"
    assert ensure_bytes({"data": Text("a")}, "\n") == b"data: another text\n\n"
    with pytest.raises(LookupError, match="no keys"):
        ensure_bytes(Fields(data="a"), "\n")
    with pytest.raises(UnicodeEncodeError):
        ensure_bytes("\ud800", "\n")
    recursive: list[Any] = []
    recursive.append(recursive)
    assert ensure_bytes(recursive, "\n") == b"data: [[...]]\n\n"


def test_events_of_this_package_are_events() -> None:
    items = [
        EncodedEvent(raw_data="a"),
        fastapi.sse.ServerSentEvent(raw_data="b"),
        fastapi.sse.ServerSentEvent(data={"c": 1}),
    ]
    body = fetch(EventSourceResponse(items)).body
    assert body == b'data: a\n\ndata: b\n\ndata: {"c": 1}\n\n'


def test_large_data() -> None:
    text = "x" * 5000 + "\n" + "y" * 5000
    frame = b"data: " + text.replace("\n", "\r\ndata: ").encode() + b"\r\n\r\n"
    assert ensure_bytes(text, "\r\n") == frame
    assert fetch(EventSourceResponse([text, "a"])).body == frame + b"data: a\r\n\r\n"


# The same as sse-starlette


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    original.imported()
    return sys.modules["sse_starlette.event"]


class Number(enum.IntEnum):
    ONE = 1


TEXTS = st.text(
    st.sampled_from("ab:\0 \u2028\x85\x0bé😀\n\r")
    | st.characters(exclude_categories=["Cs"])
)
VALUES = st.one_of(
    TEXTS,
    st.none(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.binary(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(TEXTS, st.integers(), max_size=2),
    st.just(Number.ONE),
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "data": VALUES,
        "event": TEXTS | VALUES,
        "id": TEXTS | VALUES,
        "retry": st.integers() | st.booleans() | VALUES,
        "comment": VALUES,
    },
)
SEPARATORS = st.sampled_from(["\r\n", "\r", "\n"])


def outcome(function: Callable[[], bytes]) -> bytes | type[Exception]:
    try:
        return function()
    except Exception as error:
        return type(error)


@given(item=VALUES | FIELDS, sep=SEPARATORS)
def test_any_item_is_as_in_sse_starlette(peer: ModuleType, item: Any, sep: str) -> None:
    ours = outcome(lambda: ensure_bytes(item, sep))
    assert ours == outcome(lambda: peer.ensure_bytes(item, sep))


@given(fields=FIELDS, sep=SEPARATORS | st.none())
def test_any_event_is_as_in_sse_starlette(
    peer: ModuleType, fields: Any, sep: str | None
) -> None:
    for name in ("ServerSentEvent", "JSONServerSentEvent"):
        ours = {
            "ServerSentEvent": ServerSentEvent,
            "JSONServerSentEvent": JSONServerSentEvent,
        }[name]
        theirs = getattr(peer, name)
        assert outcome(lambda ours=ours: ours(**fields, sep=sep).encode()) == (  # type: ignore[misc]
            outcome(lambda theirs=theirs: theirs(**fields, sep=sep).encode())  # type: ignore[misc]
        )


@given(texts=st.lists(TEXTS, max_size=5), sep=SEPARATORS)
def test_a_client_reads_what_was_written(texts: list[str], sep: str) -> None:
    body = b"".join(ensure_bytes(text, sep) for text in texts)
    expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    assert [event.data for event in parse(body).events] == expected


def test_its_events_are_accepted(peer: ModuleType) -> None:
    items = [peer.ServerSentEvent("a", id="1"), peer.JSONServerSentEvent([1], sep="\n")]
    body = fetch(EventSourceResponse(items)).body
    assert body == b"id: 1\r\ndata: a\r\n\r\ndata: [1]\n\n"
