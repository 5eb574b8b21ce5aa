"""An open store for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from fastapi_sse_fast.stores import Store

from ..support.stores import STORES


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
