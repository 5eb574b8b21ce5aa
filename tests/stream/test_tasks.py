"""The tasks that send and that run the generator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from ..support.apps import KINDS, MS, app_of, bursts, numbers
from ..support.asgi import Reply, call, fetch
from ..support.middlewares import PAUSES, around_send, with_pause


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_message_is_sent_by_the_task_of_the_request(
    kind: str, pause: float | None
) -> None:
    tasks: list[Any] = []

    def sync_items() -> Iterator[int]:
        for number in range(12):
            yield number
            if number % 3 == 0:
                time.sleep((80 if number == 6 else 12) * MS)

    async def noting(send: Any, message: Any) -> None:
        tasks.append((message["type"], asyncio.current_task()))
        await send(message)
        tasks.append((message["type"], asyncio.current_task()))

    async def main() -> tuple[Reply, Any]:
        endpoint = bursts if kind == "async" else sync_items
        app = around_send(app_of(endpoint, ping_interval=4 * MS), noting)
        return await call(with_pause(app, pause)), asyncio.current_task()

    reply, request = asyncio.run(main())
    assert reply.complete
    assert numbers(reply.body) == list(range(12))
    assert b": ping\n\n" in reply.body
    assert {kind for kind, _ in tasks} == {"http.response.start", "http.response.body"}
    assert {task for _, task in tasks} == {request}


def test_the_generator_runs_in_one_task_whatever_is_sent_in_between() -> None:
    tasks: list[Any] = []

    async def items() -> AsyncIterator[int]:
        async for number in bursts():
            tasks.append(asyncio.current_task())
            yield number
        tasks.append(asyncio.current_task())

    reply = fetch(with_pause(app_of(items, ping_interval=4 * MS), 0.0))
    assert reply.complete
    assert len(tasks) == 13
    assert len(set(tasks)) == 1


def test_a_generator_is_closed_in_the_task_that_iterated_it(
    anyio_backend: str,
) -> None:
    tasks: set[int] = set()

    def in_task() -> None:
        tasks.add(anyio.get_current_task().id)

    async def items() -> AsyncIterator[int]:
        in_task()
        try:
            for number in range(1_000_000):
                yield number
                in_task()
                await anyio.sleep(MS)
        finally:
            in_task()

    app = app_of(items)
    for leave_after in (1, 5):
        tasks.clear()
        fetch(app, backend=anyio_backend, disconnect_after=leave_after)
        assert len(tasks) == 1
