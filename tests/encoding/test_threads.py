"""Threads that use the same buffer, encoder, event or template at once."""

from __future__ import annotations

import collections
import json
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from fastapi_sse_fast import EncodedEvent, EventTemplate, ServerSentEvent, Slot
from fastapi_sse_fast._core import EventBuffer, ItemEncoder

from ..support.buffers import buffer_of
from ..support.hostile import Anything

HIGH_WATER = 1000


def in_threads(work: Callable[[int], None], count: int = 8) -> None:
    """Run a function in all threads at once, with frequent switches between them."""
    failed: list[BaseException] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            together.wait(10)
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=[number]) for number in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failed == []


class Slow:
    """Lets other threads run while it is encoded."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __iter__(self) -> Any:
        for _ in range(3):
            threading.Event().wait(0)
        yield "slow", self.value


def test_a_buffer_that_threads_do_everything_to_at_once() -> None:
    buffer = buffer_of(high_water=HIGH_WATER, time_slice=0.0)
    taken: list[bytes] = []
    turns, longest = 300, 300 * 8 + 100

    def work(number: int) -> None:
        for turn in range(turns):
            key = f"{number}-{turn}"
            buffer.push({"key": key, "pad": "x" * (turn * number)})
            buffer.push(ServerSentEvent(raw_data=f"{key}\nraw", id=key))
            buffer.push(EncodedEvent(data={"key": key}))
            buffer.push([Slow(key)])
            with pytest.raises(ValueError, match="not iterable"):
                buffer.push([key, "torn" * turn, object()])
            if turn % 7 == number % 7:
                taken.append(buffer.take())  # Frames of one thread keep their order.
            buffer.resume()
            assert 0 <= len(buffer) <= 8 * 4 * turns * longest

    in_threads(work)
    while body := buffer.take():
        taken.append(body)
    buffer.sent()
    assert (len(buffer), buffer.full) == (0, False)
    frames = collections.Counter(b"".join(taken).split(b"\n\n")[:-1])
    expected = []
    for number in range(8):
        for turn in range(turns):
            key = f"{number}-{turn}"
            expected += [
                json.dumps({"key": key, "pad": "x" * (turn * number)}),
                f"{key}\ndata: raw\nid: {key}",
                json.dumps({"key": key}),
                json.dumps([{"slow": key}]),
            ]
    assert frames == collections.Counter(f"data: {text}".encode() for text in expected)
    assert buffer.sent_events == len(expected)


def test_a_buffer_is_full_or_not_whoever_fills_it() -> None:
    """Eight threads stop at the same limit and continue below it."""
    buffer = buffer_of(high_water=HIGH_WATER)
    frame = EncodedEvent(data="x")

    def fill(number: int) -> None:
        while not buffer.full:
            buffer.push(frame)

    for _ in range(20):
        in_threads(fill)
        assert buffer.full
        # Each thread may push one more frame while another fills the buffer.
        assert HIGH_WATER <= len(buffer) <= HIGH_WATER + 8 * len(frame)
        assert len(buffer.take()) >= HIGH_WATER
        assert (len(buffer), buffer.full) == (0, False)


def test_a_buffer_that_is_closed_while_threads_push() -> None:
    taken: list[bytes] = []
    for _ in range(20):
        buffer = buffer_of()
        closed = threading.Event()

        def work(
            number: int,
            buffer: EventBuffer = buffer,
            closed: threading.Event = closed,
        ) -> None:
            for turn in range(30):
                was_closed = closed.is_set()
                buffer.push([number, turn, "x" * 100])
                if number == turn == 5:
                    buffer.close()
                    closed.set()
                body = buffer.take()
                assert not body or (body[:6], body[-4:]) == (b"data: ", b'"]\n\n')
                assert not (body and was_closed)
                taken.append(body)

        in_threads(work)
        buffer.push(1)
        assert (buffer.take(), len(buffer)) == (b"", 0)
    assert any(taken)


def test_one_event_one_template_and_one_encoder_in_many_threads() -> None:
    event = EncodedEvent(data={"a": "é" * 100}, id="1")
    frame, number_of = bytes(event), hash(event)
    template = EventTemplate({"n": Slot("n"), "x": [Slot("x")]}, id=Slot("id"))
    adapter = TypeAdapter(Anything)
    encoder = ItemEncoder.typed(
        validate=adapter.validator.validate_python,
        serialize=adapter.serializer.to_json,
        invalid=lambda item, error: LookupError(),
    )

    def work(number: int) -> None:
        buffer = buffer_of(encoder)
        mine = template.partial(id=str(number))
        for turn in range(200):
            assert bytes(event) == frame
            assert hash(event) == number_of
            assert event == pickle.loads(pickle.dumps(event))
            value = {"turn": turn, "slow": Slow(number)}
            filled = mine(n=turn, x=value)
            data = {"n": turn, "x": [{"turn": turn, "slow": {"slow": number}}]}
            assert filled == EncodedEvent(data=data, id=str(number))
            buffer.push({"value": [number, turn]})
            buffer.push(event)
            assert buffer.take() == b'data: {"value":[%d,%d]}\n\n%s' % (
                number,
                turn,
                frame,
            )

    in_threads(work)
