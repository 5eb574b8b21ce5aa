"""How streams begin, break and end, option by option."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import anyio
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from pydantic import BaseModel

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    ServerSentEvent,
    StreamSummary,
    _shutdown,
    shutdown,
)
from fastapi_sse_fast import _driver as driver

from .support.asgi import Reply, call, fetch, receive_nothing, scope, send_for_ever
from .support.eventsource import parse
from .support.server import Client, get, serve, wait_until

MS = 0.001


def app_of(endpoint: Callable[..., Any], **options: Any) -> FastAPI:
    app = FastAPI()
    response_class = EventSourceResponse.with_options(**options)
    app.get("/", response_class=response_class)(endpoint)
    return app


class Summaries(list[StreamSummary]):
    """An `on_close` that keeps what it is given."""

    def __call__(self, summary: StreamSummary) -> None:
        self.append(summary)

    @property
    def reasons(self) -> list[str]:
        return [summary.reason for summary in self]


async def endless() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        await anyio.sleep(MS)


# Options


@pytest.mark.parametrize(
    ("ping", "ping_form", "frame"),
    [
        ("ping", "block", b": ping\n\n"),
        ("a\nb", "block", b": a\n: b\n\n"),
        ("ping", "line", b": ping\n"),
        ("a\nb", "line", b": a\n: b\n"),
        (ServerSentEvent(event="ping"), "block", b"event: ping\n\n"),
        (EncodedEvent(comment="ready"), "block", b": ready\n\n"),
        (lambda: ServerSentEvent(comment="made"), "block", b": made\n\n"),
    ],
)
def test_what_a_ping_is(
    ping: Any, ping_form: Any, frame: bytes, anyio_backend: str
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(50 * MS)

    app = app_of(items, ping=ping, ping_form=ping_form, ping_interval=10 * MS)
    body = fetch(app, backend=anyio_backend).body.removeprefix(b"data: 1\n\n")
    assert body
    assert body == frame * (len(body) // len(frame))


def test_a_ping_that_fails_is_the_usual_comment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(50 * MS)

    def ping() -> ServerSentEvent:
        raise LookupError

    body = fetch(app_of(items, ping=ping, ping_interval=10 * MS)).body
    assert body.startswith(b"data: 1\n\n: ping\n\n")
    assert "ping failed" in caplog.text


def test_nothing_gets_into_an_event_that_comes_in_parts(
    caplog: pytest.LogCaptureFixture, anyio_backend: str
) -> None:
    """Such as a relay of what another server sends."""

    async def chunks(*, fails: bool = False) -> AsyncIterator[str]:
        for chunk in ["data: Hel", "lo", "\n", "\ndata: {", "}\r\n\r", "\n"]:
            yield chunk
            await anyio.sleep(30 * MS)
        yield "data: never"
        if fails:
            raise LookupError
        shutdown()
        await anyio.sleep(3600)

    last = ServerSentEvent(event="bye")
    options: Any = {
        "ping_interval": 10 * MS,
        "on_error": lambda error: last,
        "farewell": last,
    }
    for fails in (False, True):
        response = EventSourceResponse(chunks(fails=fails), **options)
        reply = fetch(response, backend=anyio_backend)
        assert reply.complete is not fails
        body = reply.body.replace(b": ping\n\n", b"")
        assert body == b"data: Hello\n\ndata: {}\r\n\r\ndata: never"
        assert b": ping\n\ndata: never" in reply.body  # where it can be, it is
    assert "that of farewell is not sent" in caplog.text
    assert "that of on_error is not sent" in caplog.text


def test_only_a_text_can_be_a_line() -> None:
    with pytest.raises(ValueError, match="needs a ping that is a text"):
        EventSourceResponse.with_options(
            ping=ServerSentEvent(comment="x"), ping_form="line"
        )


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


def test_max_duration_ends_a_stream_cleanly(anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
                await anyio.sleep(MS)
        finally:
            closed.append(True)

    summaries = Summaries()
    app = app_of(items, max_duration=50 * MS, on_close=summaries, farewell=None)
    reply = fetch(app, backend=anyio_backend)
    assert reply.complete
    assert reply.error is None
    assert summaries.reasons == ["max_duration"]
    assert closed == [True]
    events = parse(reply.body).events
    assert [int(event.data) for event in events] == list(range(len(events)))
    assert summaries[0].seconds_open >= 45 * MS


def test_max_duration_ends_a_busy_stream_and_an_idle_one() -> None:
    async def busy() -> AsyncIterator[int]:
        while True:
            yield 1

    async def idle() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(3600)

    def sync_busy() -> Iterator[int]:
        while True:
            yield 1

    for endpoint in (busy, idle, sync_busy):
        summaries = Summaries()
        app = app_of(endpoint, max_duration=20 * MS, on_close=summaries)
        assert fetch(app).complete
        assert summaries.reasons == ["max_duration"]


def test_max_duration_varies() -> None:
    options = EventSourceResponse.with_options(max_duration=100.0)._options
    times = {options.seconds_to_live() for _ in range(100)}
    assert 90 <= min(times) < 98
    assert 102 < max(times) <= 110


@pytest.mark.parametrize("kind", ["sync hook", "async hook"])
def test_on_error_has_the_last_word(kind: str, anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError("mid-stream")

    def on_error(error: Exception) -> ServerSentEvent:
        return ServerSentEvent(event="error", data=str(error))

    async def async_on_error(error: Exception) -> ServerSentEvent:
        return on_error(error)

    hook = on_error if kind == "sync hook" else async_on_error
    summaries = Summaries()
    app = app_of(items, on_error=hook, on_close=summaries)
    reply = fetch(app, backend=anyio_backend)
    assert reply.body == b'data: 1\n\nevent: error\ndata: "mid-stream"\n\n'
    assert isinstance(reply.error, LookupError)
    assert not reply.complete
    assert summaries.reasons == ["error"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="errors have no notes there")
@pytest.mark.parametrize("kind", ["async", "sync", "list"])
def test_an_error_of_encoding_says_which_item_it_was(kind: str) -> None:
    items = [1, ServerSentEvent(data=2), {"three": object()}]

    async def async_items() -> AsyncIterator[object]:
        for item in items:
            yield item

    def sync_items() -> Iterator[object]:
        yield from items

    sources: dict[str, Any] = {
        "async": async_items(),
        "sync": sync_items(),
        "list": items,
    }
    error = fetch(EventSourceResponse(sources[kind])).error
    assert isinstance(error, ValueError)
    source = getattr(sources[kind], "__qualname__", "list")
    assert error.__notes__ == [
        f"item 3 of {source}, of type 'dict', could not be encoded"
    ]


def test_on_error_may_have_nothing_to_say() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    reply = fetch(app_of(items, on_error=lambda error: None))
    assert reply.body == b"data: 1\n\n"
    assert isinstance(reply.error, LookupError)


def test_on_error_is_not_asked_before_the_head() -> None:
    asked: list[Exception] = []

    async def items() -> AsyncIterator[int]:
        raise HTTPException(403)
        yield 1

    assert fetch(app_of(items, on_error=asked.append)).status == 403
    assert asked == []


def test_hooks_that_fail_are_logged_and_hide_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError("mid-stream")

    def fail(argument: object) -> Any:
        raise ZeroDivisionError

    reply = fetch(app_of(items, on_error=fail, on_close=fail))
    assert isinstance(reply.error, LookupError)
    assert [record.message for record in caplog.records] == [
        "on_error failed",
        "on_close failed",
    ]


def test_what_on_close_is_told() -> None:
    async def items() -> AsyncIterator[Any]:
        yield 1
        await anyio.sleep(20 * MS)
        yield ServerSentEvent(comment="c")
        yield EncodedEvent(raw_data="x")

    summaries = Summaries()
    body = fetch(app_of(items, on_close=summaries, retry=1)).body
    (summary,) = summaries
    assert summary.reason == "finished"
    assert summary.events == 3
    assert summary.bytes == len(body)
    assert summary.seconds_to_first_event is not None
    assert summary.seconds_to_first_event < 20 * MS <= summary.seconds_open


def test_an_empty_stream_has_no_first_event() -> None:
    async def items() -> AsyncIterator[int]:
        return
        yield 1

    summaries = Summaries()
    fetch(app_of(items, on_close=summaries))
    assert summaries[0].seconds_to_first_event is None
    assert (summaries[0].events, summaries[0].bytes) == (0, 0)


def test_on_close_may_be_async_and_is_called_when_cancelled(
    anyio_backend: str,
) -> None:
    summaries = Summaries()

    async def on_close(summary: StreamSummary) -> None:
        await anyio.sleep(MS)
        summaries.append(summary)

    async def main() -> None:
        with anyio.move_on_after(30 * MS):
            await call(app_of(endless, on_close=on_close))

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["cancelled"]


def test_options_of_a_returned_response() -> None:
    summaries = Summaries()
    response = EventSourceResponse([1], retry=5, on_close=summaries)
    assert fetch(response).body == b"retry: 5\ndata: 1\n\n"
    assert summaries.reasons == ["finished"]
    with pytest.raises(TypeError, match="unknown option 'retries'"):
        EventSourceResponse([1], retries=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="retry must be an integer"):
        EventSourceResponse([1], retry=-5)


def test_hooks_in_the_body_of_a_subclass() -> None:
    summaries = Summaries()

    class Mine(EventSourceResponse):
        retry = 7
        on_close = summaries

        @staticmethod
        def on_error(error: Exception) -> ServerSentEvent:
            return ServerSentEvent(comment="failed")

    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    app = FastAPI()
    app.get("/", response_class=Mine)(items)
    assert fetch(app).body == b"retry: 7\ndata: 1\n\n: failed\n\n"
    assert summaries.reasons == ["error"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ping", 5),
        ("ping", None),
        ("ping_form", "comment"),
        ("retry", -1),
        ("retry", 1.5),
        ("retry", True),
        ("send_timeout", 0),
        ("send_timeout", -1),
        ("max_pending", 0),
        ("max_pending", 1.5),
        ("error_window", -1),
        ("error_window", None),
        ("max_duration", 0),
        ("on_error", "log"),
        ("on_close", 5),
        ("shutdown_grace", -1),
        ("shutdown_grace", float("nan")),
        ("farewell", "bye"),
    ],
)
def test_bad_values_are_refused_where_they_are_set(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        EventSourceResponse.with_options(**{name: value})
    with pytest.raises(ValueError, match=f"^{name} must be"):
        type("Bad", (EventSourceResponse,), {name: value})


def test_an_event_that_cannot_be_sent_is_refused_where_it_is_set() -> None:
    event = ServerSentEvent()
    event.event = "a\nb"
    with pytest.raises(ValueError, match="single line"):
        EventSourceResponse.with_options(farewell=event)


# Clean-up, in order, however a stream ends


class Item(BaseModel):
    n: int


class Ending(NamedTuple):
    """A way for a stream to end.

    Attributes:
        reason: What `on_close` is told.
        complete: Whether the response is.
        background: Whether background tasks run.
        status: Of the response.
    """

    reason: str
    complete: bool
    background: bool = True
    status: int = 200


ENDINGS = {
    "returned": Ending("finished", complete=True),
    "raised at once": Ending("error", complete=True, background=False, status=500),
    "raised": Ending("error", complete=False, background=False),
    "yielded what is invalid": Ending("error", complete=False, background=False),
    "client gone": Ending("disconnected", complete=False),
    "client gone while frozen": Ending("disconnected", complete=False),
    "client frozen": Ending("send_timeout", complete=False),
    "cancelled": Ending("cancelled", complete=False, background=False),
    "max_duration": Ending("max_duration", complete=True),
    "shutdown": Ending("shutdown", complete=True),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "client frozen": {"send_timeout": 20 * MS},
    "max_duration": {"max_duration": 30 * MS},
}
CLIENTS: dict[str, dict[str, Any]] = {
    "client gone": {"disconnect_after": 3},
    "client gone while frozen": {"disconnect_after": 3, "freeze_after": 3},
    "client frozen": {"freeze_after": 3},
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_the_order_of_clean_up(ending: str, kind: str, anyio_backend: str) -> None:
    reason, complete, background, status = ENDINGS[ending]
    log: list[str] = []

    async def resource() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("dependency")

    def step(number: int) -> Any:
        if number == 0 and ending == "raised at once":
            raise LookupError
        if number == 5 and ending == "raised":
            raise LookupError
        if number == 5 and ending == "yielded what is invalid":
            return {}
        if number == 5 and ending == "shutdown":
            shutdown()
        return Item(n=number)

    async def items(tasks: BackgroundTasks) -> AsyncIterator[Item]:
        tasks.add_task(log.append, "background")
        try:
            for number in range(10 if ending == "returned" else 1_000_000):
                yield step(number)
                await anyio.sleep(MS)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(MS)
            log.append("generator")

    def sync_items(tasks: BackgroundTasks) -> Iterator[Item]:
        tasks.add_task(log.append, "background")
        try:
            for number in range(10 if ending == "returned" else 1_000_000):
                yield step(number)
                time.sleep(MS)
        finally:
            log.append("generator")

    response_class = EventSourceResponse.with_options(
        on_close=lambda summary: log.append(summary.reason),
        **OPTIONS.get(ending, {}),
    )
    app = FastAPI()
    app.get("/", response_class=response_class, dependencies=[Depends(resource)])(
        items if kind == "async" else sync_items
    )

    async def main() -> Reply | None:
        with anyio.move_on_after(30 * MS if ending == "cancelled" else 20):
            return await call(app, **CLIENTS.get(ending, {}))
        return None

    reply = anyio.run(main, backend=anyio_backend)
    tasks = ["background"] if background else []
    assert log == ["generator", *tasks, "dependency", reason]
    if reply is not None:
        assert (reply.status, reply.complete) == (status, complete)


def test_a_generator_is_closed_in_the_task_that_iterated_it(
    anyio_backend: str,
) -> None:
    tasks: set[int] = set()

    def in_task() -> None:
        tasks.add(anyio.get_current_task().id)

    async def items() -> AsyncIterator[int]:
        in_task()
        try:
            for number in range(1_000_000):
                yield number
                in_task()
                await anyio.sleep(MS)
        finally:
            in_task()

    app = app_of(items)
    for leave_after in (1, 5):
        tasks.clear()
        fetch(app, backend=anyio_backend, disconnect_after=leave_after)
        assert len(tasks) == 1


def test_a_sync_generator_never_runs_in_the_loops_thread(anyio_backend: str) -> None:
    threads: list[int] = []

    def items() -> Iterator[int]:
        threads.append(threading.get_ident())
        try:
            while True:
                yield 1
                threads.append(threading.get_ident())
                time.sleep(MS)
        finally:
            threads.append(threading.get_ident())

    fetch(app_of(items), backend=anyio_backend, disconnect_after=3)
    assert len(threads) > 3
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_generator_that_hangs_while_closing_is_given_up(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver, "CLOSE_TIMEOUT", 50 * MS)
    release = threading.Event()
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(MS)
            yield 2
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(3600)

    def sync_items() -> Iterator[int]:
        try:
            yield 1
            yield 2
            release.wait(10)
            yield 3
        finally:
            closed.append(True)

    async def main() -> None:
        with caplog.at_level(logging.WARNING):
            started = time.perf_counter()
            endpoint = items if kind == "async" else sync_items
            await call(app_of(endpoint), disconnect_after=2)
            assert time.perf_counter() - started < 5
        release.set()
        for _ in range(1000):
            if len(asyncio.all_tasks()) == 1:
                break
            await asyncio.sleep(MS)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert "did not close within" in caplog.text
    assert closed == ([] if kind == "async" else [True])


def test_an_error_while_closing_reaches_the_server(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(MS)
        finally:
            raise LookupError("in finally")

    summaries = Summaries()
    app = app_of(items, on_close=summaries)
    reply = fetch(app, backend=anyio_backend, disconnect_after=1)
    assert isinstance(reply.error, LookupError)
    assert summaries.reasons == ["error"]


# Slow and frozen clients


def test_a_frozen_client_is_dropped(anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[EncodedEvent]:
        frame = EncodedEvent(raw_data="x" * 1000)
        try:
            while True:
                yield frame
        finally:
            closed.append(True)

    summaries = Summaries()
    app = app_of(items, send_timeout=50 * MS, on_close=summaries)

    async def main() -> None:
        with anyio.fail_after(5):
            await app(scope(), receive_nothing, send_for_ever)

    anyio.run(main, backend=anyio_backend)
    assert closed == [True]
    assert summaries.reasons == ["send_timeout"]


def test_a_frozen_client_is_dropped_on_a_real_socket() -> None:
    async def items() -> AsyncIterator[EncodedEvent]:
        frame = EncodedEvent(raw_data="x" * 1000)
        while True:
            yield frame

    summaries = Summaries()
    with serve(app_of(items, send_timeout=100 * MS, on_close=summaries)) as port:
        with Client(port, buffer_size=4096) as client:
            client.read_until(b"x")
            wait_until(lambda: summaries)
    assert summaries.reasons == ["send_timeout"]


def test_a_slow_client_delays_nobody_else() -> None:
    """One reads 1 KiB/s, a hundred at a time read as fast as they can."""
    frame = EncodedEvent(raw_data="x" * 1000)
    produced = 0

    async def items(n: int) -> AsyncIterator[EncodedEvent]:
        nonlocal produced
        for _ in range(n):
            yield frame
            if n > 1000:
                produced += 1

    def read_fast(_: int) -> bool:
        return get(port, "/?n=300") == bytes(frame) * 300

    with (
        serve(app_of(items)) as port,
        Client(port, "/?n=100000", buffer_size=4096) as slow,
        concurrent.futures.ThreadPoolExecutor(100) as pool,
    ):
        stop = threading.Event()

        def crawl() -> None:
            while not stop.wait(0.1):
                slow.socket.recv(102)

        crawler = threading.Thread(target=crawl)
        crawler.start()
        wait_until(lambda: produced)
        started = time.perf_counter()
        assert all(pool.map(read_fast, range(100)))
        elapsed = time.perf_counter() - started
        stop.set()
        crawler.join()
    assert elapsed < 10  # of 100 s that the slow one would take for as much
    assert 0 < produced * 1000 < 10_000_000  # what sockets, loop and buffer may hold


def test_the_generator_waits_at_max_pending() -> None:
    produced = 0

    async def items() -> AsyncIterator[EncodedEvent]:
        nonlocal produced
        frame = EncodedEvent(raw_data="x" * 100)
        while True:
            produced += 1
            yield frame

    app = app_of(items, max_pending=1000, send_timeout=100 * MS)

    async def main() -> None:
        await app(scope(), receive_nothing, send_for_ever)

    anyio.run(main)
    # The first went out by itself, then ten fill the buffer and one is over.
    assert produced <= 12


# Shutdown


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_shutdown_ends_streams_with_a_farewell(kind: str, anyio_backend: str) -> None:
    log: list[str] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            log.append("generator")

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(MS)
        finally:
            log.append("generator")

    summaries = Summaries()
    app = app_of(
        items if kind == "async" else sync_items,
        on_close=summaries,
        farewell=lambda: ServerSentEvent(event="bye", retry=3000),
    )
    timer = threading.Timer(50 * MS, shutdown)
    timer.start()
    reply = fetch(app, backend=anyio_backend)
    timer.join()
    assert reply.complete
    assert reply.body.endswith(b"event: bye\nretry: 3000\n\n")
    assert summaries.reasons == ["shutdown"]
    assert log == ["generator"]


def test_shutdown_grace_lets_a_generator_finish() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        shutdown()
        await anyio.sleep(120 * MS)
        yield 2

    summaries = Summaries()
    app = app_of(items, shutdown_grace=5.0, on_close=summaries)
    reply = fetch(app)
    assert reply.body == b"data: 1\n\ndata: 2\n\n"
    assert summaries.reasons == ["finished"]


def test_shutdown_does_not_cut_a_stream_that_has_just_begun() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        shutdown()
        await anyio.sleep(20 * MS)
        yield 2

    summaries = Summaries()
    reply = fetch(app_of(items, on_close=summaries))
    assert reply.body == b"data: 1\n\ndata: 2\n\n"
    assert summaries.reasons == ["finished"]


def test_shutdown_grace_is_an_end() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        shutdown()
        await anyio.sleep(3600)

    summaries = Summaries()
    reply = fetch(app_of(items, shutdown_grace=130 * MS, on_close=summaries))
    assert reply.complete
    assert summaries.reasons == ["shutdown"]
    assert summaries[0].seconds_open >= 130 * MS


def test_shutdown_concerns_open_streams_only() -> None:
    shutdown()
    assert fetch(EventSourceResponse([1])).body == b"data: 1\n\n"


def test_handlers_are_given_back_while_another_thread_streams() -> None:
    def handler(number: int, frame: object) -> None:
        raise AssertionError

    original = signal.signal(signal.SIGTERM, handler)
    try:
        with serve(app_of(endless)) as port, Client(port) as client:
            client.read_until(b"data: 0\n\n")

            async def stream() -> AsyncIterator[int]:
                yield 1
                assert signal.getsignal(signal.SIGTERM) is not handler

            assert fetch(app_of(stream)).complete
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, original)


def test_shutdown_from_a_server_in_another_thread() -> None:
    summaries = Summaries()
    with serve(app_of(endless, on_close=summaries)) as port:
        with Client(port) as client:
            client.read_until(b"data: 1\n\n")
            shutdown()
            client.read_to_end()
    assert summaries.reasons == ["shutdown"]


def test_signal_handlers_are_ours_only_while_streams_are_open() -> None:
    signals: list[int] = []

    def servers_handler(number: int, frame: object) -> None:
        signals.append(number)

    original = signal.signal(signal.SIGTERM, servers_handler)
    seen = []

    async def items() -> AsyncIterator[int]:
        yield 1
        seen.append(signal.getsignal(signal.SIGTERM))
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(3600)

    try:
        for _ in range(2):
            summaries = Summaries()
            assert fetch(app_of(items, on_close=summaries)).complete
            assert summaries.reasons == ["shutdown"]
            assert signal.getsignal(signal.SIGTERM) is servers_handler
        assert seen[0] is not servers_handler
        assert signals == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, original)


def test_other_handlers_may_join_the_chain_while_a_stream_is_open() -> None:
    signals: list[str] = []

    def server(number: int, frame: object) -> None:
        signals.append("server")

    original = signal.signal(signal.SIGTERM, server)
    previous: list[Any] = []

    def library(number: int, frame: object) -> None:
        signals.append("library")
        previous[0](number, frame)

    async def joins() -> AsyncIterator[int]:
        yield 1
        previous.append(signal.signal(signal.SIGTERM, library))

    async def stopped() -> AsyncIterator[int]:
        yield 1
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(3600)

    try:
        fetch(app_of(joins))
        signal.raise_signal(signal.SIGTERM)
        assert signals == ["library", "server"]
        summaries = Summaries()
        fetch(app_of(stopped, on_close=summaries))
        assert summaries.reasons == ["shutdown"]
        assert signals == ["library", "server"] * 2
        signal.raise_signal(signal.SIGTERM)
        assert signals == ["library", "server"] * 3
    finally:
        signal.signal(signal.SIGTERM, original)


def test_a_signal_while_handlers_change_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signals: list[int] = []
    original = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(1))
    set_handler = signal.signal
    raised = []

    def set_handler_late(number: int, handler: Any) -> Any:
        if number == signal.SIGTERM:
            raised.append(1)
            signal.raise_signal(signal.SIGTERM)
        return set_handler(number, handler)

    monkeypatch.setattr(_shutdown, "_set_handler", set_handler_late)
    try:
        fetch(EventSourceResponse([1]))
        assert signals == raised == [1, 1]
    finally:
        set_handler(signal.SIGTERM, original)


def test_default_signal_handlers_stay() -> None:
    handlers = []

    async def items() -> AsyncIterator[int]:
        yield 1
        handlers.append(signal.getsignal(signal.SIGTERM))

    fetch(app_of(items))
    assert handlers == [signal.SIG_DFL]


def test_nothing_of_a_stream_is_kept() -> None:
    def streams() -> int:
        gc.collect()
        # `isinstance` would ask the objects, some of which are made to misbehave.
        return sum(type(thing) is driver.Stream for thing in gc.get_objects())

    app = app_of(endless, max_duration=5 * MS)
    fetch(app)
    before = streams()
    for _ in range(3):
        fetch(app)
        fetch(app, disconnect_after=1)
    assert streams() == before
