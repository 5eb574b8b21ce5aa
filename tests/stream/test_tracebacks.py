"""The traceback of an error ends where the error was raised."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from ..support.apps import MS, app_of
from ..support.asgi import fetch
from ..support.middlewares import PAUSES, around_send, with_pause


async def fails_at_once() -> AsyncIterator[int]:
    raise LookupError
    yield 1


async def fails_after_an_event() -> AsyncIterator[int]:
    yield 1
    raise LookupError


async def fails_after_waiting() -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(2 * MS)
    raise LookupError


async def fails_deeper() -> AsyncIterator[int]:
    async def helper() -> None:
        await asyncio.sleep(MS)
        raise LookupError

    yield 1
    await helper()


async def fails_while_it_closes() -> AsyncIterator[int]:
    try:
        yield 1
        await asyncio.sleep(3600)
    finally:
        raise LookupError


async def fails_at_a_yield_that_was_interrupted() -> AsyncIterator[int]:
    try:
        with anyio.move_on_after(3 * MS):
            while True:
                yield 1
                time.sleep(2 * MS)  # noqa: ASYNC251 - it stands at the `yield`
    except asyncio.CancelledError:
        raise LookupError from None
    raise LookupError


@pytest.mark.parametrize(
    ("endpoint", "line"),
    [
        (fails_at_once, "fails_at_once"),
        (fails_after_an_event, "fails_after_an_event"),
        (fails_after_waiting, "fails_after_waiting"),
        (fails_deeper, "helper"),
        (fails_while_it_closes, "fails_while_it_closes"),
        (
            fails_at_a_yield_that_was_interrupted,
            "fails_at_a_yield_that_was_interrupted",
        ),
    ],
)
@pytest.mark.parametrize("pause", PAUSES)
def test_the_traceback_of_an_error_ends_where_it_was_raised(
    endpoint: Any, line: str, pause: float | None
) -> None:
    leave = 1 if endpoint is fails_while_it_closes else None
    reply = fetch(with_pause(app_of(endpoint), pause), disconnect_after=leave)
    assert isinstance(reply.error, LookupError)
    frames = traceback.extract_tb(reply.error.__traceback__)
    assert frames[-1].name == line
    assert frames[-1].filename == __file__
    # Each frame is there once.
    assert len([frame for frame in frames if frame.name == line]) == 1
    formatted = "".join(traceback.format_exception(reply.error))
    assert "raise LookupError" in formatted


def test_the_traceback_of_an_error_of_a_middleware_ends_in_it() -> None:
    async def failing(send: Any, message: Any) -> None:
        if message.get("body"):
            raise LookupError
        await send(message)

    async def items() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(3600)

    reply = fetch(around_send(app_of(items), failing))
    assert isinstance(reply.error, LookupError)
    assert traceback.extract_tb(reply.error.__traceback__)[-1].name == "failing"
