"""An open store for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fastapi_sse_fast.stores import MemoryStore


@pytest.fixture
async def store(anyio_backend: str) -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        yield store
