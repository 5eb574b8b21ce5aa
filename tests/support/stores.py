"""The stores that channels and runs are tested with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from typing_extensions import Self

from fastapi_sse_fast.stores import MemoryStore, Store

STORES: dict[str, Callable[[], Store]] = {"memory": MemoryStore}
"""What makes each store, not open yet, and with nothing in it.

Another store is added here. What it makes may be a part of a server that others use
too, if nothing of that is seen from outside.
"""


class GatedStore:
    """A store whose answers take as long as the test says.

    Each call waits before the store has seen it, and again before the caller sees the
    answer: between the two, others do something.

    Args:
        store: What does the work.
        gate: Awaited at each of these places.
    """

    def __init__(self, store: Store, gate: Callable[[], Any]) -> None:
        self._store = store
        self._gate = gate

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._store.__aexit__(*error)  # type: ignore[arg-type]

    def lifespan(self, app: Any) -> AbstractAsyncContextManager[None]:
        return self._store.lifespan(app)

    async def _gated(self, call: Callable[..., Any], *args: Any) -> Any:
        await self._gate()
        try:
            return await call(*args)
        finally:
            await self._gate()

    async def log(self, *args: Any) -> Any:
        return await self._gated(self._store.log, *args)

    async def append(self, *args: Any) -> Any:
        return await self._gated(self._store.append, *args)

    async def start_run(self, *args: Any) -> Any:
        return await self._gated(self._store.start_run, *args)

    async def run(self, *args: Any) -> Any:
        return await self._gated(self._store.run, *args)

    async def cancel_run(self, *args: Any) -> Any:
        return await self._gated(self._store.cancel_run, *args)

    async def end_run(self, *args: Any) -> Any:
        return await self._gated(self._store.end_run, *args)

    def own_run(self, *args: Any) -> None:
        self._store.own_run(*args)

    def start_task(self, *args: Any) -> None:
        self._store.start_task(*args)
