"""The check of what a response is asked to stream."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel


class NotAStreamError(TypeError):
    """The content of a response is not an iterable of items."""


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
