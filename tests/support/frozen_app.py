"""An application to freeze. It prints one stream per line.

The values are those that Rust leaves to Python, because only Rust imports the modules
for them.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    EventTemplate,
    ServerSentEvent,
    Slot,
)
from tests.support.asgi import fetch

Response = EventSourceResponse.with_options(
    on_error=lambda error: ServerSentEvent(event="error", data=type(error).__name__)
)
app = FastAPI(default_response_class=Response)

DAY = datetime.date(2026, 1, 2)


class Item(BaseModel):
    day: datetime.date
    price: decimal.Decimal


@app.get("/values")
async def values() -> Any:
    yield DAY
    yield {
        "price": decimal.Decimal("1.50"),
        "id": uuid.UUID(int=1),
        "not": float("nan"),
    }
    yield {1: {2}}


@app.get("/items")
async def items() -> AsyncIterator[Item]:
    yield Item(day=DAY, price=decimal.Decimal("1.50"))


@app.get("/events")
def events() -> Iterator[ServerSentEvent]:
    yield ServerSentEvent(data=DAY, id="1", retry="5")  # type: ignore[arg-type]
    yield ServerSentEvent(data=Item(day=DAY, price=decimal.Decimal(2)))


@app.get("/template")
async def template() -> Any:
    made = EventTemplate(data={"day": DAY, "text": Slot("text")}, event="e")
    yield made(text="\ud800")
    yield EncodedEvent(data=[DAY, "\ud800"], json="compact")


@app.get("/broken")
async def broken() -> AsyncIterator[Item]:
    yield Item(day=DAY, price=decimal.Decimal(1))
    raise LookupError("in mid-stream")


@app.get("/refused")
async def refused() -> Any:
    raise HTTPException(403, f"not before {DAY}")
    yield


PATHS = ["/values", "/items", "/events", "/template", "/broken", "/refused"]


def main() -> None:
    for backend in ("asyncio", "trio"):
        for path in PATHS:
            reply = fetch(app, path, backend)
            print(backend, path, reply.status, reply.body, repr(reply.error))


if __name__ == "__main__":
    main()
