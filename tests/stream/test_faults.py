"""Old faults, each with the right value: to be spread over the files of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from fastapi import FastAPI, Request

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    ServerSentEvent,
    shutdown,
)

from ..support.apps import KINDS, MS, Log, Summaries, app_of, logged, numbers
from ..support.asgi import Reply, call, fetch, receive_nothing, scope
from ..support.internals import limits
from ..support.middlewares import around_receive, around_send

# Shields


ENDS = ["disconnected", "max_duration", "shutdown", "send_timeout", "cancelled"]


def end_in_a_shield(
    end: str,
    items: Callable[[], AsyncIterator[int]],
    log: Log,
    backend: str,
) -> Summaries:
    """One request that ends while its generator has logged "shielded".

    Where the generator sleeps then, it does so for long enough.
    """
    summaries = Summaries()
    options: dict[str, Any] = {"on_close": summaries, "error_window": 0}
    if end == "max_duration":
        options["max_duration"] = 20 * MS
    if end == "send_timeout":
        options["send_timeout"] = 20 * MS
    app = app_of(items, **options)

    def is_shielded() -> bool:
        return "shielded" in log.lines

    async def main() -> None:
        leave = anyio.Event()
        around = anyio.CancelScope()

        async def act() -> None:
            while not is_shielded():
                await anyio.sleep(MS)
            if end == "disconnected":
                leave.set()
            elif end == "shutdown":
                shutdown()
            elif end == "cancelled":
                around.cancel()
            await anyio.sleep(2)
            went_on.append(True)
            leave.set()  # so that a test that fails has an end

        freeze = 1 if end == "send_timeout" else None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(act)
            with around:
                reply = await call(app, disconnect_at=leave, freeze_after=freeze)
                assert reply.error is None
                assert numbers(reply.body) == [1]
            tasks.cancel_scope.cancel()
        assert around.cancelled_caught == (end == "cancelled")

    went_on: list[bool] = []
    anyio.run(main, backend=backend)
    assert went_on == [], "the stream went on until its client left"
    return summaries


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", ["finally", "after the last yield", "after an await"])
def test_what_is_shielded_is_done_however_the_stream_ends(
    where: str, end: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, least_duration=0)
    log = Log()

    async def save() -> None:
        log("shielded")
        for _ in range(5):
            await anyio.sleep(20 * MS)
        log("saved")

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            if where == "after an await":
                await anyio.sleep(MS)
            if where != "finally":
                with anyio.CancelScope(shield=True):
                    await save()
        finally:
            if where == "finally":
                with anyio.CancelScope(shield=True):
                    await save()
            log("closed")

    summaries = end_in_a_shield(end, items, log, anyio_backend)
    assert log.lines == ["shielded", "saved", "closed"]
    assert summaries.reasons == [end]


def test_a_client_that_leaves_on_the_last_event_does_not_cut_the_clean_up(
    anyio_backend: str,
) -> None:
    saved = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(2 * MS)
            yield 2
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(30 * MS)
                saved.append(True)

    for leaves_after in (1, 2):
        saved.clear()
        app = app_of(items)
        reply = fetch(app, backend=anyio_backend, disconnect_after=leaves_after)
        assert reply.error is None
        assert saved == [True]


@pytest.mark.parametrize("end", ENDS)
def test_behind_its_shield_a_generator_is_interrupted(
    end: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, least_duration=0)
    log = Log()

    async def items() -> AsyncIterator[int]:
        yield 1
        with anyio.CancelScope(shield=True):
            log("shielded")
            for _ in range(5):
                await anyio.sleep(20 * MS)
            log("saved")
        try:
            await anyio.sleep(3600)
        except BaseException as error:
            assert isinstance(error, anyio.get_cancelled_exc_class())
            log("interrupted")
            raise

    started = time.perf_counter()
    summaries = end_in_a_shield(end, items, log, anyio_backend)
    assert log.lines == ["shielded", "saved", "interrupted"]
    assert summaries.reasons == [end]
    assert time.perf_counter() - started < 5


# A cancellation that somebody swallows (on trio, nobody can)


async def retried(call: Callable[[], Any]) -> Any:
    """Await something, and once again when that is cancelled."""
    try:
        return await call()
    except asyncio.CancelledError:
        return await call()


async def with_limit(call: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(call(), 30)


async def in_a_task(call: Callable[[], Any]) -> Any:
    return await asyncio.create_task(call())


WRAPS = [retried, with_limit, in_a_task]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("end", ["disconnected", "send_timeout", "shutdown"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_swallowed_cancellation_of_a_send_does_not_keep_a_stream(
    kind: str, end: str, wrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, least_duration=0, last_send_timeout=20 * MS)
    closed = []
    frozen = anyio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(MS)
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(MS)
        finally:
            closed.append(True)

    async def wrapped(send: Any, message: Any) -> None:
        await wrap(lambda: send(message))

    async def main() -> None:
        leave = asyncio.Event()

        async def receive() -> Any:
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                frozen.set()
                await anyio.sleep_forever()

        summaries = Summaries()
        inner = app_of(
            items if kind == "async" else sync_items,
            on_close=summaries,
            send_timeout=20 * MS if end == "send_timeout" else 30,
        )
        app = around_send(inner, wrapped)
        task = asyncio.create_task(app(scope(), receive, send))
        await frozen.wait()
        await asyncio.sleep(10 * MS)
        if end == "disconnected":
            leave.set()
        elif end == "shutdown":
            shutdown()
        done, _ = await asyncio.wait([task], timeout=3)
        if not done:
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(10 * MS)
        assert done, "the stream does not end"
        await task
        assert summaries.reasons == [end]

    asyncio.run(main())
    assert closed == [True]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("end", ["finished", "max_duration", "send_timeout", "error"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_swallowed_cancellation_of_a_receive_does_not_keep_a_stream(
    kind: str, end: str, wrap: Any
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(20 * MS)  # by then the client is watched
            if end == "error":
                raise LookupError
            while end != "finished":
                yield 2
                await asyncio.sleep(MS)
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            yield 1
            time.sleep(20 * MS)
            if end == "error":
                raise LookupError
            while end != "finished":
                yield 2
                time.sleep(MS)
        finally:
            closed.append(True)

    summaries = Summaries()
    inner = app_of(
        items if kind == "async" else sync_items,
        on_close=summaries,
        max_duration=30 * MS if end == "max_duration" else None,
        send_timeout=20 * MS if end == "send_timeout" else 30,
    )
    app = around_receive(inner, wrap)
    freeze = 1 if end == "send_timeout" else None

    async def main() -> None:
        task = asyncio.create_task(call(app, freeze_after=freeze))
        done, _ = await asyncio.wait([task], timeout=3)
        if not done:
            for other in asyncio.all_tasks() - {asyncio.current_task()}:
                other.cancel()
            await asyncio.sleep(10 * MS)
        assert done, "the stream does not end"
        reply = await task
        assert isinstance(reply.error, LookupError) == (end == "error")

    asyncio.run(main())
    assert closed == [True]
    assert summaries.reasons == [end]


# A loop that stood still


@pytest.mark.parametrize("late", [0.0, 5 * MS])
def test_a_loop_that_stood_still_drops_no_client(
    late: float, anyio_backend: str
) -> None:
    """Nobody could see that the client went on reading."""
    send_timeout = 30 * MS

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await anyio.sleep(MS)

    summaries = Summaries()
    app = app_of(items, send_timeout=send_timeout, on_close=summaries)
    taken: list[bytes] = []

    async def main() -> None:
        waits = anyio.Event()
        goes_on = anyio.Event()

        async def send(message: Any) -> None:
            if message.get("body") and not waits.is_set():
                taken.append(message["body"])
                waits.set()
                await goes_on.wait()
            else:
                taken.append(message.get("body", b""))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, scope(), receive_nothing, send)
            await waits.wait()
            await anyio.sleep(2 * MS)  # for the deadline to be set
            time.sleep(3 * send_timeout)  # noqa: ASYNC251
            await anyio.sleep(late)
            goes_on.set()

    for _ in range(5):  # the order of tasks is random on trio
        taken.clear()
        summaries.clear()
        anyio.run(main, backend=anyio_backend)
        assert summaries.reasons == ["finished"]
        assert numbers(b"".join(taken)) == [0, 1, 2]


@pytest.mark.parametrize("late", [0.0, 5 * MS])
@pytest.mark.parametrize("end", ["disconnected", "max_duration"])
def test_a_loop_that_stood_still_gives_up_no_generator(
    end: str,
    late: float,
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits(monkeypatch, close_timeout=30 * MS)
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2 * MS)
                time.sleep(90 * MS)  # noqa: ASYNC251
                await anyio.sleep(late)
                closed.append(True)

    for _ in range(5):
        closed.clear()
        app = app_of(items, max_duration=10 * MS if end == "max_duration" else None)
        leaves = 1 if end == "disconnected" else None
        reply = fetch(app, backend=anyio_backend, disconnect_after=leaves)
        assert reply.error is None
        assert closed == [True]
        assert logged(caplog) == []


# What cannot be printed


class UnprintableError(Exception):
    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __repr__


class Unprintable:
    """A source that cannot be printed, around a generator."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __repr__

    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Any:
        return self._items.__anext__()

    def aclose(self) -> Any:
        return self._items.aclose()


async def raises(*, waits: bool, closing: bool) -> AsyncIterator[int]:
    try:
        yield 1
        if waits:
            await anyio.sleep(MS)
        if not closing:
            raise UnprintableError
        await anyio.sleep(3600)
    finally:
        if closing:
            raise UnprintableError


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("unprintable", ["error", "error and source"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_that_cannot_be_printed_breaks_the_stream_off(
    unprintable: str, waits: bool, anyio_backend: str
) -> None:
    content: Any = raises(waits=waits, closing=False)
    if unprintable == "error and source":
        content = Unprintable(content)
    summaries = Summaries()
    response = EventSourceResponse(content, on_close=summaries)
    reply = fetch(response, backend=anyio_backend)
    assert isinstance(reply.error, UnprintableError)
    assert reply.body == b"data: 1\n\n"
    assert not reply.complete
    assert summaries.reasons == ["error"]


@pytest.mark.parametrize("end", ["disconnected", "max_duration"])
def test_an_error_of_closing_that_cannot_be_printed_reaches_the_caller(
    end: str, anyio_backend: str
) -> None:
    summaries = Summaries()
    response = EventSourceResponse(
        Closing(raises(waits=True, closing=True)),
        on_close=summaries,
        max_duration=10 * MS if end == "max_duration" else None,
    )
    leaves = 1 if end == "disconnected" else None
    reply = fetch(response, backend=anyio_backend, disconnect_after=leaves)
    assert isinstance(reply.error, UnprintableError)
    assert not reply.complete
    assert summaries.reasons == ["error"]


class Closing(Unprintable):
    """One whose iterator is made for each stream."""

    def __aiter__(self) -> Any:
        return self._items


@pytest.mark.parametrize("fails", ["item", "source", "send", "close"])
def test_a_source_that_cannot_be_printed_can_fail_in_any_way(
    fails: str,
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits(monkeypatch, close_timeout=20 * MS)

    async def generate() -> AsyncIterator[Any]:
        try:
            yield 1
            if fails == "item":
                yield UnprintableItem()
            if fails == "source":
                raise LookupError
            await anyio.sleep(5 * MS)
            yield 2
            await anyio.sleep(3600)
        finally:
            if fails == "close":
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(200 * MS)

    class UnprintableItem:
        __slots__ = ()

        def __repr__(self) -> str:
            raise ZeroDivisionError

        __str__ = __repr__

    async def failing(send: Any, message: Any) -> None:
        if fails == "send" and b"2" in message.get("body", b""):
            raise LookupError
        await send(message)

    summaries = Summaries()
    response = EventSourceResponse(Closing(generate()), on_close=summaries)
    leaves = 2 if fails == "close" else None
    app = around_send(response, failing)
    reply = fetch(app, backend=anyio_backend, disconnect_after=leaves)
    assert not reply.complete
    if fails == "close":
        assert reply.error is None
        assert ["did not close" in message for message, _ in logged(caplog)] == [True]
    else:
        kind = ValueError if fails == "item" else LookupError
        assert isinstance(reply.error, kind)
        assert summaries.reasons == ["error"]


# What `receive` says


@pytest.mark.parametrize("more_body", [False, True])
@pytest.mark.parametrize("body", [b"", b"x" * 1000])
def test_a_receive_that_gives_the_body_to_whoever_asks(
    body: bytes, more_body: bool, anyio_backend: str
) -> None:
    """At once and for ever: that says nothing about the client."""

    async def items() -> AsyncIterator[int]:
        for number in range(20):
            yield number
            await anyio.sleep(5 * MS)

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": more_body}

    chunks: list[bytes] = []

    async def send(message: Any) -> None:
        chunks.append(message.get("body", b""))

    pauses: list[float] = []

    async def main() -> None:
        async def look() -> None:
            while True:
                started = time.perf_counter()
                await anyio.sleep(MS)
                pauses.append(time.perf_counter() - started)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(look)
                await app(scope(), receive, send)
                tasks.cancel_scope.cancel()

    summaries = Summaries()
    app = app_of(items, on_close=summaries)
    anyio.run(main, backend=anyio_backend)
    assert numbers(b"".join(chunks)) == list(range(20))
    assert summaries.reasons == ["finished"]
    assert sorted(pauses)[len(pauses) // 2] < 20 * MS


def test_a_receive_that_never_ends_its_body_is_not_asked_for_ever(
    anyio_backend: str,
) -> None:
    """A stream that lasts would keep a processor busy, and all that it is told."""
    asked = 0

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(100 * MS)

    async def receive() -> Any:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"", "more_body": True}

    async def main() -> None:
        async def send(message: Any) -> None:
            pass

        with anyio.fail_after(20):
            await app_of(items)(scope(), receive, send)

    anyio.run(main, backend=anyio_backend)
    assert asked < 1000


@pytest.mark.parametrize("at_first", [True, False])
def test_a_receive_that_raises_does_not_end_the_stream(
    at_first: bool, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(5):
            yield number
            await anyio.sleep(5 * MS)

    async def receive() -> Any:
        nonlocal at_first
        if at_first:
            raise LookupError
        at_first = True
        return {"type": "http.request", "body": b"", "more_body": False}

    chunks: list[bytes] = []

    async def send(message: Any) -> None:
        chunks.append(message.get("body", b""))

    summaries = Summaries()
    app = app_of(items, on_close=summaries)
    anyio.run(app, scope(), receive, send, backend=anyio_backend)
    assert numbers(b"".join(chunks)) == list(range(5))
    assert summaries.reasons == ["finished"]
    assert [error for _, error in logged(caplog)] == [LookupError]


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_only_a_disconnect_is_a_disconnect(
    count: int, leaves: bool, anyio_backend: str
) -> None:
    """Whatever else an extension of the server has to say, and however often."""
    ended = []

    async def items() -> AsyncIterator[int]:
        try:
            for number in range(20):
                yield number
                await anyio.sleep(5 * MS)
            if leaves:
                await anyio.sleep(3)
        finally:
            ended.append(True)

    async def main() -> None:
        said: list[Any] = [
            {"type": "http.request", "body": b"", "more_body": False},
            *[{"type": "http.response.news"} for _ in range(count)],
        ]
        chunks: list[bytes] = []

        async def receive() -> Any:
            if said:
                await anyio.sleep(MS)
                return said.pop(0)
            if leaves:
                return {"type": "http.disconnect"}
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Any) -> None:
            chunks.append(message.get("body", b""))

        await app(scope(), receive, send)
        if not leaves:
            assert numbers(b"".join(chunks)) == list(range(20))

    summaries = Summaries()
    app = app_of(items, on_close=summaries)
    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["disconnected" if leaves else "finished"]
    assert ended == [True]


@pytest.mark.parametrize("way", ["body", "json", "stream"])
@pytest.mark.parametrize("when", ["at first", "after an event", "late"])
def test_a_generator_can_read_the_body_of_its_request(
    when: str, way: str, anyio_backend: str
) -> None:
    app = FastAPI()

    @app.post("/", response_class=EventSourceResponse)
    async def items(request: Request) -> AsyncIterator[Any]:
        if when != "at first":
            yield "begun"
        if when == "late":
            await anyio.sleep(20 * MS)  # by then the client is watched
        if way == "body":
            yield (await request.body()).decode()
        elif way == "json":
            yield await request.json()
        else:
            yield b"".join([chunk async for chunk in request.stream()]).decode()
        yield await request.is_disconnected()

    reply = fetch(app, backend=anyio_backend, method="POST", body=b"123")
    assert reply.error is None
    text = b"123" if way == "json" else b'"123"'
    begun = b"" if when == "at first" else b'data: "begun"\n\n'
    assert reply.body == begun + b"data: %s\n\ndata: false\n\n" % text
    assert reply.complete


# Threads


@pytest.mark.parametrize("end", ["disconnected", "max_duration"])
@pytest.mark.parametrize("waits", [1, 3])
def test_a_thread_that_begins_to_wait_when_its_client_has_left_is_interrupted(
    waits: int, end: str, anyio_backend: str
) -> None:
    log: list[str] = []
    is_over = threading.Event()
    begun = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            begun.set()
            is_over.wait(10)
            time.sleep(20 * MS)  # by then the stream has been told
            for number in range(waits):
                # It goes on, and waits once more.
                goes_on = number < waits - 1
                with contextlib.suppress(*[BaseException] * goes_on):
                    anyio.from_thread.run(anyio.sleep, 10)
                    log.append("waited")
                time.sleep(20 * MS)
        finally:
            log.append("closed")

    summaries = Summaries()
    app = app_of(
        items,
        on_close=summaries,
        max_duration=50 * MS if end == "max_duration" else None,
    )

    async def main() -> Reply:
        gone = anyio.Event()

        async def leave() -> None:
            while not begun.is_set():
                await anyio.sleep(MS)
            if end == "disconnected":
                gone.set()
            else:
                await anyio.sleep(100 * MS)
            is_over.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            reply = await call(app, disconnect_at=gone)
            tasks.cancel_scope.cancel()
        return reply

    reply = anyio.run(main, backend=anyio_backend)
    assert reply.error is None
    assert log == ["closed"]
    assert summaries.reasons == [end]
    assert summaries[0].seconds_open < 5


# What `send` raises


class ClientDisconnectedError(OSError):
    """As Starlette's: that of a server with a class of its own."""


GONE = [
    ConnectionResetError(104, "reset"),
    BrokenPipeError(32, "broken pipe"),
    ConnectionAbortedError(),
    OSError("the socket is gone"),
    ClientDisconnectedError(),
]
BROKEN = [
    TimeoutError("a middleware's own"),
    PermissionError(13, "its log file"),
    FileNotFoundError(2, "its log file"),
    LookupError("its mistake"),
]
WHERES = ["the head", "an event", "a later event", "after waiting", "a ping", "the end"]


@pytest.mark.parametrize("error", [*GONE, *BROKEN], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_send_raises_tells_of_the_client_or_is_an_error(
    kind: str, where: str, error: Exception, anyio_backend: str
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(5 * MS)
            yield 2
            if where == "a ping":
                await anyio.sleep(3600)
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            yield 1
            time.sleep(5 * MS)
            yield 2
            while where == "a ping":
                anyio.from_thread.check_cancelled()
                time.sleep(MS)
        finally:
            closed.append(True)

    def is_there(message: Any) -> bool:
        body = message.get("body", b"")
        if where == "the head":
            return bool(message["type"] == "http.response.start")
        if where == "an event":
            return b"data: 1" in body
        if where in ("a later event", "after waiting"):
            return b"data: 2" in body
        if where == "a ping":
            return b": ping" in body
        return message.get("more_body") is False

    async def failing(send: Any, message: Any) -> None:
        if is_there(message):
            if where == "after waiting":
                await anyio.sleep(MS)
            raise error
        await send(message)

    summaries = Summaries()
    app = around_send(
        app_of(
            items if kind == "async" else sync_items,
            on_close=summaries,
            ping_interval=20 * MS if where == "a ping" else None,
        ),
        failing,
    )
    reply = fetch(app, backend=anyio_backend)
    error.__traceback__ = None
    assert not reply.complete
    assert closed == [True]
    if error in GONE:
        assert reply.error is None
        assert summaries.reasons == ["disconnected"]
    else:
        assert reply.error is error
        assert summaries.reasons == ["error"]


# Large events


@pytest.mark.parametrize("kind", ["raw", "compact", "text", "bytes", "sync"])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_no_part_of_a_large_event_ends_inside_a_character(
    shift: int, kind: str, anyio_backend: str
) -> None:
    data = "x" * shift + "中" * (1024 * 1024 // 3)
    event = EncodedEvent(raw_data=data)

    async def items() -> AsyncIterator[Any]:
        yield {
            "raw": event,
            "compact": [data],
            "text": bytes(event).decode(),
            "bytes": bytes(event),
        }[kind]

    content = iter([event]) if kind == "sync" else items()
    response = EventSourceResponse(content, json="compact")
    reply = fetch(response, backend=anyio_backend)
    assert reply.complete
    assert len(reply.chunks) > 2
    for chunk in reply.chunks:
        chunk.decode()  # raises where it is cut
    expected = data if kind != "compact" else f'["{data}"]'
    assert reply.body.decode() == f"data: {expected}\n\n"


# Iterators that are shared


class Shared:
    """Events for several streams, one after the other."""

    def __init__(self) -> None:
        self.closed = 0

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> int:
        await anyio.sleep(MS)
        return 1

    async def aclose(self) -> None:
        self.closed += 1


class SharedInThreads:
    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        time.sleep(MS)
        return 1

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("make", [Shared, SharedInThreads])
def test_an_iterator_that_others_may_go_on_with_is_not_closed(
    make: Any, anyio_backend: str
) -> None:
    items = make()
    for _ in range(2):
        response = EventSourceResponse(items)
        reply = fetch(response, backend=anyio_backend, disconnect_after=2)
        assert reply.error is None
        assert reply.body.startswith(b"data: 1\n\n")
    assert items.closed == 0


def test_a_memory_stream_serves_one_client_after_the_other(anyio_backend: str) -> None:
    async def main() -> list[Reply]:
        sender, receiver = anyio.create_memory_object_stream[int](10)
        replies = []
        with sender, receiver:
            for number in range(3):
                sender.send_nowait(number)
                response = EventSourceResponse(receiver)
                replies.append(await call(response, disconnect_after=1))
        return replies

    replies = anyio.run(main, backend=anyio_backend)
    assert [numbers(reply.body) for reply in replies] == [[0], [1], [2]]
    assert [reply.error for reply in replies] == [None] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_is_closed_by_its_stream(kind: str, anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(MS)
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(MS)
        finally:
            closed.append(True)

    content: Any = items() if kind == "async" else sync_items()
    fetch(EventSourceResponse(content), backend=anyio_backend, disconnect_after=2)
    assert closed == [True]


def test_an_iterator_that_was_made_for_a_stream_is_closed(anyio_backend: str) -> None:
    made: list[Shared] = []

    class Items:
        def __aiter__(self) -> Any:
            made.append(Shared())
            return made[-1]

    for _ in range(2):
        response = EventSourceResponse(Items())
        fetch(response, backend=anyio_backend, disconnect_after=2)
    assert [items.closed for items in made] == [1, 1]


# Errors of closing


@pytest.mark.parametrize("end", ["max_duration", "shutdown"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stands", ["awaits", "busy"])
def test_closing_that_fails_has_last_words_and_no_farewell(
    stands: str,
    kind: str,
    end: str,
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits(monkeypatch, least_duration=0)
    told: list[Exception] = []

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                if end == "shutdown":
                    shutdown()
                if stands == "awaits":
                    await anyio.sleep(10 * MS)
        finally:
            raise LookupError("in finally")

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                if end == "shutdown":
                    shutdown()
                if stands == "awaits":
                    time.sleep(10 * MS)
        finally:
            raise LookupError("in finally")

    def on_error(error: Exception) -> ServerSentEvent:
        told.append(error)
        return ServerSentEvent(event="failed")

    summaries = Summaries()
    app = app_of(
        items if kind == "async" else sync_items,
        max_duration=20 * MS if end == "max_duration" else None,
        on_error=on_error,
        on_close=summaries,
        farewell=ServerSentEvent(event="bye"),
    )
    reply = fetch(app, backend=anyio_backend)
    assert isinstance(reply.error, LookupError)
    assert told == [reply.error]
    assert reply.body.endswith(b"event: failed\n\n")
    assert reply.body.count(b"event: failed") == 1
    assert b"bye" not in reply.body
    assert not reply.complete
    assert summaries.reasons == ["error"]


# Lockstep


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pause", [None, 0.0, 2 * MS])
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("error_window", [0.0, 0.1])
def test_without_pending_bytes_the_code_after_a_yield_runs_once_it_is_sent(
    error_window: float,
    waits: bool,
    pause: float | None,
    kind: str,
    anyio_backend: str,
) -> None:
    log: list[str] = []

    async def items() -> AsyncIterator[int]:
        for number in range(5):
            yield number
            log.append(f"after {number}")
            if waits:
                await anyio.sleep(MS)

    def sync_items() -> Iterator[int]:
        for number in range(5):
            yield number
            log.append(f"after {number}")
            if waits:
                time.sleep(MS)

    async def noting(send: Any, message: Any) -> None:
        if pause is not None:
            await anyio.sleep(pause)
        await send(message)
        log.extend(f"sent {number}" for number in numbers(message.get("body", b"")))

    endpoint = items if kind == "async" else sync_items
    app = app_of(endpoint, max_pending=0, error_window=error_window)
    reply = fetch(around_send(app, noting), backend=anyio_backend)
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == list(range(5))
    assert log == [f"{what} {n}" for n in range(5) for what in ("sent", "after")]


@pytest.mark.parametrize("kind", KINDS)
def test_without_pending_bytes_a_client_that_does_not_read_stops_the_generator(
    kind: str, anyio_backend: str
) -> None:
    yielded: list[int] = []

    async def items() -> AsyncIterator[int]:
        for number in range(100):
            yielded.append(number)
            yield number
            await anyio.lowlevel.checkpoint()

    def sync_items() -> Iterator[int]:
        for number in range(100):
            yielded.append(number)
            yield number

    summaries = Summaries()
    endpoint = items if kind == "async" else sync_items
    app = app_of(endpoint, max_pending=0, send_timeout=30 * MS, on_close=summaries)
    reply = fetch(app, backend=anyio_backend, freeze_after=3)
    assert numbers(reply.body) == [0, 1, 2]
    assert yielded == [0, 1, 2]
    assert summaries.reasons == ["send_timeout"]


# Pings


@pytest.mark.parametrize("first", [0.0, 10 * MS])
def test_pings_come_in_time_when_the_head_did_not_wait_for_its_whole_window(
    first: float, anyio_backend: str
) -> None:
    """The window may be longer than the time between pings."""
    pinged = anyio.Event()
    waited: list[float] = []

    async def items() -> AsyncIterator[int]:
        await anyio.sleep(first)
        yield 1
        started = time.perf_counter()
        with anyio.move_on_after(1.5):
            await pinged.wait()
        waited.append(time.perf_counter() - started)

    async def noting(send: Any, message: Any) -> None:
        if message.get("body") == b": ping\n\n":
            pinged.set()
        await send(message)

    app = app_of(items, ping_interval=20 * MS, error_window=1)
    reply = fetch(around_send(app, noting), backend=anyio_backend)
    assert reply.complete
    assert b": ping\n\n" in reply.body
    assert 10 * MS < waited[0] < 0.5
