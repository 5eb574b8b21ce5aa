"""Errors, items and sources whose `repr` and `str` raise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import MS, Summaries, logged
from ..support.asgi import fetch
from ..support.middlewares import around_send


class UnprintableError(Exception):
    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __repr__


class Unprintable:
    """A source around a generator whose `repr` raises."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __repr__

    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Any:
        return self._items.__anext__()

    def aclose(self) -> Any:
        return self._items.aclose()


class Closing(Unprintable):
    """The same, but it returns another object as its iterator."""

    def __aiter__(self) -> Any:
        return self._items


async def raises(*, waits: bool, closing: bool) -> AsyncIterator[int]:
    try:
        yield 1
        if waits:
            await anyio.sleep(MS)
        if not closing:
            raise UnprintableError
        await anyio.sleep(3600)
    finally:
        if closing:
            raise UnprintableError


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("unprintable", ["error", "error and source"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_that_cannot_be_printed_breaks_the_stream_off(
    unprintable: str, waits: bool, anyio_backend: str
) -> None:
    content: Any = raises(waits=waits, closing=False)
    if unprintable == "error and source":
        content = Unprintable(content)
    summaries = Summaries()
    response = EventSourceResponse(content, on_close=summaries)
    reply = fetch(response, backend=anyio_backend)
    assert isinstance(reply.error, UnprintableError)
    assert reply.body == b"data: 1\n\n"
    assert not reply.complete
    assert summaries.reasons == ["error"]


@pytest.mark.parametrize("end", ["disconnected", "max_duration"])
def test_an_error_of_closing_that_cannot_be_printed_reaches_the_caller(
    end: str, anyio_backend: str
) -> None:
    summaries = Summaries()
    response = EventSourceResponse(
        Closing(raises(waits=True, closing=True)),
        on_close=summaries,
        max_duration=10 * MS if end == "max_duration" else None,
    )
    leaves = 1 if end == "disconnected" else None
    reply = fetch(response, backend=anyio_backend, disconnect_after=leaves)
    assert isinstance(reply.error, UnprintableError)
    assert not reply.complete
    assert summaries.reasons == ["error"]


@pytest.mark.parametrize("fails", ["item", "source", "send", "close"])
def test_a_source_that_cannot_be_printed_can_fail_in_any_way(
    fails: str,
    anyio_backend: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def generate() -> AsyncIterator[Any]:
        try:
            yield 1
            if fails == "item":
                yield UnprintableItem()
            if fails == "source":
                raise LookupError
            await anyio.sleep(5 * MS)
            yield 2
            await anyio.sleep(3600)
        finally:
            if fails == "close":
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(200 * MS)

    class UnprintableItem:
        __slots__ = ()

        def __repr__(self) -> str:
            raise ZeroDivisionError

        __str__ = __repr__

    async def failing(send: Any, message: Any) -> None:
        if fails == "send" and b"2" in message.get("body", b""):
            raise LookupError
        await send(message)

    summaries = Summaries()
    response = EventSourceResponse(
        Closing(generate()), on_close=summaries, close_timeout=20 * MS
    )
    leaves = 2 if fails == "close" else None
    app = around_send(response, failing)
    reply = fetch(app, backend=anyio_backend, disconnect_after=leaves)
    assert not reply.complete
    if fails == "close":
        assert reply.error is None
        assert ["did not close" in message for message, _ in logged(caplog)] == [True]
    else:
        kind = ValueError if fails == "item" else LookupError
        assert isinstance(reply.error, kind)
        assert summaries.reasons == ["error"]
