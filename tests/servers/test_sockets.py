"""Streams over sockets of servers in this process: complete and in order."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import KINDS, MS
from ..support.server import HTTP_AND_LOOPS, get, serve, serve_all

BURST = 100_000


@pytest.mark.parametrize(
    "config", HTTP_AND_LOOPS, ids=lambda c: f"{c['http']}-{c['loop']}"
)
def test_a_burst_arrives_complete_and_in_order(config: dict[str, Any]) -> None:
    app = FastAPI()

    @app.get("/async", response_class=EventSourceResponse)
    async def burst() -> AsyncIterator[int]:
        for number in range(BURST):
            yield number

    @app.get("/sync", response_class=EventSourceResponse)
    def sync_burst() -> Iterator[int]:
        yield from range(BURST)

    expected = b"".join(b"data: %d\n\n" % number for number in range(BURST))
    with serve(app, **config) as port:
        assert get(port, "/async") == expected
        assert get(port, "/sync") == expected


def test_500_concurrent_streams_are_complete_and_unmixed() -> None:
    app = FastAPI()
    streams, events = 500, 20

    @app.get("/{stream}", response_class=EventSourceResponse)
    async def items(stream: int) -> AsyncIterator[list[int]]:
        for number in range(events):
            yield [stream, number]
            if number % 5 == stream % 5:
                await asyncio.sleep(MS * (stream % 7))

    async def read(port: int, stream: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET /{stream} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        response = await reader.read()
        writer.close()
        return response

    async def read_all(port: int) -> list[bytes]:
        return await asyncio.gather(*(read(port, n) for n in range(streams)))

    with serve(app, loop="uvloop", backlog=2048) as port:
        responses = asyncio.run(read_all(port))
    for stream, response in enumerate(responses):
        body = dechunked(response.split(b"\r\n\r\n", 1)[1])
        assert body == b"".join(
            b"data: [%d,%d]\n\n" % (stream, number) for number in range(events)
        )


def dechunked(raw: bytes) -> bytes:
    body = b""
    while True:
        size_line, raw = raw.split(b"\r\n", 1)
        size = int(size_line, 16)
        if size == 0:
            return body
        body, raw = body + raw[:size], raw[size + 2 :]


def test_streams_of_several_servers_are_complete_and_unmixed() -> None:
    app = FastAPI()

    @app.get("/async/{stream}", response_class=EventSourceResponse)
    async def items(stream: int) -> AsyncIterator[list[int]]:
        for number in range(50):
            yield [stream, number]
            if number % 5 == stream % 5:
                await anyio.sleep(MS)

    @app.get("/sync/{stream}", response_class=EventSourceResponse)
    def sync_items(stream: int) -> Iterator[list[int]]:
        for number in range(50):
            yield [stream, number]
            if number % 5 == stream % 5:
                time.sleep(MS)

    numbers = range(100)
    with serve_all(app) as ports, concurrent.futures.ThreadPoolExecutor(20) as pool:
        bodies = pool.map(
            lambda n: get(ports[n // 2 % len(ports)], f"/{KINDS[n % 2]}/{n}"), numbers
        )
        for n, body in zip(numbers, bodies, strict=True):
            assert body == b"".join(
                b"data: [%d,%d]\n\n" % (n, number) for number in range(50)
            )
