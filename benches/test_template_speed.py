"""One token of a chat completion, with a template and without one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from fastapi_sse_fast import EventTemplate, Slot
from fastapi_sse_fast._bench.samples import MODELS, TOKENS, chunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(group="template: one token")

T = TypeVar("T")

TOKEN, MODEL = TOKENS[0], MODELS[0]
FRAME = f"data: {MODEL.model_dump_json()}\n\n"
BEFORE, AFTER = FRAME.split(json.dumps(TOKEN))

MODEL_WITH_SLOTS = chunk(Slot("content"))
MODEL_WITH_SLOTS.id = Slot("id")
TEMPLATE = EventTemplate(MODEL_WITH_SLOTS)
FOR_A_STREAM = TEMPLATE.partial(id=MODEL.id)


def measured(
    benchmark: BenchmarkFixture, way: Callable[..., T], *args: Any, **values: Any
) -> T:
    """Time a call in rounds of a thousand, because it is short. Return its result."""
    result: T = benchmark.pedantic(  # type: ignore[no-untyped-call]
        way, args, values, rounds=200, iterations=1000
    )
    return result


def around_json_dumps(token: str) -> str:
    return f"{BEFORE}{json.dumps(token)}{AFTER}"


def of_a_ready_model(_: str) -> str:
    return f"data: {MODEL.model_dump_json()}\n\n"


def of_a_model_built_for_it(token: str) -> str:
    return f"data: {chunk(token).model_dump_json()}\n\n"


@pytest.mark.parametrize(
    "way", [around_json_dumps, of_a_ready_model, of_a_model_built_for_it]
)
def test_by_hand(benchmark: BenchmarkFixture, way: Callable[[str], str]) -> None:
    assert measured(benchmark, way, TOKEN) == FRAME


def test_one_slot(benchmark: BenchmarkFixture) -> None:
    assert bytes(measured(benchmark, FOR_A_STREAM, TOKEN)).decode() == FRAME


def test_one_slot_by_its_name(benchmark: BenchmarkFixture) -> None:
    assert bytes(measured(benchmark, FOR_A_STREAM, content=TOKEN)).decode() == FRAME


def test_two_slots(benchmark: BenchmarkFixture) -> None:
    filled = measured(benchmark, TEMPLATE, id=MODEL.id, content=TOKEN)
    assert bytes(filled).decode() == FRAME


def test_partial(benchmark: BenchmarkFixture) -> None:
    """A server does this once for each stream."""
    assert measured(benchmark, TEMPLATE.partial, id=MODEL.id).slots == ("content",)
