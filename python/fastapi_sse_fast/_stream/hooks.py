"""Calls of the application's hooks, and what is logged.

A hook must not break what it is called for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from ..options import CloseHook
    from ..summary import StreamSummary

logger = logging.getLogger("fastapi_sse_fast")

T = TypeVar("T")


async def call_on_close(hook: CloseHook, summary: StreamSummary, within: float) -> None:
    """Call the hook, also where the task has been cancelled; log its errors."""
    with anyio.CancelScope(shield=True), logged("on_close", within):
        await awaited(hook(summary))


@contextlib.contextmanager
def logged(name: str, within: float) -> Iterator[None]:
    """Log what a hook raises, and do not wait for it for longer than a generator."""
    try:
        with anyio.move_on_after(within) as time:
            yield
        if time.cancelled_caught:
            logger.warning("%s did not end within %g seconds", name, within)
    except Exception:
        logger.exception("%s failed", name)


_warned: set[str] = set()


def warn_once(about: str, message: str, *args: object) -> None:
    """Log a warning, unless this process has one about the same in its log."""
    if about not in _warned:
        _warned.add(about)
        logger.warning(message, *args)


async def awaited(value: T | Awaitable[T]) -> T:
    """Return a value, or what it is awaited for."""
    return await value if isinstance(value, Awaitable) else value
