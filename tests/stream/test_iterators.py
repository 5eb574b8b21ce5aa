"""Iterators of all kinds: the methods that they need, and whether they are closed."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import anyio
import pytest

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import KINDS, MS, Summaries, endless_of, numbers
from ..support.asgi import Reply, call, fetch
from ..support.middlewares import PAUSES, with_pause


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


# Kinds of `__anext__`


class Counting:
    """An iterator that counts to five.

    Attributes:
        closed: How many times it was closed.
    """

    def __init__(self) -> None:
        self._number = 0
        self.closed = 0

    def __aiter__(self) -> Any:
        return self

    def count(self) -> int:
        """Return the next number.

        Raises:
            StopAsyncIteration: There are no more numbers.
        """
        if self._number == 5:
            raise StopAsyncIteration
        self._number += 1
        return self._number - 1

    async def aclose(self) -> None:
        self.closed += 1


class Coroutine(Counting):
    async def __anext__(self) -> int:
        await asyncio.sleep(MS)
        return self.count()


class CoroutineThatNeverWaits(Counting):
    async def __anext__(self) -> int:
        return self.count()


class OnlyAwaitable:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __await__(self) -> Any:
        return self._make()


class WithAwait(Counting):
    def __anext__(self) -> Any:
        def steps() -> Generator[Any, Any, int]:
            yield from asyncio.sleep(MS).__await__()
            yield
            return self.count()

        return OnlyAwaitable(steps)


class WithAwaitThatRaisesAtOnce(Counting):
    """`__anext__()` raises `StopAsyncIteration` itself, not its awaitable."""

    def __anext__(self) -> Any:
        number = self.count()

        async def value() -> int:
            await asyncio.sleep(0)
            return number

        return OnlyAwaitable(value().__await__)


class Futures(Counting):
    def __anext__(self) -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def answer() -> None:
            try:
                future.set_result(self.count())
            except StopAsyncIteration as end:
                future.set_exception(end)

        loop.call_later(MS, answer)
        return future


class FuturesThatAreDone(Counting):
    def __anext__(self) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(self.count())
        return future


class Tasks(Counting):
    def __anext__(self) -> Any:
        number = self.count()
        return asyncio.get_running_loop().create_task(asyncio.sleep(MS, number))


class GeneratorsOfTypesCoroutine(Counting):
    @types.coroutine
    def __anext__(self) -> Any:
        yield
        yield from asyncio.sleep(MS).__await__()
        return self.count()


class Plain:
    """An iterator with nothing but `__next__`."""

    def __init__(self, steps: Iterator[Any]) -> None:
        self._steps = steps

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._steps)


class WithoutSendAndThrow(Counting):
    def __anext__(self) -> Any:
        number = self.count()
        return OnlyAwaitable(lambda: Plain(asyncio.sleep(MS, number).__await__()))


@pytest.mark.parametrize(
    "make",
    [
        Coroutine,
        CoroutineThatNeverWaits,
        WithAwait,
        WithAwaitThatRaisesAtOnce,
        Futures,
        FuturesThatAreDone,
        Tasks,
        GeneratorsOfTypesCoroutine,
        WithoutSendAndThrow,
    ],
)
@pytest.mark.parametrize("pause", PAUSES)
def test_whatever_can_be_awaited_can_come_from_anext(
    make: type[Counting], pause: float | None
) -> None:
    reply = fetch(with_pause(EventSourceResponse(make()), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == list(range(5))


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_an_iterator_written_in_c_can_be_awaited(turns: int) -> None:
    """An iterator of a list makes the task wait once per item, and returns `None`."""

    class Turns(Counting):
        def __anext__(self) -> Any:
            self.count()
            return OnlyAwaitable(lambda: iter([None] * turns))

    reply = fetch(EventSourceResponse(Turns()))
    assert reply.error is None
    assert reply.body == b"data: null\n\n" * 5
    assert reply.complete


def plain_generator() -> Any:
    yield


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: 1,
        object,
        lambda: OnlyAwaitable(lambda: 1),
        lambda: OnlyAwaitable(lambda: None),
        lambda: iter([]),
        lambda: iter([None]),
        plain_generator,
    ],
    ids=[
        "none",
        "number",
        "object",
        "awaits a number",
        "awaits none",
        "empty iterator",
        "iterator",
        "plain generator",
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_what_cannot_be_awaited_is_an_error(
    make: Callable[[], Any], before: int
) -> None:
    """The error is the same as in an `async for`."""

    class Items(Counting):
        def __anext__(self) -> Any:
            if self.count() < before:
                return asyncio.sleep(0, "an item")
            return make()

    async def iterated() -> None:
        async for _ in Items():
            pass

    with pytest.raises(TypeError):
        asyncio.run(iterated())
    reply = fetch(EventSourceResponse(Items()))
    assert isinstance(reply.error, TypeError)
    assert reply.body == b"an item" * before
    assert not reply.complete


@pytest.mark.parametrize("make", [Coroutine, WithAwait, Futures, WithoutSendAndThrow])
@pytest.mark.parametrize("leaves_after", [1, 3])
def test_a_client_that_leaves_interrupts_any_anext(
    make: type[Counting], leaves_after: int
) -> None:
    class Slow(make):  # type: ignore[misc, valid-type]
        def __anext__(self) -> Any:
            if self._number < leaves_after:
                return super().__anext__()
            return self.never()

        def never(self) -> Any:
            if make is Coroutine:
                return asyncio.sleep(3600)
            if make is Futures:
                return asyncio.get_running_loop().create_future()
            steps = asyncio.get_running_loop().create_future().__await__()
            if make is WithoutSendAndThrow:
                return OnlyAwaitable(lambda: Plain(steps))
            return OnlyAwaitable(lambda: steps)

    summaries = Summaries()
    items = Slow()
    response = EventSourceResponse(items, on_close=summaries)
    reply = fetch(response, disconnect_after=leaves_after)
    assert reply.error is None
    assert numbers(reply.body) == list(range(leaves_after))
    assert summaries.reasons == ["disconnected"]
    assert summaries[0].seconds_open < 5


# Iterators that are shared


class Shared:
    """An iterator whose events go to several streams."""

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
    closed: list[bool] = []
    content = endless_of(kind, closed)()
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
