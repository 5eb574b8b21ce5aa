"""From a value to the frame of its JSON, by kind of value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import fastapi.sse
import msgspec
import orjson
import pytest
from fastapi.encoders import jsonable_encoder

from fastapi_sse_fast import EncodedEvent
from fastapi_sse_fast._bench.samples import DICTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(max_time=0.5)


def nested(depth: int) -> Any:
    value: Any = "leaf"
    for level in range(depth):
        value = {"level": level, "inner": [value]}
    return value


VALUES: dict[str, Any] = {
    "chat chunk": DICTS[0],
    "ascii": "The quick brown fox jumps over the lazy dog. " * 20,
    "cjk": "敏捷的棕色狐狸跳过了懒狗。" * 25,
    "emoji": "🦊🐕" * 100,
    "escapes": 'She said: "C:\\temp"\n' * 50,
    "floats": [index / 7 for index in range(100)],
    "ints": list(range(100)),
    "deep": nested(25),
    "wide": {f"key{index}": index % 2 == 0 for index in range(200)},
    "rows": [{"id": index, "name": f"item {index}"} for index in range(50)],
}


def by_orjson(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


msgspec_encode = msgspec.json.Encoder().encode


def by_msgspec(value: Any) -> bytes:
    return b"data: " + msgspec_encode(value) + b"\n\n"


def by_fastapi(value: Any) -> bytes:
    return fastapi.sse.format_sse_event(data_str=json.dumps(jsonable_encoder(value)))


def by_json(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def ours(value: Any) -> EncodedEvent:
    return EncodedEvent(data=value)


ENCODERS: dict[str, Callable[[Any], bytes | EncodedEvent]] = {
    "ours": ours,
    "fastapi": by_fastapi,
    "json": by_json,
    "orjson": by_orjson,
    "msgspec": by_msgspec,
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_json(benchmark: BenchmarkFixture, encoder: str, kind: str) -> None:
    benchmark.group = f"json: {kind}"
    value = VALUES[kind]
    frame = bytes(benchmark(ENCODERS[encoder], value))
    if encoder == "ours":
        assert frame == by_fastapi(value)
    assert json.loads(frame.removeprefix(b"data: ")) == value
