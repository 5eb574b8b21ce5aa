"""The `body_iterator` of a response, for code that iterates or replaces it.

A response streams its items without it. But the response is also a `StreamingResponse`:
a middleware or a decorator may iterate its `body_iterator`, or wrap it in another
generator.
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
    """A function that returns the encoder for a request."""

    def __call__(self, scope: Scope, json: Json, /) -> ItemEncoder: ...


def chunks(scope: Scope, json: Json) -> ItemEncoder:
    """Return an encoder that sends `str` and bytes unchanged."""
    no_event = functools.partial(_warn_of_text, scope)
    return ItemEncoder.chunks(json=json, no_event=no_event)


def _warn_of_text(scope: Scope, part: str) -> None:
    endpoint: Any = scope.get("endpoint", scope.get("path"))
    name = str(getattr(endpoint, "__qualname__", endpoint))
    warn_once(
        f"text of {name}",
        "%s streams the str %.40r, which is sent unchanged, but no event begins like "
        "that: yield ServerSentEvent(raw_data=...), or, to send it as JSON, yield it "
        "from the path operation function, with response_class=EventSourceResponse",
        name,
        part,
    )


class Body:
    """The default `body_iterator` of a response: an iterable of encoded items.

    It does not refer to the response, because that would be a reference cycle.

    Args:
        items: The iterable of items.
        options: The options of the response.

    Attributes:
        items: The iterable of items.
        encoder_for: A function that returns the encoder for a request.
        options: The options of the response.
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
        """Return an iterator over the bytes of each item.

        It is the same iterator each time, so a wrapper may peek at the first item and
        resume in another loop.
        """
        if self._iterator is None:
            encoder = self.encoder_for({}, self.options.json)
            timeout = self.options.close_timeout
            self._iterator = _encoded(self.items, encoder, timeout)
        return self._iterator

    async def wrapped(self, chunks: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """Yield from a wrapper of this iterable, then close both.

        An `async for` in the wrapper would leave this iterator to the garbage
        collector.
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
    # `task.cancel()` does not wait for the thread, which may still run the iterator. It
    # can be closed only after that.
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
    """Close an iterator, unless another task is still running it."""
    if hasattr(iterator, "aclose") and not getattr(iterator, "ag_running", False):
        with anyio.move_on_after(within, shield=True):
            await iterator.aclose()
