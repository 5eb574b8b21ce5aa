"""Publishing to Redis without asyncio: from threads, scripts and job queues."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

pytest.importorskip("redis")

from fastapi_sse_fast import Channels, RunExists, Runs, ServerSentEvent, StoreError
from fastapi_sse_fast.stores import RedisStore, SyncRedisStore

from ..support.apps import MS
from ..support.logs import Subscriber, Work, offset, subscribed
from ..support.proxy import Proxy, proxy_of
from ..support.redis import QUICK, RedisServer, free_port, redis_store, sync_redis_store

pytestmark = pytest.mark.anyio

LEASE = 300 * MS


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[Proxy]:
    async with proxy_of(server.port) as proxy:
        yield proxy


@pytest.fixture
def sync(server: RedisServer) -> Iterator[SyncRedisStore]:
    store = sync_redis_store(server)
    yield store
    store.close()


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    """Return the store of an application."""
    async with redis_store(server) as store:
        yield store


async def in_thread(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return await anyio.to_thread.run_sync(functools.partial(function, *args, **options))


def end_of(client: Any) -> tuple[str, Any]:
    ends = [each for each in client.events if each.type in ("end", "error")]
    assert ends == client.events[-1:]
    return ends[0].type, json.loads(ends[0].data)


# Channels


async def test_an_application_reads_what_a_thread_publishes(
    store: RedisStore, sync: SyncRedisStore
) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("a")) as client:
        first = await in_thread(sync.publish, "a", {"unread": 3})
        second = await channels.publish("a", {"unread": 4})
        third = await in_thread(
            sync.publish, "a", ServerSentEvent(data={"unread": 5}, event="mail")
        )
        await client.has(3)
    assert client.data == [{"unread": 3}, {"unread": 4}, {"unread": 5}]
    assert client.ids == [first, second, third]
    assert [offset(id) for id in client.ids] == [1, 2, 3]
    assert client.events[2].type == "mail"


def test_a_key_makes_a_retry_harmless(sync: SyncRedisStore) -> None:
    first = sync.publish("a", 1, dedupe="k")
    assert sync.publish("a", 1, dedupe="k") == first
    assert offset(sync.publish("a", 1, dedupe="")) == 2
    assert offset(sync.publish("a", 1, dedupe="")) == 2
    assert offset(sync.publish("a", 1)) == 3


async def test_a_key_is_known_to_applications(
    store: RedisStore, sync: SyncRedisStore
) -> None:
    first = await Channels(store).publish("a", 1, dedupe="\ud800")
    assert await in_thread(sync.publish, "a", 1, dedupe="\ud800") == first


def test_a_channel_keeps_its_history(server: RedisServer, sync: SyncRedisStore) -> None:
    for number in range(9):
        sync.publish("a", number, history=3, ttl=60)
    assert server.ask("XLEN", "sse:{channel:a}:s") == 3
    assert 0 < server.ask("TTL", "sse:{channel:a}") <= 60
    sync.publish("a", 1, ttl=float("inf"))


@pytest.mark.parametrize(
    ("name", "item", "error"),
    [
        (1, 1, TypeError),
        ("a", ServerSentEvent(data=1, id="7"), ValueError),
        ("a", object(), Exception),
    ],
)
def test_what_cannot_be_published(
    sync: SyncRedisStore, name: Any, item: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        sync.publish(name, item)
    assert offset(sync.publish("a", 1)) == 1


def test_threads_share_a_store(sync: SyncRedisStore, server: RedisServer) -> None:
    ids: dict[str, int] = {}

    def publish(thread: int) -> None:
        for number in range(25):
            ids[sync.publish("a", number)] = thread

    threads = [threading.Thread(target=publish, args=(each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(offset, ids)) == [*range(1, 201)]
    assert len(server.ask("CLIENT", "LIST").splitlines()) == 2


# Servers that are away


async def test_an_event_is_published_once_if_the_answer_is_lost(
    proxy: Proxy, server: RedisServer
) -> None:
    cuts = 0

    def cut(answer: bytes) -> bool:
        nonlocal cuts
        is_cut = answer.startswith(b"*2") and cuts < 2
        cuts += is_cut
        return is_cut

    proxy.cut_before = cut
    sync = sync_redis_store(proxy.url)
    assert offset(await in_thread(sync.publish, "a", 1)) == 1
    assert cuts == 2
    assert offset(await in_thread(sync.publish, "a", 2)) == 2
    sync.close()


def test_a_connection_that_was_closed_is_opened_again(
    server: RedisServer, sync: SyncRedisStore
) -> None:
    sync.publish("a", 1)
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert offset(sync.publish("a", 2)) == 2
    sync.close()
    sync.close()
    assert offset(sync.publish("a", 3)) == 3
    server.ask("SCRIPT", "FLUSH")
    assert offset(sync.publish("a", 4)) == 4


def test_a_call_fails_in_time_if_the_server_is_away() -> None:
    limits = QUICK._replace(patience=150 * MS)
    sync = sync_redis_store(f"redis://127.0.0.1:{free_port()}", limits)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"not available: .*refused"):
        sync.publish("a", 1)
    assert time.monotonic() - began < 1.0


def test_threads_do_not_wait_for_each_other_longer_than_for_the_server(
    own_server: RedisServer,
) -> None:
    limits = QUICK._replace(patience=200 * MS, answer_timeout=100 * MS)
    sync = sync_redis_store(own_server, limits)
    sync.publish("a", 1)
    errors: list[str] = []

    def publish() -> None:
        try:
            sync.publish("a", 2)
        except StoreError as error:
            errors.append(str(error))

    with own_server.frozen():
        began = time.monotonic()
        threads = [threading.Thread(target=publish) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 1.5
    assert len(errors) == 20
    assert all("not available" in error for error in errors)
    sync.close()


def test_an_interrupted_call_leaves_no_answer_for_the_next_one(
    own_server: RedisServer,
) -> None:
    """Such as by the time limit of a job."""

    class TimeLimitError(Exception):
        pass

    def interrupt(*_: Any) -> None:
        raise TimeLimitError

    sync = sync_redis_store(own_server, QUICK._replace(answer_timeout=5.0))
    sync.publish("a", 1)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with own_server.frozen():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(TimeLimitError):
                sync.publish("a", 2)
    finally:
        signal.signal(signal.SIGALRM, before)
    id = sync.publish("b", 3)
    epoch = own_server.ask("HGET", "sse:{channel:b}", "epoch").decode()
    assert id == f"{epoch}.1"
    sync.close()


@pytest.mark.parametrize("number", [2, 3])
async def test_a_write_whose_answer_is_lost_costs_no_other_event(
    proxy: Proxy, store: RedisStore, number: int
) -> None:
    """If the same event is written again, it is a retry."""
    sync = sync_redis_store(proxy.url, QUICK._replace(patience=300 * MS))

    def is_written(answer: bytes) -> bool:
        return answer.startswith(b"*3\r\n$2\r\nok")

    def work() -> None:
        with sync.run("a", lease=60.0) as run:
            run.write(1)
            proxy.cut_before = is_written
            with pytest.raises(StoreError):
                run.write(2)
            proxy.cut_before = lambda answer: False
            run.write(number)
            run.write(4)

    await in_thread(work)
    sync.close()
    client = Subscriber(await Runs(store).response("a"))
    await client.run()
    assert client.data == [1, *range(2, number + 1), 4]


@pytest.mark.parametrize("wrong", ["password", "command"])
def test_a_refusal_is_an_error_at_once(own_server: RedisServer, wrong: str) -> None:
    if wrong == "password":
        own_server.ask("CONFIG", "SET", "requirepass", "secret")
        own_server.password = "secret"
    else:
        own_server.ask("ACL", "SETUSER", "default", "-info")
    sync = sync_redis_store(own_server)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(StoreError, match="refused"):
            sync.publish("a", 1)
        assert time.monotonic() - began < 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_store_may_be_used_after_a_fork(sync: SyncRedisStore) -> None:
    sync.publish("a", 0)
    sync._link._lock.acquire()  # by another thread, at the time of the fork
    child = os.fork()
    if child == 0:
        try:
            for number in range(50):
                sync.publish("a", number)
            sync.close()
        finally:
            os._exit(0)
    sync._link._lock.release()
    for number in range(50):
        sync.publish("a", number)
    assert os.waitpid(child, 0)[1] == 0
    assert offset(sync.publish("a", 0)) == 102


# Runs


async def test_an_application_reads_the_run_of_a_thread(
    store: RedisStore, sync: SyncRedisStore
) -> None:
    go_on = threading.Event()

    def write() -> None:
        with sync.run("a") as run:
            run.write(1)
            assert not run.is_cancelled
            go_on.wait(10)
            run.write(ServerSentEvent(data=2, event="x"))

    runs = Runs(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(in_thread, write)
        while await runs.status("a") is None:
            await anyio.sleep(1 * MS)
        async with subscribed(await runs.response("a")) as client:
            await client.has(1)
            go_on.set()
            await client.to_end()
    assert client.data == [1, 2]
    assert end_of(client) == ("end", {"status": "done"})
    assert await runs.status("a") == "done"


async def test_a_run_fails_with_its_block(
    store: RedisStore, sync: SyncRedisStore
) -> None:
    def write() -> None:
        with sync.run("a") as run:
            run.write(1)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await in_thread(write)
    async with subscribed(await Runs(store).response("a")) as client:
        await client.to_end()
    assert (client.data, end_of(client)) == ([1], ("error", {"code": "failed"}))
    assert await Runs(store).status("a") == "failed"


@pytest.mark.parametrize("writes", [True, False])
async def test_a_run_sees_that_it_was_cancelled(
    store: RedisStore, sync: SyncRedisStore, writes: bool
) -> None:
    def write() -> int:
        count = 0
        with sync.run("a", lease=LEASE) as run:
            while not run.is_cancelled:
                if writes:
                    run.write(count)
                    count += 1
                time.sleep(1 * MS)
        return count

    runs = Runs(store)
    counts: list[int] = []

    async def note() -> None:
        counts.append(await in_thread(write))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(note)
        while not await runs.cancel("a"):
            await anyio.sleep(1 * MS)
        cancelled_at = time.monotonic()
    assert time.monotonic() - cancelled_at < LEASE
    async with subscribed(await runs.response("a")) as client:
        await client.to_end()
    assert client.data == [*range(counts[0])]
    assert end_of(client) == ("end", {"status": "cancelled"})


async def test_a_run_is_kept_while_its_thread_writes_nothing(
    store: RedisStore, sync: SyncRedisStore
) -> None:
    found: list[str] = []
    runs = Runs(store, on_lost=found.append)

    def write() -> None:
        with sync.run("a", lease=100 * MS) as run:
            time.sleep(400 * MS)
            run.write(1)

    await in_thread(write)
    assert (await runs.status("a"), found) == ("done", [])


async def test_a_name_has_one_run_at_a_time(
    store: RedisStore, sync: SyncRedisStore
) -> None:
    await Runs(store).start("a", Work())

    def write() -> None:
        with sync.run("a"):
            raise AssertionError

    with pytest.raises(RunExists):
        await in_thread(write)
    with pytest.raises(TypeError), sync.run(1):  # type: ignore[arg-type]
        pass

    def attach() -> None:
        with sync.run("b"), pytest.raises(RunExists), sync.run("b"):
            pass

    await in_thread(attach)


def test_a_run_follows_one_whose_process_has_died(
    server: RedisServer, sync: SyncRedisStore
) -> None:
    def write() -> None:
        with sync.run("a", lease=100 * MS) as dead:
            dead._is_over.set()  # its thread renews the lease no more
            time.sleep(150 * MS)
            with other.run("a") as run:
                run.write(1)
                with pytest.raises(StoreError, match="is lost"):
                    dead.write(2)

    other = sync_redis_store(server)
    with pytest.raises(StoreError, match="is lost"):
        write()  # the end of the block is not that of the run
    other.close()


def test_the_error_of_a_block_is_not_hidden_by_that_of_the_store(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    sync = sync_redis_store(own_server, QUICK._replace(patience=50 * MS))

    def write() -> None:
        with sync.run("a"):
            own_server.kill()
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        write()
    assert "the end of the run 'a' was not stored" in caplog.text
    own_server.start()
    with pytest.raises(StoreError, match="is lost"):
        with sync.run("a"):
            own_server.restart()


def test_the_thread_of_a_run_ends_with_it(sync: SyncRedisStore) -> None:
    before = threading.active_count()
    for _ in range(3):
        with sync.run("a", lease=3600.0) as run:
            run.write(1)
            assert threading.active_count() == before + 1
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(1 * MS)


async def test_several_threads_write_one_run(
    store: RedisStore, sync: SyncRedisStore
) -> None:
    def write() -> None:
        with sync.run("a") as run:

            def write_some() -> None:
                for _ in range(20):
                    run.write(1)

            threads = [threading.Thread(target=write_some) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    await in_thread(write)
    async with subscribed(await Runs(store).response("a")) as client:
        await client.to_end()
    assert client.data == [1] * 100
