"""Runs in Redis: their processes, and what happens to them and to the server."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

pytest.importorskip("redis")

import anyio.lowlevel

from fastapi_sse_fast import EventSourceResponse, RunExists, RunResult, Runs
from fastapi_sse_fast.stores import RedisStore

from ..support.apps import MS
from ..support.forking import Forked
from ..support.logs import Subscriber, Work, moved, subscribed, until
from ..support.proxy import Proxy, is_message, proxy_of
from ..support.redis import QUICK, RedisServer, redis_store

pytestmark = pytest.mark.anyio

LEASE = 300 * MS
END = ("end", {"status": "done"})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[Proxy]:
    async with proxy_of(server.port) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def two_stores(
    server: RedisServer | str, **limits: Any
) -> AsyncIterator[tuple[RedisStore, RedisStore]]:
    """Return the store of an owner, and that of another process."""
    changed = QUICK._replace(**limits)
    async with redis_store(server, changed) as owner:
        async with redis_store(server, changed) as other:
            yield owner, other


async def restart_without_owner(
    server: RedisServer, proxy: Proxy, other: RedisStore
) -> None:
    """Restart the server, to which the owner behind the proxy cannot connect yet."""
    proxy.refuses = True
    server.restart()
    await until(lambda: other.stats().connected)


def end_of(client: Any) -> tuple[str, Any]:
    """Return the last event of a run, which is the only one of its kind."""
    ends = [each for each in client.events if each.type in ("end", "error")]
    assert ends == client.events[-1:]
    return ends[0].type, json.loads(ends[0].data)


def lost(code: str = "lost") -> tuple[str, Any]:
    return "error", {"code": code}


class Ends(list[RunResult]):
    """What `on_end` was called with."""

    async def only(self) -> RunResult:
        await until(lambda: self)
        [end] = self
        return end


# Several processes


async def test_a_run_is_read_in_another_process(server: RedisServer) -> None:
    async with two_stores(server) as (owner, other):
        work = Work()
        run = await Runs(owner).start("a", work)
        work.step(1, 2)
        response = await Runs(other).response("a")
        async with subscribed(run.subscribe(), response) as both:
            work.step(3)
            for client in both:
                await client.has(3)
            work.finish()
            for client in both:
                await client.to_end()
                assert client.data == [1, 2, 3]
                assert end_of(client) == END
        assert both[0].ids == both[1].ids
        assert await Runs(other).status("a") == "done"
        last = both[0].last_event_id
        assert (await Runs(other).response("a", last)).status_code == 204
        async with subscribed(await Runs(other).response("a", moved(last, -2))) as late:
            await late.to_end()
        assert late.data == [3]


async def test_a_run_is_cancelled_from_another_process(server: RedisServer) -> None:
    async with two_stores(server) as (owner, other):
        work, ends = Work(), Ends()
        run = await Runs(owner, on_end=ends.append).start("a", work)
        await until(lambda: work.log == ["begun"])
        began = time.monotonic()
        assert await Runs(other).cancel("a") is True
        assert (await ends.only()).status == "cancelled"
        assert time.monotonic() - began < 0.3  # this machine may be busy
        assert work.log == ["begun", "closed"]
        async with subscribed(run.subscribe()) as client:
            await client.to_end()
        assert end_of(client) == ("end", {"status": "cancelled"})
        assert await Runs(other).cancel("a") is False


async def test_a_run_is_cancelled_though_messages_are_lost(
    server: RedisServer, proxy: Proxy
) -> None:
    proxy.drops = is_message
    async with redis_store(proxy.url) as owner, redis_store(server) as other:
        work, ends = Work(), Ends()
        await Runs(owner, on_end=ends.append, lease=LEASE).start("a", work)
        began = time.monotonic()
        await Runs(other).cancel("a")
        assert (await ends.only()).status == "cancelled"
        assert time.monotonic() - began < LEASE


async def test_a_run_is_cancelled_before_it_has_begun(server: RedisServer) -> None:
    async with two_stores(server) as (owner, other):
        ends = Ends()
        work = Work()
        await Runs(owner, on_end=ends.append).start("a", work)
        await Runs(other).cancel("a")
        assert (await ends.only()).status == "cancelled"


async def test_a_name_has_one_run_at_a_time(server: RedisServer) -> None:
    async with two_stores(server) as (owner, other):
        first, second = Work(), Work()
        one = await Runs(owner).start("a", first)
        with pytest.raises(RunExists):
            await Runs(other).start("a", second)
        attached = await Runs(other).start("a", second, if_running="attach")
        assert (one.is_new, attached.is_new, second.log) == (True, False, [])
        first.step(1)
        async with subscribed(attached.subscribe()) as client:
            await client.has(1)
            replacement = await Runs(other).start("a", second, if_running="replace")
            await client.to_end()
        assert (client.data, end_of(client)) == ([1], ("end", {"status": "cancelled"}))
        assert (replacement.is_new, first.log[-1]) == (True, "closed")
        second.step(2)
        second.finish()
        async with subscribed(one.subscribe(), replacement.subscribe()) as both:
            for reader in both:
                await reader.to_end()
        assert [each.data for each in both] == [[1], [2]]


async def test_one_of_many_processes_starts_a_run(server: RedisServer) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(redis_store(server)) for _ in range(4)
        ]
        outcomes: list[bool | None] = []

        async def start(store: RedisStore, if_running: Any) -> None:
            try:
                run = await Runs(store).start("a", Work(), if_running=if_running)
                outcomes.append(run.is_new)
            except RunExists:
                outcomes.append(None)

        async with anyio.create_task_group() as tasks:
            for store in 5 * stores:
                for if_running in ("reject", "attach"):
                    tasks.start_soon(start, store, if_running)
        assert outcomes.count(True) == 1
        assert len(outcomes) == 40


async def test_clients_of_a_process_that_shuts_down_get_the_end_of_its_runs(
    server: RedisServer, proxy: Proxy
) -> None:
    """Even if it is still on its way."""
    proxy.drops = is_message
    clients = []
    async with anyio.create_task_group() as tasks:
        async with redis_store(proxy.url) as store:
            for name in ("a", "b"):
                run = await Runs(store).start(name, Work())
                clients.append(Subscriber(EventSourceResponse(run.subscribe())))
                tasks.start_soon(clients[-1].run)
            await until(lambda: all(client.chunks for client in clients))
    for client in clients:
        assert (client.complete, end_of(client)) == (True, lost("shutdown"))


async def test_a_process_shuts_down_though_the_server_does_not_answer(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    limits = QUICK._replace(write_patience=100 * MS, last_read=50 * MS)
    async with anyio.create_task_group() as tasks:
        async with redis_store(own_server, limits) as store:
            run = await Runs(store).start("a", Work())
            client = Subscriber(EventSourceResponse(run.subscribe()))
            tasks.start_soon(client.run)
            await until(lambda: client.chunks)
            own_server.freeze()
            began = time.monotonic()
        assert time.monotonic() - began < 1.5
        own_server.thaw()
    assert client.complete
    assert "the end of the run 'a' was not stored" in caplog.text


async def test_a_process_fails_though_the_server_refuses_the_end_of_a_run(
    own_server: RedisServer,
) -> None:
    async def fail() -> None:
        async with redis_store(
            own_server, QUICK._replace(write_patience=60.0)
        ) as store:
            work = Work()
            await Runs(store).start("a", work)
            await until(lambda: work.log)
            own_server.ask("CONFIG", "SET", "min-replicas-to-write", 1)
            work.finish()
            await until(lambda: work.log == ["begun", "closed"])
            commands = store.stats().commands
            await until(lambda: store.stats().commands > commands)  # it was refused
            raise RuntimeError("of another part of the application")

    with anyio.fail_after(5), pytest.raises(RuntimeError, match="another part"):
        await fail()


async def test_a_process_that_fails_does_not_wait_for_its_runs(
    server: RedisServer,
) -> None:
    work = Work()

    async def fail_at_startup() -> None:
        async with redis_store(server) as store:
            await Runs(store).start("a", work)
            await until(lambda: work.log)
            raise RuntimeError("of another part of the startup")

    with pytest.raises(RuntimeError, match="startup"):
        await fail_at_startup()
    assert work.log == ["begun", "closed"]


async def test_a_run_ends_when_its_process_shuts_down(server: RedisServer) -> None:
    async with redis_store(server) as other:
        async with redis_store(server) as owner:
            await Runs(owner).start("a", Work())
            response = await Runs(other).response("a")
        async with subscribed(response) as client:
            await client.to_end()
        assert end_of(client) == lost("shutdown")


# A server that is away, or loses something


async def read_by_both(
    owner: RedisStore, other: RedisStore, trouble: Any, **options: Any
) -> tuple[list[Any], RunResult]:
    """Return what clients of two processes get of a run that meets trouble."""
    work, ends = Work(), Ends()
    run = await Runs(owner, on_end=ends.append, **options).start("a", work)
    response = await Runs(other, **options).response("a")
    async with subscribed(run.subscribe(), response) as clients:
        work.step(*range(10))
        for client in clients:
            await client.has(10)
        await trouble(work)
        work.step(*range(20, 30))
        work.finish()
        for client in clients:
            await client.to_end()
    # Who comes now gets the same.
    async with subscribed(run.subscribe(), await Runs(other).response("a")) as late:
        for client in late:
            await client.to_end()
    assert late[0].events == late[1].events
    return [*clients, *late], await ends.only()


async def test_nothing_is_lost_while_the_server_does_not_answer(
    own_server: RedisServer,
) -> None:
    async def trouble(work: Work) -> None:
        with own_server.frozen():
            for number in range(10, 20):
                work.step(number)
                await anyio.sleep(5 * MS)

    async with two_stores(own_server, answer_timeout=30 * MS) as stores:
        clients, end = await read_by_both(*stores, trouble)
    for client in clients:
        assert client.data == [*range(30)]
        assert (end_of(client), client.gaps) == (END, [])
    assert (end.status, end.events) == ("done", 30)


@pytest.mark.parametrize("lease", [15.0, 100 * MS], ids=["long", "short"])
async def test_a_run_is_restored_by_its_owner(
    own_server: RedisServer, lease: float
) -> None:
    async def trouble(work: Work) -> None:
        own_server.kill()
        work.step(*range(10, 15))
        await anyio.sleep(200 * MS)
        own_server.start()
        work.step(*range(15, 20))

    async with two_stores(own_server) as stores:
        clients, end = await read_by_both(*stores, trouble, lease=lease)
    for client in clients:
        assert client.data == [*range(30)]
        assert (end_of(client), client.gaps) == (END, [])
    assert (end.status, end.events) == ("done", 30)


async def test_a_run_is_restored_after_everything_was_deleted(
    server: RedisServer,
) -> None:
    async def trouble(work: Work) -> None:
        server.ask("FLUSHALL")
        work.step(*range(10, 20))

    async with two_stores(server) as stores:
        clients, _ = await read_by_both(*stores, trouble)
    for client in clients:
        assert client.data == [*range(30)]
        assert (end_of(client), client.gaps) == (END, [])


async def test_an_idle_run_is_restored_after_everything_was_deleted(
    server: RedisServer,
) -> None:
    async with two_stores(server) as (owner, other):
        await Runs(owner, lease=LEASE).start("a", Work())
        server.ask("FLUSHALL")
        await until(lambda: "{run:a}" in server.names())
        assert await Runs(other).status("a") == "running"


@pytest.mark.parametrize("writes", [True, False], ids=["writes", "waits"])
async def test_a_run_is_completed_on_a_server_with_a_part_of_it(
    own_server: RedisServer, writes: bool
) -> None:
    async def trouble(work: Work) -> None:
        own_server.ask("SAVE")
        work.step(*range(10, 20))
        await until(lambda: own_server.ask("EXISTS", "sse:{run:a}") == 1)
        await anyio.sleep(20 * MS)
        own_server.restart()
        if not writes:
            await anyio.sleep(50 * MS)

    async with two_stores(own_server) as stores:
        clients, _ = await read_by_both(*stores, trouble)
    for client in clients:
        assert client.data == [*range(30)]
        assert (end_of(client), client.gaps) == (END, [])


async def test_a_client_is_not_told_of_a_gap_that_the_owner_fills(
    own_server: RedisServer,
) -> None:
    """It comes to a process that is connected again before the owner is."""
    async with proxy_of(own_server.port) as proxy:
        async with redis_store(proxy.url) as owner, redis_store(own_server) as other:
            work = Work()
            await Runs(owner).start("a", work)
            work.step(1)
            async with subscribed(await Runs(other).response("a")) as client:
                await client.has(1)
                own_server.ask("SAVE")
                work.step(*range(2, 11))
                await client.has(10)
            last = client.last_event_id
            await until(lambda: other.stats().logs == 0)
            await restart_without_owner(own_server, proxy, other)
            subscription = await Runs(other).response("a", last)

            async def come_back() -> None:
                await anyio.sleep(50 * MS)
                proxy.refuses = False
                work.step(11)
                work.finish()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(come_back)
                async with subscribed(subscription) as client:
                    await client.to_end()
            assert (client.data, client.gaps, end_of(client)) == ([11], [], END)


async def test_nobody_waits_for_an_owner_that_has_ended_the_run(
    own_server: RedisServer,
) -> None:
    async with proxy_of(own_server.port) as proxy:
        async with redis_store(proxy.url) as owner, redis_store(own_server) as other:
            work = Work()
            await Runs(owner).start("a", work)
            own_server.ask("SAVE")
            await restart_without_owner(own_server, proxy, other)
            async with subscribed(await Runs(other).response("a")) as client:
                proxy.refuses = False
                work.step(1)
                work.finish()
                await client.to_end()
            beyond = await Runs(other).response("a", moved(client.last_event_id, 5))
            async with subscribed(beyond) as client:
                await client.to_end()
            assert [gap["reason"] for gap in client.gaps] == ["unknown"]
            assert (client.data, end_of(client)) == ([1], END)


async def test_a_run_is_restored_without_the_events_that_nobody_has(
    own_server: RedisServer,
) -> None:
    async with two_stores(own_server, kept_bytes=100) as (owner, other):
        work = Work()
        run = await Runs(owner).start("a", work)
        async with subscribed(
            run.subscribe(), await Runs(other).response("a")
        ) as clients:
            work.step(*range(10, 60))
            for client in clients:
                await client.has(50)
            own_server.restart()
            work.step(60)
            work.finish()
            for client in clients:
                await client.to_end()
                assert client.data == [*range(10, 61)]
                assert (end_of(client), client.gaps) == (END, [])
        last = client.last_event_id
        async with redis_store(own_server) as third:
            async with subscribed(await Runs(third).response("a")) as late:
                await late.to_end()
            assert late.ids[-1] == last
            assert late.data == [*range(61 - len(late.data), 61)]
            assert 5 <= len(late.data) <= 15
            begin = await Runs(third).response("a", moved(last, -40))
            async with subscribed(begin) as client:
                await client.to_end()
            [gap] = client.gaps
            assert gap["reason"] == "trimmed"
            assert gap["missed"] == 40 - len(late.data) - 1


async def test_a_run_is_restarted_by_somebody_else_after_a_loss(
    own_server: RedisServer,
) -> None:
    """The owner comes back too late: the name belongs to another run."""
    async with proxy_of(own_server.port) as proxy:
        async with redis_store(proxy.url) as owner, redis_store(own_server) as other:
            work, ends = Work(), Ends()
            await Runs(owner, on_end=ends.append).start("a", work)
            work.step(1)
            await restart_without_owner(own_server, proxy, other)
            second = await Runs(other).start("a", Work())
            assert second.is_new
            proxy.refuses = False
            assert (await ends.only()).status == "lost"
            assert work.log == ["begun", "closed"]
            assert await Runs(other).status("a") == "running"


# More events than the server takes


async def test_a_burst_of_many_megabytes(server: RedisServer) -> None:
    text = "x" * 100_000

    async def burst() -> AsyncIterator[str]:
        for _ in range(100):
            yield text

    async with two_stores(server, pending_bytes=1_000_000) as (owner, other):
        ends = Ends()
        await Runs(owner, on_end=ends.append).start("a", burst)
        end = await ends.only()
        assert (end.status, end.events) == ("done", 100)
        assert await Runs(other).status("a") == "done"


async def test_a_generator_waits_for_a_server_that_is_away(
    own_server: RedisServer,
) -> None:
    text = "x" * 10_000
    yielded = 0

    async def many() -> AsyncIterator[str]:
        nonlocal yielded
        for _ in range(100):
            yielded += 1
            yield text
            await anyio.lowlevel.checkpoint()

    limits = QUICK._replace(pending_bytes=50_000)
    async with redis_store(own_server, limits) as store:
        ends = Ends()
        run = await Runs(store, on_end=ends.append).start("a", many)
        own_server.freeze()
        await anyio.sleep(100 * MS)
        waits_at = yielded
        await anyio.sleep(20 * MS)
        assert yielded == waits_at < 100
        own_server.thaw()
        assert (await ends.only()).events == 100
        async with subscribed(run.subscribe()) as client:
            await client.to_end()
        assert len(client.data) == 100


async def test_a_run_fails_if_the_server_is_away_for_long(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    limits = QUICK._replace(write_patience=150 * MS, answer_timeout=50 * MS)
    async with redis_store(own_server, limits) as store:
        work, ends = Work(), Ends()
        run = await Runs(store, on_end=ends.append).start("a", work)
        work.step(1)
        async with subscribed(run.subscribe()) as client:
            await client.has(1)
            own_server.freeze()
            work.step(2)
            await until(lambda: work.log[-1] == "closed")
            own_server.thaw()
            await client.to_end()
        assert end_of(client) == lost("failed")
        assert client.data[:1] == [1]
        assert (await ends.only()).status == "failed"


async def test_a_run_is_lost_if_the_server_is_away_for_much_longer(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    limits = {"write_patience": 50 * MS, "answer_timeout": 50 * MS}
    async with two_stores(own_server, **limits) as (owner, other):
        work, ends = Work(), Ends()
        await Runs(owner, on_end=ends.append, lease=LEASE).start("a", work)
        response = await Runs(other).response("a")
        async with subscribed(response) as client:
            own_server.freeze()
            work.step(1)
            assert (await ends.only()).status == "failed"
            assert "the end of the run 'a' was not stored" in caplog.text
            own_server.thaw()
            await client.to_end()
        assert end_of(client) == lost()


async def test_a_run_whose_owner_was_given_up_is_lost_and_has_not_failed(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer() -> AsyncIterator[int]:
        for number in range(1_000_000):
            yield number

    async with redis_store(server) as store:
        ends = Ends()
        await Runs(store, on_end=ends.append).start("a", answer)
        server.ask("HSET", "sse:{run:a}", "owner", "somebody else")
        result = await ends.only()
    assert (result.status, result.error) == ("lost", None)
    assert not caplog.records


async def test_nothing_is_lost_while_the_server_refuses_events(
    own_server: RedisServer,
) -> None:
    async def trouble(work: Work) -> None:
        own_server.ask("CONFIG", "SET", "maxmemory", 1)
        work.step(*range(10, 20))
        await anyio.sleep(50 * MS)
        own_server.ask("CONFIG", "SET", "maxmemory", 0)

    async with two_stores(own_server) as stores:
        clients, _ = await read_by_both(*stores, trouble)
    for client in clients:
        assert client.data == [*range(30)]
        assert (end_of(client), client.gaps) == (END, [])


async def test_a_run_fails_if_its_events_are_refused_for_long(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_stores(own_server, write_patience=100 * MS) as (owner, other):
        work, ends = Work(), Ends()
        await Runs(owner, on_end=ends.append, lease=LEASE).start("a", work)
        own_server.ask("CONFIG", "SET", "maxmemory", 1)
        work.step(1)
        assert (await ends.only()).status == "failed"
        assert work.log == ["begun", "closed"]
        own_server.ask("CONFIG", "SET", "maxmemory", 0)
        response = await Runs(other).response("a")
        async with subscribed(response) as client:
            await client.to_end()
        assert end_of(client)[0] == "error"


@pytest.mark.parametrize("how", ["timeout", "shutdown", "cancel"])
async def test_a_run_that_waits_for_the_server_can_be_ended(
    own_server: RedisServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = "x" * 1_000_000
    closed = anyio.Event()

    async def many() -> AsyncIterator[str]:
        try:
            while True:
                yield text
        finally:
            closed.set()

    ends = Ends()
    limits = QUICK._replace(pending_bytes=100_000, write_patience=500 * MS)
    async with redis_store(own_server, limits) as store:
        timeout = 100 * MS if how == "timeout" else None
        runs = Runs(store, timeout=timeout, on_end=ends.append, close_timeout=100 * MS)
        await runs.start("a", many)
        await until(lambda: own_server.ask("EXISTS", "sse:{run:a}") == 1)
        own_server.freeze()
        if how == "cancel":
            await anyio.sleep(50 * MS)
            [writer] = store._writers.values()
            writer.ask_to_end("cancelled")
        if how != "shutdown":
            with anyio.fail_after(1.5):
                await closed.wait()
            own_server.thaw()
            await ends.only()
    own_server.thaw()
    await closed.wait()


# Processes that die or stand still


class Owner:
    """A process with a run.

    Args:
        url: Of the server.
        lease: Of the run.
    """

    def __init__(self, url: str, lease: float) -> None:
        self._process = Forked(["tests.support.redis_owner", url, str(lease)], None)
        self.send_signal = self._process.send_signal
        assert self.heard() == ["started"]

    def heard(self) -> Any:
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self.send_signal(signal.SIGKILL)
        self._process.wait(10)
        self._process.stdout.close()


@contextlib.contextmanager
def owner_of(server: RedisServer, lease: float = LEASE) -> Iterator[Owner]:
    owner = Owner(server.url, lease)
    try:
        yield owner
    finally:
        owner.close()


@contextlib.asynccontextmanager
async def unreachable_run(server: RedisServer) -> AsyncIterator[Ends]:
    """Start a run whose process is cut off from the server."""
    async with proxy_of(server.port) as proxy, redis_store(proxy.url) as store:
        ends = Ends()
        await Runs(store, lease=LEASE, on_end=ends.append).start("a", Work())
        proxy.refuses = True
        proxy.cut()
        yield ends
        proxy.refuses = False


async def test_a_process_that_was_killed(server: RedisServer) -> None:
    found: list[str] = []
    with owner_of(server) as owner:
        async with two_stores(server) as stores:
            runs = [Runs(store, on_lost=found.append) for store in stores]
            responses = [await each.response("a") for each in runs]
            async with subscribed(*responses) as clients:
                for client in clients:
                    await client.has(3)
                owner.send_signal(signal.SIGKILL)
                began = time.monotonic()
                for client in clients:
                    await client.to_end()
                assert time.monotonic() - began < LEASE + 1.0
            for client in clients:
                assert client.data == [*range(len(client.data))]
                assert end_of(client) == lost()
            assert clients[0].ids == clients[1].ids
            assert await runs[0].status("a") == "lost"
            # The name can be used again.
            assert (await runs[0].start("a", Work())).is_new
    assert found == ["a"]


async def test_a_run_is_found_lost_though_nobody_reads_it(
    server: RedisServer,
) -> None:
    found: list[str] = []
    async with two_stores(server) as stores, unreachable_run(server) as ends:
        for store in stores:
            Runs(store, on_lost=found.append)
        await until(lambda: found)
        assert await Runs(stores[0]).status("a") == "lost"
        assert [each for each in server.names() if each == "runs"] == []
    assert found == ["a"]
    assert (await ends.only()).status == "lost"


@pytest.mark.parametrize("if_running", ["reject", "attach", "replace"])
async def test_the_run_of_a_dead_process_is_followed_by_another(
    server: RedisServer, if_running: Any
) -> None:
    found: list[str] = []
    limits = QUICK._replace(sweep_interval=60.0)
    async with redis_store(server, limits) as store, unreachable_run(server) as ends:
        await anyio.sleep(LEASE)
        runs = Runs(store, on_lost=found.append)
        assert (await runs.start("a", Work(), if_running=if_running)).is_new
        await until(lambda: found)
    assert found == ["a"]
    assert (await ends.only()).status == "lost"


async def test_a_process_that_stood_still(server: RedisServer) -> None:
    found: list[str] = []
    with owner_of(server) as owner:
        async with redis_store(server) as store:
            runs = Runs(store, on_lost=found.append)
            async with subscribed(await runs.response("a")) as client:
                await client.has(3)
                owner.send_signal(signal.SIGSTOP)
                await client.to_end()
                owner.send_signal(signal.SIGCONT)
            assert end_of(client) == lost()
            kind, number = await anyio.to_thread.run_sync(owner.heard)
            assert (kind, number >= len(client.data) - 1) == ("closed", True)
            assert await anyio.to_thread.run_sync(owner.heard) == ["ended", "lost"]
            async with subscribed(await runs.response("a")) as late:
                await late.to_end()
            assert late.events == client.events
    assert found == ["a"]


async def test_a_process_that_stood_still_until_its_run_had_expired(
    server: RedisServer,
) -> None:
    """It must not bring back what has ended for everybody else."""
    with owner_of(server, 200 * MS) as owner:
        async with redis_store(server) as store:
            async with subscribed(await Runs(store).response("a")) as client:
                await client.has(3)
                owner.send_signal(signal.SIGSTOP)
                await client.to_end()
            server.ask("DEL", *[f"sse:{name}" for name in server.names()])
            owner.send_signal(signal.SIGCONT)
            await anyio.to_thread.run_sync(owner.heard)
            assert await anyio.to_thread.run_sync(owner.heard) == ["ended", "lost"]
            assert await Runs(store).status("a") is None


async def test_a_server_that_stood_still_loses_no_run(own_server: RedisServer) -> None:
    found: list[str] = []
    async with two_stores(own_server) as (owner, other):
        work, ends = Work(), Ends()
        run = await Runs(owner, lease=LEASE, on_end=ends.append).start("a", work)
        runs = Runs(other, lease=LEASE, on_lost=found.append)
        async with subscribed(run.subscribe(), await runs.response("a")) as clients:
            with own_server.frozen():
                await anyio.sleep(LEASE + 100 * MS)
            await anyio.sleep(LEASE)
            work.step(1)
            work.finish()
            for client in clients:
                await client.to_end()
                assert (client.data, end_of(client)) == ([1], END)
    assert found == []


async def test_many_find_a_run_lost_and_one_is_told(server: RedisServer) -> None:
    found: list[int] = []
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(unreachable_run(server))
        subscriptions = []
        # They look at it because its lease expires, and for no other reason.
        limits = QUICK._replace(compare_interval=60.0, sweep_interval=60.0)
        for number in range(5):
            store = await stack.enter_async_context(redis_store(server, limits))

            def note(name: str, number: int = number) -> None:
                found.append(number)

            subscriptions.append(await Runs(store, on_lost=note).response("a"))
        async with subscribed(*subscriptions) as clients:
            for client in clients:
                await client.to_end()
                assert end_of(client) == lost()
        assert len({tuple(client.ids) for client in clients}) == 1
        await anyio.sleep(50 * MS)
    assert len(found) == 1


async def test_the_finder_is_told_though_the_answer_is_lost(
    server: RedisServer, proxy: Proxy
) -> None:
    found: list[str] = []
    cuts = 0

    def cut(answer: bytes) -> bool:
        """Cut the first answer that says that the run is lost."""
        nonlocal cuts
        is_message = b"\r\nmessage\r\n" in answer
        is_cut = b"$4\r\nlost\r\n" in answer and not is_message and not cuts
        cuts += is_cut
        return is_cut

    proxy.cut_before = cut
    async with redis_store(proxy.url) as store, unreachable_run(server):
        runs = Runs(store, on_lost=found.append)
        await until(lambda: found)
        assert cuts == 1
        assert await runs.status("a") == "lost"
    assert found == ["a"]


# Many runs


async def test_runs_share_round_trips(server: RedisServer) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(20):
            yield number
            await anyio.sleep(1 * MS)

    limits = QUICK._replace(sweep_interval=60.0)
    async with redis_store(server, limits) as store:
        ended: list[RunResult] = []
        runs = Runs(store, on_end=ended.append)
        for number in range(100):
            await runs.start(f"run {number}", numbers)
        await until(lambda: len(ended) == 100)
        assert {(end.status, end.events) for end in ended} == {("done", 20)}
        stats = store.stats()
        assert stats.runs == 0
        assert stats.round_trips <= 100 + 2000 / 10
