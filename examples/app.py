"""The routes of the demo: a chat that streams, and a route for each kind of stream."""

import asyncio
import re
from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, Header, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent

HERE = Path(__file__).parent

REPLY = (HERE / "reply.txt").read_text(encoding="utf-8").strip()
TOKENS = re.findall(r"\s*\S{1,6}", REPLY)

app = FastAPI(title="fastapi_sse_fast demo")


@app.get("/", include_in_schema=False)
def page() -> FileResponse:
    return FileResponse(HERE / "index.html")


# Chat completions, in the shape that clients of language models know


class Delta(BaseModel):
    content: str = ""


class Choice(BaseModel):
    index: int = 0
    delta: Delta
    finish_reason: Literal["stop"] | None = None


class ChatChunk(BaseModel):
    id: str = "chat-1"
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    model: str = "replay"
    choices: list[Choice]


class ChatRequest(BaseModel):
    prompt: str


Delay = Annotated[
    float, Query(ge=0, le=1, description="Seconds between two tokens of the reply")
]


async def replay(delay: float) -> AsyncIterable[ChatChunk]:
    """The same reply to every prompt: there is no model behind this."""
    for token in TOKENS:
        yield ChatChunk(choices=[Choice(delta=Delta(content=token))])
        await asyncio.sleep(delay)
    yield ChatChunk(choices=[Choice(delta=Delta(), finish_reason="stop")])


@app.get("/chat", response_class=EventSourceResponse)
async def chat(prompt: str, delay: Delay = 0.03) -> AsyncIterable[ChatChunk]:
    # An EventSource takes the end of a response for a lost connection and asks again.
    # The page closes it at the chunk that has a `finish_reason`.
    async for chunk in replay(delay):
        yield chunk


@app.post("/chat", response_class=EventSourceResponse)
async def post_chat(
    request: ChatRequest, delay: Delay = 0.03
) -> AsyncIterable[ServerSentEvent]:
    async for chunk in replay(delay):
        yield ServerSentEvent(data=chunk)
    yield ServerSentEvent(raw_data="[DONE]")


# Items: what a route yields, and how it is declared


class Item(BaseModel):
    name: str
    price: float


ITEMS = [
    Item(name="pencil", price=0.5),
    Item(name="notebook", price=2.75),
    Item(name="stapler", price=8.0),
]


@app.get("/items/stream", response_class=EventSourceResponse)
async def stream_items() -> AsyncIterable[Item]:
    for item in ITEMS:
        yield item


@app.get("/items/stream-sync", response_class=EventSourceResponse)
def stream_items_sync() -> Iterable[Item]:
    yield from ITEMS


# Without an item type there is nothing to validate against: any JSON goes.


@app.get("/items/stream-untyped", response_class=EventSourceResponse)
async def stream_items_untyped():  # type: ignore[no-untyped-def]
    for item in ITEMS:
        yield {"item": item, "in_stock": item.price < 5}


@app.get("/items/stream-sync-untyped", response_class=EventSourceResponse)
def stream_items_sync_untyped():  # type: ignore[no-untyped-def]
    for item in ITEMS:
        yield [item.name, item.price]


@app.get("/items/stream-events", response_class=EventSourceResponse)
async def stream_item_events() -> AsyncIterable[ServerSentEvent]:
    yield ServerSentEvent(comment="prices of today", retry=3000)
    for number, item in enumerate(ITEMS, 1):
        yield ServerSentEvent(data=item, event="price", id=str(number))
    yield ServerSentEvent(data=len(ITEMS), event="end", comment="that was all")


@app.get("/items/resume", response_class=EventSourceResponse)
async def resume_items(
    last_event_id: Annotated[int, Header(ge=0)] = 0,
) -> AsyncIterable[ServerSentEvent]:
    # A browser that reconnects sends the id it saw last: go on after it.
    for number, item in enumerate(ITEMS, 1):
        if number > last_event_id:
            yield ServerSentEvent(data=item, id=str(number))


LOG = [
    "12:00:01 INFO  the server has started",
    "12:00:02 WARN  the disk is nearly full\n         91 % of it is in use",
    "12:00:05 INFO  the disk has room again",
]


@app.get("/logs/stream", response_class=EventSourceResponse)
async def stream_log() -> AsyncIterable[ServerSentEvent]:
    for entry in LOG:
        yield ServerSentEvent(raw_data=entry)  # text as it is, without JSON's quotes
