"""From text to its frame, by size, with a line break every hundred characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fastapi.sse
import pytest
import sse_starlette

from fastapi_sse_fast import EncodedEvent, format_sse_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(max_time=0.5)

SIZES = {
    "20 B": 20,
    "200 B": 200,
    "2 KiB": 2 * 1024,
    "64 KiB": 64 * 1024,
    "1 MiB": 1024 * 1024,
}


def text_of(size: int) -> str:
    return (("x" * 99 + "\n") * (size // 100 + 1))[:size]


def encoded(text: str) -> EncodedEvent:
    return EncodedEvent(raw_data=text)


def formatted(text: str) -> bytes:
    return format_sse_event(data_str=text)


def by_fastapi(text: str) -> bytes:
    return fastapi.sse.format_sse_event(data_str=text)


def by_sse_starlette(text: str) -> bytes:
    return sse_starlette.ServerSentEvent(text, sep="\n").encode()


FRAMERS: dict[str, Callable[[str], bytes | EncodedEvent]] = {
    "EncodedEvent": encoded,
    "format_sse_event": formatted,
    "fastapi.sse": by_fastapi,
    "sse-starlette": by_sse_starlette,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framer", FRAMERS)
def test_framing(benchmark: BenchmarkFixture, framer: str, size: str) -> None:
    benchmark.group = f"framing: {size}"
    text = text_of(SIZES[size])
    frame = benchmark(FRAMERS[framer], text)
    assert bytes(frame) == by_fastapi(text)
