"""What stands between a stream and its server: what applications have around `send`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from .apps import MS

Application = Callable[..., Any]
Wrapper = Callable[[Any, Any], Awaitable[None]]

PAUSES = [None, 0.0, 2 * MS]
"""Of a client: it takes a message at once, after a turn of the loop, after a while."""


def around_send(app: Application, wrap: Wrapper) -> Application:
    """Return the application behind a middleware: `wrap(send, message)` sends."""

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, functools.partial(wrap, send))

    return behind


def around_receive(
    app: Application, wrap: Callable[[Any], Awaitable[Any]]
) -> Application:
    """Return the application behind a middleware: `wrap(receive)` receives."""

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, functools.partial(wrap, receive), send)

    return behind


def with_pause(app: Application, pause: float | None) -> Application:
    """Return the application for a client that takes its time for every message.

    Without a pause, `send` never waits; with one of 0, for one turn of the loop.
    """
    if pause is None:
        return app

    async def send_late(send: Any, message: Any) -> None:
        await asyncio.sleep(pause / 2)
        await send(message)
        await asyncio.sleep(pause / 2)

    return around_send(app, send_late)
