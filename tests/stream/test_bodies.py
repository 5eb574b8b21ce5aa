"""Responses that an endpoint returns: their content, headers and body."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import fastapi.routing
import fastapi.sse
import pytest
from fastapi import FastAPI, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent

from ..support.apps import KINDS, MS, noted
from ..support.asgi import fetch
from ..support.server import TIMEOUT, Client, serve, wait_until

# Content and headers


class Item(BaseModel):
    a: int | str = 1


def test_it_is_a_subclass_of_fastapis() -> None:
    response = EventSourceResponse([1])
    assert isinstance(response, fastapi.sse.EventSourceResponse)
    assert isinstance(response, StreamingResponse)
    assert response.media_type == "text/event-stream"
    assert response.status_code == 200


def test_its_headers_are_those_of_an_event_stream() -> None:
    assert EventSourceResponse([]).raw_headers == [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]


def test_given_headers_replace_the_default_ones() -> None:
    response = EventSourceResponse(
        [], headers={"Cache-Control": "no-store", "X-Mine": "1"}, status_code=299
    )
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    reply = fetch(response)
    assert reply.status == 299
    names = [name for name, _ in reply.headers]
    assert sorted(names) == sorted(set(names))


def test_headers_and_cookies_can_be_set_later() -> None:
    response = EventSourceResponse([])
    response.headers["Cache-Control"] = "private"
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    reply = fetch(response)
    assert (b"cache-control", b"private") in reply.headers
    assert [name for name, _ in reply.headers].count(b"set-cookie") == 2


def test_another_media_type() -> None:
    response = EventSourceResponse([], media_type="text/plain")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


# Items


@pytest.mark.parametrize(
    "content",
    ["text", b"bytes", bytearray(), memoryview(b""), {"a": 1}, Item(), None, 5],
)
def test_content_that_is_no_iterable_of_events_is_refused(content: Any) -> None:
    with pytest.raises(TypeError, match="async or sync iterable of events, not"):
        EventSourceResponse(content)


def test_what_a_generator_function_forgot_to_call_is_refused() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="not 'function': call it"):
        EventSourceResponse(items)  # type: ignore[arg-type]


def test_what_an_async_function_forgot_to_yield_is_refused() -> None:
    async def items() -> list[int]:
        return [1]

    coroutine = items()
    with pytest.raises(TypeError, match="not 'coroutine': await it"):
        EventSourceResponse(coroutine)  # type: ignore[arg-type]
    coroutine.close()


def test_the_answer_to_head_has_no_body_so_nothing_is_iterated() -> None:
    ran: list[str] = []

    async def items() -> AsyncIterator[int]:
        ran.append("items")
        yield 1

    response = EventSourceResponse(
        items(),
        status_code=201,
        headers={"x-a": "1"},
        background=BackgroundTask(ran.append, "background"),
    )
    reply = fetch(response, method="HEAD")
    assert (reply.status, reply.body, reply.complete) == (201, b"", True)
    assert (b"x-a", b"1") in reply.headers
    assert ran == ["background"]


def test_an_empty_stream_is_a_complete_response() -> None:
    reply = fetch(EventSourceResponse([]))
    assert (reply.status, reply.body, reply.complete) == (200, b"", True)


def test_plain_starlette() -> None:
    async def agen() -> AsyncIterator[Any]:
        yield {"a": 1}
        yield ServerSentEvent(raw_data="x", id="1")
        yield "data: ready\n\n"
        yield b"data: bytes\n\n"
        yield bytearray(b": part ")
        yield memoryview(b"of a line\n\n")

    async def endpoint(request: object) -> EventSourceResponse:
        return EventSourceResponse(agen(), status_code=201, headers={"X-Mine": "1"})

    with serve(Starlette(routes=[Route("/", endpoint)])) as port:
        with Client(port) as client:
            body = client.read_to_end()
    assert client.status == 201
    assert b"x-mine: 1" in client.head
    assert b"content-type: text/event-stream; charset=utf-8" in client.head
    assert body == (
        b'data: {"a": 1}\n\ndata: x\nid: 1\n\ndata: ready\n\ndata: bytes\n\n'
        b": part of a line\n\n"
    )


# A body that is read or wrapped


@pytest.mark.parametrize("kind", KINDS)
def test_the_body_can_be_read_as_bytes(kind: str) -> None:
    async def items() -> AsyncIterator[Any]:
        yield Item()
        yield ServerSentEvent(raw_data="x")

    content: Any = [Item(), ServerSentEvent(raw_data="x")]
    response = EventSourceResponse(items() if kind == "async" else content)

    async def read() -> list[Any]:
        return [chunk async for chunk in response.body_iterator]

    assert anyio.run(read) == [b'data: {"a": 1}\n\n', b"data: x\n\n"]


def test_the_body_can_be_wrapped() -> None:
    async def counted(body: Any) -> AsyncIterator[bytes]:
        async for chunk in body:
            yield b": %d bytes\n" % len(chunk) + chunk

    response = EventSourceResponse([1, 22])
    response.body_iterator = counted(response.body_iterator)
    body = fetch(response).body
    assert body == b": 9 bytes\ndata: 1\n\n: 10 bytes\ndata: 22\n\n"


@pytest.mark.parametrize("waits", [0, 3600])
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapped_body_is_closed_before_dependencies(
    kind: str, waits: float, anyio_backend: str
) -> None:
    log: list[str] = []

    class Wrapping(APIRoute):
        def get_route_handler(self) -> Any:
            handle = super().get_route_handler()

            async def wrapped(body: Any) -> AsyncIterator[bytes]:
                async for chunk in body:
                    yield chunk + b":\n"
                    await anyio.sleep(waits)

            async def handle_and_wrap(request: Any) -> Any:
                response: Any = await handle(request)
                response.body_iterator = wrapped(response.body_iterator)
                return response

            return handle_and_wrap

    async def items() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1000
        finally:
            await anyio.lowlevel.checkpoint()
            log.append("generator")

    def sync_items() -> Iterator[str]:
        try:
            while True:
                yield "x" * 1000
        finally:
            log.append("generator")

    app = FastAPI()
    app.router.route_class = Wrapping
    app.get(
        "/",
        response_class=EventSourceResponse.with_options(
            on_close=lambda summary: log.append(summary.reason), max_duration=100 * MS
        ),
        dependencies=[noted("dependency", log)],
    )(items if kind == "async" else sync_items)
    gc.disable()  # The garbage collector would close it too.
    try:
        reply = fetch(app, backend=anyio_backend)
    finally:
        gc.enable()
    assert not reply.complete
    assert reply.body.startswith(b'data: "xxx')
    assert log == ["generator", "dependency", "max_duration"]


@pytest.mark.parametrize("way", ["anext", "break"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapper_may_look_at_the_first_chunk(
    kind: str, way: str, anyio_backend: str
) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(4):
            yield number
            await anyio.lowlevel.checkpoint()

    async def wrapped(body: Any) -> AsyncIterator[bytes]:
        if way == "anext":
            yield await anext(aiter(body))
        else:
            async for chunk in body:
                yield chunk
                break
        async for chunk in body:
            yield chunk
            await anyio.sleep(MS)

    response = EventSourceResponse(items() if kind == "async" else range(4))
    response.body_iterator = wrapped(response.body_iterator)
    reply = fetch(response, backend=anyio_backend)
    assert reply.complete
    assert reply.body == b"".join(b"data: %d\n\n" % number for number in range(4))


@pytest.mark.parametrize("ends", [True, False])
def test_a_wrapper_that_reads_in_a_task_of_its_own(ends: bool) -> None:
    log = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            log.append("generator")

    async def wrapped(body: Any) -> AsyncIterator[bytes]:
        chunks = aiter(body)
        step = asyncio.ensure_future(anext(chunks))
        try:
            for _ in range(5 if ends else 10_000):
                await asyncio.wait([step], timeout=5 * MS)
                if step.done():
                    yield step.result()
                    step = asyncio.ensure_future(anext(chunks))
                else:
                    yield b": idle\n\n"
        finally:
            step.cancel()

    response = EventSourceResponse(
        items(), on_close=lambda summary: log.append(summary.reason)
    )
    response.body_iterator = wrapped(response.body_iterator)
    reply = fetch(response, disconnect_after=None if ends else 3)
    assert reply.error is None
    assert reply.complete == ends
    assert reply.body.startswith(b"data: 1\n\n: idle\n\n")
    assert sorted(log) == sorted(["generator", "finished" if ends else "disconnected"])


def test_a_wrapped_sync_generator_whose_client_leaves_during_a_step() -> None:
    log: list[str] = []
    go_on = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            log.append("waits")
            assert go_on.wait(TIMEOUT)
            yield 2
        finally:
            log.append("generator")

    async def wrapped(body: Any) -> AsyncIterator[bytes]:
        async for chunk in body:
            yield chunk

    app = FastAPI()

    @app.get("/")
    async def endpoint() -> Response:
        response = EventSourceResponse(
            items(), on_close=lambda summary: log.append(summary.reason)
        )
        response.body_iterator = wrapped(response.body_iterator)
        return response

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def receive_noted() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                log.append("client")
            return message

        await app(scope, receive_noted, send)

    with serve(noting) as port:
        with Client(port) as client:
            client.read_until(b"data: 1\n\n")
            wait_until(lambda: log == ["waits"])
        wait_until(lambda: log == ["waits", "client"])
        go_on.set()
        wait_until(lambda: log[2:] == ["generator", "disconnected"])
