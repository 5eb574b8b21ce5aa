"""From text to its frame, by size and by line break, every hundred characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fastapi.sse
import pytest
import sse_starlette

from fastapi_sse_fast import EncodedEvent, format_sse_event
from fastapi_sse_fast import sse_starlette as ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(max_time=0.5)

SIZES = {
    "20 B": 20,
    "200 B": 200,
    "2 KiB": 2 * 1024,
    "16 KiB": 16 * 1024,
    "64 KiB": 64 * 1024,
    "1 MiB": 1024 * 1024,
}

LINE_BREAKS = {"LF": "\n", "CRLF": "\r\n", "none": "x"}


def text_of(size: int, line_break: str) -> str:
    return (("x" * 99 + line_break) * (size // 100 + 1))[:size]


def encoded(text: str) -> bytes:
    return bytes(EncodedEvent(raw_data=text))


def formatted(text: str) -> bytes:
    return format_sse_event(data_str=text)


def for_sse_starlette(text: str) -> bytes:
    return ours.ServerSentEvent(text, sep="\n").encode()


def by_fastapi(text: str) -> bytes:
    return fastapi.sse.format_sse_event(data_str=text)


def by_sse_starlette(text: str) -> bytes:
    return sse_starlette.ServerSentEvent(text, sep="\n").encode()


FRAMERS: dict[str, Callable[[str], bytes]] = {
    "EncodedEvent": encoded,
    "format_sse_event": formatted,
    "ours for sse-starlette": for_sse_starlette,
    "fastapi.sse": by_fastapi,
    "sse-starlette": by_sse_starlette,
}


@pytest.mark.parametrize("line_break", LINE_BREAKS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framer", FRAMERS)
def test_framing(
    benchmark: BenchmarkFixture, framer: str, size: str, line_break: str
) -> None:
    benchmark.group = f"framing: {size}, line break: {line_break}"
    text = text_of(SIZES[size], LINE_BREAKS[line_break])
    frame = benchmark(FRAMERS[framer], text)
    assert frame == by_fastapi(text)
