"""Relay an OpenAI-compatible server as it is, with httpx.

`OPENAI_API_KEY=... uvicorn relay_bytes:app --app-dir examples` serves it to any client
that takes a `base_url`, which is `http://127.0.0.1:8000/v1`.

Without a key, serve `chat.py` on another port, set `OPENAI_BASE_URL` to its `/v1`, and
ask for the model `replay`.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from fastapi_sse_fast import EncodedEvent, EventSourceResponse

client = httpx.AsyncClient(
    base_url=os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
    headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    timeout=httpx.Timeout(10.0, read=60.0),
    limits=httpx.Limits(max_connections=None),  # one for each open stream
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with client:  # closes its connections when the server shuts down
        yield


app = FastAPI(lifespan=lifespan)
NOT_AVAILABLE = {"error": {"message": "The model is not available."}}


def error_event(error: Exception) -> EncodedEvent:
    return EncodedEvent(data=NOT_AVAILABLE)


RelayResponse = EventSourceResponse.with_options(
    error_window=20.0, on_error=error_event
)


@app.post("/v1/chat/completions")
async def complete(body: dict[str, Any]) -> EventSourceResponse:
    return RelayResponse(relay({**body, "stream": True}))


async def relay(body: dict[str, Any]) -> AsyncIterator[bytes]:
    async with client.stream("POST", "/chat/completions", json=body) as upstream:
        if upstream.is_error:
            await upstream.aread()  # for the handler below
            upstream.raise_for_status()
        async for part in upstream.aiter_bytes():
            yield part


@app.exception_handler(httpx.HTTPStatusError)
async def refused(_: Request, error: httpx.HTTPStatusError) -> Response:
    answer = error.response
    media_type = answer.headers.get("content-type")
    return Response(answer.content, answer.status_code, media_type=media_type)


@app.exception_handler(httpx.TransportError)
async def unreachable(_: Request, error: httpx.TransportError) -> JSONResponse:
    return JSONResponse(NOT_AVAILABLE, 502)
