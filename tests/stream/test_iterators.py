"""Iterators of every kind: what they need to have, and whether they are closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import KINDS, MS, numbers
from ..support.asgi import Reply, call, fetch


def test_an_iterable_without_close() -> None:
    assert fetch(EventSourceResponse([1, 2])).body == b"data: 1\n\ndata: 2\n\n"
    assert fetch(EventSourceResponse(range(2))).body == b"data: 0\n\ndata: 1\n\n"


def test_an_async_iterator_class() -> None:
    class Countdown:
        left = 3

        def __aiter__(self) -> Countdown:
            return self

        async def __anext__(self) -> int:
            if self.left == 0:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    body = fetch(EventSourceResponse(Countdown())).body
    assert body == b"data: 2\n\ndata: 1\n\ndata: 0\n\n"


# Iterators that are shared


class Shared:
    """Events for several streams, one after the other."""

    def __init__(self) -> None:
        self.closed = 0

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> int:
        await anyio.sleep(MS)
        return 1

    async def aclose(self) -> None:
        self.closed += 1


class SharedInThreads:
    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        time.sleep(MS)
        return 1

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("make", [Shared, SharedInThreads])
def test_an_iterator_that_others_may_go_on_with_is_not_closed(
    make: Any, anyio_backend: str
) -> None:
    items = make()
    for _ in range(2):
        response = EventSourceResponse(items)
        reply = fetch(response, backend=anyio_backend, disconnect_after=2)
        assert reply.error is None
        assert reply.body.startswith(b"data: 1\n\n")
    assert items.closed == 0


def test_a_memory_stream_serves_one_client_after_the_other(anyio_backend: str) -> None:
    async def main() -> list[Reply]:
        sender, receiver = anyio.create_memory_object_stream[int](10)
        replies = []
        with sender, receiver:
            for number in range(3):
                sender.send_nowait(number)
                response = EventSourceResponse(receiver)
                replies.append(await call(response, disconnect_after=1))
        return replies

    replies = anyio.run(main, backend=anyio_backend)
    assert [numbers(reply.body) for reply in replies] == [[0], [1], [2]]
    assert [reply.error for reply in replies] == [None] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_is_closed_by_its_stream(kind: str, anyio_backend: str) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(MS)
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(MS)
        finally:
            closed.append(True)

    content: Any = items() if kind == "async" else sync_items()
    fetch(EventSourceResponse(content), backend=anyio_backend, disconnect_after=2)
    assert closed == [True]


def test_an_iterator_that_was_made_for_a_stream_is_closed(anyio_backend: str) -> None:
    made: list[Shared] = []

    class Items:
        def __aiter__(self) -> Any:
            made.append(Shared())
            return made[-1]

    for _ in range(2):
        response = EventSourceResponse(Items())
        fetch(response, backend=anyio_backend, disconnect_after=2)
    assert [items.closed for items in made] == [1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_two_streams_of_one_generator(kind: str) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await asyncio.sleep(20 * MS)

    def sync_items() -> Iterator[int]:
        for number in range(3):
            yield number
            time.sleep(20 * MS)

    async def main() -> list[Reply]:
        shared = items() if kind == "async" else sync_items()
        return await asyncio.gather(
            *(call(EventSourceResponse(shared)) for _ in range(2))
        )

    replies = asyncio.run(main())
    errors = [reply.error for reply in replies]
    assert any(isinstance(error, (RuntimeError, ValueError)) for error in errors)
