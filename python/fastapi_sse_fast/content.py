"""What may be streamed, and the error for what may not."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel


class NotAStreamError(TypeError):
    """The content of a response is no iterable of items."""


def checked_content(content: Any) -> AsyncIterable[Any] | Iterable[Any]:
    """Return an iterable of items.

    Raises:
        NotAStreamError: It is one item, or text, or not iterable.
    """
    if isinstance(content, AsyncIterable):
        return content
    if not isinstance(content, Iterable) or isinstance(
        content, (str, bytes, bytearray, memoryview, Mapping, BaseModel)
    ):
        if inspect.iscoroutine(content):
            instead = "await it, or have its function `yield`"
        elif callable(content):
            instead = "call it, and pass what it returns"
        else:
            instead = "pass a generator, or a list of events"
        raise NotAStreamError(
            "EventSourceResponse streams an async or sync iterable of events, not "
            f"{type(content).__name__!r}: {instead}"
        )
    return content
