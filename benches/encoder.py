"""The encoder without a server, beside a JSON library or a copy of the bytes."""

from __future__ import annotations

import time
from itertools import repeat
from typing import TYPE_CHECKING, Any

import orjson

from fastapi_sse_fast import EncodedEvent, EventTemplate, Slot
from fastapi_sse_fast._bench.bench import Bench, Row
from fastapi_sse_fast._bench.report import Comparison, Line, Section
from fastapi_sse_fast._bench.samples import DICTS, MODELS, TOKENS, Chunk, chunk
from fastapi_sse_fast._core import EventBuffer, ItemEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 15
SECONDS = 0.03
"""Of a contestant's turn."""

PUSHES = 32
"""Events that one `take` makes a body of."""

OURS = "fastapi_sse_fast"
TITLE = "The encoder alone"


def pushes(encoder: ItemEncoder, item: object) -> Callable[[int], float]:
    """Seconds that so many pushes take, with the `take` for every 32 of them."""
    buffer = EventBuffer(encoder, int, high_water=1 << 30, time_slice=1e9)
    push, take = buffer.push, buffer.take

    def seconds(count: int) -> float:
        began = time.perf_counter()
        for _ in repeat(None, count // PUSHES):
            for _ in repeat(None, PUSHES):
                push(item)
            take()
        return time.perf_counter() - began

    return seconds


def calls(
    function: Callable[[Any], object], argument: object
) -> Callable[[int], float]:
    def seconds(count: int) -> float:
        began = time.perf_counter()
        for _ in repeat(None, count):
            function(argument)
        return time.perf_counter() - began

    return seconds


def nanoseconds(
    bench: Bench,
    contestants: dict[str, Callable[[int], float]],
    *,
    part: int,
    of: int,
) -> dict[str, list[float]]:
    """Of one call, by contestant and round."""
    counts = {name: calibrated(seconds) for name, seconds in contestants.items()}
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for name in bench.turns(list(contestants), part=part, of=of):
        count = counts[name]
        found[name].append(1e9 * contestants[name](count) / count)
    return found


def calibrated(seconds: Callable[[int], float]) -> int:
    """How many calls make a turn, in whole bodies."""
    count = PUSHES
    while (taken := min(seconds(count), seconds(count))) < SECONDS / 10:
        count *= 2
    return max(1, round(count * SECONDS / taken / PUSHES)) * PUSHES


def less(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [value - other for value, other in zip(values, others, strict=True)]


def typed() -> ItemEncoder:
    """As a route with an item type has it."""
    return ItemEncoder.typed(
        validate=Chunk.__pydantic_validator__.validate_python,
        serialize=Chunk.__pydantic_serializer__.to_json,
        invalid=lambda _item, error: error,
        valid=Chunk,
    )


def data(bench: Bench, part: int, of: int) -> list[Comparison]:
    ready, dict_, model = EncodedEvent(data=DICTS[0]), DICTS[0], MODELS[0]
    found = nanoseconds(
        bench,
        {
            "ready": pushes(ItemEncoder(), ready),
            "dict": pushes(ItemEncoder(), dict_),
            "compact": pushes(ItemEncoder(json="compact"), dict_),
            "orjson": calls(orjson.dumps, dict_),
            "typed": pushes(typed(), model),
            "to_json": calls(Chunk.__pydantic_serializer__.to_json, model),
        },
        part=part,
        of=of,
    )
    note = "less the push of a ready frame"
    return [
        Comparison(
            title, [Line(OURS, less(found[ours], found["ready"]), note=note), other]
        )
        for title, ours, other in [
            ("JSON of a dict", "dict", Line("orjson.dumps", found["orjson"], OURS)),
            (
                "the same, compact",
                "compact",
                Line("orjson.dumps", found["orjson"], OURS),
            ),
            (
                "JSON of a model, typed route",
                "typed",
                Line("SchemaSerializer.to_json", found["to_json"], OURS),
            ),
        ]
    ]


def framing(bench: Bench, size: str, text: str, part: int, of: int) -> Comparison:
    name = "a copy of its bytes"
    found = nanoseconds(
        bench,
        {
            OURS: calls(lambda text: EncodedEvent(raw_data=text), text),
            name: calls(bytes, bytearray(text.encode())),
        },
        part=part,
        of=of,
    )
    return Comparison(
        f"EncodedEvent(raw_data=) of {size}",
        [Line(OURS, found[OURS]), Line(name, found[name], OURS)],
    )


def template(bench: Bench, part: int, of: int) -> Comparison:
    fill = EventTemplate(chunk(Slot("content")))
    model, token = MODELS[0], TOKENS[0]
    dumped, built = "f-string of model_dump_json()", "the same, of a model built for it"
    found = nanoseconds(
        bench,
        {
            OURS: calls(fill, token),
            dumped: calls(lambda model: f"data: {model.model_dump_json()}\n\n", model),
            built: calls(
                lambda token: f"data: {chunk(token).model_dump_json()}\n\n", token
            ),
        },
        part=part,
        of=of,
    )
    return Comparison(
        "EventTemplate with a slot",
        [
            Line(OURS, found[OURS]),
            Line(dumped, found[dumped], OURS),
            Line(built, found[built], OURS),
        ],
    )


def encoder(bench: Bench) -> list[Comparison]:
    parts = 4
    return [
        *data(bench, 0, parts),
        template(bench, 1, parts),
        framing(bench, "16 KiB", lines(16 * 1024), 2, parts),
        framing(bench, "1 MiB", lines(1024 * 1024), 3, parts),
    ]


def lines(size: int) -> str:
    """Text with a line break in a hundred characters."""
    return (("x" * 99 + "\n") * (size // 100 + 1))[:size]


ROWS = {
    "encoder": Row(
        Section(
            TITLE,
            "ns",
            "One call in a loop, in this process. Ours makes JSON only as a part of a "
            "push: the push of a ready frame of the same size is taken off.",
        ),
        ROUNDS,
        13 * SECONDS,
        encoder,
    )
}
