"""The stores that channels and runs are tested with."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

import pytest
from typing_extensions import Self

from fastapi_sse_fast import stores
from fastapi_sse_fast.stores import MemoryStore, Store

BACKENDS = ("asyncio", "trio")


@dataclasses.dataclass(frozen=True)
class StoreKind:
    """A kind of store.

    Args:
        name: Part of the names of tests.
        make: Makes a store that is not open yet. It gets what `server` has yielded, and
            a prefix that no other store has.
        server: Runs what stores of this kind need, from the first store until all tests
            are over. It may skip the test.
        backends: The event loops that it runs on.
        is_local: Whether all that reads a log sees an event as soon as `append` has
            returned, and nothing but turns of the event loop makes an answer come.
    """

    name: str
    make: Callable[[Any, str], Store]
    server: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    backends: tuple[str, ...] = BACKENDS
    is_local: bool = True

    def new(self) -> Store:
        """Return a store that is not open yet, and that has nothing in it."""
        if self.name not in _servers:
            _servers[self.name] = _running.enter_context(self.server())
        return self.make(_servers[self.name], f"test:{os.getpid()}:{next(_numbers)}:")

    def needs_to_be_local(self, why: str) -> None:
        """Skip a test if the store is elsewhere."""
        if not self.is_local:
            pytest.skip(f"{self.name}: {why}")


_servers: dict[str, Any] = {}
_running = contextlib.ExitStack()
_numbers = itertools.count()


@contextlib.contextmanager
def servers_of_stores() -> Iterator[None]:
    """Stop the servers that have been started, in the end."""
    with _running:
        yield
    _servers.clear()


def redis_kinds() -> Iterator[StoreKind]:
    """Yield a kind for each server of this machine."""
    if importlib.util.find_spec("redis") is None:
        return
    from .redis import BINARIES, redis_server

    for name in BINARIES:
        yield StoreKind(
            name,
            lambda server, prefix: stores.RedisStore.from_url(
                server.url, prefix=prefix
            ),
            server=functools.partial(redis_server, name),
            backends=("asyncio",),
            is_local=False,
        )


STORES = [StoreKind("memory", lambda server, prefix: MemoryStore()), *redis_kinds()]
"""Another store is added here."""


def each_store(test: Any) -> Any:
    """Give a test a `store_kind` and a `backend`, for all that go together."""
    cases = [
        pytest.param(kind, backend, id=f"{backend}-{kind.name}")
        for kind in STORES
        for backend in kind.backends
    ]
    return pytest.mark.parametrize(("store_kind", "backend"), cases)(test)


class GatedStore:
    """A store whose answers take as long as the test says.

    Each call waits before the store has seen it, and again before the caller sees the
    answer: between the two, others do something.

    Args:
        store: What does the work.
        gate: Awaited at each of these places.

    Attributes:
        calls: Number of calls that the store has seen and not answered.
    """

    def __init__(self, store: Store, gate: Callable[[], Any]) -> None:
        self._store = store
        self._gate = gate
        self.calls = 0

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._store.__aexit__(*error)  # type: ignore[arg-type]

    def lifespan(self, app: Any) -> AbstractAsyncContextManager[None]:
        return self._store.lifespan(app)

    async def gated(self, call: Callable[..., Any], *args: Any) -> Any:
        await self._gate()
        self.calls += 1
        try:
            return await call(*args)
        finally:
            self.calls -= 1
            await self._gate()

    async def log(self, *args: Any) -> Any:
        return await self.gated(self._store.log, *args)

    async def position(self, *args: Any) -> Any:
        return await self.gated(self._store.position, *args)

    async def append(self, *args: Any) -> Any:
        return await self.gated(self._store.append, *args)

    async def start_run(self, *args: Any) -> Any:
        info = await self.gated(self._store.start_run, *args)
        if info.writer is None:
            return info
        return info._replace(writer=self.writer(info.writer))

    def writer(self, writer: Any) -> Any:
        return GatedWriter(self, writer)

    async def run(self, *args: Any) -> Any:
        return await self.gated(self._store.run, *args)

    async def run_log(self, *args: Any) -> Any:
        return await self.gated(self._store.run_log, *args)

    async def cancel_run(self, *args: Any) -> Any:
        return await self.gated(self._store.cancel_run, *args)

    def on_lost(self, *args: Any) -> None:
        self._store.on_lost(*args)

    def start_task(self, *args: Any) -> None:
        self._store.start_task(*args)

    def start_run_task(self, *args: Any) -> None:
        self._store.start_run_task(*args)


class GatedWriter:
    """The writer of a run of a `GatedStore`."""

    def __init__(self, store: GatedStore, writer: Any) -> None:
        self._store = store
        self._writer = writer

    @property
    def events(self) -> int:
        events: int = self._writer.events
        return events

    def append(self, frames: bytes) -> None:
        self._writer.append(frames)

    async def drain(self) -> None:
        await self._writer.drain()

    async def end(self, *args: Any) -> Any:
        return await self._store.gated(self._writer.end, *args)

    def on_end(self, *args: Any) -> None:
        self._writer.on_end(*args)
