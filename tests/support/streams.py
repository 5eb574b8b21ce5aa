"""Streams for servers in another process. They print what happens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Iterator

import anyio
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    ServerSentEvent,
    StreamSummary,
)

app = FastAPI()


def say(*words: object) -> None:
    # A single write keeps the lines of several threads apart.
    sys.stdout.write("say: " + " ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def say_reason(summary: StreamSummary) -> None:
    say("closed", summary.reason)


async def resource() -> AsyncIterator[None]:
    yield
    say("dependency")


Response = EventSourceResponse.with_options(
    on_close=say_reason, farewell=ServerSentEvent(event="bye", retry=3000, data=None)
)
Plain = EventSourceResponse.with_options(on_close=say_reason)
Stubborn = Plain.with_options(shutdown_grace=3600.0)
DEPENDENCIES = [Depends(resource)]


@app.get("/idle", response_class=Response, dependencies=DEPENDENCIES)
async def idle() -> AsyncIterator[int]:
    try:
        yield 1
        await anyio.sleep(3600)
    finally:
        say("generator")


@app.get("/silent", response_class=Response, dependencies=DEPENDENCIES)
async def silent() -> AsyncIterator[int]:
    try:
        await anyio.sleep(3600)
        yield 1
    finally:
        say("generator")


@app.get("/graceful", response_class=Response.with_options(shutdown_grace=0.3))
async def graceful() -> AsyncIterator[int]:
    try:
        yield 1
        await anyio.sleep(3600)
    finally:
        say("generator")


async def late_resource() -> AsyncIterator[None]:
    say("opening")
    await anyio.sleep(0.2)
    yield
    say("dependency")


@app.get("/busy", response_class=Response, dependencies=DEPENDENCIES)
async def busy() -> AsyncIterator[EncodedEvent]:
    frame = EncodedEvent(raw_data="x" * 1000)
    try:
        while True:
            yield frame
    finally:
        say("generator")


@app.get("/sync-busy", response_class=Response, dependencies=DEPENDENCIES)
def sync_busy() -> Iterator[EncodedEvent]:
    frame = EncodedEvent(raw_data="x" * 1000)
    try:
        while True:
            yield frame
    finally:
        say("generator")


@app.get("/much", response_class=Response.with_options(send_timeout=0.3))
async def much() -> AsyncIterator[EncodedEvent]:
    """Yield more bytes than the buffers of sockets hold."""
    frame = EncodedEvent(raw_data="x" * 10_000)
    for _ in range(2000):
        yield frame


@app.get("/opening", response_class=Response, dependencies=[Depends(late_resource)])
@app.get("/paced", response_class=Response, dependencies=DEPENDENCIES)
async def paced() -> AsyncIterator[int]:
    try:
        while True:
            yield 1
            await anyio.sleep(0.01)
    finally:
        say("generator")


@app.get("/sync", response_class=Response, dependencies=DEPENDENCIES)
def sync() -> Iterator[int]:
    try:
        while True:
            yield 1
            time.sleep(0.01)
    finally:
        say("generator")


@app.get("/reply", response_class=Plain, dependencies=DEPENDENCIES)
@app.post("/reply", response_class=Plain, dependencies=DEPENDENCIES)
@app.post("/stubborn", response_class=Stubborn, dependencies=DEPENDENCIES)
async def reply(seconds: float, cleanup: float = 0) -> AsyncIterator[str]:
    """What a model says, whose stream has no last event of the server's."""
    try:
        yield "begun"
        await anyio.sleep(seconds)
        yield "done"
    finally:
        await anyio.sleep(cleanup)
        say("generator")


@app.get("/returned")
async def returned() -> EventSourceResponse:
    say("opening")
    await anyio.sleep(0.2)
    return Response(paced())


@app.get("/numbers", response_class=EventSourceResponse)
async def numbers(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@app.get("/broken", response_class=Response)
async def broken() -> AsyncIterator[int]:
    yield 1
    yield 2
    await anyio.sleep(0.01)
    raise LookupError("mid-stream")


class Item(BaseModel):
    n: int


@app.get("/invalid", response_class=Response)
async def invalid() -> AsyncIterator[Item]:
    yield Item(n=1)
    yield Item(n=2)
    yield {}  # type: ignore[misc]


@app.get("/forbidden", response_class=EventSourceResponse)
async def forbidden() -> AsyncIterator[int]:
    raise HTTPException(403, "not yours")
    yield 1


@app.get("/late", response_class=EventSourceResponse)
async def late() -> AsyncIterator[str]:
    await anyio.sleep(0.3)
    yield json.dumps("late")
