"""What a response is asked to stream."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ._core import EncodedEvent

if TYPE_CHECKING:
    from ._core import LogReader


class NotAStreamError(TypeError):
    """The content of a response is not an iterable of items."""


class LogContent(AsyncIterable[EncodedEvent]):
    """Content that a stream reads from logs instead of iterating it.

    This is the base of `Subscription`, whose module is imported when it is used.
    """

    async def open(self) -> None:
        """Find the logs. Called before the stream begins."""
        raise NotImplementedError

    def reader(self, most_bytes: int, opening: bytes = b"") -> LogReader:
        """Return what reads the logs.

        Args:
            most_bytes: The bytes of one send.
            opening: Bytes to send before everything else.
        """
        raise NotImplementedError


def checked_content(content: Any) -> AsyncIterable[Any] | Iterable[Any]:
    """Return the content if it is an iterable of items.

    Raises:
        NotAStreamError: The content is a single item, or text, or not iterable.
    """
    if isinstance(content, AsyncIterable):
        return content
    if not isinstance(content, Iterable) or isinstance(
        content, (str, bytes, bytearray, memoryview, Mapping, BaseModel)
    ):
        if inspect.iscoroutine(content):
            hint = "await it, or use `yield` in its function"
        elif callable(content):
            hint = "call it and pass the result"
        else:
            hint = "pass a generator or a list of events"
        raise NotAStreamError(
            "EventSourceResponse needs an async or sync iterable of events, not "
            f"{type(content).__name__!r}: {hint}"
        )
    return content
