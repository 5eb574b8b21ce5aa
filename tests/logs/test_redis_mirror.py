"""The events of channels and runs in Redis, as processes read them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

pytest.importorskip("redis")

from fastapi_sse_fast import Channels, EventSourceResponse, Runs, StoreError
from fastapi_sse_fast.stores import RedisStore

from ..support.apps import MS
from ..support.logs import Id, Subscriber, Work, moved, offset, subscribed, until
from ..support.proxy import Proxy, is_message, proxy_of
from ..support.redis import QUICK, RedisServer, redis_server, redis_store

pytestmark = pytest.mark.anyio

PATIENT = QUICK._replace(
    compare_interval=60.0,
    probe_interval=60.0,
    mirror_unused=60.0,
    sweep_interval=60.0,
)
"""Nothing is compared because time has passed."""

OLD = "aaaaaaaa.0"
"""A position that no log has."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[Proxy]:
    async with proxy_of(server.port) as proxy:
        yield proxy


@pytest.fixture
async def other(server: RedisServer) -> AsyncIterator[Channels]:
    """Return channels of another process."""
    async with redis_store(server) as store:
        yield Channels(store)


async def publish(channels: Channels, name: str, first: int, last: int) -> str:
    """Publish numbers, and return the last id."""
    for number in range(first, last + 1):
        id = await channels.publish(name, number)
    return id


def is_event(answer: bytes) -> bool:
    """Return whether the server has sent what is published in a log."""
    return is_message(answer) and b"worker" not in answer[:60]


async def read_all(channels: Channels, name: str, last: str = OLD) -> list[Any]:
    """Return the data of all events of a channel after a position."""
    async with subscribed(channels.subscribe(name, last)) as client:
        newest = await channels.position(name)
        await client.until(lambda: client.last_event_id == newest)
        return list(client.data)


# Events from other processes


async def test_events_of_other_processes(server: RedisServer, other: Channels) -> None:
    async with redis_store(server) as store:
        channels = Channels(store)
        async with subscribed(channels.subscribe("a"), channels.subscribe("a")) as both:
            last = await publish(other, "a", 1, 20)
            for client in both:
                await client.has(20)
                assert client.data == [*range(1, 21)]
                assert client.last_event_id == last
                assert client.gaps == []


async def test_a_log_is_read_while_it_is_written(
    server: RedisServer, other: Channels
) -> None:
    """Clients begin at any position, and have each event after it once."""
    chance = random.Random(19)
    ids = [await other.publish("a", 0)]
    over = anyio.Event()

    async def write() -> None:
        while len(ids) < 400:
            ids.append(await other.publish("a", len(ids)))
        over.set()

    async def read(store: RedisStore) -> None:
        await anyio.sleep(chance.random() * 0.1)
        start = chance.randrange(len(ids))
        async with subscribed(Channels(store).subscribe("a", ids[start])) as client:
            await over.wait()
            await client.until(lambda: client.last_event_id == ids[-1])
        assert client.data == [*range(start + 1, 400)]
        assert client.gaps == []

    limits = QUICK._replace(mirror_unused=0.0, tick=1 * MS, page_events=7)
    async with contextlib.AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(redis_store(server, limits))
            for _ in range(3)
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            for _ in range(20):
                for store in stores:
                    tasks.start_soon(read, store)


def is_read(answer: bytes) -> bool:
    """Return whether the server has answered to who reads a log."""
    return answer.startswith(b"*9\r\n")


async def test_an_event_arrives_before_the_answer_that_does_not_have_it(
    server: RedisServer, proxy: Proxy, other: Channels
) -> None:
    position = await publish(other, "a", 1, 1)
    async with redis_store(proxy.url, PATIENT) as store:
        proxy.holds = is_read
        source = Channels(store).subscribe("a", position)
        client = Subscriber(EventSourceResponse(source))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.run)
            await until(lambda: store.stats().commands == 1)
            await anyio.sleep(20 * MS)
            await publish(other, "a", 2, 4)
            await anyio.sleep(20 * MS)
            proxy.holds = lambda answer: False
            await client.has(3)
            assert client.data == [2, 3, 4]
            assert store.stats().compares == 0
            client.leave()


async def test_several_channels_in_one_stream(
    server: RedisServer, other: Channels
) -> None:
    async with redis_store(server) as store:
        names = ["a", "b", "c"]
        position = await other.position(names)
        for number in range(9):
            await other.publish(names[number % 3], number)
        async with subscribed(Channels(store).subscribe(names, position)) as client:
            await client.has(9)
            await other.publish("b", 9)
            await client.has(10)
        assert sorted(client.data) == [*range(10)]
        assert client.last_event_id == await other.position(names)


# Older events


@pytest.mark.parametrize("page", [1, 4, 5, 19, 20, 21, 1000])
async def test_older_events_are_read_from_the_server(
    server: RedisServer, other: Channels, page: int
) -> None:
    ids = [await other.publish("a", number) for number in range(20)]
    async with redis_store(server, PATIENT._replace(page_events=page)) as store:
        channels = Channels(store)
        async with subscribed(channels.subscribe("a")) as newest:
            for last in (ids[14], ids[15], ids[3], ids[19], ids[0]):
                expected = [*range(ids.index(last) + 1, 20)]
                assert await read_all(channels, "a", last) == expected
            before = store.stats().commands
            async with subscribed(*[channels.subscribe("a", id) for id in ids]):
                pass  # they are here now
            assert store.stats().commands == before
            await other.publish("a", 20)
            await newest.has(1)
            assert newest.data == [20]


@pytest.mark.parametrize("page", [1, 3, 10, 1000])
async def test_older_events_that_the_server_has_dropped(
    server: RedisServer, page: int
) -> None:
    limits = PATIENT._replace(page_events=page)
    async with redis_store(server, limits) as store, redis_store(server) as writer:
        channels, other = Channels(store, history=9), Channels(writer, history=9)
        ids = [await other.publish("a", number) for number in range(20)]
        async with subscribed(channels.subscribe("a")):
            async with subscribed(channels.subscribe("a", ids[3])) as client:
                await client.has(10)
            assert client.data == [*range(11, 20)]
            [gap] = client.gaps
            assert (gap["reason"], gap["missed"]) == ("trimmed", 7)
            before = store.stats().commands
            async with subscribed(channels.subscribe("a", ids[3])) as client:
                await client.has(10)
            assert store.stats().commands == before


async def test_events_that_the_server_drops_while_they_are_read(
    server: RedisServer, proxy: Proxy
) -> None:
    limits = PATIENT._replace(page_events=3)
    async with redis_store(proxy.url, limits) as store, redis_store(server) as writer:
        channels, other = Channels(store, history=10), Channels(writer, history=10)
        first = await publish(other, "a", 1, 1)
        await publish(other, "a", 2, 10)
        async with subscribed(channels.subscribe("a")):
            proxy.holds = is_read
            client = Subscriber(EventSourceResponse(channels.subscribe("a", first)))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.run)
                await anyio.sleep(20 * MS)
                await publish(other, "a", 11, 15)
                proxy.holds = lambda answer: False
                await client.has(11)
                client.leave()
            assert client.data == [*range(6, 16)]
            [gap] = client.gaps
            assert (gap["reason"], gap["missed"]) == ("trimmed", 4)


async def test_a_position_of_nobody_costs_no_more_than_a_comparison(
    server: RedisServer, other: Channels
) -> None:
    await publish(other, "a", 1, 5)
    async with redis_store(server, PATIENT) as store:
        channels = Channels(store)
        assert await read_all(channels, "a") == [1, 2, 3, 4, 5]
        before = store.stats().commands
        async with subscribed(channels.subscribe("a", OLD)) as client:
            await client.has(6)
        assert client.gaps[0]["reason"] == "reset"
        assert store.stats().commands == before + 1


# Messages that are lost


async def test_a_hole_is_filled(
    server: RedisServer, proxy: Proxy, other: Channels
) -> None:
    async with redis_store(proxy.url, PATIENT) as store:
        async with subscribed(Channels(store).subscribe("a")) as client:
            await publish(other, "a", 1, 3)
            await client.has(3)
            proxy.drops = is_event
            await publish(other, "a", 4, 6)
            await anyio.sleep(20 * MS)
            assert len(client.data) == 3
            proxy.drops = lambda answer: False
            await publish(other, "a", 7, 7)
            await client.has(7)
        assert client.data == [*range(1, 8)]
        assert client.gaps == []
        assert store.stats().compares == 1


async def test_messages_are_lost_at_random(
    server: RedisServer, proxy: Proxy, other: Channels
) -> None:
    chance = random.Random(4)
    limits = QUICK._replace(compare_interval=50 * MS)
    proxy.drops = lambda answer: is_event(answer) and chance.random() < 0.4
    async with redis_store(proxy.url, limits) as store:
        channels = Channels(store)
        async with subscribed(*map(channels.subscribe, "ab")) as clients:
            for number in range(100):
                await other.publish("a", number)
                await other.publish("b", number)
                await anyio.sleep(1 * MS)
            for client in clients:
                await client.has(100)
                assert client.data == [*range(100)]


async def test_messages_of_somebody_else_are_ignored(
    server: RedisServer, other: Channels
) -> None:
    async with redis_store(server, PATIENT) as store:
        async with subscribed(Channels(store).subscribe("a")) as client:
            epoch = Id.of(await other.position("a")).epoch
            for message in (
                b"",
                b"\n",
                b"\xff\xfe\n",
                b"hello",
                b"a b c d e\ndata: 1\n\n",
                f"{epoch} 1 1 0 -\nid: 1\n\n".encode(),
                b"%b 1 1 0 -\n" % b"\xff" * 8,
                f"{epoch} 7 1 0 -\ndata: 7\n\n".encode(),
                f"{epoch} 0 0 0 -\n".encode(),
            ):
                server.ask("PUBLISH", "sse:{channel:a}", message)
            server.ask("PUBLISH", store._worker, b"hello")
            server.ask("PUBLISH", store._worker, b"cancel \xff")
            await publish(other, "a", 1, 2)
            await client.has(2)
        assert client.data == [1, 2]


async def test_the_server_kills_the_connection_for_messages(
    server: RedisServer, other: Channels
) -> None:
    async with redis_store(server, PATIENT) as store:
        channels = Channels(store)
        async with subscribed(*map(channels.subscribe, "abc")) as clients:
            for round in range(5):
                server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                for name in "abc":
                    await publish(other, name, 3 * round, 3 * round + 2)
            for client in clients:
                await client.has(15)
                assert client.data == [*range(15)]


async def test_logs_are_compared_after_the_connection_was_lost(
    server: RedisServer, proxy: Proxy, other: Channels
) -> None:
    async with redis_store(proxy.url, PATIENT) as store:
        channels = Channels(store)
        names = [f"c{number}" for number in range(30)]
        async with subscribed(*map(channels.subscribe, names)) as clients:
            proxy.refuses = True
            proxy.cut()
            for name in names:
                await publish(other, name, 1, 2)
            proxy.refuses = False
            for client in clients:
                await client.has(2)
                assert client.data == [1, 2]


async def test_a_connection_for_messages_that_is_silent_is_replaced(
    server: RedisServer, proxy: Proxy, other: Channels
) -> None:
    limits = PATIENT._replace(probe_interval=50 * MS)
    async with redis_store(proxy.url, limits) as store:
        async with subscribed(Channels(store).subscribe("a")) as client:
            proxy.drops = is_message
            await publish(other, "a", 1, 1)
            connects = store.stats().connects
            await until(lambda: store.stats().connects > connects)
            proxy.drops = lambda answer: False
            await client.has(1)
            await publish(other, "a", 2, 2)
            await client.has(2)


async def test_streams_go_on_while_no_messages_arrive(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    # Where it is known that none arrive, nothing waits for them.
    limits = PATIENT._replace(confirm_timeout=60.0)
    async with redis_store(own_server, limits) as store:
        channels = Channels(store)
        async with subscribed(channels.subscribe("a")) as early:
            own_server.ask("ACL", "SETUSER", "default", "-subscribe")
            own_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: "for messages was lost" in caplog.text)
            async with subscribed(channels.subscribe("a"), channels.subscribe("b")) as (
                late,
                other,
            ):
                for number in range(1, 4):
                    await publish(channels, "a", number, number)
                    await publish(channels, "b", number, number)
                    for client in (early, late, other):
                        await client.has(number)
                own_server.ask("ACL", "SETUSER", "default", "+subscribe")
                await until(lambda: len(own_server.ask("PUBSUB", "CHANNELS")) == 3)
                await publish(channels, "b", 4, 4)
                await other.has(4)
                compares = store.stats().compares
                await anyio.sleep(3 * limits.deaf_interval)
                # Then they are not compared any more.
                assert store.stats().compares - compares <= 2
    assert early.data == late.data == [1, 2, 3]
    assert other.data == [1, 2, 3, 4]
    assert (early.gaps, late.gaps, other.gaps) == ([], [], [])


async def test_a_subscription_is_confirmed_late(
    server: RedisServer, proxy: Proxy, other: Channels
) -> None:
    limits = PATIENT._replace(confirm_timeout=20 * MS, deaf_interval=100 * MS)
    async with redis_store(proxy.url, limits) as store:
        proxy.holds = lambda data: b"subscribe" in data  # the confirmation
        async with subscribed(Channels(store).subscribe("a")) as client:
            for number in range(1, 4):
                await publish(other, "a", number, number)
                await client.has(number)
            proxy.drops = is_event
            await publish(other, "a", 4, 4)
            await anyio.sleep(20 * MS)
            proxy.drops = proxy.holds = lambda data: False
            await client.has(4)
            await publish(other, "a", 5, 5)
            await client.has(5)
        assert client.data == [1, 2, 3, 4, 5]


async def test_an_idle_log_is_compared_from_time_to_time(
    server: RedisServer, proxy: Proxy, other: Channels
) -> None:
    limits = PATIENT._replace(compare_interval=50 * MS)
    proxy.drops = is_event
    async with redis_store(proxy.url, limits) as store:
        async with subscribed(Channels(store).subscribe("a")) as client:
            await publish(other, "a", 1, 3)
            await client.has(3)
        assert client.data == [1, 2, 3]


# Positions that are newer than what has arrived


async def test_a_position_that_another_process_was_faster_to_give(
    server: RedisServer, proxy: Proxy, other: Channels
) -> None:
    proxy.drops = is_event
    async with redis_store(proxy.url, PATIENT) as store:
        channels = Channels(store)
        async with subscribed(channels.subscribe("a")) as first:
            last = await publish(other, "a", 1, 5)
            async with subscribed(channels.subscribe("a", last)) as second:
                await first.has(5)  # on this occasion
                assert second.last_event_id == last
                assert (second.data, second.gaps) == ([], [])


async def test_a_position_in_an_epoch_that_has_just_begun(
    server: RedisServer, proxy: Proxy, other: Channels
) -> None:
    proxy.drops = is_event
    async with redis_store(proxy.url, PATIENT) as store:
        channels = Channels(store)
        old = await publish(other, "a", 1, 5)
        assert await read_all(channels, "a") == [1, 2, 3, 4, 5]
        server.ask("DEL", "sse:{channel:a}")
        last = await publish(other, "a", 6, 8)
        async with subscribed(channels.subscribe("a", last)) as client:
            assert client.gaps == []
        async with subscribed(channels.subscribe("a", old)) as client:
            await client.has(4)
            assert client.gaps[0]["reason"] == "reset"
            assert client.data == [6, 7, 8]


async def test_a_subscription_begins_behind_what_this_process_has_published(
    server: RedisServer, proxy: Proxy
) -> None:
    proxy.drops = is_event
    async with redis_store(proxy.url, PATIENT) as store:
        channels = Channels(store)
        async with subscribed(channels.subscribe("a")):
            last = await publish(channels, "a", 1, 3)
            async with subscribed(channels.subscribe("a")) as client:
                assert client.last_event_id == last


# Logs that are not read any more


async def test_a_log_that_nobody_reads_is_closed(
    server: RedisServer, other: Channels
) -> None:
    async with redis_store(server, PATIENT._replace(mirror_unused=50 * MS)) as store:
        channels = Channels(store)
        for number in range(3):
            position = await channels.position("a")
            async with subscribed(channels.subscribe("a")) as client:
                assert store.stats().logs == 1
                assert b"sse:{channel:a}" in server.ask("PUBSUB", "CHANNELS")
                await anyio.sleep(80 * MS)
                await publish(other, "a", number, number)
                await client.has(1)
            await until(lambda: store.stats().logs == 0)
            await until(
                lambda: b"sse:{channel:a}" not in server.ask("PUBSUB", "CHANNELS")
            )
            assert await read_all(channels, "a", position) == [number]


async def test_a_log_is_closed_and_opened_all_the_time(
    server: RedisServer, other: Channels
) -> None:
    limits = PATIENT._replace(mirror_unused=0.0, tick=1 * MS)
    async with redis_store(server, limits) as store:
        channels = Channels(store)
        last = await publish(other, "a", 1, 1)
        for number in range(2, 60):
            async with subscribed(channels.subscribe("a", last)) as client:
                await publish(other, "a", number, number)
                await client.has(1)
            assert (client.data, client.gaps) == ([number], [])
            last = client.last_event_id
            if number % 3 == 0:
                await anyio.sleep(3 * MS)


async def test_nothing_is_left_of_many_logs(server: RedisServer) -> None:
    async with redis_store(server, QUICK) as store:
        channels, runs = Channels(store), Runs(store)
        tasks_before = len(asyncio.all_tasks())
        for round in range(4):
            names = [f"{round}.{number}" for number in range(25)]
            work = [Work() for _ in names]
            started = [
                await runs.start(name, each)
                for name, each in zip(names, work, strict=True)
            ]
            async with subscribed(
                *map(channels.subscribe, names),
                *[run.subscribe() for run in started],
            ) as clients:
                assert store.stats().logs >= 50
                assert len(server.ask("CLIENT", "LIST").splitlines()) == 3
                for each in work:
                    each.step(1)
                    each.finish()
                for name in names:
                    await channels.publish(name, 1)
                for client in clients:
                    await client.has(1)
        await until(lambda: store.stats().logs == 0)
        await until(lambda: len(server.ask("PUBSUB", "CHANNELS")) == 1)
        await until(lambda: len(asyncio.all_tasks()) == tasks_before)
        assert store.stats().runs == 0
    await until(lambda: server.ask("PUBSUB", "CHANNELS") == [])
    await until(lambda: len(server.ask("CLIENT", "LIST").splitlines()) == 1)


async def test_a_stream_that_is_cancelled_while_it_opens(
    own_server: RedisServer,
) -> None:
    async with redis_store(own_server, PATIENT._replace(mirror_unused=0.0)) as store:
        channels = Channels(store)
        with own_server.frozen():
            client = Subscriber(EventSourceResponse(channels.subscribe("a")))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.run)
                await anyio.sleep(20 * MS)
                tasks.cancel_scope.cancel()
        await until(lambda: store.stats().logs == 0)
        await channels.publish("a", 1)
        await until(lambda: len(own_server.ask("PUBSUB", "CHANNELS")) == 1)
        async with subscribed(channels.subscribe("a")) as client:
            await channels.publish("a", 2)
            await client.has(1)
            assert client.data == [2]


# Servers that lose something


async def test_a_server_that_forgets_everything(
    server: RedisServer, other: Channels
) -> None:
    async with redis_store(server, PATIENT) as store:
        async with subscribed(Channels(store).subscribe("a")) as client:
            await publish(other, "a", 1, 3)
            await client.has(3)
            server.ask("FLUSHALL")
            await publish(other, "a", 4, 5)
            await client.until(lambda: len(client.data) == 5)
        assert client.data == [1, 2, 3, 4, 5]
        [gap] = client.gaps
        assert (gap["reason"], offset(gap["id"])) == ("reset", 0)
        assert offset(client.last_event_id) == 2


async def test_a_server_that_drops_the_events_of_a_channel(
    server: RedisServer, other: Channels
) -> None:
    limits = PATIENT._replace(compare_interval=50 * MS)
    async with redis_store(server, limits) as store:
        last = await publish(other, "a", 1, 3)
        channels = Channels(store)
        server.ask("DEL", "sse:{channel:a}:s")
        async with subscribed(channels.subscribe("a", moved(last, -2))) as client:
            await client.has(1)
            [gap] = client.gaps
            assert (gap["reason"], gap["missed"], gap["id"]) == ("trimmed", 2, last)
            await publish(other, "a", 4, 4)
            await client.has(2)


async def test_a_server_that_drops_the_end_of_a_run(
    server: RedisServer, proxy: Proxy
) -> None:
    proxy.drops = is_event
    async with redis_store(server) as owner, redis_store(proxy.url, PATIENT) as store:
        work = Work()
        await Runs(owner).start("a", work)
        response = await Runs(store).response("a")
        async with subscribed(response) as client:
            work.finish()
            await until(lambda: owner.stats().runs == 0)
            [key] = [n for n in server.names() if ":s:" in n]
            server.ask("DEL", f"sse:{key}")
            proxy.cut()
            await client.to_end()
        assert isinstance(client.error, StoreError)


async def test_a_log_that_the_server_refuses_to_read(
    server: RedisServer, other: Channels
) -> None:
    limits = QUICK._replace(unserved=100 * MS, compare_interval=20 * MS)
    async with redis_store(server, limits) as store:
        channels = Channels(store)
        async with subscribed(channels.subscribe("a")) as client:
            await publish(other, "a", 1, 1)
            await client.has(1)
            server.ask("SET", "sse:{channel:a}", "not a hash")
            await anyio.sleep(60 * MS)
            assert not client.is_over
            await client.to_end()
            assert isinstance(client.error, StoreError)
        server.ask("DEL", "sse:{channel:a}")
        async with subscribed(channels.subscribe("a")) as client:
            await publish(other, "a", 2, 2)
            await client.has(1)


async def test_a_run_that_is_lost_together_with_its_owner(server: RedisServer) -> None:
    limits = QUICK._replace(unserved=100 * MS, compare_interval=20 * MS)
    async with redis_store(server, limits) as store:
        server_side = redis_store(server)
        async with server_side:
            await Runs(server_side).start("a", Work())
            response = await Runs(store).response("a")
            async with subscribed(response) as client:
                server_side._writers.clear()
                server.ask("FLUSHALL")
                await client.to_end()
            assert isinstance(client.error, StoreError)
            assert "not in the store any more" in str(client.error)
            assert (await Runs(store).response("a")).status_code == 204
            server.ask("FLUSHALL")


# Servers that are restarted


def persistent(name: str) -> contextlib.AbstractContextManager[RedisServer]:
    return redis_server(name, "--appendonly", "yes", "--appendfsync", "always")


async def test_a_server_that_is_restarted_with_its_data(redis_name: str) -> None:
    with persistent(redis_name) as server:
        async with redis_store(server, PATIENT) as store, redis_store(server) as writer:
            channels, other = Channels(store), Channels(writer)
            async with subscribed(channels.subscribe("a"), channels.subscribe("a")) as (
                quick,
                slow,
            ):
                first = await publish(other, "a", 1, 5)
                await quick.has(5)
                slow.freeze()
                await publish(other, "a", 6, 8)
                await quick.has(8)
                server.restart()
                await publish(other, "a", 9, 10)
                await quick.has(10)
                slow.thaw()
                await slow.has(10)
                for client in (quick, slow):
                    assert client.data == [*range(1, 11)]
                    assert client.gaps == []
                assert Id.of(slow.last_event_id).epoch != Id.of(first).epoch
            assert await read_all(channels, "a", first) == [6, 7, 8, 9, 10]


async def test_a_server_that_is_restarted_without_its_data(
    own_server: RedisServer,
) -> None:
    async with redis_store(own_server, PATIENT) as store:
        async with redis_store(own_server) as writer:
            channels, other = Channels(store), Channels(writer)
            async with subscribed(channels.subscribe("a")) as client:
                first = await publish(other, "a", 1, 5)
                await client.has(5)
                own_server.restart()
                await publish(other, "a", 6, 8)
                await client.until(lambda: len(client.data) == 8)
            assert client.data == [*range(1, 9)]
            assert [gap["reason"] for gap in client.gaps] == ["reset"]
            async with subscribed(channels.subscribe("a", first)) as client:
                await client.until(lambda: client.data == [6, 7, 8])
                assert [gap["reason"] for gap in client.gaps] == ["reset"]


async def test_a_server_that_is_restarted_with_a_part_of_its_data(
    own_server: RedisServer,
) -> None:
    async with redis_store(own_server, PATIENT) as store:
        async with redis_store(own_server) as writer:
            channels, other = Channels(store), Channels(writer)
            async with subscribed(channels.subscribe("a")) as client:
                kept = await publish(other, "a", 1, 3)
                own_server.ask("SAVE")
                lost = await publish(other, "a", 4, 5)
                await client.has(5)
                own_server.restart()
                await publish(other, "a", 6, 7)
                await client.until(lambda: len(client.data) == 7)
            assert client.data == [*range(1, 8)]
            [gap] = client.gaps
            assert (gap["reason"], gap["requested"]) == ("reset", lost)
            assert await read_all(channels, "a", kept) == [6, 7]
            assert await read_all(channels, "a", moved(kept, -1)) == [3, 6, 7]
            # The event of this position is another one now.
            async with subscribed(channels.subscribe("a", lost)) as client:
                await client.until(lambda: client.data == [6, 7])
                assert [gap["reason"] for gap in client.gaps] == ["reset"]


async def test_a_server_that_is_away_while_clients_read(
    own_server: RedisServer,
) -> None:
    async with redis_store(own_server) as store, redis_store(own_server) as writer:
        channels, other = Channels(store), Channels(writer)
        last = await publish(other, "a", 1, 3)
        async with subscribed(channels.subscribe("a", OLD)) as client:
            await client.until(lambda: client.data == [1, 2, 3])
            own_server.freeze()
            await anyio.sleep(50 * MS)
            # What is here can be read.
            async with subscribed(channels.subscribe("a", moved(last, -1))) as second:
                await second.has(1)
            own_server.thaw()
            await publish(other, "a", 4, 4)
            await client.until(lambda: client.data == [1, 2, 3, 4])
        assert len(client.gaps) == 1  # the one at the beginning


async def test_a_channel_lives_while_it_is_read(server: RedisServer) -> None:
    async with redis_store(server) as store, redis_store(server) as writer:
        channels, other = Channels(store, ttl=200 * MS), Channels(writer, ttl=200 * MS)
        async with subscribed(channels.subscribe("a")) as client:
            first = await publish(other, "a", 1, 1)
            await anyio.sleep(400 * MS)
            assert await publish(other, "a", 2, 2) == moved(first, 1)
            await client.has(2)
        await until(lambda: server.names() == [])
