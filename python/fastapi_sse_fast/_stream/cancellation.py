"""Telling cancellations apart, and holding one back until a step is done."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from typing import TYPE_CHECKING

import anyio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # which AnyIO needs too

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def uncancelled(step: Callable[[], Awaitable[object]]) -> None:
    """Repeat a step until it is done, and only then be cancelled.

    No cancel scope is a shield against `task.cancel()`.
    """
    cancelled = None
    while True:
        try:
            await step()
            break
        except asyncio.CancelledError as error:
            cancelled = error
    try:
        if cancelled is not None:
            raise cancelled
    finally:
        del cancelled  # which has this frame in its traceback: a cycle


def is_cancelled(error: BaseException | None) -> bool:
    """Return whether an error is a cancellation and nothing else."""
    return is_only(error, anyio.get_cancelled_exc_class())


def is_cancelled_in_thread(error: BaseException) -> bool:
    """Return whether an error is what `anyio.from_thread` raises when cancelled."""
    return is_cancelled(error) or is_only(error, concurrent.futures.CancelledError)


def is_only(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Return whether an error is of a kind, if need be in exception groups.

    That is what a task group around a `yield` makes of what is thrown into it.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split(kind)[1] is None
    return isinstance(error, kind)


def as_exception(error: BaseException, message: str) -> Exception:
    """Return an `Exception` for what is none, with that as its cause."""
    exception = RuntimeError(message)
    exception.__cause__ = error
    return exception
