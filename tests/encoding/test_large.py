"""Large events, which are separate `bytes` objects with the usual frames."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from fastapi_sse_fast import (
    EncodedEvent,
    EventTemplate,
    ServerSentEvent,
    Slot,
    format_sse_event,
)
from fastapi_sse_fast._core import EventBuffer, ItemEncoder

from ..support.buffers import taken

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = 8 * 1024
COUNTED = 512 * 1024 + 1
"""The size from which on the lines of a text are counted before they are written."""

SIZES = [LARGE - 20, *range(LARGE - 12, LARGE + 2), 3 * LARGE, COUNTED - 1, COUNTED]


def frame(
    *,
    data: str,
    comment: str | None = None,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
) -> bytes:
    """Return the frame of an event, like `reference.frame` but fast."""
    fields = {
        "": comment,
        "event": event,
        "data": data,
        "id": id,
        "retry": None if retry is None else str(retry),
    }
    lines = [
        f"{name}: {line}\n"
        for name, value in fields.items()
        if value is not None
        for line in re.split("\r\n|\r|\n", value)
    ]
    return "".join([*lines, "\n"]).encode()


class Model(BaseModel):
    text: str


class Indented(BaseModel):
    text: str

    def model_dump_json(self, **_: Any) -> str:
        return json.dumps({"text": self.text}, indent=1)


def pushed(*items: Any, encoder: ItemEncoder | None = None) -> bytes:
    buffer = EventBuffer(
        encoder or ItemEncoder(),
        source=None,
        max_pending=1 << 30,
        time_slice=3600.0,
    )
    for item in items:
        buffer.push(item)
    return taken(buffer)


def typed() -> ItemEncoder:
    adapter = TypeAdapter(Model)
    return ItemEncoder.typed(
        validate=adapter.validator.validate_python,
        serialize=adapter.serializer.to_json,
        invalid=lambda item, error: LookupError(item, error),
    )


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


WAYS: dict[str, Callable[[str], tuple[bytes, bytes]]] = {
    "text": lambda text: (
        bytes(EncodedEvent(raw_data=text, event="e", id="i", retry=1, comment="c")),
        frame(data=text, event="e", id="i", retry=1, comment="c"),
    ),
    "formatted": lambda text: (
        format_sse_event(data_str=text, event="e", id="i", retry=1, comment="c"),
        frame(data=text, event="e", id="i", retry=1, comment="c"),
    ),
    "comment": lambda text: (
        bytes(EncodedEvent(comment=text, raw_data=text)),
        frame(comment=text, data=text),
    ),
    "pushed text": lambda text: (
        pushed(1, ServerSentEvent(raw_data=text, id="2"), 3),
        b"data: 1\n\n" + frame(data=text, id="2") + b"data: 3\n\n",
    ),
    "pushed frame": lambda text: (
        pushed(1, EncodedEvent(raw_data=text), 3),
        b"data: 1\n\n" + frame(data=text) + b"data: 3\n\n",
    ),
    "pushed JSON": lambda text: (
        pushed(1, {"a": text}, 3),
        b"data: 1\n\n" + frame(data=json.dumps({"a": text})) + b"data: 3\n\n",
    ),
    "data": lambda text: (
        bytes(EncodedEvent(data=text)),
        frame(data=json.dumps(text)),
    ),
    "compact": lambda text: (
        bytes(EncodedEvent(data=text, json="compact")),
        frame(data=compact(text)),
    ),
    "model": lambda text: (
        bytes(EncodedEvent(data=Model(text=text), event="e", id="i")),
        frame(data=compact({"text": text}), event="e", id="i"),
    ),
    "indented model": lambda text: (
        bytes(EncodedEvent(data=Indented(text=text), event="e", id="i")),
        frame(data=json.dumps({"text": text}, indent=1), event="e", id="i"),
    ),
    "typed": lambda text: (
        pushed(Model(text="a"), Model(text=text), encoder=typed()),
        frame(data='{"text":"a"}') + frame(data=compact({"text": text})),
    ),
    "template": lambda text: (
        bytes(EventTemplate({"a": Slot("a")}, id=Slot("id"))(a=text, id="i")),
        frame(data=json.dumps({"a": text}), id="i"),
    ),
    "chunks": lambda text: (
        pushed(
            "a",
            text,
            text.encode(),
            bytearray(text.encode()),
            memoryview(text.encode()),
            "b",
            encoder=ItemEncoder.chunks(),
        ),
        b"a" + 4 * text.encode() + b"b",
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_a_large_event_has_the_bytes_of_a_small_one(way: str, size: int) -> None:
    for text in ("x" * size, "é" * (size // 2), ("x" * 99 + "\n") * (size // 100)):
        made, expected = WAYS[way](text)
        assert made == expected


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\n\r", "\r\r\n\n"])
@pytest.mark.parametrize("at", [0, 4079, 4080, 4081, LARGE, LARGE + 1])
@pytest.mark.parametrize("size", [LARGE, COUNTED])
def test_a_line_break_of_a_large_text_is_found_wherever_it_is(
    line_break: str, at: int, size: int
) -> None:
    text = "x" * at + line_break + "y" * (size + 2 - at) + line_break
    assert bytes(EncodedEvent(raw_data=text)) == frame(data=text)


@given(
    st.text(st.sampled_from("\r\nxé"), max_size=30),
    st.integers(1, 3000),
    st.sampled_from(["", "x" * COUNTED]),
)
def test_a_large_text_of_any_lines_equals_the_reference(
    text: str, times: int, end: str
) -> None:
    text = text * times + end
    assert bytes(EncodedEvent(raw_data=text)) == frame(data=text)


@pytest.mark.parametrize("size", [10, LARGE, 10 * LARGE])
def test_the_bytes_of_an_event_are_made_once(size: int) -> None:
    event = EncodedEvent(raw_data="x" * size)
    assert bytes(event) is bytes(event)
    frames = bytes(event)
    assert bytes(EncodedEvent.from_bytes(frames)) is frames


def test_a_kind_of_bytes_becomes_bytes() -> None:
    class Frames(bytes):
        def __len__(self) -> int:
            raise AssertionError

    event = EncodedEvent.from_bytes(Frames(b"data: 1\n\n"))
    assert type(bytes(event)) is bytes
    assert pushed(Frames(b"x"), encoder=ItemEncoder.chunks()) == b"x"


def test_an_error_behind_a_large_text_leaves_nothing() -> None:
    class Fails(BaseModel):
        def model_dump_json(self, **_: Any) -> str:
            return "x" * LARGE + "\ud800"

    class Later(ServerSentEvent):
        retry: Any = None

    buffer_items = [
        ServerSentEvent(data=Fails()),
        ["x" * LARGE, object()],
        Later(raw_data="x" * LARGE, retry="no number"),
    ]
    encoder = ItemEncoder()
    buffer = EventBuffer(encoder, source=None, max_pending=1 << 30, time_slice=3600.0)
    for item in buffer_items:
        buffer.push(1)
        with pytest.raises((ValueError, TypeError)):
            buffer.push(item)
    assert taken(buffer) == 3 * b"data: 1\n\n"


OUT_OF_MEMORY = """
import resource
from fastapi_sse_fast import EncodedEvent, EventTemplate, Slot, encode_event
from fastapi_sse_fast import ServerSentEvent, format_sse_event
from fastapi_sse_fast._core import EventBuffer, ItemEncoder

class Frames(bytes):
    pass

SIZE = 64 << 20
text = "x" * SIZE
lines = "x\\n" * (SIZE // 2)
escaped = "\\x7f" * (SIZE // 4)
numbers = [1] * (SIZE // 2)
frames = Frames(b"data: " + text.encode() + b"\\n\\n")
template = EventTemplate({"a": Slot("a"), "b": Slot("b")})
buffer = EventBuffer(
    ItemEncoder(), source=None, max_pending=1 << 30, time_slice=1
)
buffer.push("before")

with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + SIZE // 2, -1))

for name, make in {
    "text": lambda: EncodedEvent(raw_data=text),
    "lines": lambda: EncodedEvent(raw_data=lines),
    "comment": lambda: EncodedEvent(comment=text),
    "formatted": lambda: format_sse_event(data_str=text),
    "string": lambda: EncodedEvent(data=text),
    "key": lambda: EncodedEvent(data={text: 1}),
    "escapes": lambda: EncodedEvent(data=escaped),
    "compact": lambda: EncodedEvent(data=text, json="compact"),
    "numbers": lambda: EncodedEvent(data=numbers),
    "event": lambda: encode_event(ServerSentEvent(raw_data=text)),
    "relay": lambda: EncodedEvent.from_bytes(frames),
    "template": lambda: EventTemplate(text),
    "slots": lambda: template(a=text, b=1),
    "partial": lambda: template.partial(a=text),
    "pushed string": lambda: buffer.push([text]),
    "pushed numbers": lambda: buffer.push(numbers),
}.items():
    try:
        make()
    except MemoryError:
        print("MemoryError")
    else:
        print(name, "was made")
    assert bytes(EncodedEvent(data=[1, "x"], id="i")) == b'data: [1, "x"]\\nid: i\\n\\n'
buffer.push("after")
print(buffer.take() == b'data: "before"\\n\\ndata: "after"\\n\\n')
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_where_memory_runs_out_there_is_an_error_and_nothing_is_torn() -> None:
    run = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.split("\n") == [*16 * ["MemoryError"], "True", ""]
