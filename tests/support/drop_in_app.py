"""Streams with `fastapi_sse_fast.sse_starlette`, for servers in another process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from fastapi_sse_fast.sse_starlette import EventSourceResponse
from fastapi_sse_fast.sse_starlette.sse import AppStatus

from .streams import say


async def ready(request: Request) -> EventSourceResponse:
    return EventSourceResponse(["ready"])


async def endless(request: Request) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, Any]]:
        try:
            number = 0
            while True:
                yield {"data": number, "event": "tick"}
                number += 1
                await anyio.sleep(0.01)
        finally:
            say("generator")

    async def left(message: Any) -> None:
        say(message["type"])

    return EventSourceResponse(events(), client_close_handler_callable=left)


async def polite(request: Request) -> EventSourceResponse:
    async def events() -> AsyncIterator[str]:
        while not AppStatus.should_exit:
            yield "on"
            await anyio.sleep(0.01)
        yield "off"

    return EventSourceResponse(events(), shutdown_grace_period=20)


app = Starlette(
    routes=[
        Route("/ready", ready),
        Route("/endless", endless),
        Route("/polite", polite),
    ]
)
