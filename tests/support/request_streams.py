"""Streams whose generators read from their request, and those of `streams.py`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
from fastapi import Depends, Request

from .streams import DEPENDENCIES, Response, app, say

PAUSES = {"at-first": None, "after-an-event": 0.0, "late": 0.03}
"""Seconds between the first event and the read. `None`: no event comes first."""


async def begun(when: str) -> AsyncIterator[str]:
    pause = PAUSES[when]
    if pause is not None:
        yield "begun"
        await anyio.sleep(pause)  # The stream may watch the client by then.


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@app.post("/body/{when}", response_class=Response, dependencies=DEPENDENCIES)
async def read_body(request: Request, when: str) -> AsyncIterator[str | bool]:
    async for word in begun(when):
        yield word
    yield digest(await request.body())
    yield await request.is_disconnected()


@app.post("/json/{when}", response_class=Response, dependencies=DEPENDENCIES)
async def read_json(request: Request, when: str) -> AsyncIterator[str | bool]:
    async for word in begun(when):
        yield word
    await request.json()
    yield digest(await request.body())
    yield await request.is_disconnected()


@app.post("/stream/{when}", response_class=Response, dependencies=DEPENDENCIES)
async def read_stream(request: Request, when: str) -> AsyncIterator[str | bool]:
    async for word in begun(when):
        yield word
    body = b""
    async for chunk in request.stream():
        body += chunk
        await anyio.lowlevel.checkpoint()
    yield digest(body)
    yield await request.is_disconnected()


async def ask_three_times(request: Request) -> None:
    say("gone:", *[await request.is_disconnected() for _ in range(3)])


@app.get("/asked", response_class=Response, dependencies=[Depends(ask_three_times)])
async def asked() -> AsyncIterator[int]:
    for number in range(3):
        yield number
        await anyio.sleep(0.03)


@app.get("/asks", response_class=Response, dependencies=DEPENDENCIES)
async def asks(request: Request) -> AsyncIterator[int]:
    number = 0
    try:
        while not await request.is_disconnected():
            yield number
            number += 1
            await anyio.sleep(0.005)
    finally:
        say("generator")


@app.get("/asks/{count}", response_class=Response)
async def asks_often(request: Request, count: int) -> AsyncIterator[int]:
    for number in range(count):
        if await request.is_disconnected():
            return
        yield number
        if number % 100 == 0:
            await anyio.sleep(0.002)
