"""Middleware sees all ASGI messages. Starlette's own wrappers are skipped."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from types import FrameType
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import Route

from fastapi_sse_fast import EventSourceResponse
from tests.support.apps import KINDS, MS, app_of, numbers
from tests.support.asgi import Reply, call, fetch
from tests.support.middlewares import around_send

BACKENDS = ["asyncio", "trio"]


def frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def wrappers_below() -> list[str]:
    """Return the coroutines of Starlette's exception handling on the stack."""
    return [
        frame.f_code.co_name
        for frame in frames()
        if frame.f_globals["__name__"].startswith("starlette.")
        and frame.f_code.co_varnames[:1] == ("message",)
    ]


async def items() -> AsyncIterator[int]:
    for number in range(3):
        yield number
        await anyio.sleep(MS)


def sync_items() -> Iterator[int]:
    yield from range(3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_of_a_body_go_past_starlettes_wrappers(kind: str, backend: str) -> None:
    seen: dict[str, list[list[str]]] = {}

    async def watch(send: Any, message: Any) -> None:
        seen.setdefault(message["type"], []).append(wrappers_below())
        await send(message)

    app = app_of(items if kind == "async" else sync_items)
    reply = fetch(around_send(app, watch), backend=backend)
    assert numbers(reply.body) == [0, 1, 2]
    assert seen.pop("http.response.start") == [["_send", "sender", "sender"]]
    (parts,) = seen.values()
    assert not any(parts)


def test_parts_of_a_response_of_plain_starlette_too() -> None:
    seen = []

    async def watch(send: Any, message: Any) -> None:
        seen.append(wrappers_below())
        await send(message)

    async def endpoint(request: Any) -> EventSourceResponse:
        return EventSourceResponse(items())

    app = Starlette(routes=[Route("/", endpoint)])
    reply = fetch(around_send(app, watch))
    assert reply.complete
    assert seen[0]
    assert not any(seen[1:])


class Counting:
    """A middleware like Starlette's, but with another `send` after the head."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.sent: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        response_started = False
        server_send = send

        async def sender(message: Any) -> None:
            nonlocal response_started

            if message["type"] == "http.response.start":
                response_started = True
            await send(message)

        async def count(message: Any) -> None:
            self.sent.append(message)
            await server_send(message)

        async def send_head(message: Any) -> None:
            nonlocal send
            send = count
            await server_send(message)

        send = send_head
        await self.app(scope, receive, sender)
        assert response_started


class Changing:
    """A middleware whose changing `send` looks like one of Starlette's."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sender(message: Any) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message["body"].upper()}
            await send(message)

        sender.__module__ = "starlette.elsewhere"
        await self.app(scope, receive, sender)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_other_middleware_sees_everything(backend: str) -> None:
    app = app_of(items)
    counting = Counting(app)
    plain = fetch(app, backend=backend)
    reply = fetch(counting, backend=backend)
    assert reply == plain
    assert b"".join(part["body"] for part in counting.sent) == plain.body


async def words() -> AsyncIterator[str]:
    yield "a"
    await anyio.sleep(MS)
    yield "b"


def test_a_wrapper_that_changes_the_body_is_not_passed_by() -> None:
    assert b"DATA:" in fetch(Changing(app_of(words))).body
    app = app_of(words)
    app.add_middleware(Changing)  # It is between those of Starlette.
    assert b"DATA:" in fetch(app).body


@pytest.mark.parametrize(
    "middleware",
    [
        Middleware(GZipMiddleware, minimum_size=1),
        Middleware(BaseHTTPMiddleware, dispatch=lambda request, go_on: go_on(request)),
    ],
    ids=["gzip", "base"],
)
def test_behind_starlettes_middlewares(middleware: Middleware) -> None:
    app = app_of(items)
    app.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)

    async def main() -> Reply:
        return await call(app, headers=[(b"accept-encoding", b"identity")])

    reply = anyio.run(main)
    assert reply.complete
    assert numbers(reply.body) == [0, 1, 2]


def test_a_handler_of_exceptions_still_sees_that_the_response_has_begun() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(MS)
        raise LookupError("in mid-stream")

    async def handle(request: Any, error: Exception) -> Response:
        return Response(status_code=418)

    app = app_of(failing)
    app.add_exception_handler(LookupError, handle)
    reply = fetch(app)
    assert not reply.complete
    assert isinstance(reply.error, RuntimeError)
    assert "response already started" in str(reply.error)
    assert isinstance(reply.error.__cause__, LookupError)
