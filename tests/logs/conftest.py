"""An open store for each test, and an end to each test that waits."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from fastapi_sse_fast.stores import Store

from ..support.logs import TIMEOUT
from ..support.stores import STORES


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


@pytest.fixture(params=[*STORES.values()], ids=[*STORES])
def new_store(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Return what makes a store of a kind."""
    make: Callable[[], Store] = request.param
    return make


@pytest.fixture
async def store(
    anyio_backend: str, new_store: Callable[[], Store]
) -> AsyncIterator[Store]:
    async with new_store() as store:
        yield store
