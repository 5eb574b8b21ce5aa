"""A chat completion API for OpenAI's clients. It replays a text instead of a model.

`uvicorn fastapi_sse_fast._demo.chat:app` serves it. The `base_url` of a client is then
`http://127.0.0.1:8000/v1`. The chats at the end are for a page: their answers continue
when it is reloaded. The demo page uses them.
"""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import AliasChoices, BaseModel, Field

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    EventTemplate,
    LastEventID,
    Runs,
    Slot,
    StreamSummary,
)
from fastapi_sse_fast.stores import MemoryStore

logger = logging.getLogger(__name__)

store = MemoryStore()
# Ctrl+C in a demo is not to wait for answers.
runs = Runs(store, timeout=600.0, shutdown_grace=0.0)
app = FastAPI(title="Chat completions", lifespan=store.lifespan)


# Requests


class Message(BaseModel):
    role: str
    content: str


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    seed: int | None = None
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("max_completion_tokens", "max_tokens"),
    )


# Errors: OpenAI's clients raise an exception for this body, in a response or an event


class ChatError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "code": code}}


@app.exception_handler(ChatError)
async def answer(_: Request, error: ChatError) -> JSONResponse:
    return JSONResponse(error.body, error.status)


@app.exception_handler(RequestValidationError)
async def answer_to_bad_body(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    bad = ChatError(400, "invalid_request", f"{where}: {first['msg']}")
    return JSONResponse(bad.body, bad.status)


# The model

REPLY = (Path(__file__).parent / "reply.txt").read_text(encoding="utf-8").strip()

MODELS = {
    "replay": "replies",
    "replay-busy": "fails before its first token",
    "replay-broken": "fails after ten tokens",
}


def split(text: str, chance: random.Random) -> Iterator[str]:
    """Cut a text into pieces of the size of tokens."""
    start = 0
    while start < len(text):
        end = start + chance.randint(1, 6)
        yield text[start:end]
        start = end


async def generate(request: ChatRequest, rate: float) -> AsyncGenerator[str, None]:
    """Yield the tokens of the reply, on average `rate` per second."""
    chance = random.Random(request.seed)
    count = 0
    try:
        for token in split(REPLY, chance):
            await asyncio.sleep(chance.uniform(0.5, 1.5) / rate)
            if request.model == "replay-busy":
                raise ChatError(429, "rate_limit_exceeded", "The model is busy.")
            if request.model == "replay-broken" and count == 10:
                raise ChatError(500, "model_failed", "The model has failed.")
            if count == request.max_tokens:
                break
            yield token
            count += 1
    finally:
        # Stop a real model here. This runs when the client disconnects, too.
        logger.info("generated %d tokens", count)


def usage(request: ChatRequest, completion_tokens: int) -> dict[str, int]:
    prompt = sum(len(message.content) for message in request.messages)
    prompt_tokens = -(-prompt // 4)  # four characters each, as a rule of thumb
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def finish_reason(request: ChatRequest, completion_tokens: int) -> str:
    return "length" if completion_tokens == request.max_tokens else "stop"


# The stream. The parts that all requests share are encoded once, when the module is
# loaded. The parts that all events of a reply share are encoded once for each reply.


def template(choices: list[dict[str, Any]], **fields: Any) -> EventTemplate:
    return EventTemplate(
        {
            "id": Slot("id"),
            "object": "chat.completion.chunk",
            "created": Slot("created"),
            "model": Slot("model"),
            "choices": choices,
            **fields,
        },
        json="compact",
    )


def choice(delta: dict[str, Any], finish_reason: Slot | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


ROLE = template([choice({"role": "assistant", "content": ""})])
TOKEN = template([choice({"content": Slot("content")})])
LAST = template([choice({}, finish_reason=Slot("finish_reason"))])
USAGE = template([], usage=Slot("usage"))
DONE = EncodedEvent(raw_data="[DONE]")


def own_fields(request: ChatRequest) -> dict[str, Any]:
    """Return the fields that all events of one reply share."""
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": request.model,
    }


async def events(
    request: ChatRequest, rate: float
) -> AsyncGenerator[EncodedEvent, None]:
    # The events have no id. After one with an id, OpenAI's client for Python takes the
    # blank line after a ping for an event.
    own = own_fields(request)
    token_event = TOKEN.partial(**own)
    count = 0
    # `aclosing` closes the inner generator at once when this one is closed early.
    try:
        async with aclosing(generate(request, rate)) as tokens:
            async for token in tokens:
                if count == 0:
                    # Not earlier: before the first event, an error is still a response.
                    yield ROLE(**own)
                yield token_event(token)
                count += 1
    except ChatError as error:
        if count == 0:
            raise
        # `on_error` would abort the response, and `fetch` then drops what the page has
        # not read yet.
        yield error_event(error)
        return
    yield LAST(**own, finish_reason=finish_reason(request, count))
    if request.stream_options is not None and request.stream_options.include_usage:
        yield USAGE(**own, usage=usage(request, count))
    yield DONE


def error_event(error: Exception) -> EncodedEvent:
    if not isinstance(error, ChatError):
        error = ChatError(500, "internal_error", "The server has failed.")
    return EncodedEvent(data=error.body, json="compact")


def log(summary: StreamSummary) -> None:
    logger.info("%s after %d events", summary.reason, summary.events)


ChatResponse = EventSourceResponse.with_options(
    # A model can take seconds to its first token. An error until then has its status.
    error_window=5.0,
    on_error=error_event,
    on_close=log,
    # OpenAI's clients raise an exception for it when a shutdown cuts off a reply.
    farewell=error_event(ChatError(503, "stopping", "The server is stopping.")),
)


# The routes


Rate = Annotated[float, Query(gt=0, description="Tokens per second")]


def check_model(request: ChatRequest) -> None:
    if request.model not in MODELS:
        raise ChatError(404, "model_not_found", f"There is no model {request.model!r}.")


@app.post("/v1/chat/completions", response_model=None)
async def complete(
    request: ChatRequest, rate: Rate = 30.0
) -> Response | dict[str, Any]:
    check_model(request)
    if request.stream:
        return ChatResponse(events(request, rate))
    tokens = [token async for token in generate(request, rate)]
    return {
        **own_fields(request),
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "".join(tokens)},
                "finish_reason": finish_reason(request, len(tokens)),
            }
        ],
        "usage": usage(request, len(tokens)),
    }


@app.get("/v1/models")
async def models() -> dict[str, Any]:
    listed = [
        {"id": name, "object": "model", "created": 0, "owned_by": "examples"}
        for name in MODELS
    ]
    return {"object": "list", "data": listed}


# Chats: each answer is a run. It continues when the page is reloaded, any tab can read
# it, and any tab can stop it.


async def run_events(request: ChatRequest, rate: float) -> AsyncIterator[EncodedEvent]:
    """Yield the events of a run. It has no status, so every error is an event."""
    try:
        async with aclosing(events(request, rate)) as own_events:
            async for event in own_events:
                yield event
    except ChatError as error:
        yield error_event(error)


@app.post("/chats/{chat}", status_code=202)
async def ask(chat: str, request: ChatRequest, rate: Rate = 30.0) -> None:
    check_model(request)
    name = f"chat:{chat}"
    await runs.start(name, run_events, request, rate, if_running="replace")


@app.get("/chats/{chat}/stream")
async def stream(chat: str, last: LastEventID) -> Response:
    return await runs.response(f"chat:{chat}", last)


@app.post("/chats/{chat}/stop")
async def stop(chat: str) -> bool:
    return await runs.cancel(f"chat:{chat}")
