"""The cost of an item between the generator and the send, by kind of item."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import fastapi.sse
import pytest

from encoder import typed
from fastapi_sse_fast import EncodedEvent, ServerSentEvent
from fastapi_sse_fast._bench.samples import DICTS, MODELS, TOKENS
from fastapi_sse_fast._core import EventBuffer, ItemEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(max_time=0.5)


KINDS: dict[str, tuple[Callable[[], ItemEncoder], list[Any]]] = {
    "EncodedEvent": (ItemEncoder, [EncodedEvent(raw_data=t) for t in TOKENS]),
    "raw event": (ItemEncoder, [ServerSentEvent(raw_data=t) for t in TOKENS]),
    "raw event of fastapi.sse": (
        ItemEncoder,
        [fastapi.sse.ServerSentEvent(raw_data=t) for t in TOKENS],
    ),
    "event with a model": (
        ItemEncoder,
        [ServerSentEvent(data=model, event="chunk", id="1") for model in MODELS],
    ),
    "event with a dict": (
        ItemEncoder,
        [ServerSentEvent(data=item, event="chunk", id="1") for item in DICTS],
    ),
    "model, typed route": (typed, list(MODELS)),
    "model, untyped route": (ItemEncoder, list(MODELS)),
    "dict": (ItemEncoder, list(DICTS)),
    "str": (ItemEncoder, list(TOKENS)),
    "str as a chunk": (ItemEncoder.chunks, list(TOKENS)),
    "int": (ItemEncoder, list(range(len(TOKENS)))),
}


def buffer(kind: str) -> EventBuffer:
    return EventBuffer(
        KINDS[kind][0](), source=None, max_pending=64 * 1024, time_slice=0.001
    )


def body_of(kind: str, items: list[Any]) -> bytes:
    """Return the same body, made with one buffer for each item."""
    body = b""
    for item in items:
        fresh = buffer(kind)
        fresh.push(item)
        body += fresh.take()
    return body


@pytest.mark.parametrize("kind", KINDS)
def test_one_item_and_take(benchmark: BenchmarkFixture, kind: str) -> None:
    benchmark.group = "buffer: push, take"
    events = buffer(kind)
    push, take = events.push, events.take
    item = KINDS[kind][1][0]

    def push_and_take() -> bytes:
        push(item)
        return take()

    assert benchmark(push_and_take) == body_of(kind, [item])


@pytest.mark.parametrize("kind", KINDS)
def test_burst_and_take(benchmark: BenchmarkFixture, kind: str) -> None:
    items = KINDS[kind][1]
    benchmark.group = f"buffer: push of {len(items)}, take"
    events = buffer(kind)
    push, take = events.push, events.take

    def push_all_and_take() -> bytes:
        deque(map(push, items), maxlen=0)
        return take()

    assert benchmark(push_all_and_take) == body_of(kind, items)
