"""The response and its arguments."""

from __future__ import annotations

import inspect
import logging
import math
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.routing import Route

from fastapi_sse_fast.sse_starlette import EventSourceResponse, ServerSentEvent
from fastapi_sse_fast.sse_starlette import event as events_module
from fastapi_sse_fast.sse_starlette import sse as sse_module

from ..support import original
from ..support.apps import MS
from ..support.asgi import call, fetch, receive_nothing, scope
from ..support.server import Client, serve, wait_until


async def numbers(n: int = 3) -> AsyncIterator[int]:
    for number in range(n):
        yield number


def test_the_signatures_are_those_of_sse_starlette() -> None:
    """Names, order, defaults and kinds are equal. Annotations may differ in form."""
    theirs = original.imported()
    for name in ("EventSourceResponse", "AppStatus", "SendTimeoutError"):
        assert hasattr(sse_module, name)
    for ours_of, theirs_of, name in [
        (sse_module, theirs, "EventSourceResponse"),
        (events_module, sys.modules["sse_starlette.event"], "ServerSentEvent"),
        (events_module, sys.modules["sse_starlette.event"], "ensure_bytes"),
    ]:
        ours = inspect.signature(getattr(ours_of, name)).parameters.values()
        expected = inspect.signature(getattr(theirs_of, name)).parameters.values()
        assert [(p.name, p.default, p.kind) for p in ours] == [
            (p.name, p.default, p.kind) for p in expected
        ]
    public = {name for name in vars(theirs.AppStatus) if not name.startswith("_")}
    assert public <= set(vars(sse_module.AppStatus))
    constants = {n for n in vars(theirs.EventSourceResponse) if n.isupper()}
    for name in constants - {"DEFAULT_PING_INTERVAL"}:
        assert getattr(EventSourceResponse, name) == getattr(
            theirs.EventSourceResponse, name
        )
    assert EventSourceResponse.DEFAULT_PING_INTERVAL == 15


def test_the_head() -> None:
    assert dict(fetch(EventSourceResponse(numbers())).headers) == {
        b"cache-control": b"no-store",
        b"connection": b"keep-alive",
        b"content-type": b"text/event-stream; charset=utf-8",
        b"x-accel-buffering": b"no",
    }
    headers = {"Cache-Control": "public", "X-Accel-Buffering": "yes", "X-A": "b"}
    reply = fetch(
        EventSourceResponse(
            numbers(), 201, headers, "text/event-stream; charset=utf-8; x=y"
        )
    )
    assert reply.status == 201
    assert dict(reply.headers) == {
        b"cache-control": b"public",
        b"connection": b"keep-alive",
        b"content-type": b"text/event-stream; charset=utf-8; x=y",
        b"x-a": b"b",
        b"x-accel-buffering": b"no",
    }


def test_sync_and_async_iterables(anyio_backend: str) -> None:
    def generator() -> Iterator[int]:
        yield from range(3)

    body = b"data: 0\r\n\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n"
    for content in (numbers(), generator(), range(3), [0, 1, 2], iter([0, 1, 2])):
        reply = fetch(EventSourceResponse(content), backend=anyio_backend)
        assert (reply.body, reply.complete) == (body, True)


def test_the_body_iterator_has_the_items() -> None:
    async def items_of(response: Any) -> list[Any]:
        return [item async for item in response.body_iterator]

    item = {"data": "a"}
    assert anyio.run(items_of, EventSourceResponse([item])) == [item]
    assert anyio.run(items_of, EventSourceResponse(numbers())) == [0, 1, 2]


def test_a_body_iterator_that_is_replaced() -> None:
    async def doubled(items: Any) -> AsyncIterator[Any]:
        async for item in items:
            yield item * 2

    response = EventSourceResponse(numbers())
    response.body_iterator = doubled(response.body_iterator)
    assert fetch(response).body == b"data: 0\r\n\r\ndata: 2\r\n\r\ndata: 4\r\n\r\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (0, "needs an async or sync iterable of events, not 'int'"),
        ("text", "not 'str'"),
        ({"data": "a"}, "not 'dict'"),
        (numbers, "call it and pass the result"),
    ],
)
def test_content_that_is_none(content: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        EventSourceResponse(content)


def test_the_wrong_end_of_a_memory_channel() -> None:
    sender, receiver = anyio.create_memory_object_stream[Any](1)
    for content in (sender, (sender, receiver)):
        with pytest.raises(TypeError, match="needs the receiving end of a memory"):
            EventSourceResponse(content)  # type: ignore[arg-type]
    unknown: dict[str, Any] = {"memory_channel": receiver}
    with pytest.raises(TypeError, match="unexpected keyword argument 'memory_channel'"):
        EventSourceResponse(**unknown, content=receiver)
    sender.close()
    receiver.close()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ping": -1}, ValueError, "ping interval must be >= 0"),
        ({"ping": "5"}, TypeError, "ping interval must be int or float"),
        ({"send_timeout": 0}, ValueError, "send_timeout must be a positive number"),
        ({"send_timeout": "5"}, ValueError, "send_timeout must be a positive number"),
        ({"shutdown_grace_period": -1}, ValueError, "shutdown_grace_period must be >="),
        ({"cleanup_timeout": -1}, ValueError, "cleanup_timeout must be >= 0"),
        ({"cleanup_timeout": "5"}, TypeError, "must be a number of seconds, not '5'"),
        ({"ping_message_factory": "ping"}, TypeError, "must be callable, or None"),
    ],
)
def test_arguments_that_are_wrong(
    arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EventSourceResponse(numbers(), **arguments)


def test_arguments_that_mean_for_ever() -> None:
    response = EventSourceResponse(
        numbers(),
        ping=sys.maxsize,
        send_timeout=math.inf,
        cleanup_timeout=None,
        shutdown_grace_period=math.inf,
    )
    assert fetch(response).complete


def test_a_response_that_is_sent_twice() -> None:
    response = EventSourceResponse([1, 2])
    for _ in range(2):
        reply = fetch(response)
        assert (reply.body, reply.complete) == (b"data: 1\r\n\r\ndata: 2\r\n\r\n", True)
        assert not response.active


def test_a_ping(anyio_backend: str) -> None:
    async def slow() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(60 * MS)

    def pings(**arguments: Any) -> set[bytes]:
        response = EventSourceResponse(slow(), ping=10 * MS, **arguments)
        body = fetch(response, backend=anyio_backend).body
        return set(body.removeprefix(b"data: a\r\n\r\n").split(b"\r\n\r\n")) - {b""}

    for ping in pings():
        assert ping.startswith(b": ping - 20")
        assert ping.endswith(b"+00:00")
    assert pings(ping_message_factory=lambda: ServerSentEvent(comment="p")) == {b": p"}
    assert pings(ping_message_factory=lambda: {"event": "p"}) == {b"event: p"}
    response = EventSourceResponse(slow(), ping=0)
    assert fetch(response, backend=anyio_backend).body == b"data: a\r\n\r\n"


def test_the_interval_of_pings_can_be_set() -> None:
    response = EventSourceResponse(numbers())
    assert response.ping_interval == 15
    response.ping_interval = 3
    assert response.ping_interval == 3
    with pytest.raises(TypeError, match="ping interval must be int or float"):
        response.ping_interval = "5"  # type: ignore[assignment]


def test_code_after_a_yield_runs_when_the_event_was_sent(anyio_backend: str) -> None:
    log: list[str] = []

    async def events() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            log.append(f"after {number}")

    async def send(message: Any) -> None:
        await anyio.sleep(MS)
        if message.get("body"):
            log.append(f"sent {message['body'][6:7].decode()}")

    async def main() -> None:
        await EventSourceResponse(events())(scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)
    assert log == [f"{what} {n}" for n in range(3) for what in ("sent", "after")]


def test_what_feeds_a_channel(anyio_backend: str) -> None:
    ended: list[str] = []

    async def feed(sender: Any, *, for_ever: bool) -> None:
        try:
            async with sender:
                for number in range(3):
                    await sender.send({"data": number})
                if for_ever:
                    await anyio.sleep_forever()
        finally:
            ended.append("feed")

    async def main(*, for_ever: bool) -> bytes:
        sender, receiver = anyio.create_memory_object_stream[Any](0)
        feeding = partial(feed, sender, for_ever=for_ever)
        with receiver:
            response = EventSourceResponse(receiver, data_sender_callable=feeding)
            reply = await call(response, disconnect_after=3 if for_ever else None)
        return reply.body

    body = b"data: 0\r\n\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n"
    for for_ever in (False, True):
        main_of = partial(main, for_ever=for_ever)
        assert anyio.run(main_of, backend=anyio_backend) == body
        assert ended.pop() == "feed"


def test_what_feeds_a_channel_and_fails(anyio_backend: str) -> None:
    async def feed() -> None:
        raise LookupError("nothing to send")

    async def waiting() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 1

    response = EventSourceResponse(waiting(), data_sender_callable=feed)
    reply = fetch(response, backend=anyio_backend)
    assert repr(reply.error) == repr(LookupError("nothing to send"))
    assert not reply.complete


def test_a_body_is_logged_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "sse_starlette.sse"):
        fetch(EventSourceResponse(["a"]))
    assert caplog.messages == [r"chunk: b'data: a\r\n\r\n'"]


def test_no_compression() -> None:
    with pytest.raises(NotImplementedError):
        EventSourceResponse(numbers()).enable_compression()


# In an application


def test_head_requests() -> None:
    ran: list[str] = []
    background = BackgroundTask(ran.append, "background")

    async def never() -> AsyncIterator[int]:
        raise AssertionError("iterated")
        yield 1

    response = EventSourceResponse(never(), background=background)
    for method in ("HEAD", "head"):
        reply = fetch(response, method=method)
        assert (reply.status, reply.body, reply.complete) == (200, b"", True)
    assert ran == ["background"] * 2


def test_a_denied_websocket() -> None:
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def main() -> None:
        await EventSourceResponse(["denied"])(
            {"type": "websocket"}, receive_nothing, send
        )

    anyio.run(main)
    assert sent[0] == "websocket.http.response.start"
    assert set(sent[1:]) == {"websocket.http.response.body"}


def test_an_error_before_the_first_event_is_a_response() -> None:
    async def forbidden() -> AsyncIterator[int]:
        raise HTTPException(403, "not yours")
        yield 1

    async def route(request: Request) -> EventSourceResponse:
        return EventSourceResponse(forbidden())

    reply = fetch(Starlette(routes=[Route("/", route)]))
    assert (reply.status, reply.body) == (403, b"not yours")


def test_fastapi_and_real_sockets() -> None:
    app = FastAPI()
    ran: list[str] = []

    @app.get("/")
    async def stream() -> EventSourceResponse:
        async def events() -> AsyncIterator[Any]:
            try:
                yield {"data": "a\nb", "event": "e", "id": "1", "retry": 5}
                yield ServerSentEvent("c", sep="\n")
                yield b": bytes\r\n\r\n"
                await anyio.sleep(MS)
                yield "d"
            finally:
                ran.append("finally")

        return EventSourceResponse(
            events(), background=BackgroundTask(ran.append, "background")
        )

    with serve(app) as port:
        body = httpx.get(f"http://127.0.0.1:{port}/").content
        wait_until(lambda: len(ran) == 2)
    assert body == (
        b"id: 1\r\nevent: e\r\ndata: a\r\ndata: b\r\nretry: 5\r\n\r\n"
        b"data: c\n\n: bytes\r\n\r\ndata: d\r\n\r\n"
    )
    assert ran == ["finally", "background"]


def test_the_head_of_a_stream_without_events_leaves_at_once() -> None:
    async def waiting() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 1

    async def route(request: Request) -> EventSourceResponse:
        return EventSourceResponse(waiting())

    with serve(Starlette(routes=[Route("/", route)])) as port:
        with Client(port) as client:
            assert client.status == 200
