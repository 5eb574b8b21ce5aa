"""Streams that are always ready, for a server in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from fastapi import FastAPI

from fastapi_sse_fast import EventSourceResponse

app = FastAPI()


@app.get("/async", response_class=EventSourceResponse)
async def busy() -> AsyncIterator[int]:
    while True:
        yield 1


@app.get("/sync", response_class=EventSourceResponse)
def sync_busy() -> Iterator[int]:
    while True:
        yield 1


@app.get("/ping")
async def ping() -> str:
    return "pong"
