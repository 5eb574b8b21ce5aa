"""Ways to reach a server, and what users are told if that does not work."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

pytest.importorskip("redis")

import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel

from fastapi_sse_fast import Channels, Runs, StoreError
from fastapi_sse_fast.stores import RedisStore, SyncRedisStore

from ..support.apps import MS
from ..support.logs import Work, offset, subscribed, until
from ..support.proxy import proxy_of
from ..support.redis import (
    BINARIES,
    QUICK,
    RedisServer,
    free_port,
    redis_server,
    redis_store,
    sync_redis_store,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def use(store: RedisStore, sync: SyncRedisStore | None = None) -> None:
    """Publish, read and run something."""
    channels, runs = Channels(store), Runs(store)
    async with subscribed(channels.subscribe("a")) as client:
        first = await channels.publish("a", 1, dedupe="k")
        if sync is not None:
            await anyio.to_thread.run_sync(sync.publish, "a", 2)
            sync.close()
        await channels.publish("a", 3)
        await client.until(lambda: client.data[-1:] == [3])
    async with subscribed(channels.subscribe("a", first)) as client:
        await client.until(lambda: client.data[-1:] == [3])
    work = Work()
    run = await runs.start("a", work)
    work.step(1)
    async with subscribed(run.subscribe()) as client:
        await client.has(1)
        await runs.cancel("a")
        await client.to_end()
    assert await runs.status("a") == "cancelled"


# Connections


async def test_a_unix_socket(redis_name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        with redis_server(redis_name, "--unixsocket", path):
            url = f"unix://{path}?db=1"
            async with redis_store(url) as store:
                await use(store, sync_redis_store(url))


async def test_tls(server: RedisServer) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with authority.cert_pem.tempfile() as path:
        async with proxy_of(server.port, ssl=context) as proxy:
            url = f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={path}"
            async with redis_store(url) as store:
                await use(store, sync_redis_store(url))


USER = [
    *("ACL", "SETUSER", "app", "on", ">secret", "~sse:*", "&sse:*", "-@all"),
    *("+ping", "+info", "+client|id", "+client|kill", "+script|load", "+evalsha"),
    *("+subscribe", "+unsubscribe"),
    *("+del", "+exists", "+hdel", "+hmget", "+hset", "+pexpire", "+pttl", "+publish"),
    *("+rename", "+sadd", "+set", "+smembers", "+srem", "+xadd", "+xlen", "+xrange"),
    *("+xrevrange", "+zadd", "+zremrangebyrank", "+zscore"),
]
"""The commands that a store needs."""


async def test_a_user_with_few_rights(own_server: RedisServer) -> None:
    own_server.ask(*USER)
    url = f"redis://app:secret@127.0.0.1:{own_server.port}"
    async with redis_store(url) as store:
        await use(store, sync_redis_store(url))
        # Nothing else was asked for, except by redis-py itself.
        refused = own_server.ask("ACL", "LOG")
        assert all("client|setinfo" in str(entry) for entry in refused)


async def test_a_user_that_may_not_close_connections(own_server: RedisServer) -> None:
    own_server.ask(*USER, "-client")
    url = f"redis://app:secret@127.0.0.1:{own_server.port}"
    async with redis_store(url) as store:
        connects = store.stats().connects
        own_server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: store.stats().connects > connects)
        sync = sync_redis_store(url)
        await anyio.to_thread.run_sync(sync.publish, "b", 1)
        own_server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await use(store, sync)


@pytest.mark.parametrize(
    ("rights", "error"),
    [
        ([">another"], "invalid username-password|WRONGPASS"),
        (["-info"], "'info' command"),
        (["-evalsha"], "'evalsha' command"),
        (["-subscribe"], "'subscribe' command"),
        (["resetchannels", "&app:*"], "channel"),
    ],
    ids=["password", "info", "evalsha", "subscribe", "channels"],
)
async def test_what_a_user_may_not_do_is_said_at_the_start(
    own_server: RedisServer, rights: list[str], error: str
) -> None:
    own_server.ask(*USER, *(["resetpass"] if ">another" in rights else []), *rights)
    url = f"redis://app:secret@127.0.0.1:{own_server.port}"
    began = time.monotonic()
    with pytest.raises(StoreError, match=error):
        async with redis_store(url) as store:
            await Channels(store).publish("a", 1)
    assert time.monotonic() - began < 1.5


async def test_a_password_is_needed(own_server: RedisServer) -> None:
    own_server.ask("CONFIG", "SET", "requirepass", "secret")
    own_server.password = "secret"
    with pytest.raises(StoreError, match="Authentication required"):
        async with redis_store(own_server):
            raise AssertionError
    async with redis_store(f"redis://:secret@127.0.0.1:{own_server.port}") as store:
        await use(store)


@pytest.mark.parametrize(
    "options",
    [
        {"decode_responses": True, "encoding": "latin-1"},
        {"protocol": 3},
        {"socket_timeout": 0.05, "socket_connect_timeout": 0.5},
        {"health_check_interval": 1, "retry_on_timeout": True},
        {"max_connections": 1},
        {"db": 3, "client_name": "application"},
        {"socket_keepalive": False},
    ],
    ids=str,
)
async def test_settings_of_the_client(
    server: RedisServer, options: dict[str, Any]
) -> None:
    async with redis_store(server, **options) as store:
        if options.get("socket_timeout"):
            await anyio.sleep(100 * MS)
        await use(store, sync_redis_store(server, **options))
        assert store.stats().connects == 2


async def test_a_client_is_used_for_its_settings_alone(server: RedisServer) -> None:
    async with redis.asyncio.Redis(port=server.port) as client:
        store = RedisStore(client, prefix="mine:")
        store._limits = QUICK
        async with store:
            await use(store)
        assert await client.exists("mine:{channel:a}")


def test_clients_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"redis\.asyncio\.Redis"):
        RedisStore(redis.Redis())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"redis\.Redis"):
        SyncRedisStore(redis.asyncio.Redis())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"redis\.asyncio\.Redis"):
        RedisStore("redis://localhost")  # type: ignore[arg-type]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_is_refused(anyio_backend: str) -> None:
    store = RedisStore.from_url("redis://localhost")
    with pytest.raises(RuntimeError, match="RedisStore runs on asyncio"):
        async with store:
            raise AssertionError


def test_the_package_redis_is_missing() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from fastapi_sse_fast import Channels, stores\n"
        "stores.MemoryStore()\n"
        "for name in ('RedisStore', 'RedisStats', 'SyncRedisStore'):\n"
        "    try: getattr(stores, name)\n"
        "    except ImportError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        f"{name} needs redis-py: pip install 'fastapi_sse_fast[redis]'"
        for name in ("RedisStore", "RedisStats", "SyncRedisStore")
    ]


def test_redis_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys\n"
        "import fastapi_sse_fast.stores\n"
        "assert 'redis' not in sys.modules\n"
        "fastapi_sse_fast.stores.RedisStore\n"
        "assert 'redis' in sys.modules\n"
        "try: fastapi_sse_fast.stores.Nothing\n"
        "except AttributeError: pass\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Sentinel


class SentinelServer(RedisServer):
    """A sentinel that watches a server, alone."""

    def __init__(self, name: str, server: RedisServer) -> None:
        super().__init__(BINARIES[name])
        self._watched = server

    @property
    def _arguments(self) -> list[str]:
        config = Path(self.folder, "sentinel.conf")
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor main 127.0.0.1 {self._watched.port} 1\n"
            "sentinel down-after-milliseconds main 1000\n"
            "sentinel failover-timeout main 2000\n"
        )
        return [str(config), "--sentinel"]


@contextlib.contextmanager
def sentinel_of(name: str, server: RedisServer) -> Iterator[SentinelServer]:
    sentinel = SentinelServer(name, server)
    try:
        sentinel.start()
        yield sentinel
    finally:
        sentinel.close()


@contextlib.asynccontextmanager
async def store_of(sentinel_port: int) -> AsyncIterator[RedisStore]:
    """Return a store of the server that a sentinel names, not open yet."""
    make: Any = Sentinel  # redis-py has no types for it
    sentinel = make([("127.0.0.1", sentinel_port)])
    store = RedisStore(sentinel.master_for("main"))
    store._limits = QUICK._replace(patience=10.0, write_patience=10.0)
    try:
        yield store
    finally:
        for client in sentinel.sentinels:
            await client.aclose()


async def wait_for(condition: Any, *args: Any) -> None:
    with anyio.fail_after(15):
        while not condition(*args):
            await anyio.sleep(20 * MS)


@pytest.mark.heavy
async def test_a_failover_by_a_sentinel(redis_name: str) -> None:
    at_once = ("--repl-diskless-sync-delay", "0")
    with (
        redis_server(redis_name, *at_once) as first,
        redis_server(redis_name, *at_once) as second,
    ):
        second.ask("REPLICAOF", "127.0.0.1", first.port)
        await wait_for(
            lambda: second.ask("INFO", "replication")["master_link_status"] == "up"
        )
        with sentinel_of(redis_name, first) as sentinel:
            async with store_of(sentinel.port) as store, store:
                await fail_over(store, sentinel, first, second)


async def fail_over(
    store: RedisStore,
    sentinel: RedisServer,
    first: RedisServer,
    second: RedisServer,
) -> None:
    channels, work = Channels(store), Work()
    run = await Runs(store).start("a", work)
    work.step(1)
    async with subscribed(channels.subscribe("a"), run.subscribe()) as both:
        before = await channels.publish("a", 1)
        for each in both:
            await each.has(1)
        await wait_for(lambda: first.ask("WAIT", 1, 100) == 1)
        await wait_for(has_begun_a_failover, sentinel)
        await wait_for(lambda: second.ask("ROLE")[0] == b"master")
        first.kill()
        after = await channels.publish("a", 2)
        work.step(2)
        work.finish()
        await both[0].has(2)
        await both[1].to_end()
    assert (offset(before), offset(after)) == (1, 2)
    for each in both:
        assert (each.data, each.gaps) == ([1, 2], [])


def has_begun_a_failover(sentinel: RedisServer) -> bool:
    """Begin a failover, once the sentinel is ready to."""
    try:
        return bool(sentinel.ask("SENTINEL", "FAILOVER", "main"))
    except redis.ResponseError:
        return False


async def test_a_sentinel_that_is_away() -> None:
    with pytest.raises(StoreError, match="not available"):
        async with store_of(free_port()) as store, store:
            raise AssertionError
