"""`EventStream` and `StreamSummary`, as hooks and generators use them."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    EventStream,
    ServerSentEvent,
    StreamSummary,
    shutdown,
)

from ..support.apps import KINDS, MS, Summaries, app_of, logged
from ..support.asgi import call, fetch, receive_nothing, scope, send_for_ever
from ..support.internals import limits

# on_open


@pytest.mark.parametrize("hook_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_on_open_is_called_before_the_first_item_is_asked_for(
    kind: str, hook_kind: str, anyio_backend: str
) -> None:
    log: list[object] = []

    async def items() -> AsyncIterator[int]:
        log.append("items")
        yield 1

    def sync_items() -> Iterator[int]:
        log.append("items")
        yield 1

    async def on_open(stream: EventStream) -> None:
        await anyio.sleep(MS)
        log.append(stream)

    app = app_of(
        items if kind == "async" else sync_items,
        on_open=on_open if hook_kind == "async" else log.append,
        on_close=lambda summary: log.append(summary.stream),
    )
    assert fetch(app, backend=anyio_backend).complete
    opened, between, closed = log
    assert isinstance(opened, EventStream)
    assert between == "items"
    assert closed is opened
    assert opened.scope["path"] == "/"


def fails_at_once() -> Any:
    raise HTTPException(403)


async def fails_before_an_event() -> AsyncIterator[int]:
    raise HTTPException(404)
    yield 1


async def fails() -> AsyncIterator[int]:
    yield 1
    raise LookupError


async def ends() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("endpoint", "times"),
    [(ends, 1), (fails, 1), (fails_before_an_event, 1), (fails_at_once, 0)],
)
def test_as_many_streams_close_as_have_opened(
    endpoint: Any, times: int, anyio_backend: str
) -> None:
    opened: list[EventStream] = []
    open_now: set[EventStream] = set()

    def on_open(stream: EventStream) -> None:
        opened.append(stream)
        open_now.add(stream)

    app = app_of(
        endpoint,
        on_open=on_open,
        on_close=lambda summary: open_now.remove(summary.stream),
    )
    for method in ("GET", "HEAD"):
        fetch(app, method=method, backend=anyio_backend)
        assert len(opened) == times
        assert not open_now


def test_a_stream_goes_on_after_an_on_open_that_fails(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    def on_open(stream: EventStream) -> None:
        raise LookupError

    summaries = Summaries()
    app = app_of(ends, on_open=on_open, on_close=summaries)
    reply = fetch(app, backend=anyio_backend)
    assert reply.body == b"data: 1\n\n"
    assert summaries.reasons == ["finished"]
    assert logged(caplog) == [("on_open failed", LookupError)]


@pytest.mark.parametrize("hook_kind", KINDS)
@pytest.mark.parametrize("how", ["shutdown", "ended"])
def test_a_stream_can_be_ended_while_it_opens(
    how: str,
    hook_kind: str,
    anyio_backend: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits(monkeypatch, least_duration=0.0)

    def end(stream: EventStream) -> None:
        if how == "shutdown":
            shutdown()
        else:
            stream.end()

    async def end_and_wait(stream: EventStream) -> None:
        end(stream)
        await anyio.sleep(2 * MS)

    async def items() -> AsyncIterator[ServerSentEvent]:
        while True:
            yield ServerSentEvent(data=1)
            await anyio.sleep(MS)

    summaries = Summaries()
    response = EventSourceResponse(
        items(),
        on_open=end if hook_kind == "sync" else end_and_wait,
        on_close=summaries,
    )
    assert fetch(response, backend=anyio_backend).error is None
    assert summaries.reasons == [how]
    # The event loop has not logged an error either.
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


# The stream of a request


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_can_ask_for_its_stream(kind: str, anyio_backend: str) -> None:
    seen: list[EventStream] = []

    async def items(request: Request) -> AsyncIterator[bool]:
        seen.append(EventStream.of(request))
        yield seen[0].is_open
        await anyio.lowlevel.checkpoint()
        assert EventStream.of(request) is seen[0]

    def sync_items(request: Request) -> Iterator[bool]:
        seen.append(EventStream.of(request))
        yield seen[0].is_open
        assert EventStream.of(request) is seen[0]

    summaries = Summaries()
    endpoint = items if kind == "async" else sync_items
    reply = fetch(app_of(endpoint, on_close=summaries), backend=anyio_backend)
    assert reply.body == b"data: true\n\n"
    assert not seen[0].is_open
    assert summaries[0].stream is seen[0]
    assert repr(seen[0]) == "<EventStream '/', closed>"


def test_before_and_after_it_is_open_a_request_has_no_stream(
    anyio_backend: str,
) -> None:
    asked: list[str] = []

    def ask(request: Request) -> None:
        with pytest.raises(LookupError, match="no stream is open for this request"):
            EventStream.of(request)
        asked.append("asked")

    def before_and_after(request: Request) -> Iterator[None]:
        ask(request)
        yield
        ask(request)

    def items(request: Request) -> Any:
        ask(request)
        return EventSourceResponse(["data: 1\n\n"])

    dependencies = [Depends(before_and_after)]
    reply = fetch(app_of(items, dependencies=dependencies), backend=anyio_backend)
    assert reply.complete
    assert asked == ["asked"] * 3


def test_a_stream_knows_its_route(anyio_backend: str) -> None:
    summaries = Summaries()
    response_class = EventSourceResponse.with_options(on_close=summaries)
    router = APIRouter(prefix="/items")
    router.get("/{item_id}/events", response_class=response_class)(ends)
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    app.mount("/sub", app_of(ends, response_class=response_class))
    for path in ("/v1/items/5/events", "/sub/"):
        assert fetch(app, path, backend=anyio_backend).complete
    assert fetch(response_class(["data: 1\n\n"]), backend=anyio_backend).complete
    routes = [summary.route for summary in summaries]
    assert routes == ["/v1/items/{item_id}/events", "/", None]


# Server shutdown


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_can_end_by_itself_in_the_grace(
    kind: str, anyio_backend: str
) -> None:
    async def items(request: Request) -> AsyncIterator[str]:
        stream = EventStream.of(request)
        yield "first"
        shutdown()
        while not stream.is_shutting_down:
            await anyio.sleep(MS)
        yield "last"

    def sync_items(request: Request) -> Iterator[str]:
        stream = EventStream.of(request)
        yield "first"
        shutdown()
        while not stream.is_shutting_down:
            anyio.from_thread.run(anyio.sleep, MS)
        yield "last"

    told: list[bool] = []
    summaries = Summaries()
    app = app_of(
        items if kind == "async" else sync_items,
        shutdown_grace=10.0,
        on_shutdown=lambda stream: told.append(stream.is_shutting_down),
        on_close=summaries,
    )
    reply = fetch(app, backend=anyio_backend)
    assert reply.body == b'data: "first"\n\ndata: "last"\n\n'
    assert reply.complete
    assert told == [True]
    assert summaries.reasons == ["finished"]
    assert not summaries[0].stream.is_shutting_down  # It has ended.


def test_on_shutdown_can_wake_a_generator_and_is_called_once(
    anyio_backend: str,
) -> None:
    told: list[EventStream] = []

    async def main() -> None:
        stopping = anyio.Event()

        async def items() -> AsyncIterator[ServerSentEvent]:
            yield ServerSentEvent(data="first")
            shutdown()
            await stopping.wait()
            shutdown()
            await anyio.sleep(2 * MS)
            yield ServerSentEvent(data="last")

        def on_shutdown(stream: EventStream) -> None:
            told.append(stream)
            stopping.set()

        response = EventSourceResponse(
            items(), shutdown_grace=10.0, on_shutdown=on_shutdown
        )
        reply = await call(response)
        assert reply.body == b'data: "first"\n\ndata: "last"\n\n'
        assert reply.complete

    anyio.run(main, backend=anyio_backend)
    assert len(told) == 1


def test_a_stream_ends_although_its_on_shutdown_fails(
    anyio_backend: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits(monkeypatch, least_duration=0.0)

    async def items() -> AsyncIterator[int]:
        yield 1
        shutdown()
        await anyio.sleep(3600)

    def on_shutdown(stream: EventStream) -> None:
        raise LookupError

    summaries = Summaries()
    app = app_of(items, on_shutdown=on_shutdown, on_close=summaries)
    assert fetch(app, backend=anyio_backend).body == b"data: 1\n\n"
    assert summaries.reasons == ["shutdown"]
    assert logged(caplog) == [("on_shutdown failed", LookupError)]


# Ending one stream


@pytest.mark.parametrize("farewell", [None, ServerSentEvent(event="bye")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_can_be_ended_from_any_thread(
    kind: str, farewell: ServerSentEvent | None, anyio_backend: str
) -> None:
    closed: list[bool] = []
    begun = threading.Event()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            begun.set()
            await anyio.sleep(3600)
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            yield 1
            begun.set()
            anyio.from_thread.run(anyio.sleep, 3600)
        finally:
            closed.append(True)

    opened: list[EventStream] = []
    summaries = Summaries()
    app = app_of(
        items if kind == "async" else sync_items,
        farewell=farewell,
        on_open=opened.append,
        on_close=summaries,
    )

    def end() -> None:
        begun.wait(20)
        opened[0].end()
        opened[0].end()

    thread = threading.Thread(target=end)
    thread.start()
    reply = fetch(app, backend=anyio_backend)
    thread.join()
    opened[0].end()  # It has ended, and its event loop is closed.
    assert reply.error is None
    assert reply.complete == (farewell is not None)
    assert reply.body == b"data: 1\n\n" + (b"event: bye\n\n" if farewell else b"")
    assert summaries.reasons == ["ended"]
    assert closed == [True]


def test_a_generator_can_end_its_own_stream(anyio_backend: str) -> None:
    async def items(request: Request) -> AsyncIterator[int]:
        yield 1
        EventStream.of(request).end()
        while True:
            yield 2
            await anyio.sleep(MS)

    summaries = Summaries()
    app = app_of(items, on_close=summaries)
    reply = fetch(app, backend=anyio_backend)
    assert reply.body.startswith(b"data: 1\n\n")
    assert not reply.complete
    assert summaries.reasons == ["ended"]


def test_other_streams_go_on(anyio_backend: str) -> None:
    opened: list[EventStream] = []

    async def items(request: Request) -> AsyncIterator[int]:
        yield 1
        while opened[0].is_open:
            await anyio.sleep(MS)
        yield 2

    summaries = Summaries()
    app = app_of(items, on_open=opened.append, on_close=summaries)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, app)
            tasks.start_soon(call, app)
            while len(opened) < 2:
                await anyio.sleep(MS)
            opened[0].end()

    anyio.run(main, backend=anyio_backend)
    assert sorted(summaries.reasons) == ["ended", "finished"]


def test_a_client_that_does_not_read_does_not_keep_a_stream_that_is_ended(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, last_send_timeout=10 * MS)
    opened: list[EventStream] = []
    summaries = Summaries()

    async def items() -> AsyncIterator[EncodedEvent]:
        while True:
            yield EncodedEvent(raw_data="x" * 1000)
            await anyio.sleep(MS)

    app = app_of(items, on_open=opened.append, on_close=summaries)

    async def main() -> None:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(app, scope(), receive_nothing, send_for_ever)
                while not opened:
                    await anyio.sleep(MS)
                await anyio.sleep(5 * MS)
                opened[0].end()

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["ended"]
    assert summaries[0].seconds_waiting > 5 * MS


# Summaries


@pytest.mark.parametrize(
    ("endpoint", "kind", "status"),
    [
        (ends, None, 201),
        (fails, LookupError, 201),
        (fails_before_an_event, HTTPException, None),
    ],
)
def test_a_summary_has_the_status_and_the_error(
    endpoint: Callable[[], Any],
    kind: type[Exception] | None,
    status: int | None,
    anyio_backend: str,
) -> None:
    summaries = Summaries()
    app = app_of(endpoint, status_code=201, on_close=summaries)
    fetch(app, backend=anyio_backend)
    (summary,) = summaries
    assert type(summary.error) is (type(None) if kind is None else kind)
    assert summary.status == status
    assert summary.route == "/"
    assert 0 <= summary.seconds_waiting <= summary.seconds_open


def test_a_summary_has_no_error_of_a_background_task(anyio_backend: str) -> None:
    async def fail() -> None:
        raise LookupError

    summaries = Summaries()
    response: Any = EventSourceResponse(["data: 1\n\n"], on_close=summaries)
    response.background = fail
    reply = fetch(response, backend=anyio_backend)
    assert isinstance(reply.error, LookupError)
    assert summaries.reasons == ["finished"]
    assert summaries[0].error is None


def test_a_summary_tells_how_long_the_client_was_waited_for(
    anyio_backend: str,
) -> None:
    summaries = Summaries()

    async def main() -> None:
        taken = anyio.Event()

        async def items() -> AsyncIterator[int]:
            yield 1
            await taken.wait()
            await anyio.sleep(20 * MS)
            yield 2

        async def slow_send(message: Any) -> None:
            if message.get("body"):
                await anyio.sleep(10 * MS)
                taken.set()

        await app_of(items, on_close=summaries)(scope(), receive_nothing, slow_send)

    anyio.run(main, backend=anyio_backend)
    (summary,) = summaries
    assert summary.seconds_waiting >= 20 * MS
    assert summary.seconds_open - summary.seconds_waiting >= 19 * MS


def test_a_summary_is_a_value() -> None:
    summaries = Summaries()
    fetch(app_of(ends, on_close=summaries))
    assert isinstance(summaries[0], StreamSummary)
    assert summaries[0] == summaries[0]
    assert "reason='finished'" in repr(summaries[0])
    assert dataclasses.asdict(summaries[0])["stream"] is summaries[0].stream
    assert copy.copy(summaries[0].stream) is summaries[0].stream
