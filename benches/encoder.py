"""The encoder without a server, compared with JSON libraries and with a copy."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
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
    from collections.abc import Callable

PROCESSES = 9
TURNS = 3
"""The number of turns of each contestant in a process."""

SECONDS = 0.03
"""The duration of a turn."""

SIZES = {"16 KiB": 16 * 1024, "1 MiB": 1024 * 1024}
"""Sizes of the texts to frame."""

PUSHES = 32
"""The number of events that one `take` returns."""

OURS = "fastapi_sse_fast"
TITLE = "The encoder alone"


def pushes(encoder: ItemEncoder, item: object) -> Callable[[int], float]:
    """Return a function that times a number of pushes, with a `take` for each 32."""
    buffer = EventBuffer(encoder, source=None, max_pending=1 << 30, time_slice=1e9)
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


def calibrated(seconds: Callable[[int], float]) -> int:
    """Return the number of calls in a turn, a multiple of `PUSHES`."""
    count = PUSHES
    while (taken := min(seconds(count), seconds(count))) < SECONDS / 10:
        count *= 2
    return max(1, round(count * SECONDS / taken / PUSHES)) * PUSHES


def typed() -> ItemEncoder:
    """Return an encoder as a route with an item type has it."""
    return ItemEncoder.typed(
        validate=Chunk.__pydantic_validator__.validate_python,
        validate_options={"from_attributes": True},
        serialize=Chunk.__pydantic_serializer__.to_json,
        serialize_options={"by_alias": True},
        invalid=lambda _item, error: error,
        valid=Chunk,
    )


def to_json(model: Chunk) -> Callable[[int], float]:
    """Return a function that times `to_json` with the option that FastAPI uses.

    `calls` would need a function around it, whose time would count too.
    """
    serialize = Chunk.__pydantic_serializer__.to_json

    def seconds(count: int) -> float:
        began = time.perf_counter()
        for _ in repeat(None, count):
            serialize(model, by_alias=True)
        return time.perf_counter() - began

    return seconds


def contestants() -> dict[str, Callable[[int], float]]:
    ready, dict_, model = EncodedEvent(data=DICTS[0]), DICTS[0], MODELS[0]
    fill, token = EventTemplate(chunk(Slot("content"))), TOKENS[0]
    texts = {name: lines(size) for name, size in SIZES.items()}
    return {
        "ready": pushes(ItemEncoder(), ready),
        "dict": pushes(ItemEncoder(), dict_),
        "compact": pushes(ItemEncoder(json="compact"), dict_),
        "orjson": calls(orjson.dumps, dict_),
        "typed": pushes(typed(), model),
        "to_json": to_json(model),
        "slot": calls(fill, token),
        "dumped": calls(lambda model: f"data: {model.model_dump_json()}\n\n", model),
        "built": calls(lambda t: f"data: {chunk(t).model_dump_json()}\n\n", token),
        **{
            f"{size} framed": calls(lambda text: EncodedEvent(raw_data=text), text)
            for size, text in texts.items()
        },
        **{
            f"{size} copied": calls(bytes, bytearray(text.encode()))
            for size, text in texts.items()
        },
    }


def nanoseconds() -> dict[str, float]:
    """Return the time of one call for each contestant: the median of its turns."""
    functions = contestants()
    counts = {name: calibrated(seconds) for name, seconds in functions.items()}
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(TURNS):
        for name, seconds in functions.items():
            found[name].append(1e9 * seconds(counts[name]) / counts[name])
    return {name: statistics.median(values) for name, values in found.items()}


def encoder(bench: Bench) -> list[Comparison]:
    found: dict[str, list[float]] = {}
    for program in bench.turns([__file__]):
        done = subprocess.run(
            [sys.executable, program], capture_output=True, check=True
        )
        for name, value in json.loads(done.stdout).items():
            found.setdefault(name, []).append(value)

    def beside(title: str, ours: Line, *others: tuple[str, str]) -> Comparison:
        theirs = [Line(name, found[measured], OURS) for name, measured in others]
        return Comparison(title, [ours, *theirs])

    def written(name: str) -> Line:
        pairs = zip(found[name], found["ready"], strict=True)
        values = [value - ready for value, ready in pairs]
        return Line(OURS, values, note="minus the push of a pre-encoded event")

    return [
        beside("JSON of a dict", written("dict"), ("orjson.dumps", "orjson")),
        beside("the same, compact", written("compact"), ("orjson.dumps", "orjson")),
        beside(
            "JSON of a model, typed route",
            written("typed"),
            ("SchemaSerializer.to_json(by_alias=True)", "to_json"),
        ),
        beside(
            "EventTemplate with a slot",
            Line(OURS, found["slot"]),
            ("f-string of model_dump_json()", "dumped"),
            ("the same, of a model built for it", "built"),
        ),
        *(
            beside(
                f"EncodedEvent(raw_data=) of {size}",
                Line(OURS, found[f"{size} framed"]),
                ("a copy of its bytes", f"{size} copied"),
            )
            for size in SIZES
        ),
    ]


def lines(size: int) -> str:
    """Return a text with a line break every hundred characters."""
    return (("x" * 99 + "\n") * (size // 100 + 1))[:size]


ROWS = {
    "encoder": Row(
        Section(
            TITLE,
            "ns",
            f"One call in a loop, in {PROCESSES} processes, one after another, "
            "because the memory layout of a process changes the result by a few "
            "percent. This package writes JSON only as a part of a push, so the time "
            "of pushing a pre-encoded event of the same size is subtracted.",
        ),
        PROCESSES,
        13 * TURNS * SECONDS + 1.0,
        encoder,
    )
}

if __name__ == "__main__":
    print(json.dumps(nanoseconds()))
