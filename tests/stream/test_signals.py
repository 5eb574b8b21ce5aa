"""The signal handlers of a server while streams are open."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI, HTTPException

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import MS, Summaries, app_of, endless
from ..support.asgi import fetch
from ..support.internals import before_handlers_change, seconds_to_go_on
from ..support.server import Client, serve


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
            fetch(app_of(items, on_close=summaries))
            assert summaries.reasons == ["shutdown"]
            assert signal.getsignal(signal.SIGTERM) is servers_handler
        assert seen[0] is not servers_handler
        assert signals == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, original)


def test_what_looks_for_the_server_behind_a_handler_finds_it() -> None:
    """sse-starlette uses `signal.getsignal(...).__self__`."""

    class Server:
        should_exit = False

        def handle_exit(self, number: int, frame: object) -> None:
            self.should_exit = True

    def other(number: int, frame: object) -> None: ...

    server = Server()
    found: list[Any] = []

    async def items() -> AsyncIterator[int]:
        yield 1
        handlers: list[Any] = [
            signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)
        ]
        found.extend(getattr(handler, "__self__", None) for handler in handlers)
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(3600)

    originals = [
        (number, signal.signal(number, handler))
        for number, handler in (
            (signal.SIGTERM, server.handle_exit),
            (signal.SIGINT, other),
        )
    ]
    try:
        fetch(app_of(items))
    finally:
        for number, original in originals:
            signal.signal(number, original)
    assert found == [server, None]
    assert server.should_exit


class Port:
    """A socket for uvicorn."""

    def __init__(self) -> None:
        self.is_open = True

    def is_serving(self) -> bool:
        return self.is_open


@pytest.mark.parametrize("how", ["should_exit", "closes its port"])
def test_a_uvicorn_that_stops_without_a_signal_is_seen(how: str) -> None:
    class Server:
        should_exit = False
        servers = (Port(), Port())

        def handle_exit(self, number: int, frame: object) -> None: ...

    server = Server()
    summaries = Summaries()

    async def items() -> AsyncIterator[int]:
        yield 1
        if how == "should_exit":
            server.should_exit = True
        else:
            for port in server.servers:
                port.is_open = False
        await anyio.sleep(3600)

    original = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        fetch(app_of(items, on_close=summaries))
    finally:
        signal.signal(signal.SIGTERM, original)
    assert summaries.reasons == ["shutdown"]
    assert summaries[0].seconds_open < 5


def uvicorn_that_waits(timeout: Any) -> Any:
    class Config:
        timeout_graceful_shutdown = timeout

    class Server:
        should_exit = False
        config = Config

        def handle_exit(self, number: int, frame: object) -> None: ...

    return Server()


@pytest.mark.parametrize(
    ("timeout", "finishes"), [(None, True), (5, True), (0, False), ("soon", True)]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_reply_to_a_post_has_as_long_as_uvicorn_waits(
    method: str, timeout: Any, finishes: bool
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(150 * MS)
        yield 2

    summaries = Summaries()
    app = app_of(items, method=method, on_close=summaries)
    original = signal.signal(signal.SIGTERM, uvicorn_that_waits(timeout).handle_exit)
    try:
        reply = fetch(app, method=method)
    finally:
        signal.signal(signal.SIGTERM, original)
    finishes = finishes and method == "POST"
    assert reply.complete == finishes
    assert (b"data: 2" in reply.body) == finishes
    assert summaries.reasons == ["finished" if finishes else "shutdown"]


@pytest.mark.parametrize(
    ("timeout", "close_timeout", "seconds"),
    [
        (25, 10.0, 22.5),
        (25, 0.5, 23.5),
        (300, 10.0, 289),
        (0, 10.0, 0),
        (None, 10.0, math.inf),
        ("soon", 10.0, 30),
    ],
)
def test_a_reply_leaves_its_generator_time_to_close(
    timeout: Any, close_timeout: float, seconds: float
) -> None:
    original = signal.signal(signal.SIGTERM, uvicorn_that_waits(timeout).handle_exit)
    try:
        assert seconds_to_go_on(close_timeout) == seconds
    finally:
        signal.signal(signal.SIGTERM, original)


def test_default_signal_handlers_stay() -> None:
    handlers = []

    async def items() -> AsyncIterator[int]:
        yield 1
        handlers.append(signal.getsignal(signal.SIGTERM))

    fetch(app_of(items))
    assert handlers == [signal.SIG_DFL]


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
    raised = []

    def before(number: int) -> None:
        if number == signal.SIGTERM:
            raised.append(1)
            signal.raise_signal(signal.SIGTERM)

    before_handlers_change(monkeypatch, before)
    try:
        fetch(EventSourceResponse([1]))
        assert signals == raised == [1, 1]
    finally:
        signal.signal(signal.SIGTERM, original)


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
