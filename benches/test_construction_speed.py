"""Creating one event and, unless that encodes it, sending it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fastapi.sse
import pytest
import sse_starlette

from fastapi_sse_fast import EncodedEvent, ServerSentEvent
from fastapi_sse_fast._bench.samples import MODELS

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(max_time=0.5)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "raw": {"raw_data": " token"},
    "model": {"data": MODELS[0], "event": "chunk", "id": "chunk-0001"},
    "all": {
        "data": 1,
        "event": "chunk",
        "id": "chunk-0001",
        "retry": 5000,
        "comment": "c",
    },
    "coerced": {"data": 1, "retry": "5000"},
}
CLASSES = {
    "fastapi.sse": fastapi.sse.ServerSentEvent,
    "ours": ServerSentEvent,
    "encoded": EncodedEvent,
}


class Subclass(ServerSentEvent):
    """A subclass with a default, as applications write it."""

    event: str | None = "chunk"


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("class_", CLASSES)
def test_construction(benchmark: BenchmarkFixture, class_: str, arguments: str) -> None:
    benchmark.group = f"construction: {arguments}"
    made = benchmark(CLASSES[class_], **ARGUMENTS[arguments])
    assert isinstance(made, CLASSES[class_])


def test_construction_of_a_subclass(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "construction: raw"
    assert benchmark(Subclass, raw_data=" token").event == "chunk"


def test_construction_by_sse_starlette(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "construction: raw"
    assert benchmark(sse_starlette.ServerSentEvent, " token").data == " token"
