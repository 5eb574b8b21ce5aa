"""Middleware around `send` and `receive`, as applications have."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from .apps import MS

Application = Callable[..., Any]
Wrapper = Callable[[Any, Any], Awaitable[None]]

PAUSES = [None, 0.0, 2 * MS]
"""The pauses of a client: none, one iteration of the event loop, or longer."""


def around_send(app: Application, wrap: Wrapper) -> Application:
    """Return the application behind a middleware that sends with `wrap(send, …)`."""

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, functools.partial(wrap, send))

    return behind


def around_receive(
    app: Application, wrap: Callable[[Any], Awaitable[Any]]
) -> Application:
    """Return the application behind a middleware that receives by `wrap(receive)`."""

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, functools.partial(wrap, receive), send)

    return behind


def with_pause(app: Application, pause: float | None) -> Application:
    """Return the application for a client that pauses before each ASGI message.

    With a pause of `None`, `send` never waits. With 0, it waits for one iteration of
    the event loop.
    """
    if pause is None:
        return app

    async def send_late(send: Any, message: Any) -> None:
        await asyncio.sleep(pause / 2)
        await send(message)
        await asyncio.sleep(pause / 2)

    return around_send(app, send_late)
