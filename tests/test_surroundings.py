"""What is around a stream: middleware, mounts, test clients, loops, logs, reloads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import inspect
import logging
import signal
import socket
import statistics
import struct
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import sniffio
import trio
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    HTTPException,
    Response,
    WebSocket,
)
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

import fastapi_sse_fast
from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    ServerSentEvent,
    _shutdown,
    shutdown,
)

from .support import releases, server
from .support.asgi import fetch, scope, send_for_ever
from .support.server import TIMEOUT, Client, get, serve, serve_process, wait_until
from .test_fastapi import MODULES, app_of
from .test_lifecycle import MS, Summaries, endless

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer releases prefer another client to httpx
    import starlette.testclient
    from starlette.testclient import TestClient

KINDS = ["async", "sync"]
BROKEN_OFF = (httpx.RemoteProtocolError, httpx.ReadError)


@contextlib.contextmanager
def opened(port: int, path: str = "/", **headers: str) -> Iterator[httpx.Response]:
    """A response with its body still on the way, asked for as a page does."""
    headers = {"Accept-Encoding": "gzip", "Origin": "http://page", **headers}
    url = f"http://127.0.0.1:{port}{path}"
    with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
        yield response


# Middleware


class Pure:
    """Middleware that changes messages on their way."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-pure", b"1"))
            await send(message)

        await self.app(scope, receive, send_marked)


class OwnResponse(BaseHTTPMiddleware):
    """Middleware whose response stands around that of the application."""

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
    """What has its own response around ours ends that, as it does for any stream."""
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


# Applications within applications


def noted(name: str, log: list[str]) -> Any:
    """A dependency that says when it is closed."""

    async def dependency() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append(name)

    return Depends(dependency)


def nested(layout: str, log: list[str]) -> Any:
    """An application with streams at /sub, somewhere inside."""
    router = APIRouter(dependencies=[noted("router", log)])
    response_class = EventSourceResponse.with_options(
        on_close=lambda summary: log.append(summary.reason),
        farewell=ServerSentEvent(event="bye"),
    )
    options: Any = {
        "response_class": response_class,
        "dependencies": [noted("route", log)],
    }
    parameter = noted("parameter", log)

    @router.get("/async", **options)
    async def items(n: int, _: Any = parameter) -> AsyncIterator[int]:
        try:
            for number in range(n):
                yield number
                await anyio.sleep(MS)
        finally:
            log.append("generator")

    @router.get("/sync", **options)
    def sync_items(n: int, _: Any = parameter) -> Iterator[int]:
        try:
            for number in range(n):
                yield number
                time.sleep(MS)
        finally:
            log.append("generator")

    app = FastAPI(dependencies=[noted("application", log)])
    if layout == "included":
        app.include_router(router, prefix="/sub")
        return app
    app.include_router(router)
    if layout == "in Starlette":
        return Starlette(routes=[Mount("/sub", app)])
    outer = FastAPI(dependencies=[noted("never", log)])
    outer.mount("/sub", app)
    return outer


@pytest.mark.parametrize(
    ("path", "closed"),
    [
        ("/", ["finished", "dependency"]),
        ("/stream", ["dependency", "finished"]),
        ("/known", ["dependency", "finished"]),
        ("/unknown", ["dependency", "finished"]),
        ("/streamed", ["dependency", "finished"]),
        ("/middleware", ["dependency", "finished"]),
        ("/missing", ["finished"]),
    ],
)
def test_on_close_is_called_whoever_returns_the_response(
    path: str, closed: list[str], anyio_backend: str
) -> None:
    log: list[str] = []

    async def answer(*_: object) -> EventSourceResponse:
        return EventSourceResponse(
            [1], on_close=lambda summary: log.append(summary.reason)
        )

    app = FastAPI(
        exception_handlers={404: answer, KeyError: answer, Exception: answer},
        dependencies=[noted("dependency", log)],
    )

    @app.get("/")
    async def returned() -> Response:
        return await answer()

    @app.get("/stream", response_class=EventSourceResponse)
    async def stream() -> Response:
        return await answer()

    @app.get("/known")
    async def known() -> None:
        raise KeyError

    @app.get("/unknown")
    async def unknown() -> None:
        raise RuntimeError

    @app.get("/streamed", response_class=EventSourceResponse)
    async def streamed() -> AsyncIterator[int]:
        raise RuntimeError
        yield 1

    @app.get("/middleware")
    async def fails() -> None:
        raise LookupError

    class Answering:
        """Middleware that answers when FastAPI's stack is unwound."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            failed = True
            with contextlib.suppress(LookupError):
                await self.app(scope, receive, send)
                failed = False
            if failed:
                await (await answer())(scope, receive, send)

    app.add_middleware(Answering)
    assert fetch(app, path, anyio_backend).body == b"data: 1\n\n"
    assert log == closed


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
    gc.disable()  # which would close it too, some time
    try:
        reply = fetch(app, backend=anyio_backend)
    finally:
        gc.enable()
    assert reply.complete
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["in FastAPI", "in Starlette", "included"])
def test_streams_of_nested_applications(layout: str, kind: str) -> None:
    log: list[str] = []
    order = ["generator", "parameter", "route", "router", "application"]
    with serve(nested(layout, log)) as port:
        assert get(port, f"/sub/{kind}?n=2") == b"data: 0\n\ndata: 1\n\n"
        wait_until(lambda: len(log) == 6)
        assert log == [*order, "finished"]

        log.clear()
        with Client(port, f"/sub/{kind}?n=1000000") as client:
            client.read_until(b"data: 1\n\n")
        wait_until(lambda: len(log) == 6)
        assert log == [*order, "disconnected"]

        log.clear()
        with Client(port, f"/sub/{kind}?n=1000000") as client:
            client.read_until(b"data: 1\n\n")
            shutdown()
            assert client.read_to_end().endswith(b"event: bye\n\n")
        wait_until(lambda: len(log) == 6)
        assert log == [*order, "shutdown"]


# Clients that call the application in the same process


def streams(module: ModuleType) -> FastAPI:
    """Streams that end well and badly."""
    app = FastAPI()
    stream = functools.partial(app.get, response_class=module.EventSourceResponse)

    async def failing() -> AsyncIterator[None]:
        yield
        raise LookupError("in a dependency's exit")

    @stream("/whole")
    @stream("/failing-dependency", dependencies=[Depends(failing)])
    async def whole() -> AsyncIterator[Item]:
        for n in range(100):
            yield Item(n=n)
            if n % 10 == 0:
                await anyio.lowlevel.checkpoint()

    @stream("/sync")
    def sync() -> Iterator[Item]:
        for n in range(100):
            yield Item(n=n)

    @stream("/failing-task")
    def failing_task(tasks: BackgroundTasks) -> Iterator[Item]:
        tasks.add_task(int, "not a number")
        yield Item(n=1)

    @stream("/early")
    async def early() -> AsyncIterator[Item]:
        raise LookupError("before the first event")
        yield Item(n=1)

    @stream("/broken")
    async def broken() -> AsyncIterator[Item]:
        yield Item(n=1)
        raise LookupError("mid-stream")

    @stream("/sync-broken")
    def sync_broken() -> Iterator[Item]:
        yield Item(n=1)
        raise LookupError("mid-stream")

    @stream("/invalid")
    async def invalid() -> AsyncIterator[Item]:
        yield Item(n=1)
        yield INVALID

    return app


class Item(BaseModel):
    n: int


INVALID: Any = {"m": 1}
ENDS_WELL = ["/whole", "/sync"]
FAILS = {
    "/failing-dependency": LookupError,
    "/failing-task": ValueError,
    "/early": LookupError,
    "/broken": LookupError,
    "/sync-broken": LookupError,
    "/invalid": ResponseValidationError,
}


def get_by_test_client(app: Any, path: str, backend: Any) -> Any:
    return TestClient(app, backend=backend).get(path)


def get_by_transport(app: Any, path: str, backend: str) -> Any:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test"
        ) as client:
            return await client.get(path)

    return anyio.run(main, backend=backend)


@pytest.fixture(params=[get_by_test_client, get_by_transport])
def get_in_process(request: pytest.FixtureRequest) -> Any:
    return request.param


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Not a thread, an open stream, or a signal handler."""

    def handler(number: int, frame: object) -> None:
        raise AssertionError

    threads = set(threading.enumerate())
    original = signal.signal(signal.SIGTERM, handler)
    try:
        yield
        gc.collect()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, original)
    assert not _shutdown._open
    # The workers of a loop end a moment after it; trio keeps idle ones for 10 s.
    wait_until(
        lambda: all(
            thread in threads or thread.name.startswith("Trio thread")
            for thread in threading.enumerate()
        )
    )


def living_tasks() -> int:
    """How many tasks the loop has, that of the caller included."""
    if sniffio.current_async_library() == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


def test_bodies_in_process_are_fastapis(
    get_in_process: Any, anyio_backend: str
) -> None:
    for path in ENDS_WELL:
        theirs, ours = (
            get_in_process(streams(module), path, anyio_backend) for module in MODULES
        )
        assert ours.content == theirs.content
        assert ours.headers == theirs.headers
        assert ours.content.count(b"\n\n") == 100


def the_one_in(error: Any) -> Any:
    while hasattr(error, "exceptions"):  # of the task group in FastAPI
        (error,) = error.exceptions
    return error


@pytest.mark.parametrize("path", FAILS)
def test_errors_in_process_are_fastapis(
    get_in_process: Any, anyio_backend: str, path: str
) -> None:
    errors: list[Any] = []
    for module in MODULES:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            get_in_process(streams(module), path, anyio_backend)
        errors.append(the_one_in(caught.value))
    theirs, ours = errors
    if not releases.ERRORS_IN_TEST_CLIENTS_ARE_THE_GENERATORS:
        theirs = ours
    assert [type(theirs), type(ours)] == [FAILS[path]] * 2
    if path == "/invalid":  # FastAPI may name another endpoint that is gone by now
        assert ours.errors() == theirs.errors()
    else:
        assert ours.args == theirs.args


def test_nothing_is_left_of_loops_one_after_another(
    get_in_process: Any, anyio_backend: str
) -> None:
    app = streams(fastapi_sse_fast)
    with nothing_left_behind():
        for path in [*ENDS_WELL, *FAILS] * 3:
            with contextlib.suppress(LookupError, ValueError, ResponseValidationError):
                get_in_process(app, path, anyio_backend)


def test_nothing_is_left_of_loops_in_many_threads(
    get_in_process: Any, anyio_backend: str
) -> None:
    app = streams(fastapi_sse_fast)
    get_one = functools.partial(get_in_process, app, backend=anyio_backend)
    with nothing_left_behind():
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(get_one, ENDS_WELL * 10))
    assert {reply.content.count(b"\n\n") for reply in replies} == {100}


def test_no_task_is_left_in_the_loop_of_a_test_client(anyio_backend: Any) -> None:
    with (
        nothing_left_behind(),
        TestClient(streams(fastapi_sse_fast), backend=anyio_backend) as client,
    ):
        assert client.portal is not None
        call_in_loop = client.portal.call
        tasks = call_in_loop(living_tasks)
        for path in ENDS_WELL * 20:
            with client.stream("GET", path) as response:
                assert response.read().count(b"\n\n") == 100
        for path, error in FAILS.items():
            with pytest.raises(error):
                client.get(path)
        wait_until(lambda: call_in_loop(living_tasks) == tasks)


def test_no_task_is_left_after_requests_at_once_in_one_loop(anyio_backend: str) -> None:
    bodies = []

    async def get_one(client: httpx.AsyncClient, path: str) -> None:
        bodies.append((await client.get(path)).content)

    async def main() -> None:
        transport = httpx.ASGITransport(streams(fastapi_sse_fast))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test"
        ) as client:
            tasks = living_tasks()
            async with anyio.create_task_group() as group:
                for path in ENDS_WELL * 20:
                    group.start_soon(get_one, client, path)
            assert living_tasks() == tasks

    with nothing_left_behind():
        anyio.run(main, backend=anyio_backend)
    assert {body.count(b"\n\n") for body in bodies} == {100}
    assert len(bodies) == 40


def test_leaving_a_stream_of_a_test_client_closes_its_generator(
    anyio_backend: Any,
) -> None:
    if not hasattr(starlette.testclient, "_TestClientResponseStream"):
        pytest.skip("this Starlette collects the body before it returns a response")
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            closed.append(True)

    client = TestClient(app_of(fastapi_sse_fast, items), backend=anyio_backend)
    with nothing_left_behind(), client.stream("GET", "/") as response:
        assert next(response.iter_text()) == "data: 1\n\n"
    assert closed == [True]


# Several servers in one process


LOOPS = ["asyncio", "uvloop", "asyncio", "uvloop"]


@contextlib.contextmanager
def serve_all(app: Any) -> Iterator[list[int]]:
    with contextlib.ExitStack() as servers:
        yield [servers.enter_context(serve(app, loop=loop)) for loop in LOOPS]


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


def test_shutdown_ends_the_streams_of_all_servers_from_any_thread() -> None:
    summaries = Summaries()
    app = FastAPI()
    stream = functools.partial(
        app.get, response_class=EventSourceResponse.with_options(on_close=summaries)
    )
    stream("/async")(endless)

    @stream("/sync")
    def sync_endless() -> Iterator[int]:
        while True:
            yield 1
            time.sleep(MS)

    with serve_all(app) as ports, contextlib.ExitStack() as clients:
        streams = [
            clients.enter_context(Client(port, f"/{kind}"))
            for port in ports
            for kind in KINDS
        ]
        for client in streams:
            client.read_until(b"data: 1\n\n")
        thread = threading.Thread(target=shutdown)
        thread.start()
        thread.join()
        with serve(app) as later_port, Client(later_port, "/async") as later:
            for client in streams:
                client.read_to_end()
            wait_until(lambda: len(summaries) == len(streams))
            assert set(summaries.reasons) == {"shutdown"}
            length = len(later.read_until(b"data: 1\n\n"))
            while len(later.body) < length + 500:
                assert later.read_chunk()


# Requests of other kinds


def test_head_and_options_are_answered_as_fastapi_does() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    def replies(module: ModuleType) -> list[Any]:
        app = FastAPI()
        stream = functools.partial(
            app.api_route, response_class=module.EventSourceResponse
        )
        stream("/get", methods=["GET"])(items)
        stream("/all", methods=["GET", "HEAD", "OPTIONS"])(items)
        with serve(app, date_header=False) as port:
            return [
                httpx.request(method, f"http://127.0.0.1:{port}{path}")
                for path in ("/get", "/all")
                for method in ("HEAD", "OPTIONS")
            ]

    theirs, ours = (
        [
            (reply.status_code, reply.headers.raw, reply.content)
            for reply in replies(module)
        ]
        for module in MODULES
    )
    assert ours == theirs
    assert [status for status, _, _ in ours] == [405, 405, 200, 200]


@pytest.mark.parametrize("kind", KINDS)
def test_what_dependencies_set_is_in_the_response_once(kind: str) -> None:
    def set_headers(response: Response) -> None:
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "yes"
        response.headers["Content-Type"] = "text/event-stream"
        response.set_cookie("a", "1")

    def set_status(response: Response) -> None:
        response.status_code = 203
        response.set_cookie("b", "2")

    async def items() -> AsyncIterator[int]:
        yield 1

    def sync_items() -> Iterator[int]:
        yield 1

    theirs, ours = (
        fetch(
            app_of(
                module,
                items if kind == "async" else sync_items,
                dependencies=[Depends(set_headers), Depends(set_status)],
            )
        )
        for module in MODULES
    )
    assert ours.status == 203
    assert sorted(ours.headers) == [
        (b"cache-control", b"no-store"),
        (b"content-type", b"text/event-stream"),
        (b"set-cookie", b"a=1; Path=/; SameSite=lax"),
        (b"set-cookie", b"b=2; Path=/; SameSite=lax"),
        (b"x-accel-buffering", b"yes"),
    ]
    assert set(ours.headers) < set(theirs.headers)  # theirs has the defaults too


def websockets() -> FastAPI:
    app = FastAPI()

    async def reasons() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(event="denied", data="no token")

    @app.websocket("/denied")
    async def denied(websocket: WebSocket) -> None:
        await websocket.send_denial_response(
            EventSourceResponse(reasons(), status_code=403)
        )

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    @app.get("/", response_class=EventSourceResponse)
    async def items() -> AsyncIterator[int]:
        yield 1

    return app


def test_websockets_beside_streams(anyio_backend: Any) -> None:
    client = TestClient(websockets(), backend=anyio_backend)
    assert client.get("/").text == "data: 1\n\n"
    with client.websocket_connect("/echo") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"
    with pytest.raises(starlette.testclient.WebSocketDenialResponse) as denial:
        client.websocket_connect("/denied").__enter__()
    assert denial.value.status_code == 403
    assert denial.value.text == 'event: denied\ndata: "no token"\n\n'


def test_a_denied_websocket_has_a_stream_as_its_body_on_a_real_socket() -> None:
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    with serve(websockets(), ws="wsproto") as port:
        with opened(port, "/denied", **handshake) as response:
            assert response.status_code == 403
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.read() == b'event: denied\ndata: "no token"\n\n'


# What is logged


LOG_CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"uvicorn": {"propagate": True}},
}


def logged(
    app: Any, paths: list[str], caplog: pytest.LogCaptureFixture
) -> list[tuple[str, Any]]:
    """Which loggers complain of requests to uvicorn, and about which errors.

    The client leaves streams of paths that say so.
    """
    with serve(app, log_level="info", log_config=LOG_CONFIG) as port:
        for path in paths:
            with contextlib.suppress(*BROKEN_OFF), opened(port, path) as response:
                for _ in response.iter_text():
                    if path == "/left":
                        break
    gc.collect()
    return [
        (record.name, record.exc_info and record.exc_info[0])
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize("path", FAILS)
def test_a_failure_is_logged_once_by_the_server(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    records = logged(streams(fastapi_sse_fast), [path], caplog)
    assert records == [("uvicorn.error", FAILS[path])]


def test_an_http_exception_in_mid_stream_is_logged_with_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise HTTPException(403)

    app = app_of(fastapi_sse_fast, items)
    assert logged(app, ["/"], caplog) == [("uvicorn.error", RuntimeError)]
    assert "HTTPException: 403" in caplog.text


def test_an_error_after_a_disconnect_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            raise LookupError("in finally")

    app = FastAPI()
    app.get("/left", response_class=EventSourceResponse)(items)
    assert logged(app, ["/left"], caplog) == [("uvicorn.error", LookupError)]


def test_what_is_no_failure_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def forbidden() -> AsyncIterator[int]:
        raise HTTPException(403)
        yield 1

    app = streams(fastapi_sse_fast)
    limited = EventSourceResponse.with_options(max_duration=10 * MS)
    app.get("/forbidden", response_class=EventSourceResponse)(forbidden)
    app.get("/limited", response_class=limited)(endless)
    app.get("/left", response_class=EventSourceResponse)(endless)
    paths = [*ENDS_WELL, "/forbidden", "/limited", "/left"]
    assert logged(app, paths, caplog) == []


# How soon a disconnect is noticed


class Closings:
    """Generators that note when they are closed."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.produced = 0

    async def idle(self) -> AsyncIterator[EncodedEvent]:
        try:
            self.produced += 1
            yield FRAME
            await anyio.sleep(3600)
        finally:
            self.times.append(time.perf_counter())

    async def busy(self) -> AsyncIterator[EncodedEvent]:
        try:
            while True:
                self.produced += 1
                yield FRAME
        finally:
            self.times.append(time.perf_counter())

    def sync_busy(self) -> Iterator[EncodedEvent]:
        try:
            while True:
                self.produced += 1
                yield FRAME
        finally:
            self.times.append(time.perf_counter())


FRAME = EncodedEvent(raw_data="x" * 1000)
SOON = 100 * MS
"""Bound of a median, so that a pause of the machine does not count."""


async def send_nowhere(message: object) -> None:
    """The `send` to a client that takes everything."""


@pytest.mark.parametrize("spec_version", ["2.0", "2.3", "2.4", None])
@pytest.mark.parametrize("send", [send_nowhere, send_for_ever])
def test_a_disconnect_is_noticed_soon_whatever_the_server_announces(
    send: Any, spec_version: str | None, anyio_backend: str
) -> None:
    announced = {} if spec_version is None else {"spec_version": spec_version}
    asgi = {"version": "3.0", **announced}
    closings = Closings()

    async def seconds_to_close(app: FastAPI) -> float:
        leave = anyio.Event()

        async def receive() -> dict[str, str]:
            await leave.wait()
            return {"type": "http.disconnect"}

        closings.produced = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, scope(asgi=asgi), receive, send)
            while not closings.produced:
                await anyio.sleep(MS)
            await anyio.sleep(2 * MS)
            assert not closings.times
            left = time.perf_counter()
            leave.set()
        return closings.times.pop() - left

    async def main() -> None:
        for endpoint in (closings.idle, closings.busy, closings.sync_busy):
            app = app_of(fastapi_sse_fast, endpoint)
            times = [await seconds_to_close(app) for _ in range(5)]
            assert statistics.median(times) < SOON

    anyio.run(main, backend=anyio_backend)


def leave_with_reset(client: Client) -> None:
    linger = struct.pack("ii", 1, 0)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.socket.close()


def leave_politely(client: Client) -> None:
    client.socket.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError):
        while client.socket.recv(1 << 16):
            pass


@pytest.mark.parametrize("leave", [leave_with_reset, leave_politely])
def test_a_disconnect_is_noticed_soon_on_a_real_socket(leave: Any) -> None:
    closings = Closings()
    for endpoint in (closings.idle, closings.busy, closings.sync_busy):
        times = []
        with serve(app_of(fastapi_sse_fast, endpoint)) as port:
            for _ in range(20):
                with Client(port, buffer_size=4096) as client:
                    client.read_until(b"x")
                    left = time.perf_counter()
                    leave(client)
                    wait_until(lambda: closings.times)
                times.append(closings.times.pop() - left)
        assert statistics.median(times) < SOON


def wait_until_frozen(closings: Closings) -> None:
    counts = [-1]

    def settled() -> bool:
        counts.append(closings.produced)
        time.sleep(10 * MS)
        return counts[-1] == counts[-2]

    wait_until(settled)


def test_a_frozen_client_that_leaves_is_noticed_soon() -> None:
    closings = Closings()
    for endpoint in (closings.busy, closings.sync_busy):
        times = []
        with serve(app_of(fastapi_sse_fast, endpoint)) as port:
            for _ in range(20):
                with Client(port, buffer_size=4096) as client:
                    client.read_until(b"x")
                    wait_until_frozen(closings)
                    left = time.perf_counter()
                # What it has not read makes the close of its socket a reset.
                wait_until(lambda: closings.times)
                times.append(closings.times.pop() - left)
        assert statistics.median(times) < SOON


def test_a_frozen_client_that_half_closes_is_dropped_by_send_timeout() -> None:
    """uvicorn tells of a FIN once all that it has for the client is sent: never."""
    closings, summaries = Closings(), Summaries()
    response_class = EventSourceResponse.with_options(
        send_timeout=100 * MS, on_close=summaries
    )
    app = app_of(fastapi_sse_fast, closings.busy, response_class=response_class)
    with serve(app) as port, Client(port, buffer_size=4096) as client:
        client.read_until(b"x")
        wait_until_frozen(closings)
        client.socket.shutdown(socket.SHUT_WR)
        wait_until(lambda: summaries)
    assert summaries.reasons == ["send_timeout"]
    assert len(closings.times) == 1


# Reloading


def test_a_changed_file_restarts_the_server_beside_an_open_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "reloaded.py"
    module.write_text("from tests.support.streams import app\n")
    command = "uvicorn {app} --fd {fd} --app-dir %s --reload --reload-dir %s"
    monkeypatch.setitem(server.COMMANDS, "reload", command % (tmp_path, tmp_path))
    with serve_process("reload", "reloaded:app", "/numbers?n=1") as process:
        with Client(process.port, "/idle") as client:
            client.read_until(b"data: 1\n\n")
            del process.said[:]
            module.write_text("from tests.support.streams import app  # changed\n")
            body = client.read_to_end()
        assert body.endswith(b"event: bye\nretry: 3000\n\n")
        wait_until(lambda: len(process.said) == 3)
        assert process.said == ["generator", "dependency", "closed shutdown"]
        assert get(process.port, "/numbers?n=2") == b"data: 0\n\ndata: 1\n\n"
