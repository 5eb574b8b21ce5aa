"""Context variables that dependencies, the generator and middleware set."""

from __future__ import annotations

import contextvars
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import Depends

from ..support.apps import MS, app_of, bursts, numbers
from ..support.asgi import Application, fetch
from ..support.eventsource import parse
from ..support.middlewares import PAUSES, around_send, with_pause

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
SPAN: contextvars.ContextVar[int] = contextvars.ContextVar("span")


def test_context_variables_are_visible_in_every_step(anyio_backend: str) -> None:
    async def dependency() -> AsyncIterator[None]:
        token = VARIABLE.set("set by a dependency")
        yield
        VARIABLE.reset(token)

    async def items() -> AsyncIterator[str]:
        yield VARIABLE.get()
        VARIABLE.set("set by the generator")
        await anyio.lowlevel.checkpoint()
        yield VARIABLE.get()

    def sync_items() -> Iterator[str]:
        yield VARIABLE.get()
        VARIABLE.set("set by the generator")
        time.sleep(10 * MS)  # The next item is in another batch.
        yield ""
        yield VARIABLE.get()

    for endpoint in (items, sync_items):
        app = app_of(endpoint, dependencies=[Depends(dependency)])
        events = parse(fetch(app, backend=anyio_backend).body).events
        assert events[0].data == '"set by a dependency"'
        assert events[-1].data == '"set by the generator"'


def in_spans(app: Application, pause: float | None) -> Application:
    """Return the application behind a middleware with a span around each send.

    OpenTelemetry does this. Its current span is a context variable.
    """
    spans = itertools.count(1)

    async def send_in_a_span(send: Any, message: Any) -> None:
        span = next(spans)
        token = SPAN.set(span)
        try:
            await send(message)
            assert SPAN.get() == span
        finally:
            SPAN.reset(token)

    return with_pause(around_send(app, send_in_a_span), pause)


@pytest.mark.parametrize("pause", PAUSES)
def test_a_context_variable_can_be_set_and_reset_around_a_send(
    pause: float | None,
) -> None:
    async def items() -> AsyncIterator[int]:
        async for number in bursts():
            yield number

    reply = fetch(in_spans(app_of(items, ping_interval=4 * MS), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == list(range(12))
    assert b": ping\n\n" in reply.body


@pytest.mark.parametrize("pause", PAUSES)
def test_a_generator_does_not_see_what_is_set_around_a_send(
    pause: float | None,
) -> None:
    """Otherwise spans that the generator opens would get the wrong parent."""
    found: list[int] = []

    async def items() -> AsyncIterator[int]:
        async for number in bursts():
            found.append(SPAN.get(0))
            yield number

    assert fetch(in_spans(app_of(items), pause)).complete
    assert found == [0] * 12


@pytest.mark.parametrize("pause", PAUSES)
def test_what_a_generator_sets_stays_whatever_is_reset_around_a_send(
    pause: float | None,
) -> None:
    found: list[int] = []

    async def items() -> AsyncIterator[int]:
        async for number in bursts():
            found.append(SPAN.get(0))
            SPAN.set(1000 + number)
            yield number

    assert fetch(in_spans(app_of(items), pause)).complete
    assert found == [0, *range(1000, 1011)]
