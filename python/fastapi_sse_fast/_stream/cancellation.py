"""Helpers to recognize cancellations, and to defer one until a step is done."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from typing import TYPE_CHECKING

import anyio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # a dependency of AnyIO as well

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def uncancelled(step: Callable[[], Awaitable[object]]) -> None:
    """Repeat a step until it is done, then raise a cancellation that came meanwhile.

    A shielded cancel scope would not do: it does not protect against `task.cancel()`.
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
        del cancelled  # Its traceback refers to this frame: a reference cycle.


def is_cancelled(error: BaseException | None) -> bool:
    """Return whether an error is a cancellation, or a group of only cancellations."""
    return is_only(error, anyio.get_cancelled_exc_class())


def is_cancelled_in_thread(error: BaseException) -> bool:
    """Return whether an error is a cancellation raised by `anyio.from_thread`."""
    return is_cancelled(error) or is_only(error, concurrent.futures.CancelledError)


def is_only(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Return whether an error is of a kind, or an exception group of only that kind.

    A task group around a `yield` wraps what is thrown into it in an exception group.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split(kind)[1] is None
    return isinstance(error, kind)


def as_exception(error: BaseException, message: str) -> Exception:
    """Return an `Exception` whose cause is an error that is not an `Exception`."""
    exception = RuntimeError(message)
    exception.__cause__ = error
    return exception
