"""The application behind the race and the scenes of the demo.

Both contestants serve this file. For `fastapi.sse`, the import line is replaced and
nothing else. `uvicorn fastapi_sse_fast._demo.streams:app` serves it by itself.
"""

import asyncio
import itertools
import random
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent

app = FastAPI(title="Streams")


# The race: every token is a chat completion chunk, validated and encoded on its own.


class Delta(BaseModel):
    content: str


class Choice(BaseModel):
    delta: Delta
    index: int = 0
    finish_reason: str | None = None


class Token(BaseModel):
    choices: list[Choice]
    id: str = "chatcmpl-0123456789abcdef0123456789abcdef"
    object: str = "chat.completion.chunk"
    created: int = 1700000000
    model: str = "replay"


REPLY = (Path(__file__).parent / "reply.txt").read_text(encoding="utf-8")
WORDS = re.findall(r"\s*\S{1,4}", REPLY)
ROLE = Token(choices=[Choice(delta=Delta(content=""))])
TOKENS = [Token(choices=[Choice(delta=Delta(content=word))]) for word in WORDS]


starts: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


@app.post("/start/{race}")
async def start(race: str) -> None:
    starts.pop(race).set()


async def sleep_until(moment: float) -> None:
    """Return at once if the moment is past: the token is ready, as in a queue."""
    if (delay := moment - time.perf_counter()) > 0:
        await asyncio.sleep(delay)


@app.get("/tokens/{race}", response_class=EventSourceResponse)
async def tokens(race: str, pause: float) -> AsyncIterable[Token]:
    yield ROLE
    await starts[race].wait()
    due = time.perf_counter() + pause * random.random()
    for token in itertools.cycle(TOKENS):
        await sleep_until(due)
        yield token
        due += pause


@app.get("/cpu", response_class=EventSourceResponse)
async def cpu() -> AsyncIterable[float]:
    while True:
        yield time.process_time()
        await asyncio.sleep(0.1)


# The scenes


class Question(BaseModel):
    id: str
    tokens: int
    fails_at: int | None = None


async def model(question: Question) -> AsyncIterator[str]:
    for number, word in enumerate(WORDS[: question.tokens]):
        await asyncio.sleep(0.04)
        if number == question.fails_at:
            raise HTTPException(429, "The model is busy.")
        yield word


@app.post("/reply", response_class=EventSourceResponse)
async def reply(question: Question) -> AsyncIterable[str]:
    text = ""
    try:
        async for token in model(question):
            text += token
            yield token
    finally:
        await save(question.id, text)


saved: dict[str, str] = {}


async def save(id: str, text: str) -> None:
    await asyncio.sleep(0.01)  # the database
    saved[id] = text


@app.get("/saved/{id}")
async def read_saved(id: str) -> str:
    if id not in saved:
        raise HTTPException(404, "There is no such reply.")
    return saved[id]


@app.get("/ticks", response_class=EventSourceResponse)
async def ticks(
    last_event_id: Annotated[int, Header()] = 0,
) -> AsyncIterable[ServerSentEvent]:
    for number in itertools.count(last_event_id + 1):
        yield ServerSentEvent(data=number, id=str(number))
        await asyncio.sleep(0.1)
