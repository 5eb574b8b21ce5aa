"""Generators that hang, raise or yield while they are closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from fastapi_sse_fast import ServerSentEvent, shutdown

from ..support.apps import KINDS, MS, Summaries, app_of, logged
from ..support.asgi import Reply, call, fetch
from ..support.internals import limits

# Hanging


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_that_hangs_while_closing_is_given_up(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(MS)
            yield 2
            await asyncio.sleep(5)
        finally:
            await asyncio.sleep(5)

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
            await call(app_of(endpoint, close_timeout=50 * MS), disconnect_after=2)
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


@pytest.mark.parametrize("ending", ["max_duration", "shutdown"])
def test_a_generator_that_hangs_is_given_up_once(
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits(monkeypatch, least_duration=10 * MS)

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            if ending == "shutdown":
                shutdown()
            await anyio.sleep(5)
        finally:
            await anyio.sleep(5)

    summaries = Summaries()
    limit = 10 * MS if ending == "max_duration" else None
    app = app_of(items, max_duration=limit, on_close=summaries, close_timeout=100 * MS)

    async def main() -> Reply:
        with anyio.fail_after(5):
            return await call(app)

    reply = anyio.run(main)
    assert reply.error is None
    assert summaries.reasons == [ending]
    assert summaries[0].seconds_open < 10 * MS + 2 * 100 * MS
    assert len(logged(caplog)) == 1


def test_a_generator_that_hangs_at_a_yield_is_given_up(
    anyio_backend: str,
    caplog: pytest.LogCaptureFixture,
) -> None:

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.sleep(5)

    summaries = Summaries()
    app = app_of(items, on_close=summaries, close_timeout=20 * MS)
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
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error is in an item, so the generator has to be closed."""
    if (kind, anyio_backend) == ("sync", "trio"):
        pytest.skip("trio waits for threads")
    release = threading.Event()

    async def items() -> AsyncIterator[Any]:
        try:
            if began:
                yield 1
            yield object()
        finally:
            await anyio.sleep(5)

    def sync_items() -> Iterator[Any]:
        try:
            if began:
                yield 1
            yield object()
        finally:
            release.wait(20)

    items.__annotations__ = sync_items.__annotations__ = {}
    app = app_of(items if kind == "async" else sync_items, close_timeout=150 * MS)

    async def main() -> Reply:
        reply = await call(app)
        release.set()
        await anyio.sleep(5 * MS)
        return reply

    reply = anyio.run(main, backend=anyio_backend)
    assert isinstance(reply.error, ValueError)
    # This holds even if closing takes longer than `error_window`.
    assert reply.status == (200 if began else 500)
    assert reply.complete == (not began)
    assert [error for _, error in logged(caplog)] == [None]


def test_a_generator_that_hangs_after_a_bad_item_is_given_up() -> None:
    """Events are pending, and there are no pings that would wake a task."""

    async def items() -> AsyncIterator[object]:
        try:
            yield 1
            yield 2
            yield object()
        finally:
            await anyio.sleep(5)

    async def main() -> Reply:
        with anyio.fail_after(5):
            return await call(app_of(items, ping_interval=None, close_timeout=50 * MS))

    reply = anyio.run(main)
    assert reply.body == b"data: 1\n\ndata: 2\n\n"
    assert isinstance(reply.error, ValueError)


def test_an_error_of_a_generator_that_was_given_up_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(5)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(5)
            raise LookupError("late")

    async def main() -> None:
        reply = await call(app_of(items, close_timeout=10 * MS), disconnect_after=1)
        assert reply.error is None  # The request has ended before.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(MS)

    asyncio.run(main())
    assert [error for _, error in logged(caplog)] == [None, LookupError]


# Raising, or yielding


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
        # The duration is long, because a thread can start late.
        max_duration=100 * MS if end == "max_duration" else None,
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
