"""A route for each kind of stream, as in FastAPI's tutorial on Server-Sent Events."""

from collections.abc import AsyncIterable, Iterable
from typing import Annotated

from fastapi import FastAPI, Header
from pydantic import BaseModel

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent

app = FastAPI(title="Kinds of streams")


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


class Prompt(BaseModel):
    text: str


@app.post("/chat", response_class=EventSourceResponse)
async def stream_chat(prompt: Prompt) -> AsyncIterable[ServerSentEvent]:
    for word in prompt.text.split():
        yield ServerSentEvent(data=word, event="token")
    yield ServerSentEvent(raw_data="[DONE]", event="done")
