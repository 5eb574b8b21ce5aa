"""The handlers of signals that a server has, while streams are open."""

from __future__ import annotations

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

from ..support.apps import Summaries, app_of, endless
from ..support.asgi import fetch
from ..support.internals import before_handlers_change
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
            assert fetch(app_of(items, on_close=summaries)).complete
            assert summaries.reasons == ["shutdown"]
            assert signal.getsignal(signal.SIGTERM) is servers_handler
        assert seen[0] is not servers_handler
        assert signals == [signal.SIGTERM] * 2
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
