"""The start of a stream: its head, `error_window` and the `retry` line."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import HTTPException

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent, shutdown

from ..support.apps import KINDS, MS, app_of, endless_of
from ..support.asgi import fetch, receive_nothing, scope
from ..support.server import Client, serve


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_before_the_first_event_is_the_response(kind: str) -> None:
    async def items() -> AsyncIterator[int]:
        raise HTTPException(403, "not yours")
        yield 1

    def sync_items() -> Iterator[int]:
        raise HTTPException(403, "not yours")
        yield 1

    with serve(app_of(items if kind == "async" else sync_items)) as port:
        with Client(port) as client:
            assert client.status == 403
            assert b"text/event-stream" not in client.head


def test_the_head_does_not_wait_for_a_late_first_event() -> None:
    go_on = threading.Event()

    async def items() -> AsyncIterator[int]:
        while not go_on.is_set():
            await asyncio.sleep(MS)
        yield 1

    with serve(app_of(items)) as port, Client(port) as client:
        assert client.status == 200
        go_on.set()
        assert client.read_to_end() == b"data: 1\n\n"


def test_a_head_without_an_event_is_followed_by_an_empty_body(
    anyio_backend: str,
) -> None:
    """ASGI allows servers to wait for the body with the head, and daphne does."""
    begun = anyio.Event()
    messages: list[Any] = []

    async def items() -> AsyncIterator[int]:
        await begun.wait()
        yield 1

    async def send(message: Any) -> None:
        messages.append(message)
        if message["type"] == "http.response.body":
            begun.set()

    async def main() -> None:
        with anyio.fail_after(5):
            await app_of(items, error_window=MS)(scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)
    assert [message["type"] for message in messages[:1]] == ["http.response.start"]
    bodies = [(message["body"], message["more_body"]) for message in messages[1:]]
    assert bodies[0] == (b"", True)
    assert b"".join(body for body, _ in bodies) == b"data: 1\n\n"


def test_a_head_that_does_not_wait() -> None:
    async def items() -> AsyncIterator[int]:
        await anyio.sleep(20 * MS)
        raise HTTPException(403)
        yield 1

    assert fetch(app_of(items)).status == 403
    reply = fetch(app_of(items, error_window=0))
    assert reply.status == 200
    assert reply.error is not None
    assert not reply.complete


def test_an_error_later_than_the_window_is_not_a_response() -> None:
    async def items() -> AsyncIterator[int]:
        await anyio.sleep(50 * MS)
        raise HTTPException(403)
        yield 1

    reply = fetch(app_of(items, error_window=10 * MS))
    assert reply.status == 200
    assert not reply.complete


def test_custom_exception_handlers_answer_early_errors() -> None:
    class TeapotError(Exception):
        pass

    async def items() -> AsyncIterator[int]:
        raise TeapotError
        yield 1

    from fastapi.responses import PlainTextResponse

    app = app_of(items)
    app.add_exception_handler(
        TeapotError, lambda request, error: PlainTextResponse("teapot", 418)
    )
    reply = fetch(app)
    assert (reply.status, reply.body) == (418, b"teapot")


@pytest.mark.parametrize("error_window", [0.0, 0.1])
def test_retry_is_sent_once_at_the_head(error_window: float) -> None:
    async def items() -> AsyncIterator[int]:
        await anyio.sleep(5 * MS)
        yield 1
        await anyio.sleep(5 * MS)
        yield 2

    app = app_of(items, retry=3000, error_window=error_window)
    assert fetch(app).body == b"retry: 3000\ndata: 1\n\ndata: 2\n\n"


def test_retry_of_an_empty_stream() -> None:
    async def items() -> AsyncIterator[int]:
        return
        yield 1

    reply = fetch(app_of(items, retry=0))
    assert (reply.body, reply.complete) == (b"retry: 0\n", True)


@pytest.mark.parametrize("what", ["ping", "error", "shutdown"])
def test_the_retry_line_is_not_the_inside_of_an_event(
    what: str, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The first event after it does not always come from the generator."""
    pinged = anyio.Event()

    def ping() -> ServerSentEvent:
        pinged.set()
        return ServerSentEvent(comment="ping")

    async def items() -> AsyncIterator[int]:
        if what == "ping":
            await pinged.wait()
            return
        await anyio.sleep(5 * MS)
        if what == "error":
            raise LookupError
        shutdown()
        await anyio.sleep(3600)
        yield 1

    last = ServerSentEvent(event="last")
    app = app_of(
        items,
        retry=3000,
        error_window=0,
        ping=ping,
        ping_interval=5 * MS if what == "ping" else None,
        on_error=lambda error: last,
        farewell=last,
    )
    reply = fetch(app, backend=anyio_backend)
    rest = b": ping\n\n" if what == "ping" else b"event: last\n\n"
    assert reply.body.startswith(b"retry: 3000\n" + rest)
    assert not [text for text in caplog.messages if "ended inside an event" in text]


@pytest.mark.parametrize("returned", [True, False])
def test_headers_can_be_an_option(returned: bool) -> None:
    chosen = {"Cache-Control": "no-cache, no-transform", "X-Mine": "option"}
    response_class = EventSourceResponse.with_options(headers=chosen)
    app: Any
    if returned:
        app = response_class(["data: 1\n\n"])
    else:
        app = app_of(endless_of("async", []), response_class=response_class)
    headers = fetch(app, disconnect_after=1).headers
    assert sorted(headers) == [
        (b"cache-control", b"no-cache, no-transform"),
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"x-accel-buffering", b"no"),
        (b"x-mine", b"option"),
    ]


def test_headers_of_a_response_come_before_those_of_its_options() -> None:
    response_class = EventSourceResponse.with_options(
        headers={"x-mine": "option", "x-other": "option"}
    )
    response = response_class(["data: 1\n\n"], headers={"X-Mine": "response"})
    assert response.headers["x-mine"] == "response"
    assert response.headers["x-other"] == "option"
    assert response.headers["cache-control"] == "no-cache"
