"""Helpers to call the application's hooks, and the logger.

An error of a hook is logged. It never affects the stream.
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


async def call_on_close(
    hook: CloseHook, summary: StreamSummary, seconds: float
) -> None:
    """Call the hook, even if the task has been cancelled, and log its errors."""
    with anyio.CancelScope(shield=True), log_errors("on_close", seconds):
        await maybe_await(hook(summary))


@contextlib.contextmanager
def log_errors(name: str, seconds: float) -> Iterator[None]:
    """Log an exception of a hook, and cancel a hook that takes too long.

    Args:
        name: The name of the hook, for the log.
        seconds: The time that an async hook may take.
    """
    try:
        with anyio.move_on_after(seconds) as scope:
            yield
        if scope.cancelled_caught:
            logger.warning("%s timed out after %g seconds", name, seconds)
    except Exception:
        logger.exception("%s failed", name)


_warned: set[str] = set()


def warn_once(about: str, message: str, *args: object) -> None:
    """Log a warning once per process.

    Args:
        about: The topic. Only the first warning about it is logged.
        message: The message, with placeholders for `args`.
        *args: The arguments of the message.
    """
    if about not in _warned:
        _warned.add(about)
        logger.warning(message, *args)


async def maybe_await(value: T | Awaitable[T]) -> T:
    """Return a value. If it is awaitable, await it first."""
    return await value if isinstance(value, Awaitable) else value
