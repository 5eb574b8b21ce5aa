"""What the benchmarks send: chunks of a chat completion, the same for all contestants.

They are made once and sent over and over: making them is the application's work, and
would hide what is compared here.
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
"""The text of one event each."""

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
    """When an event was made, on a clock that all processes share."""

    at: int


def text_of(size: int) -> str:
    """One line of text of so many bytes."""
    return ("The quick brown fox jumps over the lazy dog. " * (size // 45 + 1))[:size]
