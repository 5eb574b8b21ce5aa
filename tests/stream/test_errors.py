"""Errors in mid-stream: of the generator, of items, of hooks and of the server."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import HTTPException
from pydantic import BaseModel, field_validator

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent, shutdown

from ..support.apps import KINDS, MS, OddError, Summaries, app_of, logged
from ..support.asgi import call, fetch, receive_nothing, scope
from ..support.server import Client, serve

# Errors of the generator


def test_errors_on_every_backend(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError("mid-stream")

    def sync_items() -> Iterator[int]:
        yield 1
        raise LookupError("mid-stream")

    for endpoint in (items, sync_items):
        reply = fetch(app_of(endpoint), backend=anyio_backend)
        assert isinstance(reply.error, LookupError)
        assert reply.body == b"data: 1\n\n"
        assert not reply.complete


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


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_exception_keeps_its_cause(kind: str) -> None:
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
    # The event loop of a notebook continues after such an error.
    reply = loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert reply.body == b"data: 1\n\n"
    assert not reply.complete
    assert isinstance(reply.error, RuntimeError)


# Errors of items


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error", [StopIteration, StopAsyncIteration, GeneratorExit, RecursionError]
)
def test_an_encoder_cannot_end_a_stream_as_if_it_were_complete(
    kind: str, error: type[BaseException], anyio_backend: str
) -> None:
    class Event(ServerSentEvent):
        def __getattribute__(self, name: str) -> Any:
            if name == "data":
                raise error
            return super().__getattribute__(name)

    def sync_items() -> Iterator[Any]:
        yield 1
        yield Event.model_construct()

    async def async_items() -> AsyncIterator[Any]:
        yield 1
        yield Event.model_construct()

    items: Any = async_items() if kind == "async" else sync_items()
    try:
        reply = fetch(EventSourceResponse(items), backend=anyio_backend)
    except BaseException as raised:
        assert error is GeneratorExit
        assert isinstance(raised, GeneratorExit) or hasattr(raised, "exceptions")
    else:
        assert reply.body == b"data: 1\n\n"
        assert reply.error is not None
        assert not reply.complete


def test_nor_can_one_at_a_yield_that_was_cancelled(anyio_backend: str) -> None:
    class Event(ServerSentEvent):
        def __getattribute__(self, name: str) -> Any:
            if name == "data":
                raise StopAsyncIteration
            return super().__getattribute__(name)

    async def items() -> AsyncIterator[Any]:
        with anyio.move_on_after(0.02):
            while True:
                yield 1
        yield Event.model_construct()

    reply = fetch(EventSourceResponse(items()), backend=anyio_backend)
    assert isinstance(reply.error, StopAsyncIteration)
    assert not reply.complete


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_whose_generator_yields_itself(kind: str, anyio_backend: str) -> None:
    def sync_items() -> Iterator[Any]:
        yield 1
        yield items
        yield 2

    async def async_items() -> AsyncIterator[Any]:
        yield 1
        yield items
        yield 2

    items: Any = async_items() if kind == "async" else sync_items()
    reply = fetch(EventSourceResponse(items), backend=anyio_backend)
    assert reply.body.startswith(b"data: 1\n\n")
    # A sync generator may be iterated again at its own `yield`, an async one not.
    assert reply.complete == (kind == "sync")
    if kind == "async":
        assert isinstance(reply.error, ValueError)


# on_error


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


# Errors of hooks


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


@pytest.mark.parametrize("hook", ["on_open", "on_error", "on_close"])
def test_a_hook_that_hangs_is_given_up(
    hook: str,
    anyio_backend: str,
    caplog: pytest.LogCaptureFixture,
) -> None:

    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    async def hang(argument: object) -> None:
        await anyio.sleep(3600)

    options: Any = {hook: hang, "close_timeout": 20 * MS}
    reply = fetch(app_of(items, **options), backend=anyio_backend)
    assert isinstance(reply.error, LookupError)
    assert reply.body == b"data: 1\n\n"
    assert [message for message, _ in logged(caplog)] == [
        f"{hook} timed out after 0.02 seconds"
    ]


@pytest.mark.parametrize("made", [None, 5, "text", {"data": 1}])
def test_what_an_option_makes_has_to_be_an_event(
    made: Any, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = anyio.Event()

    def ping() -> Any:
        asked.set()
        return made

    async def items() -> AsyncIterator[int]:
        yield 1
        await asked.wait()
        shutdown()
        await anyio.sleep(3600)

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    options: Any = {"ping": ping, "farewell": lambda: made}
    app = app_of(items, ping_interval=5 * MS, **options)
    reply = fetch(app, backend=anyio_backend)
    assert not reply.complete
    assert reply.body.replace(b": ping\n\n", b"") == b"data: 1\n\n"
    assert set(logged(caplog)) == {
        ("ping failed", TypeError),
        ("farewell failed", TypeError),
    }
    assert f"ping must return an event, not {made!r}" in caplog.text

    caplog.clear()
    options = {"on_error": lambda error: made}
    reply = fetch(app_of(broken, **options), backend=anyio_backend)
    assert isinstance(reply.error, LookupError)
    assert reply.body == b"data: 1\n\n"
    expected = [] if made is None else [("on_error failed", TypeError)]
    assert logged(caplog) == expected


@pytest.mark.parametrize("where", ["send", "on_error", "ping"])
def test_what_is_no_exception_is_raised_from_anywhere(
    where: str, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise OddError

    async def items() -> AsyncIterator[int]:
        yield 1
        if where != "on_error":
            await anyio.sleep_forever()
        raise LookupError

    async def send(message: Any) -> None:
        if where == "send" and message["type"] == "http.response.body":
            raise OddError

    options: Any = {} if where == "send" else {where: fail}
    app = app_of(items, ping_interval=5 * MS, **options)

    def odd_errors(error: BaseException) -> list[BaseException]:
        parts = getattr(error, "exceptions", None)  # trio's nursery has a group.
        return [error] if parts is None else [e for p in parts for e in odd_errors(p)]

    async def main() -> None:
        await app(scope(), receive_nothing, send)

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        anyio.run(main, backend=anyio_backend)
    assert [type(error) for error in odd_errors(caught.value)] == [OddError]


# Errors of the server


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


def test_on_error_is_not_called_when_its_event_would_reach_nobody(
    anyio_backend: str,
) -> None:
    asked: list[Exception] = []

    async def items() -> AsyncIterator[Any]:
        try:
            yield 1
            yield object()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(30 * MS)  # The client disconnects.

    app = app_of(items, on_error=asked.append)
    reply = fetch(app, backend=anyio_backend, disconnect_after=1)
    assert isinstance(reply.error, ValueError)
    assert asked == []
