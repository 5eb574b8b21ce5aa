"""The buffer between a generator and the sends."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from fastapi_sse_fast import EncodedEvent, ServerSentEvent
from fastapi_sse_fast._core import ItemEncoder

from ..support.buffers import buffer_of, taken, typed


def test_frames_are_taken_in_order_and_once() -> None:
    buffer = buffer_of()
    buffer.push(1)
    buffer.push(ServerSentEvent(raw_data="x"))
    buffer.push(EncodedEvent(comment="c"))
    expected = b"data: 1\n\ndata: x\n\n: c\n\n"
    assert len(buffer) == len(expected)
    assert buffer.take() == expected
    assert buffer.take() == b""
    assert len(buffer) == 0


def test_it_wakes_when_something_waits_that_did_not() -> None:
    wakes = []

    def wake() -> None:
        wakes.append(len(buffer))

    buffer = buffer_of(wake=wake)
    buffer.push(1)
    buffer.push(2)
    assert wakes == [9]
    buffer.take()
    buffer.push(3)
    assert wakes == [9, 9]


def test_the_first_push_gives_way_and_then_the_full_buffer_does() -> None:
    buffer = buffer_of(high_water=100)
    assert buffer.push(1)
    pushes = [buffer.push(1) for _ in range(11)]
    assert pushes == [False] * 10 + [True]
    assert buffer.full
    assert buffer.push(1)
    buffer.take()
    assert not buffer.full
    assert not buffer.push(1)


def test_it_gives_way_when_the_time_slice_is_over() -> None:
    buffer = buffer_of(time_slice=0.0)
    assert all(buffer.push(1) for _ in range(3))


def test_a_new_time_slice_begins_when_the_producer_goes_on() -> None:
    buffer = buffer_of(time_slice=0.05, high_water=1 << 30)
    buffer.push(1)
    while not buffer.push(1):
        pass
    assert buffer.push(1)
    buffer.resume()
    assert not buffer.push(1)


def test_a_failed_item_appends_nothing_and_harms_no_neighbour() -> None:
    wakes = []
    buffer = buffer_of(wake=lambda: wakes.append(1))
    for broken in [object(), [1, object()], {"a": {"b": object()}}]:
        with pytest.raises(ValueError, match="not iterable"):
            buffer.push(broken)
    assert (len(buffer), wakes) == (0, [])
    buffer.push("before")
    with pytest.raises(ValueError, match="not iterable"):
        buffer.push(ServerSentEvent(event="e", data=[object()]))
    buffer.push("after")
    assert buffer.take() == b'data: "before"\n\ndata: "after"\n\n'


def test_an_invalid_item_is_explained() -> None:
    buffer = buffer_of(typed(int))
    buffer.push(1)
    with pytest.raises(LookupError) as caught:
        buffer.push("x")
    item, error = caught.value.args
    assert item == "x"
    assert isinstance(error, ValidationError)
    assert buffer.take() == b"data: 1\n\n"


def test_a_validator_and_a_serializer_get_their_options() -> None:
    class Item(BaseModel):
        name: str = Field(alias="itemName")

    class Row:
        itemName = "x"  # noqa: N815

    def encoder(**options: Any) -> ItemEncoder:
        return ItemEncoder.typed(
            validate=Item.__pydantic_validator__.validate_python,
            serialize=Item.__pydantic_serializer__.to_json,
            invalid=lambda item, error: LookupError(item),
            **options,
        )

    for by_alias, expected in [
        (False, b'data: {"name":"x"}\n\n'),
        (True, b'data: {"itemName":"x"}\n\n'),
    ]:
        buffer = buffer_of(
            encoder(
                validate_options={"from_attributes": True},
                serialize_options={"by_alias": by_alias},
            )
        )
        buffer.push(Row())
        assert buffer.take() == expected
    with pytest.raises(LookupError):
        buffer_of(encoder()).push(Row())
    with pytest.raises(TypeError, match="dict"):
        encoder(validate_options=["from_attributes"])


def test_explaining_must_give_an_exception() -> None:
    encoder = ItemEncoder.typed(
        validate=TypeAdapter(int).validator.validate_python,
        serialize=TypeAdapter(int).serializer.to_json,
        invalid=lambda item, error: "no exception",  # type: ignore[arg-type, return-value]
    )
    with pytest.raises(TypeError, match="must return an exception"):
        buffer_of(encoder).push("x")


def test_other_errors_of_a_validator_pass() -> None:
    def validate(item: object) -> object:
        raise ZeroDivisionError

    encoder = ItemEncoder.typed(
        validate=validate, serialize=lambda value: b"", invalid=LookupError
    )
    with pytest.raises(ZeroDivisionError):
        buffer_of(encoder).push(1)


def test_a_serializer_must_give_bytes() -> None:
    encoder = ItemEncoder.typed(
        validate=lambda item: item,
        serialize=lambda value: "text",  # type: ignore[arg-type, return-value]
        invalid=LookupError,
    )
    with pytest.raises(TypeError):
        buffer_of(encoder).push(1)


def test_a_serializer_with_line_breaks_cannot_break_the_frame() -> None:
    encoder = ItemEncoder.typed(
        validate=lambda item: item,
        serialize=lambda value: b'{\n"a": 1\r}',
        invalid=LookupError,
    )
    buffer = buffer_of(encoder)
    buffer.push(1)
    assert buffer.take() == b'data: {\ndata: "a": 1\ndata: }\n\n'


def test_chunks_pass_as_they_are() -> None:
    buffer = buffer_of(ItemEncoder.chunks())
    chunks = ["é", b"b", bytearray(b"c"), memoryview(b"d"), ""]
    for chunk in [*chunks, {"a": 1}, ServerSentEvent(raw_data="x")]:
        buffer.push(chunk)
    assert buffer.take() == 'ébcddata: {"a": 1}\n\ndata: x\n\n'.encode()


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_chunks_may_end_inside_an_event(line_end: str) -> None:
    text = line_end.join(["data: a", "", ": b", "", "", "data: c", "data: d", "", ""])
    for chunk_size in (1, 2, 3, 100):
        buffer = buffer_of(ItemEncoder.chunks())
        assert not buffer.mid_event
        for start in range(0, len(text), chunk_size):
            buffer.push(text[start : start + chunk_size])
            buffer.take()
            taken = text[: start + chunk_size].replace("\r\n", "\n").replace("\r", "\n")
            assert buffer.mid_event == (not taken.endswith("\n\n"))
        assert buffer.take() == b""
        assert not buffer.mid_event


def test_an_empty_chunk_wakes_nobody() -> None:
    wakes = []
    buffer = buffer_of(ItemEncoder.chunks(), lambda: wakes.append(1))
    buffer.push(b"")
    assert wakes == []


def test_a_closed_buffer_takes_nothing() -> None:
    wakes = []
    buffer = buffer_of(wake=lambda: wakes.append(1))
    buffer.push(1)
    buffer.close()
    assert buffer.take() == b""
    assert buffer.push(2)
    assert (buffer.take(), wakes) == (b"", [1])


def test_an_encoder_may_use_the_same_buffer() -> None:
    buffer = buffer_of()

    class Reentrant:
        def __iter__(self) -> Any:
            buffer.push("inner")
            buffer.take()
            buffer.push("again")
            yield "k", 1

    buffer.push(Reentrant())
    assert buffer.take() == b'data: "again"\n\ndata: {"k": 1}\n\n'


def test_an_encoder_may_close_the_buffer() -> None:
    buffer = buffer_of()

    class Closing:
        def __iter__(self) -> Any:
            buffer.close()
            yield "k", 1

    assert buffer.push(Closing())
    assert buffer.take() == b""


def test_an_error_of_wake_reaches_the_pusher_and_loses_nothing() -> None:
    def wake() -> None:
        raise ConnectionError("loop is gone")

    buffer = buffer_of(wake=wake)
    with pytest.raises(ConnectionError):
        buffer.push(1)
    assert buffer.take() == b"data: 1\n\n"


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 64 * 1024, 1 << 20])
def test_items_of_any_size(size: int) -> None:
    buffer = buffer_of()
    text = "x" * size
    for _ in range(3):
        buffer.push(1)
        buffer.push(ServerSentEvent(raw_data=text))
        assert taken(buffer) == f"data: 1\n\ndata: {text}\n\n".encode()


def test_threads_that_push_and_take_lose_nothing() -> None:
    buffer = buffer_of()
    threads, events = 8, 3000
    taken: list[bytes] = []
    pushing = [threading.Thread(target=lambda: None)]

    def push(number: int) -> None:
        for event in range(events):
            buffer.push([number, event])

    def take() -> None:
        while any(thread.is_alive() for thread in pushing) or len(buffer):
            taken.append(buffer.take())

    pushing = [threading.Thread(target=push, args=[n]) for n in range(threads)]
    for thread in pushing:
        thread.start()
    taker = threading.Thread(target=take)
    taker.start()
    for thread in [*pushing, taker]:
        thread.join()
    frames = b"".join(taken).split(b"\n\n")[:-1]
    assert len(frames) == threads * events
    for number in range(threads):
        prefix = b"data: [%d, " % number
        own = [frame for frame in frames if frame.startswith(prefix)]
        assert own == [b"data: [%d, %d]" % (number, event) for event in range(events)]


@pytest.mark.parametrize("time_slice", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_bad_time_slice_is_refused(time_slice: float) -> None:
    with pytest.raises(ValueError, match="time_slice"):
        buffer_of(time_slice=time_slice)


def test_items_are_not_kept_alive() -> None:
    class Item(BaseModel):
        text: str

    buffer = buffer_of(typed(Item))
    item = Item(text="x")
    gone = weakref.ref(item)
    buffer.push(item)
    del item
    gc.collect()
    assert gone() is None
