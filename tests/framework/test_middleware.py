"""Streams through middleware."""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

import fastapi_sse_fast
from fastapi_sse_fast import EncodedEvent, EventSourceResponse

from ..support.apps import KINDS, MS, Summaries, app_of
from ..support.asgi import fetch
from ..support.comparison import MODULES
from ..support.server import BROKEN_OFF, TIMEOUT, Client, opened, serve, wait_until


class Pure:
    """Middleware that changes ASGI messages."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-pure", b"1"))
            await send(message)

        await self.app(scope, receive, send_marked)


class OwnResponse(BaseHTTPMiddleware):
    """Middleware that wraps the response of the application in its own."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-own"] = "1"
        return response


CORS = Middleware(CORSMiddleware, allow_origins=["http://page"])
GZIP = Middleware(GZipMiddleware, minimum_size=0)
GZIP_ALL = Middleware(GZipMiddleware, minimum_size=0, exclude_content_types=())
GZIP_CAN_COMPRESS_EVENTS = (
    "exclude_content_types" in inspect.signature(GZipMiddleware).parameters
)
STACKS = {
    "cors": [CORS],
    "gzip": [GZIP],
    "gzip of events": [GZIP_ALL],
    "pure": [Middleware(Pure)],
    "own response": [Middleware(OwnResponse)],
    "many": [
        CORS,
        Middleware(OwnResponse),
        GZIP,
        Middleware(Pure),
        Middleware(OwnResponse),
    ],
}
HIDES_ABORTS = {"own response", "many"}


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> str:
    if request.param == "gzip of events" and not GZIP_CAN_COMPRESS_EVENTS:
        pytest.skip("this Starlette never compresses them")
    return str(request.param)


def test_events_arrive_one_by_one_through_middleware(stack: str) -> None:
    seen = threading.Semaphore(0)
    app = FastAPI(middleware=STACKS[stack])

    @app.get("/async", response_class=EventSourceResponse)
    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            while not seen.acquire(blocking=False):
                await anyio.sleep(MS)

    @app.get("/sync", response_class=EventSourceResponse)
    def sync_items() -> Iterator[int]:
        for number in range(3):
            yield number
            assert seen.acquire(timeout=TIMEOUT)

    with serve(app) as port:
        for kind in KINDS:
            with opened(port, f"/{kind}") as response:
                pieces = response.iter_text()
                body = ""
                for number in range(3):
                    while f"data: {number}\n\n" not in body:
                        body += next(pieces)
                    seen.release()
                assert body + "".join(pieces) == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
            compressed = response.headers.get("content-encoding") == "gzip"
            assert compressed == (stack == "gzip of events")
            classes: list[Any] = [middleware.cls for middleware in STACKS[stack]]
            assert ("access-control-allow-origin" in response.headers) == (
                CORSMiddleware in classes
            )
            assert ("x-pure" in response.headers) == (Pure in classes)
            assert ("x-own" in response.headers) == (OwnResponse in classes)


def test_an_error_in_mid_stream_through_middleware(stack: str) -> None:
    """A middleware with its own response completes it, as for any stream."""
    app = FastAPI(middleware=STACKS[stack])

    @app.get("/async", response_class=EventSourceResponse)
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(MS)
        raise LookupError("mid-stream")

    @app.get("/sync", response_class=EventSourceResponse)
    def sync_items() -> Iterator[int]:
        yield 1
        raise LookupError("mid-stream")

    with serve(app) as port:
        for kind in KINDS:
            body = ""
            end: Any = contextlib.nullcontext()
            if stack not in HIDES_ABORTS:
                end = pytest.raises(BROKEN_OFF)
            with end, opened(port, f"/{kind}") as response:
                for piece in response.iter_text():
                    body += piece
            assert body == "data: 1\n\n"


def test_a_client_that_leaves_is_noticed_through_middleware(stack: str) -> None:
    log: list[str] = []

    async def resource() -> AsyncIterator[None]:
        yield
        log.append("dependency")

    app = FastAPI(middleware=STACKS[stack], dependencies=[Depends(resource)])

    @app.get("/async", response_class=EventSourceResponse)
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            log.append("generator")

    @app.get("/sync", response_class=EventSourceResponse)
    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(MS)
        finally:
            log.append("generator")

    with serve(app) as port:
        for kind in KINDS:
            with opened(port, f"/{kind}") as response:
                assert next(response.iter_text())
            wait_until(lambda: len(log) == 2)
            assert log == ["generator", "dependency"]
            log.clear()


def test_a_frozen_client_keeps_no_generator_behind_a_response_of_middleware() -> None:
    summaries = Summaries()
    response_class = EventSourceResponse.with_options(
        send_timeout=50 * MS, on_close=summaries
    )
    app = FastAPI(middleware=STACKS["own response"])

    @app.get("/", response_class=response_class)
    async def items() -> AsyncIterator[EncodedEvent]:
        frame = EncodedEvent(raw_data="x" * 1000)
        while True:
            yield frame

    with serve(app) as port, Client(port, buffer_size=4096) as client:
        client.read_until(b"x")
        wait_until(lambda: summaries)
    assert summaries.reasons == ["send_timeout"]


def test_a_preflight_request_is_answered_by_middleware() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    headers = [(b"origin", b"http://page"), (b"access-control-request-method", b"GET")]
    app = FastAPI(middleware=[CORS])
    app.get("/", response_class=EventSourceResponse)(items)
    reply = fetch(app, method="OPTIONS", headers=headers)
    assert (reply.status, reply.body) == (200, b"OK")
    assert (b"access-control-allow-origin", b"http://page") in reply.headers


def test_a_body_middleware_hides_an_abort_as_it_always_does() -> None:
    """Starlette's `BaseHTTPMiddleware` completes its own response."""

    async def items() -> AsyncIterable[int]:
        yield 1
        raise LookupError

    for module in MODULES:
        app = app_of(items, module=module)

        @app.middleware("http")
        async def pass_on(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        reply = fetch(app)
        assert reply.complete
        if module is fastapi_sse_fast:  # Some releases of AnyIO lose FastAPI's.
            assert isinstance(reply.error, LookupError)
