"""Streams as users of sse-starlette write them. They print what happens.

Each stream prints "finally" when its generator has closed. `/left` returns the queues
and tasks that streams have left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
from fastapi import Request
from typing_extensions import Self

from fastapi_sse_fast import EventSourceResponse

from .streams import Response, app, say

ROUNDS = 50
"""The number of events of a stream that ends, and of each producer."""


def paced(number: int) -> float:
    """Return the pause after an event. Most are 0, so that there are bursts too."""
    return 0.002 if number % 10 == 9 else 0.0


# A loop that checks whether the client is connected


@app.get("/loop", response_class=Response)
async def loop(request: Request, count: int = 10**9) -> AsyncIterator[int]:
    try:
        for number in range(count):
            if await request.is_disconnected():
                break
            yield number
            await asyncio.sleep(paced(number))
    except asyncio.CancelledError:
        raise  # Examples clean up here.
    finally:
        say("finally")


# A session that the generator opens, and rows that it reads from it


class Session:
    opened = 0

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        Session.opened += 1
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # SQLAlchemy closes a session even if its task is cancelled.
        await asyncio.shield(asyncio.ensure_future(self.close()))

    async def close(self) -> None:
        await asyncio.sleep(0)
        Session.opened -= 1

    async def rows(self, count: int) -> AsyncIterator[dict[str, int]]:
        for number in range(count):
            await asyncio.sleep(paced(number))
            yield {"id": number}


@app.get("/rows", response_class=Response)
async def rows(request: Request, count: int = 10**9) -> AsyncIterator[int]:
    try:
        async with Session() as session:
            async for row in session.rows(count):
                if await request.is_disconnected():
                    break
                yield row["id"]
    finally:
        say("finally")


# A queue for each client, and a producer that puts into all of them

WELCOME = -1
queues: set[asyncio.Queue[int | None]] = set()


def subscribed() -> asyncio.Queue[int | None]:
    queue: asyncio.Queue[int | None] = asyncio.Queue(3 * ROUNDS)
    queue.put_nowait(WELCOME)
    queues.add(queue)
    return queue


@app.get("/subscribe", response_class=Response)
async def subscribe() -> AsyncIterator[int]:
    queue = subscribed()
    try:
        while (number := await queue.get()) is not None:
            yield number
    finally:
        queues.discard(queue)
        say("finally")


class Subscription:
    """The same as an iterator object that the route returns."""

    def __init__(self) -> None:
        self.queue = subscribed()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        try:
            number = await self.queue.get()
        except asyncio.CancelledError:
            self.close()
            raise
        if number is None:
            self.close()
            raise StopAsyncIteration
        return number

    def close(self) -> None:
        queues.discard(self.queue)
        say("finally")


@app.get("/subscribe-object")
async def subscribe_object() -> EventSourceResponse:
    return Response(Subscription())


@app.post("/publish")
async def publish(numbers: list[int | None]) -> int:
    for number in numbers:
        for queue in list(queues):
            queue.put_nowait(number)
        await asyncio.sleep(paced(number or 0))
    return len(queues)


# Several producers that send to one memory stream, which the generator reads


@app.get("/producers", response_class=Response)
async def producers(count: int = 10**9) -> AsyncIterator[tuple[str, int]]:
    send, received = anyio.create_memory_object_stream[tuple[str, int]](3)

    async def produce(name: str, target: Any) -> None:
        async with target:
            for number in range(count):
                await target.send((name, number))
                await anyio.sleep(paced(number))

    try:
        async with received, anyio.create_task_group() as tasks:
            async with send:
                for name in "abc":
                    tasks.start_soon(produce, name, send.clone())
            async for item in received:
                yield item
    finally:
        say("finally")


# A thread, such as that of a model or of a blocking driver


@app.get("/thread", response_class=Response)
async def thread(count: int = 10**9) -> AsyncIterator[int]:
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    put = asyncio.get_running_loop().call_soon_threadsafe
    stopped = threading.Event()

    def work() -> None:
        for number in range(count):
            put(queue.put_nowait, number)
            if stopped.wait(paced(number)):
                return
        put(queue.put_nowait, None)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        while (number := await queue.get()) is not None:
            yield number
    finally:
        stopped.set()
        await asyncio.to_thread(worker.join)
        say("finally")


# A task for each client, which the generator cancels


@app.get("/task", response_class=Response)
async def task(count: int = 10**9) -> AsyncIterator[int]:
    queue: asyncio.Queue[int | None] = asyncio.Queue(1)

    async def work() -> None:
        for number in range(count):
            await queue.put(number)
            await asyncio.sleep(paced(number))
        await queue.put(None)

    worker = asyncio.create_task(work())
    try:
        while (number := await queue.get()) is not None:
            yield number
    finally:
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        say("finally")


@app.get("/left")
async def left() -> dict[str, Any]:
    """Return what streams have left behind."""
    return {
        "queues": len(queues),
        "sessions": Session.opened,
        "tasks": [repr(task) for task in asyncio.all_tasks() if is_of_a_stream(task)],
    }


def is_of_a_stream(task: asyncio.Task[Any]) -> bool:
    """Return whether a task is not one of the server or its connections."""
    code = getattr(task.get_coro(), "cr_code", None)
    made_by = ("fastapi_sse_fast", "anyio", __file__)
    return code is not None and any(one in code.co_filename for one in made_by)
