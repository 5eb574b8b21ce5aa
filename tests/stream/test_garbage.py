"""A stream leaves no objects behind, not even for the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ..support import releases
from ..support.apps import KINDS, MS, OddError, app_of
from ..support.asgi import call, scope
from ..support.internals import nothing_for_the_collector


def test_nothing_is_left_behind() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(10):
            yield number
            await asyncio.sleep(0)

    async def main() -> None:
        app = app_of(items)
        for disconnect_after in [None, 1, 3]:
            await call(app, disconnect_after=disconnect_after)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main(), debug=True)


def test_an_error_in_a_cycle_is_collected() -> None:
    errors = []

    async def items() -> AsyncIterator[int]:
        yield "x"  # type: ignore[misc]

    async def main() -> None:
        app = app_of(items)
        for _ in range(5):
            state: dict[str, Any] = {}
            reply = await call(app, state=state)
            assert reply.error is not None
            state["error"] = reply.error  # Error and scope refer to each other.
            errors.append(weakref.ref(reply.error))

    asyncio.run(main())
    gc.collect()
    assert [error() for error in errors] == [None] * 5


@pytest.mark.parametrize(
    "ending", ["finished", "disconnected", "error", "odd error", "max_duration"]
)
@pytest.mark.parametrize("pause", [0, MS])
@pytest.mark.parametrize("with_hooks", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_stream_took_is_free_without_the_collector(
    kind: str, with_hooks: bool, pause: float, ending: str
) -> None:
    if kind == "sync" and not releases.IDLE_THREADS_LET_GO:
        pytest.skip("an idle thread of this AnyIO keeps what it called last")

    def goes_on() -> bool:
        if ending == "error":
            raise LookupError
        if ending == "odd error":
            raise OddError
        return ending != "finished"

    async def items() -> AsyncIterator[int]:
        while True:
            yield 1
            if pause:
                await asyncio.sleep(pause)
            if not goes_on():
                break

    def sync_items() -> Iterator[int]:
        while True:
            yield 1
            if pause:
                time.sleep(pause)
            if not goes_on():
                break

    hooks: Any = {"on_open": bool, "on_close": bool} if with_hooks else {}
    app = app_of(
        items if kind == "async" else sync_items,
        max_duration=5 * MS if ending == "max_duration" else None,
        **hooks,
    )

    async def stream() -> None:
        leave = asyncio.Event()

        async def receive() -> dict[str, str]:
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            if ending == "disconnected":
                leave.set()

        with contextlib.suppress(LookupError, RuntimeError):
            await app(scope(), receive, send)

    async def main() -> None:
        await stream()  # The first one fills caches.
        await asyncio.sleep(5 * MS)
        with nothing_for_the_collector():
            for _ in range(3):
                await stream()
            await asyncio.sleep(5 * MS)

    asyncio.run(main())
