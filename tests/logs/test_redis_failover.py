"""Servers that become replicas, and replicas that become servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import anyio
import pytest

pytest.importorskip("redis")

from fastapi_sse_fast import Channels, Runs

from ..support.logs import subscribed
from ..support.proxy import Proxy, proxy_of
from ..support.redis import QUICK, RedisServer, redis_server, redis_store

pytestmark = pytest.mark.anyio

AT_ONCE = ("--repl-diskless-sync-delay", "0")


def replicate(replica: RedisServer, server: RedisServer) -> None:
    """Make a server the replica of another one, and wait until it has everything."""
    replica.ask("REPLICAOF", "127.0.0.1", server.port)
    deadline = time.monotonic() + 20
    while replica.ask("INFO", "replication")["master_link_status"] != "up":
        assert time.monotonic() < deadline, "the replica is not connected"
        time.sleep(0.01)


def promote(replica: RedisServer) -> None:
    replica.ask("REPLICAOF", "NO", "ONE")


def switch(proxy: Proxy, server: RedisServer) -> None:
    proxy.server_port = server.port
    proxy.cut()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_no_position_is_used_again_after_a_failover_and_one_back(
    redis_name: str,
) -> None:
    with (
        redis_server(redis_name, *AT_ONCE) as first,
        redis_server(redis_name, *AT_ONCE) as second,
    ):
        async with proxy_of(first.port) as proxy, redis_store(proxy.url) as store:
            channels = Channels(store)
            kept = await channels.publish("a", "kept")
            replicate(second, first)
            promote(second)
            lost = await channels.publish("a", "lost")
            switch(proxy, second)
            await channels.publish("another", "on the second server")
            replicate(first, second)
            promote(first)
            switch(proxy, first)
            after = await channels.publish("a", "after")
            assert after not in (kept, lost)
            async with subscribed(channels.subscribe("a", kept)) as client:
                await client.until(lambda: client.data == ["after"])
            async with subscribed(channels.subscribe("a", lost)) as client:
                await client.until(lambda: client.last_event_id == after)
                assert [gap["reason"] for gap in client.gaps] == ["reset"]


async def test_a_run_is_found_that_its_process_has_not_restored_yet(
    own_server: RedisServer,
) -> None:
    async def answer() -> AsyncIterator[str]:
        yield "begun"
        await anyio.sleep_forever()

    patient = QUICK._replace(longest_backoff=1.0)
    async with (
        proxy_of(own_server.port) as proxy,
        redis_store(proxy.url) as owner,
        redis_store(own_server, patient) as other,
    ):
        await Runs(owner).start("a", answer)
        connects = other.stats().connects
        proxy.refuses = True
        own_server.restart()
        while other.stats().connects < connects + 2:
            await anyio.sleep(0.01)
        status = asyncio.create_task(Runs(other).status("a"))
        await anyio.sleep(0.1)
        proxy.refuses = False
        assert await status == "running"
        assert await Runs(other).status("another") is None
