"""The data that the benchmarks send: chunks of a chat completion.

All contestants send the same data. It is created once and sent repeatedly, because its
creation is the work of the application, and would hide the differences.
"""

from __future__ import annotations

from pydantic import BaseModel

WORDS = (
    " The",
    " quick",
    " brown",
    " fox",
    ",",
    " jumps",
    ' "over"',
    " the",
    " lazy",
    " dog",
    ".",
    "\n\n",
    " naïve",
    " 日本語",
    " 🦊",
    " a\\b",
)
TOKENS = tuple(
    word if lap == 0 else f"{word}{lap}" for lap in range(4) for word in WORDS
)
"""The texts of the events."""

IDS = tuple(f"chunk-{index:04}" for index in range(len(TOKENS)))


class Delta(BaseModel):
    role: str
    content: str


class Choice(BaseModel):
    index: int
    delta: Delta
    finish_reason: str | None


class Chunk(BaseModel):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]


def chunk(token: str) -> Chunk:
    return Chunk(
        id="chatcmpl-8f14e45f",
        object="chat.completion.chunk",
        created=1_700_000_000,
        model="some-model-large",
        choices=[
            Choice(
                index=0,
                delta=Delta(role="assistant", content=token),
                finish_reason=None,
            )
        ],
    )


MODELS = tuple(chunk(token) for token in TOKENS)
DICTS = tuple(model.model_dump() for model in MODELS)
JSON_TEXTS = tuple(model.model_dump_json() for model in MODELS)


class Stamp(BaseModel):
    """The time when an event was created, on a clock that all processes share."""

    at: int


def text_of(size: int) -> str:
    """Return a line of ASCII text of a given size in bytes."""
    return ("The quick brown fox jumps over the lazy dog. " * (size // 45 + 1))[:size]
