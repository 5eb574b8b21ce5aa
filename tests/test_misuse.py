"""Generators, hooks, servers and loops that behave badly: a stream still ends well."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI, HTTPException

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
from .support.server import get, serve, wait_until
from .test_lifecycle import MS, Summaries, app_of, endless

KINDS = ["async", "sync"]


class OddError(BaseException):
    """What is no `Exception`."""


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    """What the package has logged, and about which errors."""
    return [
        (record.getMessage(), record.exc_info and record.exc_info[0])
        for record in caplog.records
        if record.name == "fastapi_sse_fast" and record.levelno >= logging.WARNING
    ]


# Cancelled again and again


class SlowToClose:
    """An application whose stream takes its time to close.

    Attributes:
        log: What has been closed.
        closing: Set when the generator begins to close.
        app: Its stream is at "/".
    """

    def __init__(self, kind: str, *, pause: float, **options: Any) -> None:
        self.log: list[str] = []
        self.closing = threading.Event()
        self.app = FastAPI()

        async def resource() -> AsyncIterator[None]:
            try:
                yield
            finally:
                self.log.append("dependency")

        async def items() -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
                    await asyncio.sleep(pause)
            finally:
                self.closing.set()
                await asyncio.sleep(20 * MS)
                self.log.append("generator")

        def sync_items() -> Iterator[int]:
            try:
                while True:
                    yield 1
                    time.sleep(MS)
            finally:
                self.closing.set()
                time.sleep(20 * MS)
                self.log.append("generator")

        self.app.get(
            "/",
            response_class=EventSourceResponse.with_options(**options),
            dependencies=[Depends(resource)],
        )(items if kind == "async" else sync_items)


@pytest.mark.parametrize("cancels", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_cancelling_more_than_once(kind: str, cancels: int) -> None:
    slow: SlowToClose = SlowToClose(
        kind, pause=3600, on_close=lambda summary: slow.log.append(summary.reason)
    )

    async def main() -> None:
        task = asyncio.create_task(call(slow.app))
        await asyncio.sleep(100 * MS)
        for _ in range(cancels):
            task.cancel()
            while not slow.closing.is_set():
                assert not task.done()
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert slow.log == ["generator", "dependency", "cancelled"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["disconnected", "max_duration"])
def test_cancelling_while_the_generator_closes(ending: str, kind: str) -> None:
    # On a busy machine a thread may take some time to start.
    slow = SlowToClose(
        kind, pause=MS, max_duration=100 * MS if ending == "max_duration" else None
    )

    async def main() -> None:
        leave = 1 if ending == "disconnected" else None
        task = asyncio.create_task(call(slow.app, disconnect_after=leave))
        while not slow.closing.is_set():
            assert not task.done()
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert slow.log == ["generator", "dependency"]


# Stopped at any step


STEPS = 40  # of the loop: more than a short stream takes

STOPS = ["cancelled", "disconnected", "shutdown"]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_can_be_stopped_at_any_step(
    kind: str, stop: str, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whenever that is, all that has begun is ended, once and in order."""
    log: list[str] = []
    ends = {"generator": "generator closed", "dependency": "dependency closed"}

    async def resource() -> AsyncIterator[None]:
        log.append("dependency")
        try:
            yield
        finally:
            log.append("dependency closed")

    async def items() -> AsyncIterator[int]:
        log.append("generator")
        try:
            for number in range(5):
                yield number
                await anyio.lowlevel.checkpoint()
        except BaseException:
            with anyio.CancelScope(shield=True):  # for trio
                await anyio.lowlevel.checkpoint()
            raise
        finally:
            log.append("generator closed")

    def sync_items() -> Iterator[int]:
        log.append("generator")
        try:
            yield from range(5)
        finally:
            log.append("generator closed")

    async def on_close(summary: StreamSummary) -> None:
        await anyio.lowlevel.checkpoint()
        log.append("over")

    app = FastAPI()
    app.get(
        "/",
        response_class=EventSourceResponse.with_options(on_close=on_close),
        dependencies=[Depends(resource)],
    )(items if kind == "async" else sync_items)

    async def main(steps: int) -> None:
        leave = anyio.Event()
        around = anyio.CancelScope()

        async def request() -> None:
            with around:
                await call(app, disconnect_at=leave)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            if stop == "cancelled":
                around.cancel()
            elif stop == "disconnected":
                leave.set()
            else:
                shutdown()

    for steps in range(STEPS):
        log.clear()
        anyio.run(main, steps, backend=anyio_backend)
        begun = [name for name in log if name in ends]
        # What was begun last is ended first, and `on_close` is called after all.
        ended = [name for name in log if name not in ends]
        over = ["over"] if "over" in log else []
        assert ended == [*(ends[name] for name in reversed(begun)), *over], steps
        assert "generator" not in begun or over, steps
        assert not _shutdown._open, steps
    assert logged(caplog) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_can_be_cancelled_at_any_step_and_again(kind: str) -> None:
    """As `asyncio` does it, without a scope."""
    log: list[str] = []
    logs = set()

    async def items() -> AsyncIterator[int]:
        log.append("begun")
        try:
            for number in range(5):
                yield number
                await asyncio.sleep(0)
        except (asyncio.CancelledError, GeneratorExit):
            await asyncio.sleep(0)  # which nothing interrupts a second time
            await asyncio.sleep(0)
            log.append("interrupted")
            raise
        finally:
            log.append("closed")

    def sync_items() -> Iterator[int]:
        log.append("begun")
        try:
            yield from range(5)
        finally:
            log.append("closed")

    async def main(first: int, second: int) -> None:
        task = asyncio.create_task(
            call(EventSourceResponse(items() if kind == "async" else sync_items()))
        )
        for pause in (first, second):
            for _ in range(pause):
                await asyncio.sleep(0)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    for first in range(20):
        for second in range(5):
            log.clear()
            asyncio.run(main(first, second))
            logs.add(tuple(log))
            assert not _shutdown._open
    assert logs <= {
        (),
        ("begun", "closed"),
        ("begun", "interrupted", "closed"),
    }
    assert len(logs) == (3 if kind == "async" else 2)


# Hanging


@pytest.mark.parametrize("ending", ["max_duration", "shutdown"])
def test_a_generator_that_hangs_is_given_up_once(
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(driver, "CLOSE_TIMEOUT", 50 * MS)

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            if ending == "shutdown":
                shutdown()
            await anyio.sleep(3600)
        finally:
            await anyio.sleep(3600)

    summaries = Summaries()
    limit = 10 * MS if ending == "max_duration" else None
    app = app_of(items, max_duration=limit, on_close=summaries)

    async def main() -> Reply:
        with anyio.fail_after(5):
            return await call(app)

    reply = anyio.run(main)
    assert reply.complete
    assert summaries.reasons == [ending]
    ends_at = limit or driver.LEAST_DURATION
    assert summaries[0].seconds_open < ends_at + 85 * MS
    assert len(logged(caplog)) == 1


def test_a_generator_that_hangs_at_a_yield_is_given_up(
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(driver, "CLOSE_TIMEOUT", 20 * MS)

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.sleep(3600)

    summaries = Summaries()
    app = app_of(items, on_close=summaries)
    reply = fetch(app, backend=anyio_backend, disconnect_after=1)
    assert reply.error is None
    assert summaries.reasons == ["disconnected"]
    assert summaries[0].seconds_open < 5
    assert ["did not close within" in message for message, _ in logged(caplog)] == [
        True
    ]


@pytest.mark.parametrize("began", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_that_hangs_after_an_error_is_given_up(
    kind: str,
    began: bool,
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error is in what it yielded, so it is not over."""
    if (kind, anyio_backend) == ("sync", "trio"):
        pytest.skip("trio waits for threads")
    monkeypatch.setattr(driver, "CLOSE_TIMEOUT", 150 * MS)
    release = threading.Event()

    async def items() -> AsyncIterator[Any]:
        try:
            if began:
                yield 1
            yield object()
        finally:
            await anyio.sleep(3600)

    def sync_items() -> Iterator[Any]:
        try:
            if began:
                yield 1
            yield object()
        finally:
            release.wait(20)

    items.__annotations__ = sync_items.__annotations__ = {}
    app = app_of(items if kind == "async" else sync_items)

    async def main() -> Reply:
        reply = await call(app)
        release.set()
        await anyio.sleep(5 * MS)
        return reply

    reply = anyio.run(main, backend=anyio_backend)
    assert isinstance(reply.error, ValueError)
    # Also where closing takes longer than `error_window`.
    assert reply.status == (200 if began else 500)
    assert reply.complete == (not began)
    assert [error for _, error in logged(caplog)] == [None]


def test_a_generator_that_closes_slowly_at_shutdown(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            shutdown()
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(60 * MS)

    app = app_of(items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "LAST_SEND_TIMEOUT", 10 * MS)
        reply = fetch(app, backend=anyio_backend)
    assert reply.complete


def test_an_error_of_a_generator_that_was_given_up_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver, "CLOSE_TIMEOUT", 10 * MS)

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            raise LookupError("late")

    async def main() -> None:
        reply = await call(app_of(items), disconnect_after=1)
        assert reply.error is None  # nobody waits for it any more
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(MS)

    asyncio.run(main())
    assert [error for _, error in logged(caplog)] == [None, LookupError]


@pytest.mark.parametrize("hook", ["on_error", "on_close"])
def test_a_hook_that_hangs_is_given_up(
    hook: str,
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(driver, "CLOSE_TIMEOUT", 20 * MS)

    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    async def hang(argument: object) -> None:
        await anyio.sleep(3600)

    options: Any = {hook: hang}
    reply = fetch(app_of(items, **options), backend=anyio_backend)
    assert isinstance(reply.error, LookupError)
    assert reply.body == b"data: 1\n\n"
    assert [message for message, _ in logged(caplog)] == [
        f"{hook} did not end within 0.02 seconds"
    ]


# Failing


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_ping_that_fails_is_logged_and_the_stream_goes_on(
    error: type[Exception], anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    async def items() -> AsyncIterator[int]:
        yield 1
        while len(asked) < 2:
            await anyio.sleep(MS)
        yield 2

    def ping() -> ServerSentEvent:
        asked.append(1)
        if len(asked) == 1:
            raise error
        return ServerSentEvent(comment="ping")

    app = app_of(items, ping=ping, ping_interval=5 * MS)
    reply = fetch(app, backend=anyio_backend)
    assert reply.complete
    assert reply.body.startswith(b"data: 1\n\n: ping\n\n")
    assert reply.body.endswith(b"data: 2\n\n")
    assert logged(caplog) == [("ping failed", error)]


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_farewell_that_fails_is_logged_and_loses_nothing(
    error: type[Exception], anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        shutdown()
        yield 2
        await anyio.sleep(3600)

    def farewell() -> ServerSentEvent:
        raise error

    reply = fetch(app_of(items, farewell=farewell), backend=anyio_backend)
    assert reply.complete
    assert reply.body == b"data: 1\n\ndata: 2\n\n"
    assert logged(caplog) == [("farewell failed", error)]


@pytest.mark.parametrize("made", [None, 5, "text", {"data": 1}])
def test_what_an_option_makes_has_to_be_an_event(
    made: Any, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(20 * MS)
        shutdown()
        await anyio.sleep(3600)

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    options: Any = {"ping": lambda: made, "farewell": lambda: made}
    app = app_of(items, ping_interval=15 * MS, **options)
    reply = fetch(app, backend=anyio_backend)
    assert reply.complete
    assert reply.body.replace(b": ping\n\n", b"") == b"data: 1\n\n"
    assert set(logged(caplog)) == {
        ("ping failed", TypeError),
        ("farewell failed", TypeError),
    }
    assert f"ping must make an event, not {made!r}" in caplog.text

    caplog.clear()
    options = {"on_error": lambda error: made}
    reply = fetch(app_of(broken, **options), backend=anyio_backend)
    assert isinstance(reply.error, LookupError)
    assert reply.body == b"data: 1\n\n"
    expected = [] if made is None else [("on_error failed", TypeError)]
    assert logged(caplog) == expected


def test_an_error_that_only_looks_like_a_group_is_not_lost() -> None:
    class BatchError(Exception):
        exceptions: tuple[Exception, ...] = ()

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(MS)
        finally:
            raise BatchError

    reply = fetch(app_of(items), disconnect_after=1)
    assert isinstance(reply.error, BatchError)


def test_an_error_while_cancelled_is_logged(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            raise LookupError("in finally")

    async def main() -> None:
        with anyio.move_on_after(20 * MS) as around:
            await call(app_of(items))
        assert around.cancelled_caught

    anyio.run(main, backend=anyio_backend)
    assert [error for _, error in logged(caplog)] == [LookupError]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_is_cancelled_is_no_error_to_log(
    kind: str, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(3600)

    def sync_items() -> Iterator[int]:
        while True:
            yield 1
            time.sleep(MS)

    async def main() -> None:
        with anyio.move_on_after(20 * MS):
            await call(app_of(items if kind == "async" else sync_items))

    for _ in range(5):  # the order of tasks is random on trio
        anyio.run(main, backend=anyio_backend)
    assert logged(caplog) == []


def test_a_loop_that_ends_beside_a_stream_is_no_error_to_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`asyncio.run` cancels all of its tasks, also the stream's own."""
    closed: list[bool] = []
    tasks = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    async def main() -> None:
        tasks.append(asyncio.create_task(call(app_of(items))))
        await asyncio.sleep(20 * MS)

    asyncio.run(main())
    assert closed == [True]
    assert logged(caplog) == []


def test_of_two_errors_one_is_raised_and_one_is_logged(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            raise LookupError("in finally")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await EventSourceResponse(items())(scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)
    assert [error for _, error in logged(caplog)] == [LookupError]


def test_a_receive_that_fails_hides_no_error(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError("mid-stream")

    failing = anyio.Event()

    async def receive() -> Any:
        await failing.wait()
        raise ZeroDivisionError

    async def on_error(error: Exception) -> None:
        failing.set()
        await anyio.sleep(3600)

    async def main() -> None:
        response = EventSourceResponse(items(), on_error=on_error)

        async def send(message: Any) -> None:
            pass

        with pytest.raises(LookupError):
            await response(scope(), receive, send)

    anyio.run(main, backend=anyio_backend)
    assert [error for _, error in logged(caplog)] == [ZeroDivisionError]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_in_a_generator_stops_the_loop_and_completes_nothing(
    kind: str, error: type[BaseException]
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(5 * MS)
        raise error

    def sync_items() -> Iterator[int]:
        yield 1
        time.sleep(5 * MS)
        raise error

    app = app_of(items if kind == "async" else sync_items)
    loop = asyncio.new_event_loop()
    task = loop.create_task(call(app))
    with pytest.raises(error):
        loop.run_until_complete(task)
    # As in a notebook, whose loop goes on.
    reply = loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert reply.body == b"data: 1\n\n"
    assert not reply.complete
    assert isinstance(reply.error, RuntimeError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_that_ignores_its_end(kind: str, anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            yield 2

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            yield 2

    app = app_of(items if kind == "async" else sync_items)
    reply = fetch(app, backend=anyio_backend, disconnect_after=1)
    assert "ignored GeneratorExit" in str(reply.error)
    assert b"2" not in reply.body
    gc.collect()


@pytest.mark.parametrize("kind", KINDS)
def test_two_streams_of_one_generator(kind: str) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await asyncio.sleep(20 * MS)

    def sync_items() -> Iterator[int]:
        for number in range(3):
            yield number
            time.sleep(20 * MS)

    async def main() -> list[Reply]:
        shared = items() if kind == "async" else sync_items()
        return await asyncio.gather(
            *(call(EventSourceResponse(shared)) for _ in range(2))
        )

    replies = asyncio.run(main())
    errors = [reply.error for reply in replies]
    assert any(isinstance(error, (RuntimeError, ValueError)) for error in errors)


@pytest.mark.parametrize("send_timeout", [60.0, None])
def test_a_frozen_client_is_dropped_though_shutdown_is_called_again_and_again(
    send_timeout: float | None, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LAST_SEND_TIMEOUT", 50 * MS)

    async def items() -> AsyncIterator[EncodedEvent]:
        frame = EncodedEvent(raw_data="x" * 1000)
        while True:
            yield frame

    app = app_of(items, send_timeout=send_timeout)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:

            async def shut_down_again() -> None:
                while True:
                    await anyio.sleep(5 * MS)
                    shutdown()

            tasks.start_soon(shut_down_again)
            with anyio.fail_after(5):
                await app(scope(), receive_nothing, send_for_ever)
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=anyio_backend)


@pytest.mark.parametrize("ending", ["max_duration", "shutdown"])
def test_shutdown_again_while_a_generator_closes(
    ending: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response is completed, however long the generator takes."""
    monkeypatch.setattr(driver, "LAST_SEND_TIMEOUT", 5 * MS)

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            if ending == "shutdown":
                shutdown()
            await anyio.sleep(3600)
        finally:
            shutdown()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(30 * MS)

    summaries = Summaries()
    limit = 10 * MS if ending == "max_duration" else None
    app = app_of(items, max_duration=limit, on_close=summaries)
    assert fetch(app, backend=anyio_backend).complete
    assert summaries.reasons == [ending]


def test_a_client_may_be_slow_while_shutdown_grace_lasts(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LAST_SEND_TIMEOUT", 5 * MS)

    async def items() -> AsyncIterator[int]:
        yield 1
        shutdown()
        yield 2

    sent = b""

    async def slow_send(message: Any) -> None:
        nonlocal sent
        await anyio.sleep(30 * MS)
        sent += message.get("body", b"")

    summaries = Summaries()
    app = app_of(items, shutdown_grace=20.0, on_close=summaries)

    async def main() -> None:
        await app(scope(), receive_nothing, slow_send)

    anyio.run(main, backend=anyio_backend)
    assert sent == b"data: 1\n\ndata: 2\n\n"
    assert summaries.reasons == ["finished"]


def test_a_client_that_freezes_while_a_generator_closes_at_shutdown(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LAST_SEND_TIMEOUT", 20 * MS)

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            shutdown()
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(50 * MS)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message["body"]:
            await anyio.sleep_forever()

    async def main() -> None:
        with anyio.fail_after(5):
            await app_of(items)(scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)


@pytest.mark.parametrize("where", ["send", "on_error", "ping"])
def test_what_is_no_exception_is_raised_from_anywhere(
    where: str, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise OddError

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(20 * MS)
        raise LookupError

    async def send(message: Any) -> None:
        if where == "send" and message["type"] == "http.response.body":
            raise OddError

    options: Any = {} if where == "send" else {where: fail}
    app = app_of(items, ping_interval=5 * MS, **options)

    def odd_errors(error: BaseException) -> list[BaseException]:
        parts = getattr(error, "exceptions", None)  # of trio's nursery
        return [error] if parts is None else [e for p in parts for e in odd_errors(p)]

    async def main() -> None:
        await app(scope(), receive_nothing, send)

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        anyio.run(main, backend=anyio_backend)
    assert [type(error) for error in odd_errors(caught.value)] == [OddError]


def test_a_loop_that_is_closed_under_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_open", "_open_in_main"):  # where the stream is for ever
        monkeypatch.setattr(_shutdown, name, set())
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            closed.append(True)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    task = loop.create_task(call(app_of(items)))
    loop.run_until_complete(asyncio.sleep(20 * MS))
    loop.close()
    shutdown()
    assert fetch(EventSourceResponse([1])).body == b"data: 1\n\n"
    assert not task.done()


def test_nested_scopes_around_a_yield(anyio_backend: str) -> None:
    log: list[str] = []

    async def items() -> AsyncIterator[int]:
        with anyio.move_on_after(60 * MS):
            async with anyio.create_task_group() as outer:
                outer.start_soon(anyio.sleep_forever)
                try:
                    with anyio.move_on_after(5 * MS) as inner:
                        async with anyio.create_task_group() as tasks:
                            tasks.start_soon(anyio.sleep_forever)
                            while True:
                                yield 1
                    assert inner.cancelled_caught
                    log.append("inner")
                    while True:
                        yield 2
                finally:
                    log.append("outer")
        yield 3
        log.append("end")

    reply = fetch(app_of(items), backend=anyio_backend)
    assert reply.error is None
    assert reply.complete
    assert reply.body.endswith(b"data: 2\n\ndata: 3\n\n")
    assert log == ["inner", "outer", "end"]


def test_a_timeout_around_a_whole_generator(anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            with anyio.fail_after(20 * MS):
                while True:
                    yield 1
                    await anyio.sleep(MS)
        finally:
            closed.append(True)

    reply = fetch(app_of(items), backend=anyio_backend)
    assert isinstance(reply.error, TimeoutError)
    assert not reply.complete
    assert closed == [True]


# What does not need the garbage collector


@pytest.mark.parametrize(
    "ending", ["finished", "disconnected", "error", "odd error", "max_duration"]
)
@pytest.mark.parametrize("pause", [0, MS])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_stream_took_is_free_without_the_collector(
    kind: str, pause: float, ending: str
) -> None:
    def goes_on() -> bool:
        if ending == "error":
            raise LookupError
        if ending == "odd error":
            raise OddError
        return ending != "finished"

    async def items() -> AsyncIterator[int]:
        while True:
            yield 1
            if pause:
                await asyncio.sleep(pause)
            if not goes_on():
                break

    def sync_items() -> Iterator[int]:
        while True:
            yield 1
            if pause:
                time.sleep(pause)
            if not goes_on():
                break

    app = app_of(
        items if kind == "async" else sync_items,
        max_duration=5 * MS if ending == "max_duration" else None,
    )

    def left() -> int:
        # Nothing is asked for its class: some objects are made to misbehave.
        return sum(
            kind in (types.GeneratorType, types.AsyncGeneratorType)
            or str(type.__getattribute__(kind, "__module__")).startswith(
                "fastapi_sse_fast"
            )
            for kind in map(type, gc.get_objects())
        )

    async def stream() -> None:
        leave = asyncio.Event()

        async def receive() -> dict[str, str]:
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            if ending == "disconnected":
                leave.set()

        with contextlib.suppress(LookupError, RuntimeError):
            await app(scope(), receive, send)

    async def main() -> None:
        await stream()  # what is made once
        await asyncio.sleep(5 * MS)
        gc.collect()
        gc.disable()
        before = left()
        for _ in range(3):
            await stream()
        await asyncio.sleep(5 * MS)
        assert left() == before

    try:
        asyncio.run(main())
    finally:
        gc.enable()


# Told to stop while a stream begins


@pytest.mark.parametrize("kind", KINDS)
def test_shutdown_while_a_dependency_is_opened(kind: str, anyio_backend: str) -> None:
    async def resource() -> AsyncIterator[None]:
        shutdown()
        await anyio.sleep(MS)
        yield

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(3600)

    def sync_items() -> Iterator[int]:
        while True:
            yield 1
            time.sleep(MS)

    summaries = Summaries()
    app = FastAPI()
    app.get(
        "/",
        response_class=EventSourceResponse.with_options(
            on_close=summaries, farewell=ServerSentEvent(event="bye")
        ),
        dependencies=[Depends(resource)],
    )(items if kind == "async" else sync_items)
    reply = fetch(app, backend=anyio_backend)
    assert reply.complete
    assert reply.body.endswith(b"event: bye\n\n")
    assert summaries.reasons == ["shutdown"]


def test_a_request_whose_dependency_fails_is_not_waited_for(
    anyio_backend: str,
) -> None:
    async def resource() -> AsyncIterator[None]:
        raise HTTPException(403)
        yield

    def handler(number: int, frame: object) -> None:
        raise AssertionError

    app = FastAPI(dependencies=[Depends(resource)])
    app.get("/", response_class=EventSourceResponse)(endless)
    original = signal.signal(signal.SIGTERM, handler)
    try:
        assert fetch(app, backend=anyio_backend).status == 403
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, original)


# Races between what ends, and what moves its end


def test_pings_that_meet_events_are_no_timeout(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(100):
            await anyio.sleep(3 * MS)
            yield number

    summaries = Summaries()
    app = app_of(items, ping_interval=3 * MS, on_close=summaries)

    async def send(message: Any) -> None:
        await anyio.sleep(MS / 5)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(app, scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["finished"] * 20


def test_a_slow_client_is_not_a_frozen_one(anyio_backend: str) -> None:
    """It takes a large event in more time than `send_timeout`."""
    event = EncodedEvent(raw_data="x" * 2_000_000)
    taken: list[bytes] = []

    async def items() -> AsyncIterator[EncodedEvent]:
        yield event

    async def send(message: Any) -> None:
        body = message.get("body", b"")
        taken.append(body)
        await anyio.sleep(len(body) * 0.1e-6)

    summaries = Summaries()
    app = app_of(items, send_timeout=100 * MS, on_close=summaries)
    anyio.run(app, scope(), receive_nothing, send, backend=anyio_backend)
    assert b"".join(taken) == bytes(event)
    assert summaries.reasons == ["finished"]
    assert summaries[0].bytes == len(event)


def test_a_client_that_does_not_take_the_head_is_dropped(anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            closed.append(True)

    async def send(message: Any) -> None:
        await anyio.sleep_forever()

    async def main() -> None:
        with anyio.fail_after(5):
            await app(scope(), receive_nothing, send)

    summaries = Summaries()
    app = app_of(items, send_timeout=30 * MS, on_close=summaries)
    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["send_timeout"]
    assert closed == [True]


def test_a_generator_that_hangs_after_a_bad_item_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where events are pending, and no ping would wake anybody."""
    monkeypatch.setattr(driver, "CLOSE_TIMEOUT", 50 * MS)

    async def items() -> AsyncIterator[object]:
        try:
            yield 1
            yield 2
            yield object()
        finally:
            await anyio.sleep(3600)

    async def main() -> Reply:
        with anyio.fail_after(5):
            return await call(app_of(items, ping_interval=None))

    reply = anyio.run(main)
    assert reply.body == b"data: 1\n\ndata: 2\n\n"
    assert isinstance(reply.error, ValueError)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new there")
def test_two_timeouts_around_a_yield_that_end_together() -> None:
    async def items(apart: float) -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(5 * MS + apart):
                try:
                    async with asyncio.timeout(5 * MS):
                        while True:
                            yield 1
                            time.sleep(MS / 5)  # noqa: ASYNC251
                except TimeoutError:
                    yield 2
                while True:
                    yield 3
                    time.sleep(MS / 5)  # noqa: ASYNC251
        except TimeoutError:
            yield 4

    for step in range(50):
        reply = fetch(EventSourceResponse(items(step * MS / 50)))
        assert reply.error is None
        assert reply.complete
        assert reply.body.endswith(b"data: 4\n\n")


def test_a_sync_generator_does_not_start_when_its_client_has_left(
    anyio_backend: str,
) -> None:
    """It waits for a thread until then, and its request no longer than that."""
    started = []

    def items() -> Iterator[int]:
        started.append(True)
        yield 1

    summaries = Summaries()
    app = app_of(items, on_close=summaries)

    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        left = anyio.Event()
        async with limiter, anyio.create_task_group() as tasks:
            tasks.start_soon(functools.partial(call, app, disconnect_at=left))
            await anyio.wait_all_tasks_blocked()
            left.set()
        # In the thread that is free now, after whatever still waits for it.
        await anyio.to_thread.run_sync(int)

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["disconnected"]
    assert summaries[0].seconds_open < 5
    assert started == []


# Threads that wait by the loop


def visit(app: Any, backend: str, leaves_at: threading.Event) -> Reply:
    """A request of a client that leaves at an event."""

    async def main() -> Reply:
        gone = anyio.Event()

        async def leave() -> None:
            while not leaves_at.is_set():
                await anyio.sleep(MS)
            gone.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            reply = await call(app, disconnect_at=gone)
            tasks.cancel_scope.cancel()
        return reply

    return anyio.run(main, backend=backend)


async def wait_in_loop(waiting: threading.Event) -> None:
    waiting.set()
    await anyio.sleep(5)


@pytest.mark.parametrize("end", ["disconnected", "max_duration"])
@pytest.mark.parametrize("wait", ["run", "check_cancelled"])
def test_a_sync_generator_that_waits_by_the_loop_is_cancelled(
    wait: str, end: str, anyio_backend: str
) -> None:
    log: list[str] = []
    waiting = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            if wait == "run":
                anyio.from_thread.run(wait_in_loop, waiting)
            waiting.set()
            for _ in range(5000):
                anyio.from_thread.check_cancelled()
                time.sleep(MS)
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        finally:
            anyio.from_thread.run_sync(log.append, "closed")

    summaries = Summaries()
    limit = 200 * MS if end == "max_duration" else None
    app = app_of(items, on_close=summaries, max_duration=limit)
    leaves_at = waiting if end == "disconnected" else threading.Event()
    reply = visit(app, anyio_backend, leaves_at)
    assert reply.body == b"data: 1\n\n"
    assert reply.error is None
    assert reply.complete == (end == "max_duration")
    assert log in (["CancelledError", "closed"], ["Cancelled", "closed"])
    assert summaries.reasons == [end]
    assert summaries[0].seconds_open < 5


def test_a_sync_generator_that_is_cancelled_leaves_no_garbage(
    anyio_backend: str,
) -> None:
    waiting = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        anyio.from_thread.run(wait_in_loop, waiting)

    def streams() -> int:
        return sum(type(o) is driver.Stream for o in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = streams()
        visit(app_of(items), anyio_backend, waiting)
        assert streams() == before
    finally:
        gc.enable()


def test_a_sync_generator_that_raises_when_it_is_cancelled(anyio_backend: str) -> None:
    waiting = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        try:
            anyio.from_thread.run(wait_in_loop, waiting)
        except BaseException:
            raise LookupError from None

    reply = visit(app_of(items), anyio_backend, waiting)
    assert isinstance(reply.error, LookupError)


# The end of a stream, as the summary has it


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


def test_a_last_message_that_is_never_taken(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    monkeypatch.setattr(driver, "CLOSE_TIMEOUT", 20 * MS)
    summaries = Summaries()
    response = EventSourceResponse([], send_timeout=None, on_close=summaries)

    async def receive() -> Any:
        await anyio.sleep(10 * MS)
        return {"type": "http.disconnect"}

    async def main() -> None:
        with anyio.fail_after(5):
            await response(scope(), receive, send_for_ever)

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["send_timeout"]


def test_a_client_that_leaves_in_the_grace_of_a_shutdown(anyio_backend: str) -> None:
    summaries = Summaries()
    app = app_of(endless, shutdown_grace=20.0, on_close=summaries)

    async def main() -> None:
        gone = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(functools.partial(call, app, disconnect_at=gone))
            await anyio.sleep(20 * MS)
            shutdown()
            await anyio.sleep(20 * MS)
            gone.set()

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons == ["disconnected"]


def test_events_that_were_not_sent_do_not_count(anyio_backend: str) -> None:
    event = EncodedEvent(raw_data="x" * 1000)

    async def items() -> AsyncIterator[EncodedEvent]:
        while True:
            yield event

    async def main() -> None:
        taken = 0

        async def send(message: Any) -> None:
            nonlocal taken
            if message["type"] == "http.response.body":
                if taken > 100_000:
                    await anyio.sleep_forever()
                taken += len(message["body"])

        await app(scope(), receive_nothing, send)
        assert summaries[0].bytes == taken

    summaries = Summaries()
    app = app_of(items, send_timeout=50 * MS, on_close=summaries)
    anyio.run(main, backend=anyio_backend)
    (summary,) = summaries
    assert summary.reason == "send_timeout"
    assert summary.events * len(event) == summary.bytes > 0
