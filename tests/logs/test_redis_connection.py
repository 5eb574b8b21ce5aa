"""The connection that a store in Redis sends commands on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

pytest.importorskip("redis")

import redis
import redis.asyncio

from fastapi_sse_fast import (
    Channels,
    EncodedEvent,
    EventSourceResponse,
    RunExists,
    Runs,
    StoreError,
)
from fastapi_sse_fast.stores import RedisStore
from fastapi_sse_fast.stores.store import START, History

from ..support.apps import MS
from ..support.logs import Subscriber, Work, offset, subscribed, until
from ..support.proxy import CONFIRMATION, MESSAGE, Proxy, closed, proxy_of
from ..support.redis import (
    QUICK,
    RedisServer,
    free_port,
    redis_store,
    sync_redis_store,
)

pytestmark = pytest.mark.anyio

HISTORY = History(1000, 60.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[Proxy]:
    async with proxy_of(server.port) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[RedisStore]:
    """Return a store behind a proxy."""
    async with redis_store(proxy.url) as store:
        yield store


class LosesAnswers:
    """Cuts the connection instead of passing on some of the answers to commands.

    Args:
        proxy: Passes on the others.
        which: Numbers of the answers, from 1 on.
    """

    def __init__(self, proxy: Proxy, *which: int) -> None:
        self._which = which
        self.answers = 0
        self.lost = 0
        proxy.cut_before = self._cut

    def _cut(self, answer: bytes) -> bool:
        if answer.startswith((b"$", b"+", MESSAGE, CONFIRMATION)):
            return False  # of the handshake, or a message
        self.answers += 1
        cut = self.answers in self._which
        self.lost += cut
        return cut


async def events_of(store: RedisStore, name: str) -> list[Any]:
    """Return the data of all events of a channel."""
    async with subscribed(Channels(store).subscribe(name, "aaaaaaaa.0")) as client:
        position = await Channels(store).position(name)
        await client.until(lambda: client.last_event_id == position)
        return list(client.data)


# Answers that are lost


async def test_an_event_is_published_once_if_the_answer_is_lost(
    proxy: Proxy, store: RedisStore
) -> None:
    channels = Channels(store)
    first = await channels.publish("a", 1)
    loses = LosesAnswers(proxy, 1)
    second = await channels.publish("a", 2)
    assert loses.lost == 1
    assert (offset(first), offset(second)) == (1, 2)
    assert await events_of(store, "a") == [1, 2]


async def test_events_are_published_once_whatever_answers_are_lost(
    proxy: Proxy, store: RedisStore
) -> None:
    channels = Channels(store)
    loses = LosesAnswers(proxy, 1, 2, 4, 7)
    ids: dict[str, int] = {}

    async def publish(number: int) -> None:
        dedupe = f"k{number}" if number % 3 == 0 else None
        ids[await channels.publish("a", number, dedupe=dedupe)] = number

    async with anyio.create_task_group() as tasks:
        for number in range(300):
            tasks.start_soon(publish, number)
            if number % 50 == 0:
                await anyio.sleep(1 * MS)
    assert loses.lost == 4
    assert sorted(ids.values()) == [*range(300)]
    numbers = [ids[id] for id in sorted(ids, key=offset)]
    assert [offset(id) for id in sorted(ids, key=offset)] == [*range(1, 301)]
    assert await events_of(store, "a") == numbers


async def test_a_run_is_started_once_if_the_answer_is_lost(
    proxy: Proxy, store: RedisStore
) -> None:
    runs, work = Runs(store), Work()
    loses = LosesAnswers(proxy, 1)
    run = await runs.start("a", work)
    assert (loses.lost, run.is_new) == (1, True)
    with pytest.raises(RunExists):
        await runs.start("a", work)
    work.finish()
    async with subscribed(run.subscribe()) as client:
        await client.to_end()


async def test_a_run_ends_once_if_answers_are_lost(
    proxy: Proxy, store: RedisStore
) -> None:
    ended: list[Any] = []
    runs, work = Runs(store, on_end=ended.append), Work()
    run = await runs.start("a", work)
    loses = LosesAnswers(proxy, 1, 3, 4)
    for number in range(3):
        work.step(number)
        await until(lambda: loses.answers > number)  # noqa: B023
    work.finish()
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert client.data == [0, 1, 2]
    assert client.events[-1].type == "end"
    await until(lambda: ended)
    assert (loses.lost, ended[0].status) == (3, "done")


# Servers that do not do what they are asked to


class HoldsFirst:
    """Holds back the first command with some text until it is released."""

    def __init__(self, proxy: Proxy, text: bytes) -> None:
        self._text = text
        self._held: bytes | None = None
        self.is_released = False
        proxy.holds = self._hold

    def _hold(self, data: bytes) -> bool:
        if self._held is None and self._text in data:
            self._held = data
        return data is self._held and not self.is_released


async def test_a_command_that_arrives_late_is_not_done_again(
    server: RedisServer, proxy: Proxy, store: RedisStore
) -> None:
    channels = Channels(store)
    held = HoldsFirst(proxy, b"late")
    await channels.publish("a", "late")  # on another connection
    held.is_released = True
    await channels.publish("a", "next")
    await anyio.sleep(0.05)
    assert await events_of(store, "a") == ["late", "next"]


async def test_a_command_of_a_thread_that_arrives_late_is_not_done_again(
    server: RedisServer, proxy: Proxy, store: RedisStore
) -> None:
    held = HoldsFirst(proxy, b"late")
    with contextlib.closing(sync_redis_store(proxy.url)) as threads:
        await anyio.to_thread.run_sync(threads.publish, "a", "late")
        held.is_released = True
        await anyio.to_thread.run_sync(threads.publish, "a", "next")
    await anyio.sleep(0.05)
    assert await events_of(store, "a") == ["late", "next"]


async def test_a_server_forgets_the_script(server: RedisServer) -> None:
    async with redis_store(server) as store:
        channels = Channels(store)
        await channels.publish("a", 1)
        server.ask("SCRIPT", "FLUSH")
        assert offset(await channels.publish("a", 2)) == 2


async def test_a_server_becomes_a_replica_for_a_while(own_server: RedisServer) -> None:
    async with redis_store(own_server) as store:
        channels = Channels(store)
        await channels.publish("a", 1)
        own_server.ask("REPLICAOF", "127.0.0.1", free_port())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channels.publish, "a", 2)
            await anyio.sleep(50 * MS)
            own_server.ask("REPLICAOF", "NO", "ONE")
        assert await events_of(store, "a") == [1, 2]


async def test_a_server_that_is_loading_is_waited_for(own_server: RedisServer) -> None:
    with own_server.client() as client, client.pipeline() as pipeline:
        for number in range(3000):
            pipeline.set(f"other:{number}", number)
        pipeline.execute()
        client.save()
    own_server.kill()
    own_server.start("--key-load-delay", "100", wait=False)
    limits = QUICK._replace(connect_timeout=5.0)
    async with redis_store(own_server, limits) as store:
        assert offset(await Channels(store).publish("a", 1)) == 1


async def test_a_server_without_memory_refuses_to_publish(
    own_server: RedisServer,
) -> None:
    async with redis_store(own_server) as store:
        channels = Channels(store)
        await channels.publish("a", 1)
        own_server.ask("CONFIG", "SET", "maxmemory", 1)
        for name in ("a", "new"):
            with pytest.raises(StoreError, match=r"refused the operation.*maxmemory"):
                await channels.publish(name, 2)
        async with subscribed(channels.subscribe("a", "aaaaaaaa.0")) as client:
            await client.until(lambda: client.data == [1])  # it can still be read
            own_server.ask("CONFIG", "SET", "maxmemory", 0)
            assert offset(await channels.publish("a", 3)) == 2
            await client.until(lambda: client.data == [1, 3])


async def test_a_call_that_is_refused_does_not_affect_others(
    server: RedisServer,
) -> None:
    server.ask("SET", "sse:{channel:b}", "not a hash")
    async with redis_store(server) as store:
        channels = Channels(store)
        errors = []

        async def publish(number: int) -> None:
            try:
                await channels.publish("b" if number % 10 == 0 else "a", number)
            except StoreError as error:
                errors.append(str(error))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(publish, number)
        assert len(errors) == 10
        assert "WRONGTYPE" in errors[0]
        assert len(await events_of(store, "a")) == 90


async def test_a_password_that_is_changed(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_store(own_server, QUICK._replace(patience=100 * MS)) as store:
        own_server.ask("CONFIG", "SET", "requirepass", "secret")
        own_server.password = "secret"
        own_server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(StoreError, match=r"not available.*Authentication required"):
            await Channels(store).publish("a", 1)
        assert not store.stats().connected
        assert "for commands was lost" in caplog.text
        own_server.ask("CONFIG", "SET", "requirepass", "")
        await until(lambda: store.stats().connected)
        await Channels(store).publish("a", 1)
        assert "for commands is back" in caplog.text


async def test_a_credential_provider_may_fail(own_server: RedisServer) -> None:
    class Provider(redis.CredentialProvider):
        fails = False

        async def get_credentials_async(self) -> tuple[str, str]:
            if self.fails:
                raise LookupError("there is no token")
            return "default", "anything"

    provider = Provider()
    client = redis.asyncio.Redis(port=own_server.port, credential_provider=provider)
    store = RedisStore(client)
    store._limits = QUICK._replace(patience=500 * MS)
    async with store:
        channels = Channels(store)
        await channels.publish("a", 1)
        provider.fails = True
        own_server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(StoreError, match="not available: there is no token"):
            await channels.publish("a", 2)
        provider.fails = False
        await channels.publish("a", 2)
        assert await events_of(store, "a") == [1, 2]


async def test_clients_of_the_same_channel_fail_at_the_same_time(
    own_server: RedisServer,
) -> None:
    limits = QUICK._replace(patience=300 * MS, confirm_timeout=50 * MS)
    async with redis_store(own_server, limits) as store:
        channels = Channels(store)
        clients = [
            Subscriber(EventSourceResponse(channels.subscribe("a"))) for _ in range(10)
        ]
        with own_server.frozen():
            began = time.monotonic()
            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(client.run)
            assert time.monotonic() - began < 1.5
        for client in clients:
            assert isinstance(client.error, StoreError)
            assert "not available" in str(client.error)
        async with subscribed(channels.subscribe("a")):
            pass


# Servers that are not there


async def test_a_call_fails_in_time_if_the_server_is_away(
    own_server: RedisServer,
) -> None:
    async with redis_store(own_server, QUICK._replace(patience=150 * MS)) as store:
        channels = Channels(store)
        await channels.publish("a", 1)
        own_server.kill()
        began = time.monotonic()
        with pytest.raises(StoreError, match="not available: "):
            await channels.publish("a", 2)
        assert time.monotonic() - began < 1.0
        own_server.start()
        await until(lambda: store.stats().connected)
        assert offset(await channels.publish("a", 3)) == 1  # it had saved nothing


async def test_a_call_fails_in_time_if_the_server_does_not_answer(
    own_server: RedisServer,
) -> None:
    limits = QUICK._replace(patience=150 * MS, answer_timeout=10.0)
    async with redis_store(own_server, limits) as store:
        channels = Channels(store)
        await channels.publish("a", 1)
        with own_server.frozen():
            with pytest.raises(StoreError, match="not available: it does not answer"):
                await channels.publish("a", 2)
        assert offset(await channels.publish("a", 3)) in (2, 3)


async def test_a_connection_without_answers_is_replaced(
    proxy: Proxy, store: RedisStore
) -> None:
    channels = Channels(store)
    await channels.publish("a", 1)
    proxy.is_silent = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channels.publish, "a", 2)
        await until(lambda: not store.stats().connected)
        proxy.is_silent = False
    assert await events_of(store, "a") == [1, 2]


async def test_an_idle_connection_that_was_lost_is_noticed(
    proxy: Proxy, store: RedisStore
) -> None:
    connects = store.stats().connects
    proxy.cut()
    await until(lambda: store.stats().connects == connects + 2)
    assert store.stats().connected


async def test_connections_are_not_tried_again_without_a_pause(
    proxy: Proxy, store: RedisStore
) -> None:
    proxy.refuses = True
    proxy.cut()
    connects = proxy.connects
    await anyio.sleep(200 * MS)
    assert 2 < proxy.connects - connects < 100


async def test_a_cancelled_caller_does_not_affect_others(
    own_server: RedisServer,
) -> None:
    async with redis_store(own_server) as store:
        channels = Channels(store)
        with own_server.frozen():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(channels.publish, "a", "in flight")
                await anyio.sleep(10 * MS)
                with anyio.move_on_after(20 * MS) as scope:
                    await channels.publish("a", "never sent")
                tasks.start_soon(channels.publish, "a", "sent later")
                await anyio.sleep(10 * MS)
                own_server.thaw()
        assert scope.cancelled_caught
        assert await events_of(store, "a") == ["in flight", "sent later"]


async def test_a_start_that_is_cancelled_leaves_no_run(own_server: RedisServer) -> None:
    lost: list[str] = []
    async with redis_store(own_server) as store:
        runs = Runs(store, on_lost=lost.append)
        with own_server.frozen():
            with anyio.move_on_after(20 * MS) as scope:
                await runs.start("a", Work())
        assert scope.cancelled_caught
        run = await runs.start("a", Work())
        assert run.is_new
        await runs.cancel("a")
    assert lost == []


async def test_calls_fail_when_the_store_is_closed(own_server: RedisServer) -> None:
    store = redis_store(own_server)
    errors = []

    async def publish() -> None:
        try:
            await Channels(store).publish("a", 1)
        except StoreError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        async with store:
            own_server.freeze()
            tasks.start_soon(publish)
            await anyio.sleep(20 * MS)
        own_server.thaw()
    assert errors == ["the store was closed"]
    with pytest.raises(RuntimeError, match="not open"):
        await Channels(store).publish("a", 1)
    async with store:
        assert offset(await Channels(store).publish("a", 2)) in (1, 2)


# Stores that cannot be opened


async def test_a_server_that_is_not_there_at_the_start() -> None:
    store = redis_store(f"redis://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"not available: .*(refused|Connect call)"):
        async with store:
            raise AssertionError
    assert time.monotonic() - began < 2 * QUICK.connect_timeout
    with pytest.raises(RuntimeError, match="not open"):
        store.stats()


async def test_a_server_that_does_not_answer_at_the_start(
    own_server: RedisServer,
) -> None:
    limits = QUICK._replace(connect_timeout=200 * MS)
    with own_server.frozen():
        with pytest.raises(StoreError, match="not available"):
            async with redis_store(own_server, limits):
                raise AssertionError
    async with redis_store(own_server):
        pass


async def test_a_server_that_is_none_of_redis() -> None:
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    limits = QUICK._replace(connect_timeout=200 * MS)
    with pytest.raises(StoreError, match="Redis"):
        async with redis_store(f"redis://127.0.0.1:{port}", limits):
            raise AssertionError
    other.close()
    for writer in writers:
        await closed(writer)


# Many at once


async def test_many_calls_share_round_trips(server: RedisServer) -> None:
    async with redis_store(server) as store:
        channels = Channels(store)
        await channels.publish("a", 0)
        before = store.stats()
        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(channels.publish, f"c{number % 7}", number)
        after = store.stats()
    # The store looks after itself, too.
    assert 1000 <= after.commands - before.commands < 1050
    assert after.round_trips - before.round_trips <= 100


async def test_a_call_waits_for_no_others_if_none_is_in_flight(
    server: RedisServer,
) -> None:
    limits = QUICK._replace(probe_interval=60.0, sweep_interval=60.0)
    async with redis_store(server, limits) as store:
        await until(lambda: store.stats().commands == 1)  # the sweep
        for number in range(20):
            await Channels(store).publish("a", number)
        assert store.stats().round_trips == 21


async def test_large_events_are_sent_in_several_batches(server: RedisServer) -> None:
    async with redis_store(server) as store:
        channels = Channels(store)
        before = store.stats().round_trips
        text = "x" * 300_000
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(channels.publish, "a", text)
        assert store.stats().round_trips - before >= 7
        assert await events_of(store, "a") == [text] * 20


async def test_an_event_of_many_megabytes(server: RedisServer) -> None:
    async with redis_store(server) as store, redis_store(server) as other:
        text = "x" * 3_000_000
        async with subscribed(Channels(other).subscribe("a")) as client:
            await Channels(store).publish("a", text)
            await client.has(1)
            assert client.data == [text]
        assert await events_of(store, "a") == [text]


async def test_ten_thousand_events_of_one_publish(server: RedisServer) -> None:
    frames = b"".join(b"data: %d\n\n" % number for number in range(10_000))
    async with redis_store(server) as store, redis_store(server) as other:
        channels = Channels(store, history=20_000)
        async with subscribed(Channels(other, history=20_000).subscribe("a")) as client:
            id = await channels.publish("a", EncodedEvent.from_bytes(frames))
            assert offset(id) == 10_000
            await client.until(lambda: client.last_event_id == id)
            assert client.data == [*range(10_000)]
        log = await store.log("channel:a", History(20_000, 60.0), START)
        assert (log.first, log.top) == (1, 10_000)


NAMES = [
    "",
    "a",
    "{a}",
    "}a{",
    "a}:s",
    "a b\n",
    "*",
    "ä€😀",
    "\ud800",
    "\0",
    "x" * 5000,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_any_name_can_be_given(server: RedisServer, name: str) -> None:
    async with redis_store(server) as store, redis_store(server) as other:
        channels, runs = Channels(store), Runs(store)
        async with subscribed(Channels(other).subscribe(name)) as client:
            for _ in range(2):
                await channels.publish(name, 1, dedupe=name)
            await channels.publish(name, 2)
            await client.has(2)
            assert client.data == [1, 2]
        work = Work()
        run = await runs.start(name, work)
        assert await Runs(other).cancel(name) is True
        async with subscribed(run.subscribe()) as client:
            await client.to_end()
        assert await Runs(other).status(name) == "cancelled"
        for kept in server.names():
            assert kept == "runs" or kept.startswith("{"), kept


async def test_names_do_not_meet(server: RedisServer) -> None:
    async with redis_store(server) as store:
        channels = Channels(store)
        for name in NAMES:
            await channels.publish(name, name.encode("utf-8", "replace").decode()[:9])
        for name in NAMES:
            text = name.encode("utf-8", "replace").decode()[:9]
            assert await events_of(store, name) == [text]


async def test_applications_with_other_prefixes_do_not_meet(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one = redis_store(server, prefix="one:")
    two = redis_store(server, prefix="two:")
    async with one, two:
        async with subscribed(Channels(two).subscribe("a")) as client:
            await Channels(one).publish("a", 1)
            await Channels(two).publish("a", 2)
            await client.has(1)
            assert client.data == [2]
        assert await events_of(one, "a") == [1]
        await Runs(one).start("a", Work())
        assert await Runs(two).status("a") is None
