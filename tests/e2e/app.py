"""An application for real clients in another process. It prints what happens."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import anyio
from fastapi import Body, FastAPI, Header, HTTPException, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from fastapi_sse_fast import EncodedEvent, EventSourceResponse, ServerSentEvent

from ..support.eventsource import Event
from ..support.streams import say

app = FastAPI()

Quiet = EventSourceResponse.with_options(ping_interval=None)
Pinging = EventSourceResponse.with_options(ping_interval=0.02)

END = EncodedEvent(raw_data="", event="end")
"""The last event. A client that would reconnect closes its stream at it."""

ODD_SPACE = "\x0b \x0c \x1c \x85 \u2028 \u2029"
"""Characters that `str.splitlines` treats as line breaks and the standard does not."""

EVENTS: list[tuple[dict[str, Any], Event]] = [
    ({"raw_data": "a"}, Event("a")),
    ({"raw_data": " b ", "event": "token"}, Event(" b ", "token")),
    ({"raw_data": "one\ntwo\r\nthree\n"}, Event("one\ntwo\nthree\n")),
    ({"raw_data": "c", "comment": "not\nseen"}, Event("c")),
    ({"raw_data": "你好世界 👩‍👩‍👧 🦀"}, Event("你好世界 👩‍👩‍👧 🦀")),
    ({"data": {"text": "a\nb"}}, Event('{"text": "a\\nb"}')),
    ({"raw_data": ODD_SPACE}, Event(ODD_SPACE)),
    ({"raw_data": "d", "id": "1"}, Event("d", last_event_id="1")),
    ({"raw_data": "e", "event": "token"}, Event("e", "token", "1")),
    ({"raw_data": "f", "id": "é 2", "retry": 5000}, Event("f", last_event_id="é 2")),
]
"""Arguments of events, and the events that a client receives."""


@app.get("/page", response_class=HTMLResponse)
async def page() -> str:
    return "<!doctype html><title>EventSource</title>"


@app.get("/events", response_class=Quiet)
async def events() -> AsyncIterator[Any]:
    for arguments, _ in EVENTS:
        yield ServerSentEvent(**arguments)
    yield END


@app.get("/many", response_class=Quiet)
async def many(n: int) -> AsyncIterator[Any]:
    for number in range(n):
        yield EncodedEvent(raw_data=str(number), id=str(number))
    yield END


async def pause(seconds: float, run: str) -> AsyncIterator[Any]:
    try:
        yield EncodedEvent(raw_data="a")
        await anyio.sleep(seconds)
        yield EncodedEvent(raw_data="b")
        yield END
    finally:
        say(run, "closed")


@app.get("/pinging", response_class=Pinging)
async def pinging(seconds: float = 0.2, run: str = "") -> AsyncIterator[Any]:
    async for event in pause(seconds, run):
        yield event


@app.get("/silent", response_class=Quiet)
async def silent(seconds: float, run: str = "") -> AsyncIterator[Any]:
    async for event in pause(seconds, run):
        yield event


@app.get("/ticks")
async def ticks(
    buffering: Literal["yes", "no"] = "no", cache_control: str = "no-cache"
) -> EventSourceResponse:
    """Yield events that contain their time."""

    async def events() -> AsyncIterator[EncodedEvent]:
        for _ in range(10):
            yield EncodedEvent(raw_data=repr(time.monotonic()))
            await anyio.sleep(0.02)

    headers = {"X-Accel-Buffering": buffering, "Cache-Control": cache_control}
    return Quiet(events(), headers=headers)


@app.get("/broken", response_class=Quiet)
async def broken() -> AsyncIterator[Any]:
    yield EncodedEvent(raw_data="a")
    # `fetch` in a browser drops what it has not read when a response is aborted.
    await anyio.sleep(0.2)
    raise LookupError("mid-stream")


@app.get("/forbidden", response_class=Quiet)
async def forbidden(run: str) -> AsyncIterator[Any]:
    say(run, "asks")
    raise HTTPException(403)
    yield END


@app.get("/parts")
@app.post("/parts/chat/completions")
async def parts(body: str, size: int) -> EventSourceResponse:
    """Send the body that the client asks for, in pieces that arrive separately."""
    data = body.encode()

    async def split() -> AsyncIterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]
            await anyio.sleep(0.001)

    return Quiet(split())


# Streams over several connections. Connections with the same `run` belong together.

ended_at: dict[str, float] = {}


@app.get("/resume", response_class=Quiet)
async def resume(
    run: str,
    ending: Literal["clean", "error"],
    n: int = 5000,
    retry: int = 10,
    last_event_id: Annotated[int, Header()] = -1,
) -> AsyncIterator[Any]:
    """Yield the numbers up to `n`, a fifth of them in each connection."""
    if run in ended_at:
        say(run, last_event_id, time.monotonic() - ended_at[run])
    start = last_event_id + 1
    stop = min(start + n // 5, n)
    for number in range(start, stop):
        yield EncodedEvent(raw_data=str(number), id=str(number), retry=retry)
    if stop == n:
        yield END
    if ending == "error":
        # A browser drops unread data when the response is aborted.
        await anyio.sleep(0.05)
    ended_at[run] = time.monotonic()
    if ending == "error":
        raise LookupError("mid-stream")


@app.get("/once")
async def once(run: str) -> Response:
    """Yield one event. A client that reconnects gets status 204."""
    if run in ended_at:
        return Response(status_code=204)
    ended_at[run] = time.monotonic()
    return Quiet([EncodedEvent(raw_data="a", retry=10)])


@app.get("/checkpoint", response_class=Quiet)
async def checkpoint(
    run: str, last_event_id: Annotated[str, Header()] = ""
) -> AsyncIterator[Any]:
    """Send an id without data, and then abort the response."""
    if run in ended_at:
        say(run, last_event_id)
        yield END
        return
    ended_at[run] = time.monotonic()
    yield EncodedEvent(raw_data="a", id="1", retry=10)
    yield EncodedEvent(id="2")
    raise LookupError("mid-stream")


# Streams for OpenAI's SDK


class Delta(BaseModel):
    content: str


class Choice(BaseModel):
    delta: Delta
    index: int = 0
    finish_reason: Literal["stop"] | None = None


class Chunk(BaseModel):
    choices: list[Choice]
    id: str = "chatcmpl-1"
    object: str = "chat.completion.chunk"
    created: int = 1
    model: str = "m"


class Prompt(BaseModel):
    content: str


class Completion(BaseModel):
    messages: list[Prompt]
    stream: Literal[True]


def told(error: Exception) -> ServerSentEvent | None:
    """Return an event for the error, except for the error 'cut'."""
    if str(error) == "cut":
        return None
    return ServerSentEvent(data={"error": {"message": str(error)}})


@app.post("/chat/completions", response_class=Pinging.with_options(on_error=told))
async def complete(completion: Completion) -> AsyncIterator[Chunk]:
    """Repeat the prompt word by word."""
    for word in completion.messages[-1].content.split(" "):
        if word == "forbidden":
            raise HTTPException(403)
        if word in ("broken", "cut"):
            raise LookupError(word)
        yield Chunk(choices=[Choice(delta=Delta(content=word))])
        await anyio.sleep(0.05)
    yield EncodedEvent(raw_data="[DONE]")  # type: ignore[misc]


# Both transports of MCP with event streams

McpResponse = Pinging.with_options(retry=10)

send_answer, answers = anyio.create_memory_object_stream[dict[str, Any]](10)


def answer_to(request: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if request["method"] == "initialize":
        result = {
            "protocolVersion": request["params"]["protocolVersion"],
            "capabilities": {},
            "serverInfo": {"name": "e2e", "version": "1"},
        }
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


@app.get("/mcp/sse", response_class=McpResponse)
async def mcp_sse() -> AsyncIterator[Any]:
    yield EncodedEvent(raw_data="/mcp/requests", event="endpoint")
    for number in itertools.count():
        answer = await answers.receive()
        await anyio.sleep(0.05)
        yield ServerSentEvent(data=answer, event="message", id=str(number))


@app.post("/mcp/requests", status_code=202)
async def mcp_request(request: Annotated[dict[str, Any], Body()]) -> None:
    if "id" in request:
        await send_answer.send(answer_to(request))


@app.post("/mcp")
async def mcp(request: Annotated[dict[str, Any], Body()]) -> Response:
    if "id" not in request:
        return Response(status_code=202)

    async def stream() -> AsyncIterator[Any]:
        yield EncodedEvent(raw_data="", id=str(request["id"]))
        await anyio.sleep(0.05)
        if request["method"] == "ping":
            raise LookupError("mid-stream")
        yield ServerSentEvent(data=answer_to(request))

    return McpResponse(stream())


@app.get("/mcp", response_class=McpResponse)
async def mcp_resume(last_event_id: Annotated[int, Header()]) -> AsyncIterator[Any]:
    say("mcp resumes after", last_event_id)
    yield ServerSentEvent(data=answer_to({"id": last_event_id, "method": "ping"}))
