"""The end of a stream: the order of cleanup, and the summary for `on_close`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Response
from pydantic import BaseModel
from starlette.background import BackgroundTask

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    ServerSentEvent,
    StreamSummary,
    shutdown,
)

from ..support.apps import KINDS, MS, Log, Summaries, app_of, endless, noted
from ..support.asgi import call, call_until, fetch
from ..support.eventsource import parse
from ..support.internals import limits
from ..support.middlewares import around_send
from ..support.server import get, serve, wait_until

# The order of cleanup, for each ending


class Item(BaseModel):
    n: int


class Ending(NamedTuple):
    """A way for a stream to end.

    Attributes:
        reason: Reason in the summary.
        complete: Whether the response is complete.
        background: Whether background tasks run.
        status: Status of the response.
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
    "max_duration": Ending("max_duration", complete=False),
    "shutdown": Ending("shutdown", complete=False),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "client frozen": {"send_timeout": 20 * MS},
    "max_duration": {"max_duration": 100 * MS},
}
CLIENTS: dict[str, dict[str, Any]] = {
    "client gone": {"disconnect_after": 3},
    "client gone while frozen": {"disconnect_after": 3, "freeze_after": 3},
    "client frozen": {"freeze_after": 3},
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_clean_up(ending: str, kind: str, anyio_backend: str) -> None:
    reason, complete, background, status = ENDINGS[ending]
    log: list[str] = []
    cancel = threading.Event()

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
        if number == 5 and ending == "cancelled":
            cancel.set()
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

    if ending == "cancelled":
        anyio.run(call_until, cancel.is_set, app, backend=anyio_backend)
        reply = None
    else:
        reply = fetch(app, backend=anyio_backend, **CLIENTS.get(ending, {}))
    tasks = ["background"] if background else []
    assert log == ["generator", *tasks, "dependency", reason]
    if reply is not None:
        assert (reply.status, reply.complete) == (status, complete)


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


# max_duration


@pytest.mark.parametrize("farewell", [None, ServerSentEvent(event="bye")])
def test_max_duration_ends_a_stream(
    farewell: ServerSentEvent | None, anyio_backend: str
) -> None:
    """A final event completes the response. Without one it is aborted."""
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
    app = app_of(items, max_duration=50 * MS, on_close=summaries, farewell=farewell)
    reply = fetch(app, backend=anyio_backend)
    assert reply.complete == (farewell is not None)
    assert reply.body.endswith(b"event: bye\n\n") == reply.complete
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
        reply = fetch(app)
        assert (reply.status, reply.error) == (200, None)
        assert summaries.reasons == ["max_duration"]


def test_max_duration_varies() -> None:
    options = EventSourceResponse.with_options(max_duration=100.0).options
    times = {options.seconds_to_live() for _ in range(100)}
    assert 90 <= min(times) < 98
    assert 102 < max(times) <= 110


# on_close


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


def test_the_first_event_is_not_later_than_the_end() -> None:
    """The clock of uvloop counts whole milliseconds, as this one does."""
    coarse = asyncio.new_event_loop()
    coarse.time = lambda: time.monotonic() // MS * MS  # type: ignore[method-assign]
    summaries = Summaries()
    app = app_of(lambda: [1], on_close=summaries)
    with contextlib.closing(coarse):
        for _ in range(20):
            coarse.run_until_complete(call(app))
    assert len(summaries) == 20
    for summary in summaries:
        assert summary.seconds_to_first_event is not None
        assert 0 < summary.seconds_to_first_event <= summary.seconds_open


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

    goes_on = []

    async def items() -> AsyncIterator[int]:
        async for number in endless():
            yield number
            goes_on.append(number)

    app = app_of(items, on_close=on_close)
    anyio.run(call_until, lambda: goes_on, app, backend=anyio_backend)
    assert summaries.reasons == ["cancelled"]


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
        """Middleware that responds after FastAPI has raised."""

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


def test_a_middleware_that_goes_on_after_the_last_message() -> None:
    log = []

    class Audit:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def audited(message: Any) -> None:
                await send(message)
                if not message.get("more_body", True):
                    await anyio.sleep(20 * MS)
                    log.append("audited")

            await self.app(scope, receive, audited)

    async def items() -> AsyncIterator[int]:
        yield 1

    app = app_of(items, on_close=lambda summary: log.append(summary.reason))
    app.add_middleware(Audit)
    with serve(app) as port:
        assert get(port).endswith(b"data: 1\n\n")
        wait_until(lambda: len(log) == 2)
    assert log == ["audited", "finished"]


@pytest.mark.parametrize("size", [20_000, 300_000])  # Large: each has its own send.
@pytest.mark.parametrize("ending", ["max_duration", "shutdown"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_finished_generator_has_yielded_is_sent_although_time_is_up(
    kind: str,
    ending: str,
    size: int,
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits(monkeypatch, least_duration=0.0, last_send_timeout=5.0)
    closed = threading.Event()

    async def items() -> AsyncIterator[EncodedEvent]:
        for number in range(3):
            yield EncodedEvent(raw_data="x" * size, id=str(number))
        closed.set()

    def sync_items() -> Iterator[EncodedEvent]:
        for number in range(3):
            yield EncodedEvent(raw_data="x" * size, id=str(number))
        closed.set()

    summaries = Summaries()

    async def slow(send: Any, message: Any) -> None:
        if message.get("body") and not closed.is_set():
            while not closed.is_set():
                await anyio.sleep(MS)
            if ending == "shutdown":
                shutdown()
            await anyio.sleep(120 * MS)
        await send(message)

    app = app_of(
        items if kind == "async" else sync_items,
        max_duration=100 * MS if ending == "max_duration" else None,
        max_pending=1_000_000,
        on_close=summaries,
    )
    reply = fetch(around_send(app, slow), backend=anyio_backend)
    assert reply.complete
    assert reply.body.count(b"x") == 3 * size
    assert reply.body.endswith(b"x\nid: 2\n\n")
    assert summaries.reasons == ["finished"]
