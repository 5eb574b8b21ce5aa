"""Streams over real sockets, and the driver called as a server calls it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import Depends, FastAPI, HTTPException, Response
from pydantic import BaseModel, field_validator
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.routing import Route

from fastapi_sse_fast import EncodedEvent, EventSourceResponse, ServerSentEvent
from fastapi_sse_fast._wakeup import AsyncioAlarm, AsyncioSleep

from .support.asgi import Reply, call, fetch, receive_nothing, scope, send_for_ever
from .support.eventsource import parse
from .support.server import Client, get, serve, serve_process, wait_until

MS = 0.001
BURST = 100_000

SERVERS: list[dict[str, Any]] = [
    {"http": "httptools", "loop": "asyncio"},
    {"http": "httptools", "loop": "uvloop"},
    {"http": "h11", "loop": "asyncio"},
]


def app_of(endpoint: Callable[..., Any], **options: Any) -> FastAPI:
    app = FastAPI()
    options.setdefault("response_class", EventSourceResponse)
    app.get("/", **options)(endpoint)
    return app


def pings_every(seconds: float | None) -> type[EventSourceResponse]:
    return EventSourceResponse.with_options(ping_interval=seconds)


def numbers(body: bytes) -> list[int]:
    return [int(event.data) for event in parse(body).events]


# Over real sockets


@pytest.mark.parametrize("config", SERVERS, ids=lambda c: f"{c['http']}-{c['loop']}")
def test_a_burst_arrives_complete_and_in_order(config: dict[str, Any]) -> None:
    app = FastAPI()

    @app.get("/async", response_class=EventSourceResponse)
    async def burst() -> AsyncIterator[int]:
        for number in range(BURST):
            yield number

    @app.get("/sync", response_class=EventSourceResponse)
    def sync_burst() -> Iterator[int]:
        yield from range(BURST)

    expected = b"".join(b"data: %d\n\n" % number for number in range(BURST))
    with serve(app, **config) as port:
        assert get(port, "/async") == expected
        assert get(port, "/sync") == expected


def test_500_concurrent_streams_are_complete_and_unmixed() -> None:
    app = FastAPI()
    streams, events = 500, 20

    @app.get("/{stream}", response_class=EventSourceResponse)
    async def items(stream: int) -> AsyncIterator[list[int]]:
        for number in range(events):
            yield [stream, number]
            if number % 5 == stream % 5:
                await asyncio.sleep(MS * (stream % 7))

    async def read(port: int, stream: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET /{stream} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        response = await reader.read()
        writer.close()
        return response

    async def read_all(port: int) -> list[bytes]:
        return await asyncio.gather(*(read(port, n) for n in range(streams)))

    with serve(app, loop="uvloop", backlog=2048) as port:
        responses = asyncio.run(read_all(port))
    for stream, response in enumerate(responses):
        body = dechunked(response.split(b"\r\n\r\n", 1)[1])
        assert body == b"".join(
            b"data: [%d,%d]\n\n" % (stream, number) for number in range(events)
        )


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.0004, 0.0006, 0.002])
def test_a_sleep_can_end_just_before_its_deadline(seconds: float) -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    sleep = AsyncioSleep(loop)
    alarm = AsyncioAlarm(loop, sleep.wake)

    async def woken_early() -> None:
        for _ in range(3):
            loop.call_soon(sleep.wake)
            alarm.set(loop.time() + seconds)
            await sleep.woken()
        alarm.set(loop.time() + seconds)
        await sleep.woken()  # at the deadline
        alarm.close()

    try:
        loop.run_until_complete(asyncio.wait_for(woken_early(), 20))
    finally:
        loop.close()


def dechunked(raw: bytes) -> bytes:
    body = b""
    while True:
        size_line, raw = raw.split(b"\r\n", 1)
        size = int(size_line, 16)
        if size == 0:
            return body
        body, raw = body + raw[:size], raw[size + 2 :]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_an_event_is_not_held_back_for_later_ones(kind: str) -> None:
    go_on = threading.Event()

    async def items() -> AsyncIterator[str]:
        for name in ("first", "second", "third"):
            yield name
            while not go_on.is_set():
                await asyncio.sleep(MS)
            go_on.clear()

    def sync_items() -> Iterator[str]:
        for name in ("first", "second", "third"):
            yield name
            go_on.wait()
            go_on.clear()

    with serve(app_of(items if kind == "async" else sync_items)) as port:
        with Client(port) as client:
            for name in ("first", "second", "third"):
                client.read_until(f'data: "{name}"\n\n'.encode())
                go_on.set()
            assert client.read_chunk() == b""


def test_an_event_before_blocking_work_is_not_held_back() -> None:
    """An async generator that blocks the loop: bad manners, but common with models."""
    times = []

    async def items() -> AsyncIterator[int]:
        for number in range(6):
            times.append(time.perf_counter())
            yield number
            time.sleep(30 * MS)  # noqa: ASYNC251

    with serve(app_of(items)) as port, Client(port) as client:
        for number in range(6):
            client.read_until(b"data: %d\n\n" % number)
            assert len(times) <= number + 1 or (
                time.perf_counter() - times[number] < 25 * MS
            )
        assert client.read_chunk() == b""


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_ping_comes_in_a_pause_and_never_inside_an_event(kind: str) -> None:
    quiet = threading.Event()
    big = "x\n" * 50_000

    async def items() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(raw_data=big)
        while not quiet.is_set():
            await asyncio.sleep(MS)
        yield ServerSentEvent(raw_data=big)

    def sync_items() -> Iterator[ServerSentEvent]:
        yield ServerSentEvent(raw_data=big)
        quiet.wait()
        yield ServerSentEvent(raw_data=big)

    app = app_of(
        items if kind == "async" else sync_items, response_class=pings_every(20 * MS)
    )
    with serve(app) as port, Client(port) as client:
        while client.body.count(b": ping\n\n") < 3:
            assert client.read_chunk()
        quiet.set()
        body = client.read_to_end()
    frame = bytes(EncodedEvent(raw_data=big))
    pings = body.removeprefix(frame).removesuffix(frame)
    assert len(body) == 2 * len(frame) + len(pings)
    assert pings == b": ping\n\n" * (len(pings) // 8)


def test_events_put_pings_off() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(20):
            yield number
            await asyncio.sleep(10 * MS)

    app = app_of(items, response_class=pings_every(150 * MS))
    with serve(app) as port:
        assert b": ping" not in get(port)


def test_no_pings_when_switched_off() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(100 * MS)

    app = app_of(items, response_class=pings_every(None))
    with serve(app) as port:
        assert get(port) == b"data: 1\n\n"


@pytest.mark.parametrize("name", ["uvicorn-h11", "uvicorn-uvloop", "granian"])
@pytest.mark.parametrize("path", ["/busy", "/sync-busy"])
def test_the_loop_stays_responsive_beside_a_generator_that_never_awaits(
    name: str, path: str
) -> None:
    done = threading.Event()

    def read(client: Client) -> None:
        while not done.is_set():
            client.socket.recv(1 << 16)

    with (
        serve_process(name, "tests.support.streams:app", "/numbers?n=1") as server,
        Client(server.port, path) as client,
    ):
        reader = threading.Thread(target=read, args=[client])
        reader.start()
        latencies = []
        for _ in range(20):
            started = time.perf_counter()
            with Client(server.port, "/numbers?n=1"):
                latencies.append(time.perf_counter() - started)
        done.set()
        reader.join()
    assert sorted(latencies)[10] < 50 * MS


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_client_that_does_not_read_stops_the_producer(kind: str) -> None:
    produced = 0
    frame = EncodedEvent(raw_data="x" * 1000)

    async def items() -> AsyncIterator[EncodedEvent]:
        nonlocal produced
        for _ in range(100_000):
            produced += 1
            yield frame

    def sync_items() -> Iterator[EncodedEvent]:
        nonlocal produced
        for _ in range(100_000):
            produced += 1
            yield frame

    with serve(app_of(items if kind == "async" else sync_items)) as port:
        with Client(port, buffer_size=4096) as client:
            client.read_until(b"x")
            counts = [-1]

            def settled() -> bool:
                counts.append(produced)
                time.sleep(20 * MS)
                return counts[-1] == counts[-2]

            wait_until(settled)
            assert produced * 1000 < 10_000_000  # what sockets and loop may hold
        # leaving lets the server stop, or `serve` fails


class Log:
    """What happened on the server, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("config", SERVERS, ids=lambda c: f"{c['http']}-{c['loop']}")
@pytest.mark.parametrize("pace", ["idle", "busy", "blocked"])
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_client_that_leaves_closes_the_generator_then_the_dependencies(
    config: dict[str, Any], pace: str, kind: str
) -> None:
    log = Log()
    gone = threading.Event()

    def pause() -> None:
        gone.wait(5)  # a thread cannot be interrupted, but it looks up after a while

    async def resource() -> AsyncIterator[None]:
        yield
        log("dependency")

    async def items() -> AsyncIterator[Any]:
        try:
            while True:
                yield EncodedEvent(raw_data="x" * 1000)
                if pace == "idle":
                    await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(MS)
            log("generator")

    def sync_items() -> Iterator[Any]:
        try:
            while True:
                yield EncodedEvent(raw_data="x" * 1000)
                if pace == "idle":
                    pause()
        finally:
            log("generator")

    app = app_of(
        items if kind == "async" else sync_items, dependencies=[Depends(resource)]
    )
    with serve(app, **config) as port:
        with Client(port, buffer_size=4096) as client:
            client.read_until(b"x")
            if pace == "blocked":
                time.sleep(50 * MS)
        gone.set()
        wait_until(lambda: len(log.lines) == 2)
    assert log.lines == ["generator", "dependency"]


def test_an_error_after_the_first_event_breaks_the_connection_off() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise LookupError("mid-stream")

    with serve(app_of(items)) as port, Client(port) as client:
        client.read_until(b"data: 1\n\ndata: 2\n\n")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_chunk()


def test_an_error_while_idle_breaks_the_connection_off() -> None:
    go_on = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        go_on.wait()
        raise LookupError("mid-stream")

    with serve(app_of(items)) as port, Client(port) as client:
        client.read_until(b"data: 1\n\n")
        go_on.set()
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_chunk()


@pytest.mark.parametrize("kind", ["async", "sync"])
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


# Called as a server calls it, on both backends


def run(app: Any, backend: str, **more: Any) -> Reply:
    return fetch(app, backend=backend, **more)


def test_streams_on_every_backend(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(1000):
            yield number
            if number % 100 == 0:
                await anyio.sleep(MS)

    def sync_items() -> Iterator[int]:
        yield from range(1000)

    for endpoint in (items, sync_items):
        reply = run(app_of(endpoint), anyio_backend)
        assert reply.error is None
        assert reply.complete
        assert numbers(reply.body) == list(range(1000))


def test_pings_on_every_backend(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(60 * MS)
        yield 2

    app = app_of(items, response_class=pings_every(10 * MS))
    body = run(app, anyio_backend).body
    assert body.startswith(b"data: 1\n\n: ping\n\n")
    assert numbers(body) == [1, 2]


def test_errors_on_every_backend(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError("mid-stream")

    def sync_items() -> Iterator[int]:
        yield 1
        raise LookupError("mid-stream")

    for endpoint in (items, sync_items):
        reply = run(app_of(endpoint), anyio_backend)
        assert isinstance(reply.error, LookupError)
        assert reply.body == b"data: 1\n\n"
        assert not reply.complete


def test_a_disconnect_closes_the_generator_on_every_backend(
    anyio_backend: str,
) -> None:
    log = Log()

    async def resource() -> AsyncIterator[None]:
        yield
        log("dependency")

    async def idle() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            log("generator")

    async def busy() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(MS)
            log("generator")

    def sync_busy() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            log("generator")

    for endpoint in (idle, busy, sync_busy):
        log.lines.clear()
        app = app_of(endpoint, dependencies=[Depends(resource)])
        reply = run(app, anyio_backend, disconnect_after=1)
        assert reply.error is None
        assert not reply.complete
        assert log.lines == ["generator", "dependency"]


@pytest.mark.parametrize("spec_version", ["2.0", "2.3", "2.4", "2.5"])
def test_a_disconnect_is_noticed_whatever_the_server_announces(
    spec_version: str,
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    asgi = {"version": "3.0", "spec_version": spec_version}
    fetch(app_of(items), disconnect_after=1, asgi=asgi)
    assert closed == [True]


def test_a_send_that_fails_ends_the_stream(anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(MS)
        finally:
            closed.append(True)

    async def main() -> None:
        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                raise OSError("the socket is gone")

        response = EventSourceResponse(items())
        with anyio.fail_after(5):
            await response({"type": "http"}, receive_nothing, send)  # type: ignore[arg-type]

    anyio.run(main, backend=anyio_backend)
    assert closed == [True]


def test_cancelling_the_request_closes_the_generator(anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            closed.append(True)

    async def main() -> None:
        with anyio.move_on_after(50 * MS) as scope:
            await call(app_of(items))
        assert scope.cancelled_caught
        assert closed == [True]

    anyio.run(main, backend=anyio_backend)


def test_cancelling_the_task_natively_closes_the_generator() -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(MS)
            closed.append(True)

    async def main() -> None:
        task = asyncio.create_task(call(app_of(items)))
        await asyncio.sleep(50 * MS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed == [True]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_client_that_is_gone_before_its_stream_began(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        async def send(message: object) -> None:
            raise OSError("the socket is gone")

        response = EventSourceResponse(items(), error_window=0)
        started = time.perf_counter()
        await response(scope(), receive_nothing, send)
        assert time.perf_counter() - started < 5

    anyio.run(main, backend=anyio_backend)


def test_a_generator_that_swallows_its_cancellation_is_still_closed() -> None:
    log = Log()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            log("swallowed")
            yield 2
            log("went on")
        finally:
            log("closed")

    reply = fetch(app_of(items), disconnect_after=1)
    assert log.lines == ["swallowed", "closed"]
    assert reply.body == b"data: 1\n\n"


def test_a_generator_that_cancels_itself_does_not_look_finished() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    reply = fetch(app_of(items))
    assert isinstance(reply.error, RuntimeError)
    assert reply.body == b"data: 1\n\n"
    assert not reply.complete


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


def test_context_variables_are_visible_in_every_step(anyio_backend: str) -> None:
    async def dependency() -> AsyncIterator[None]:
        token = VARIABLE.set("set by a dependency")
        yield
        VARIABLE.reset(token)

    async def items() -> AsyncIterator[str]:
        yield VARIABLE.get()
        VARIABLE.set("set by the generator")
        await anyio.lowlevel.checkpoint()
        yield VARIABLE.get()

    def sync_items() -> Iterator[str]:
        yield VARIABLE.get()
        VARIABLE.set("set by the generator")
        time.sleep(10 * MS)  # the next item comes from another batch
        yield ""
        yield VARIABLE.get()

    for endpoint in (items, sync_items):
        app = app_of(endpoint, dependencies=[Depends(dependency)])
        events = parse(run(app, anyio_backend).body).events
        assert events[0].data == '"set by a dependency"'
        assert events[-1].data == '"set by the generator"'


def test_scopes_inside_the_generator_work_and_close(anyio_backend: str) -> None:
    log = Log()

    async def items() -> AsyncIterator[int]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            with anyio.move_on_after(20 * MS):
                yield 1
                await anyio.sleep_forever()
            log("moved on")
            try:
                yield 2
                await anyio.sleep_forever()
            finally:
                tasks.cancel_scope.cancel()
                log("closed")

    async def main() -> Reply:
        leave = anyio.Event()

        async def leave_later() -> None:
            while "moved on" not in log.lines:
                await anyio.sleep(MS)
            await anyio.sleep(5 * MS)
            leave.set()

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave_later)
                return await call(app_of(items), disconnect_at=leave)
        raise AssertionError

    reply = anyio.run(main, backend=anyio_backend)
    assert reply.error is None
    assert numbers(reply.body) == [1, 2]
    assert log.lines == ["moved on", "closed"]


def with_move_on_after() -> Any:
    return anyio.move_on_after(5 * MS)


@contextlib.asynccontextmanager
async def with_asyncio_timeout() -> AsyncIterator[None]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5 * MS):  # type: ignore[attr-defined, unused-ignore]
            yield


@contextlib.asynccontextmanager
async def with_task_group() -> AsyncIterator[None]:
    async def cancel_soon(scope: anyio.CancelScope) -> None:
        await anyio.sleep(5 * MS)
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_soon, tasks.cancel_scope)
        yield


@contextlib.asynccontextmanager
async def with_scope() -> AsyncIterator[None]:
    with with_move_on_after():
        yield


SCOPES = [with_scope, with_task_group, with_asyncio_timeout]


@pytest.mark.parametrize("open_scope", SCOPES)
def test_a_scope_ends_while_the_client_keeps_the_generator_waiting(
    open_scope: Callable[[], Any], anyio_backend: str
) -> None:
    if open_scope is with_asyncio_timeout and (
        anyio_backend == "trio" or sys.version_info < (3, 11)
    ):
        pytest.skip("no asyncio.timeout here")
    ended = anyio.Event()

    async def items() -> AsyncIterator[int]:
        # Twice: what the first left behind would spoil the second.
        for number in (1, 2):
            async with open_scope():
                while True:
                    yield number
            if number == 1:
                ended.set()
        yield 3

    app = app_of(
        items, response_class=EventSourceResponse.with_options(max_pending=100)
    )
    body = b""

    async def send(message: Any) -> None:
        nonlocal body
        body += message.get("body", b"")
        if body and not ended.is_set():
            await ended.wait()

    async def main() -> None:
        with anyio.fail_after(20):
            await app(scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)
    found = numbers(body)
    assert found == sorted(found)
    assert set(found) == {1, 2, 3}
    assert found.count(3) == 1


def test_a_scope_that_encloses_the_stream_ends_it(anyio_backend: str) -> None:
    log = Log()

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.sleep(MS)
            log("closed")

    async def main() -> None:
        with anyio.move_on_after(20 * MS) as around:
            await app_of(items)(scope(), receive_nothing, send_for_ever)
        assert around.cancelled_caught

    anyio.run(main, backend=anyio_backend)
    assert log.lines == ["closed"]


def test_nothing_is_left_behind() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(10):
            yield number
            await asyncio.sleep(0)

    async def main() -> None:
        app = app_of(items)
        for disconnect_after in [None, 1, 3]:
            await call(app, disconnect_after=disconnect_after)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main(), debug=True)


def test_two_loops_in_two_threads() -> None:
    def items() -> Iterator[int]:
        yield from range(5000)

    app = app_of(items)
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: replies.append(fetch(app))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [numbers(reply.body) for reply in replies] == [list(range(5000))] * 4


def test_an_eager_task_factory() -> None:
    eager = getattr(asyncio, "eager_task_factory", None)
    if eager is None:
        pytest.skip("this Python has no eager tasks")

    async def items() -> AsyncIterator[int]:
        for number in range(10):
            yield number

    async def main() -> Reply:
        asyncio.get_running_loop().set_task_factory(eager)
        return await call(app_of(items))

    reply = asyncio.run(main())
    assert numbers(reply.body) == list(range(10))
    assert reply.complete


def test_background_tasks_run_after_the_stream() -> None:
    log = Log()

    async def items() -> AsyncIterator[int]:
        yield 1
        log("generator")

    async def endpoint() -> Response:
        task = BackgroundTask(functools.partial(log, "background"))
        return EventSourceResponse(items(), background=task)

    fetch(app_of(endpoint))
    assert log.lines == ["generator", "background"]


def test_a_denied_websocket_can_have_a_stream_as_its_body() -> None:
    sent = []

    async def main() -> None:
        async def send(message: Any) -> None:
            sent.append(message["type"])

        response = EventSourceResponse(["data: no\n\n"], status_code=403)
        await response({"type": "websocket"}, receive_nothing, send)

    anyio.run(main)
    assert sent[0] == "websocket.http.response.start"
    assert set(sent[1:]) == {"websocket.http.response.body"}


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_busy_stream_can_be_cancelled(anyio_backend: str, kind: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    async def main() -> None:
        with anyio.move_on_after(50 * MS) as scope:
            await call(app_of(items if kind == "async" else sync_items))
        assert scope.cancelled_caught
        assert closed == [True]

    anyio.run(main, backend=anyio_backend)


class Picky(BaseModel):
    color: str

    @field_validator("color")
    @classmethod
    def known(cls, value: str) -> str:
        return next(color for color in ("red", "green") if color == value)


def test_a_stop_iteration_of_a_validator_does_not_look_like_the_end() -> None:
    def items() -> Iterator[Picky]:
        yield {"color": "red"}  # type: ignore[misc]
        yield {"color": "blue"}  # type: ignore[misc]

    reply = fetch(app_of(items))
    assert isinstance(reply.error, RuntimeError)
    assert reply.body == b'data: {"color":"red"}\n\n'
    assert not reply.complete


def test_a_scope_around_a_yield_hides_no_error(anyio_backend: str) -> None:
    async def cancel_scope() -> AsyncIterator[Any]:
        with anyio.CancelScope():
            yield 1
            yield [object()]

    async def task_group() -> AsyncIterator[Any]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            yield 1
            yield [object()]

    for endpoint in (cancel_scope, task_group):
        endpoint.__annotations__ = {}
        reply = run(app_of(endpoint), anyio_backend)
        assert isinstance(reply.error, ValueError)
        assert reply.body == b"data: 1\n\n"


def test_a_generator_can_be_closed_at_a_yield_inside_a_scope(
    anyio_backend: str,
) -> None:
    log = Log()

    async def items() -> AsyncIterator[EncodedEvent]:
        frame = EncodedEvent(raw_data="x" * 1000)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                while True:
                    yield frame
        finally:
            log("closed")

    reply = run(app_of(items), anyio_backend, disconnect_after=2)
    assert reply.error is None
    assert log.lines == ["closed"]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_what_is_no_exception_keeps_its_cause(kind: str) -> None:
    class OddError(BaseException):
        pass

    async def items() -> AsyncIterator[int]:
        yield 1
        raise OddError("odd")

    def sync_items() -> Iterator[int]:
        yield 1
        raise OddError("odd")

    reply = fetch(app_of(items if kind == "async" else sync_items))
    assert isinstance(reply.error, RuntimeError)
    assert isinstance(reply.error.__cause__, OddError)
    assert not reply.complete


def test_an_error_in_a_cycle_is_collected() -> None:
    errors = []

    async def items() -> AsyncIterator[int]:
        yield "x"  # type: ignore[misc]

    async def main() -> None:
        app = app_of(items)
        for _ in range(5):
            state: dict[str, Any] = {}
            reply = await call(app, state=state)
            assert reply.error is not None
            state["error"] = reply.error  # the scope holds it, it holds the scope
            errors.append(weakref.ref(reply.error))

    asyncio.run(main())
    gc.collect()
    assert [error() for error in errors] == [None] * 5
