"""The endings of streams: as in sse-starlette, or better on purpose."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.routing import Route

from fastapi_sse_fast import shutdown
from fastapi_sse_fast.sse_starlette import EventSourceResponse, sse
from fastapi_sse_fast.sse_starlette.sse import AppStatus, SendTimeoutError

from ..support import original
from ..support.apps import MS
from ..support.asgi import Reply, call, fetch, receive_nothing, scope, send_for_ever
from ..support.server import Client, serve, wait_until


@pytest.fixture(autouse=True)
def _running() -> Iterator[None]:
    yield
    AppStatus.should_exit = False
    AppStatus.enable_automatic_graceful_drain_mode()
    AppStatus.original_handler = None


class Events:
    """An endless generator function that logs its end."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.started = anyio.Event()

    async def __call__(self) -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
                self.started.set()
                await anyio.sleep(MS)
        except anyio.get_cancelled_exc_class():
            self.log.append("cancelled")
            raise
        finally:
            self.log.append("closed")


async def waiting() -> AsyncIterator[int]:
    await anyio.sleep_forever()
    yield 1


def end_by(stop: Any, response: Any, started: Any, backend: str, **more: Any) -> Reply:
    """Make a request, call `stop()` once it has begun, and return its reply."""

    async def main() -> Reply:
        replies: list[Reply] = []

        async def request() -> None:
            replies.append(await call(response, **more))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request)
            await started.wait()
            stop()
        return replies[0]

    return anyio.run(main, backend=backend)


# The client


def test_a_client_that_leaves(anyio_backend: str) -> None:
    events = Events()
    log = events.log

    async def left(message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        log.append(message["type"])

    response = EventSourceResponse(
        events(),
        client_close_handler_callable=left,
        background=BackgroundTask(log.append, "background"),
    )
    assert response.active
    reply = fetch(response, backend=anyio_backend, disconnect_after=2)
    assert reply.error is None
    assert not reply.complete
    assert not response.active
    assert log in (
        ["http.disconnect", "cancelled", "closed", "background"],
        ["http.disconnect", "closed", "background"],  # At a `yield`.
    )


def test_a_handler_that_fails(anyio_backend: str) -> None:
    async def left(message: Any) -> None:
        raise LookupError("in the handler")

    events = Events()
    response = EventSourceResponse(events(), client_close_handler_callable=left)
    reply = fetch(response, backend=anyio_backend, disconnect_after=1)
    assert isinstance(reply.error, LookupError)
    assert events.log[-1] == "closed"


def test_no_handler_is_called_for_a_whole_response() -> None:
    called: list[Any] = []

    async def left(message: Any) -> None:
        called.append(message)

    async def route(request: Request) -> EventSourceResponse:
        return EventSourceResponse(["a"], client_close_handler_callable=left)

    with serve(Starlette(routes=[Route("/", route)])) as port:
        for _ in range(3):
            with Client(port) as client:
                assert client.read_to_end() == b"data: a\r\n\r\n"
    assert called == []


def test_a_client_that_vanishes_from_a_socket() -> None:
    events = Events()
    called: list[Any] = []

    async def left(message: Any) -> None:
        called.append(message["type"])

    async def route(request: Request) -> EventSourceResponse:
        return EventSourceResponse(events(), client_close_handler_callable=left)

    with serve(Starlette(routes=[Route("/", route)])) as port:
        with Client(port) as client:
            client.read_until(b"data: 3")
        wait_until(lambda: "closed" in events.log)
    assert called == ["http.disconnect"]


def test_send_that_fails_is_no_error_where_the_client_has_left(
    anyio_backend: str,
) -> None:
    """sse-starlette raises an `OSError`, and the error of an in-memory transport."""

    async def main(error: Exception) -> list[str]:
        left = anyio.Event()
        events = Events()

        async def send(message: Any) -> None:
            if message.get("body"):
                left.set()
                await anyio.lowlevel.checkpoint()
                raise error

        async def receive() -> Any:
            await left.wait()
            return {"type": "http.disconnect"}

        await EventSourceResponse(events())(scope(), receive, send)
        return events.log

    for error in (OSError("gone"), anyio.BrokenResourceError()):
        assert anyio.run(main, error, backend=anyio_backend)[-1] == "closed"


def test_send_that_fails_although_the_client_is_there(anyio_backend: str) -> None:
    async def send(message: Any) -> None:
        if message.get("body"):
            raise LookupError("in a middleware")

    async def main() -> None:
        response = EventSourceResponse(Events()())
        response.active = False  # Applications do so to stop the pings.
        await response(scope(), receive_nothing, send)

    with pytest.raises(LookupError, match="in a middleware"):
        anyio.run(main, backend=anyio_backend)


def test_a_client_that_takes_nothing(anyio_backend: str) -> None:
    log: list[str] = []
    events = Events()

    async def main() -> None:
        response = EventSourceResponse(
            events(),
            send_timeout=20 * MS,
            background=BackgroundTask(log.append, "background"),
        )
        await response(scope(), receive_nothing, send_for_ever)

    with pytest.raises(SendTimeoutError) as raised:
        anyio.run(main, backend=anyio_backend)
    assert isinstance(raised.value, TimeoutError)
    assert str(raised.value) == "the client accepted nothing for 0.02 seconds"
    assert events.log == ["closed"]
    assert log == []


def test_its_own_exception_is_caught_where_it_is_installed() -> None:
    theirs = original.imported()

    async def main(method: str) -> None:
        response = EventSourceResponse(Events()(), send_timeout=10 * MS)
        await response(scope(method=method), receive_nothing, send_for_ever)

    for method in ("GET", "HEAD"):
        with pytest.raises(theirs.SendTimeoutError):
            anyio.run(main, method)
        with pytest.raises(SendTimeoutError):
            anyio.run(main, method)


# The generator


def test_a_generator_that_fails(anyio_backend: str) -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise LookupError("mid-stream")

    ran: list[str] = []
    background = BackgroundTask(ran.append, "background")
    response = EventSourceResponse(failing(), background=background)
    reply = fetch(response, backend=anyio_backend)
    assert isinstance(reply.error, LookupError)
    assert (reply.body, reply.complete) == (b"data: 1\r\n\r\n", False)
    assert ran == []


def test_a_clean_up_that_fails_does_not_hide_the_end(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(MS)
        finally:
            raise LookupError("in the clean-up")

    response = EventSourceResponse(failing())
    reply = fetch(response, backend=anyio_backend, disconnect_after=1)
    assert reply.error is None
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


@pytest.mark.parametrize("cleanup_timeout", [0, 10 * MS])
def test_a_clean_up_that_takes_too_long(
    cleanup_timeout: float, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    async def slow() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(MS)
        finally:
            log.append("closing")
            try:
                await anyio.sleep(60)
                log.append("closed")
            except anyio.get_cancelled_exc_class():
                log.append("cancelled")
                raise

    response = EventSourceResponse(slow(), cleanup_timeout=cleanup_timeout)
    fetch(response, backend=anyio_backend, disconnect_after=1)
    assert log == ["closing", "cancelled"]
    if anyio_backend == "asyncio":  # trio has cancelled it earlier.
        assert "did not close within" in caplog.text


def test_a_channel_is_closed_only_with_an_item_that_was_not_sent(
    anyio_backend: str,
) -> None:
    async def main() -> None:
        sender, receiver = anyio.create_memory_object_stream[int](9)
        with sender, receiver:
            sender.send_nowait(1)
            await call(EventSourceResponse(receiver), disconnect_after=1)
            # The next item goes to another response, although this one waited for it.
            sender.send_nowait(2)
            reply = await call(EventSourceResponse(receiver), disconnect_after=1)
            assert reply.body == b"data: 2\r\n\r\n"
            sender.send_nowait(3)
            response = EventSourceResponse(receiver, send_timeout=10 * MS)
            reply = await call(response, freeze_after=1)
            assert isinstance(reply.error, SendTimeoutError)
            with pytest.raises(anyio.ClosedResourceError):
                receiver.receive_nowait()

    anyio.run(main, backend=anyio_backend)


@pytest.mark.parametrize("waits", [False, True])
def test_a_sync_generator_is_closed(waits: bool, anyio_backend: str) -> None:
    closed: list[bool] = []

    def events() -> Iterator[int]:
        try:
            while True:
                yield 1
                if waits:
                    time.sleep(MS)
        finally:
            closed.append(True)

    fetch(EventSourceResponse(events()), backend=anyio_backend, disconnect_after=2)
    assert closed == [True]


# The server


def test_a_get_ends_when_the_server_stops(anyio_backend: str) -> None:
    events = Events()
    ran: list[str] = []
    response = EventSourceResponse(
        events(), background=BackgroundTask(ran.append, "background")
    )
    reply = end_by(shutdown, response, events.started, anyio_backend)
    assert reply.error is None
    assert not reply.complete  # The response is aborted.
    assert events.log[-1] == "closed"
    assert ran == ["background"]


def test_a_reply_to_a_post_is_completed(anyio_backend: str) -> None:
    started = anyio.Event()

    async def reply_of() -> AsyncIterator[int]:
        for number in range(30):
            yield number
            started.set()
            await anyio.sleep(10 * MS)

    response = EventSourceResponse(reply_of())
    reply = end_by(shutdown, response, started, anyio_backend, method="POST")
    assert reply.complete
    assert reply.body.endswith(b"data: 29\r\n\r\n")


def test_a_reply_to_a_post_that_has_no_end(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_GRACE", 50 * MS)
    events = Events()
    response = EventSourceResponse(events())
    reply = end_by(shutdown, response, events.started, anyio_backend, method="POST")
    assert not reply.complete
    assert events.log[-1] == "closed"


def test_a_generator_that_ends_by_itself(anyio_backend: str) -> None:
    async def main() -> None:
        stops, started = anyio.Event(), anyio.Event()
        replies: list[Reply] = []

        async def events() -> AsyncIterator[str]:
            while not stops.is_set():
                yield "tick"
                started.set()
                with anyio.move_on_after(MS):
                    await stops.wait()
            yield "bye"

        async def request() -> None:
            response = EventSourceResponse(
                events(), shutdown_event=stops, shutdown_grace_period=5
            )
            replies.append(await call(response))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request)
            await started.wait()
            shutdown()
        assert replies[0].complete
        assert replies[0].body.endswith(b"data: bye\r\n\r\n")

    anyio.run(main, backend=anyio_backend)


def test_a_generator_that_does_not(anyio_backend: str) -> None:
    events = Events()
    stops = anyio.Event()
    response = EventSourceResponse(
        events(), shutdown_event=stops, shutdown_grace_period=50 * MS
    )
    reply = end_by(shutdown, response, events.started, anyio_backend, method="POST")
    assert stops.is_set()
    assert not reply.complete
    assert events.log[-1] == "closed"


def test_the_status_ends_streams(anyio_backend: str) -> None:
    def stop() -> None:
        AppStatus.should_exit = True

    events = Events()
    reply = end_by(stop, EventSourceResponse(events()), events.started, anyio_backend)
    assert not reply.complete
    # Streams that begin later end too.
    reply = fetch(EventSourceResponse(waiting()), backend=anyio_backend)
    assert reply.error is None
    assert not reply.complete


def test_a_signal_that_is_not_to_end_streams(anyio_backend: str) -> None:
    AppStatus.disable_automatic_graceful_drain()
    events = Events()

    def stop() -> None:
        shutdown()
        assert not AppStatus.should_exit
        events.log.append("still there")
        AppStatus.should_exit = True

    response = EventSourceResponse(events())
    end_by(stop, response, events.started, anyio_backend)
    assert events.log[0] == "still there"
    assert events.log[-1] == "closed"


def test_a_handler_of_signals_calls_the_original() -> None:
    called: list[Any] = []
    AppStatus.original_handler = lambda *args: called.append(args)
    AppStatus.handle_exit(15, None)
    assert AppStatus.should_exit
    AppStatus.should_exit = False
    AppStatus.disable_automatic_graceful_drain()
    AppStatus.handle_exit(15, None)
    assert not AppStatus.should_exit
    assert called == [(15, None)] * 2


# Pings


def test_a_ping_that_fails_ends_no_stream(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow() -> AsyncIterator[str]:
        await anyio.sleep(50 * MS)
        yield "a"

    def failing() -> Any:
        raise LookupError("no ping")

    def torn() -> Any:
        return b": no blank line"

    for factory in (failing, torn):
        response = EventSourceResponse(
            slow(), ping=10 * MS, ping_message_factory=factory
        )
        reply = fetch(response, backend=anyio_backend)
        assert reply.complete
        assert reply.body.startswith(b": ping\n\n")
        assert reply.body.endswith(b"data: a\r\n\r\n")
        assert "ping failed" in caplog.text


def test_a_ping_never_meets_an_event(anyio_backend: str) -> None:
    sending = anyio.Lock()

    async def send(message: Any) -> None:
        sending.acquire_nowait()  # This raises if another send waits.
        await anyio.sleep(5 * MS)
        sending.release()

    async def events() -> AsyncIterator[int]:
        for number in range(10):
            await anyio.sleep(3 * MS)
            yield number

    async def main() -> None:
        response = EventSourceResponse(events(), ping=2 * MS)
        await response(scope(), receive_nothing, send)

    anyio.run(main, backend=anyio_backend)


def test_a_ping_comes_only_when_nothing_else_came(anyio_backend: str) -> None:
    async def events() -> AsyncIterator[int]:
        for number in range(50):
            yield number
            await anyio.sleep(2 * MS)

    response = EventSourceResponse(events(), ping=1)
    assert b"ping" not in fetch(response, backend=anyio_backend).body
