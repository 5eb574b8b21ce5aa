"""The body of a response as bytes, for who looks at it or puts another in its place.

A response streams its items by itself. But it is a `StreamingResponse` to others: a
middleware or a decorator may iterate its `body_iterator`, or replace that by a
generator of its own around it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from starlette.concurrency import run_in_threadpool

from ._core import EventBuffer, ItemEncoder
from ._stream.hooks import warn_once

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope

    from .options import Json, StreamOptions


class EncoderFactory(Protocol):
    """Makes the encoder for one request, of the spelling that is asked for."""

    def __call__(self, scope: Scope, json: Json, /) -> ItemEncoder: ...


def chunks(scope: Scope, json: Json) -> ItemEncoder:
    """Return what encodes items, and passes parts of a body on as they are."""
    no_event = functools.partial(_warn_of_text, scope)
    return ItemEncoder.chunks(json=json, no_event=no_event)


def _warn_of_text(scope: Scope, part: str) -> None:
    endpoint: Any = scope.get("endpoint", scope.get("path"))
    name = str(getattr(endpoint, "__qualname__", endpoint))
    warn_once(
        f"text of {name}",
        "%s streams the text %.40r, which is sent as it is, but no event begins like "
        "that: yield ServerSentEvent(raw_data=...), or, for JSON, yield from the path "
        "operation itself, with response_class=EventSourceResponse",
        name,
        part,
    )


class Body:
    """What `body_iterator` is: the items, and the same as bytes.

    The response is not known here: the two would keep each other.

    Args:
        items: What yields the items.

    Attributes:
        items: What yields the items.
        encoder_for: Returns what encodes them, for a request.
        options: Of the response.
    """

    __slots__ = ("_iterator", "encoder_for", "items", "options")

    def __init__(
        self, items: AsyncIterable[Any] | Iterable[Any], options: StreamOptions
    ) -> None:
        self.items = items
        self.encoder_for: EncoderFactory = chunks
        self.options = options
        self._iterator: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the bytes of each item.

        The same iterator every time: who has looked at the first chunk may go on with
        another loop.
        """
        if self._iterator is None:
            encoder = self.encoder_for({}, self.options.json)
            timeout = self.options.close_timeout
            self._iterator = _encoded(self.items, encoder, timeout)
        return self._iterator

    async def wrapped(self, chunks: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """Yield what somebody has made of the bytes, and close theirs and ours.

        An `async for` in their generator leaves our iterator to the garbage collector.
        """
        chunks = aiter(chunks)
        timeout = self.options.close_timeout
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            try:
                await _close(chunks, timeout)
            finally:
                await _close(self._iterator, timeout)


async def _encoded(
    items: AsyncIterable[Any] | Iterable[Any],
    encoder: ItemEncoder,
    close_timeout: float,
) -> AsyncIterator[bytes]:
    buffer = EventBuffer(encoder, source=items, max_pending=1, time_slice=0.0)
    opened = aiter(items) if isinstance(items, AsyncIterable) else _in_threads(items)
    try:
        async for item in opened:
            buffer.push(item)
            yield buffer.take()
    finally:
        await _close(opened, close_timeout)


async def _in_threads(items: Iterable[Any]) -> AsyncIterator[Any]:
    """Iterate in worker threads."""
    iterator = iter(items)
    end = object()
    # `task.cancel()` leaves a thread behind, which has to be out of the iterator before
    # that can be closed.
    lock = threading.Lock()

    def next_item() -> Any:
        with lock:
            return next(iterator, end)

    def close() -> None:
        with lock:
            if hasattr(iterator, "close"):
                iterator.close()

    try:
        while (item := await run_in_threadpool(next_item)) is not end:
            yield item
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(close)


async def _close(iterator: Any, within: float) -> None:
    """Close it, unless a task of its user's is in it, which that has to end."""
    if hasattr(iterator, "aclose") and not getattr(iterator, "ag_running", False):
        with anyio.move_on_after(within, shield=True):
            await iterator.aclose()
