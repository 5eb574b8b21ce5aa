"""Server shutdown: the end of streams, `shutdown_grace`, and what delays it."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    ServerSentEvent,
    shutdown,
    shutting_down,
)

from ..support.apps import KINDS, MS, Summaries, app_of, endless, logged
from ..support.asgi import call, fetch, receive_nothing, scope, send_for_ever
from ..support.internals import limits
from ..support.middlewares import around_send
from ..support.server import TIMEOUT, Client, serve, serve_all, wait_until


@pytest.mark.parametrize("kind", KINDS)
def test_shutdown_ends_streams_with_a_farewell(kind: str, anyio_backend: str) -> None:
    log: list[str] = []
    begun = threading.Event()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            begun.set()
            await anyio.sleep(3600)
        finally:
            log.append("generator")

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                begun.set()
                time.sleep(MS)
        finally:
            log.append("generator")

    summaries = Summaries()
    app = app_of(
        items if kind == "async" else sync_items,
        on_close=summaries,
        farewell=lambda: ServerSentEvent(event="bye", retry=3000),
    )

    def shut_down() -> None:
        begun.wait(TIMEOUT)
        shutdown()

    thread = threading.Thread(target=shut_down)
    thread.start()
    reply = fetch(app, backend=anyio_backend)
    thread.join()
    assert reply.complete
    assert reply.body.endswith(b"event: bye\nretry: 3000\n\n")
    assert summaries.reasons == ["shutdown"]
    assert log == ["generator"]


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


def test_shutdown_may_meet_the_end_of_a_stream(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def stop_at_the_end(send: Any, message: Any) -> None:
        await send(message)
        if message.get("more_body") is False:
            shutdown()

    async def items() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        reply = await call(around_send(app_of(items), stop_at_the_end))
        assert reply.complete
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    anyio.run(main, backend=anyio_backend)
    assert logged(caplog) == []


def test_while_shutting_down_streams_that_begin_are_ended_too(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, least_duration=0.0)
    summaries = Summaries()
    app = app_of(endless, on_close=summaries)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, app)
            await anyio.sleep(2 * MS)
            with shutting_down():
                with shutting_down():
                    await call(app)
                await call(app)
        assert summaries.reasons == ["shutdown"] * 3
        await call(app, disconnect_after=2)

    anyio.run(main, backend=anyio_backend)
    assert summaries.reasons[3:] == ["disconnected"]


def test_shutdown_concerns_open_streams_only() -> None:
    shutdown()
    assert fetch(EventSourceResponse([1])).body == b"data: 1\n\n"


def test_shutdown_from_a_server_in_another_thread() -> None:
    summaries = Summaries()
    with serve(app_of(endless, on_close=summaries)) as port:
        with Client(port) as client:
            client.read_until(b"data: 1\n\n")
            shutdown()
            client.read_until_broken_off()
    assert summaries.reasons == ["shutdown"]


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
                client.read_until_broken_off()
            wait_until(lambda: len(summaries) == len(streams))
            assert set(summaries.reasons) == {"shutdown"}
            length = len(later.read_until(b"data: 1\n\n"))
            while len(later.body) < length + 500:
                assert later.read_chunk()


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
    assert not reply.complete
    assert reply.body == b"data: 1\n\ndata: 2\n\n"
    assert logged(caplog) == [("farewell failed", error)]


# The grace


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


def test_shutdown_grace_is_an_end() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        shutdown()
        await anyio.sleep(3600)

    summaries = Summaries()
    reply = fetch(app_of(items, shutdown_grace=130 * MS, on_close=summaries))
    assert not reply.complete
    assert reply.error is None
    assert summaries.reasons == ["shutdown"]
    assert summaries[0].seconds_open >= 130 * MS


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


def test_a_client_may_be_slow_while_shutdown_grace_lasts(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, last_send_timeout=5 * MS)

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


# What delays it


def test_a_generator_that_closes_slowly_at_shutdown(anyio_backend: str) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            shutdown()
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(60 * MS)

    app = app_of(items, farewell=ServerSentEvent(comment="bye"))
    with pytest.MonkeyPatch.context() as patch:
        limits(patch, last_send_timeout=10 * MS)
        reply = fetch(app, backend=anyio_backend)
    assert reply.complete
    assert reply.body == b"data: 1\n\n: bye\n\n"


@pytest.mark.parametrize("ending", ["max_duration", "shutdown"])
def test_shutdown_again_while_a_generator_closes(
    ending: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The final event completes the response even if the generator closes slowly."""
    limits(monkeypatch, last_send_timeout=5 * MS)

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
    farewell = ServerSentEvent(comment="bye")
    app = app_of(items, max_duration=limit, on_close=summaries, farewell=farewell)
    assert fetch(app, backend=anyio_backend).complete
    assert summaries.reasons == [ending]


@pytest.mark.parametrize("send_timeout", [60.0, None])
def test_a_frozen_client_is_dropped_though_shutdown_is_called_again_and_again(
    send_timeout: float | None, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, last_send_timeout=50 * MS)

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


def test_a_client_that_freezes_while_a_generator_closes_at_shutdown(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, last_send_timeout=20 * MS)

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
