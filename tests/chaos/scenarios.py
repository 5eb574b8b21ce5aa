"""The faults, each with the traffic in which it happens."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import redis

from tests.soak.watch import Faults
from tests.support.proxy import CONFIRMATION, MESSAGE, proxy_of
from tests.support.redis import BINARIES, RedisServer

from .stage import Stage
from .traffic import Figures, Size, Traffic, percentiles

Play = Callable[[Stage, "Scenario"], Awaitable[Figures]]


class Scenario(NamedTuple):
    """A fault to play.

    Attributes:
        name: What is printed.
        size: How much happens meanwhile.
    """

    name: str
    size: Size


# On a server that keeps everything


async def cuts(stage: Stage, scenario: Scenario) -> Figures:
    """Clients lose their connections, a few at a time."""
    size = scenario.size._replace(clients=scenario.size.crowd)
    traffic = await begun(stage, scenario._replace(size=size))
    for _ in range(round(10 * scenario.size.scale)):
        everyone = traffic.everyone
        for client in stage.randomness.sample(everyone, len(everyone) // 5):
            client.cut()
        await asyncio.sleep(0.2)
    return await traffic.end()


async def readers_killed(stage: Stage, scenario: Scenario) -> Figures:
    """A worker that has started no run is killed, and another one, one at a time."""
    traffic = await begun(stage, scenario)
    for worker in stage.workers[: max(1, round(scenario.size.scale))]:
        await asyncio.sleep(0.5)
        traffic.runs.note_kill(worker)
        await worker.kill()
        await asyncio.sleep(0.5)
        await worker.start()
    await asyncio.sleep(0.3)
    return await traffic.end("lost")


async def owners_killed(stage: Stage, scenario: Scenario) -> Figures:
    """The worker that has started most of the runs is killed."""
    traffic = await begun(stage, scenario)
    await asyncio.sleep(1.0 * scenario.size.scale)
    running = [run for run in traffic.runs.runs if not run.log.ends]
    worker = max(stage.workers, key=lambda it: sum(run.owner is it for run in running))
    traffic.runs.note_kill(worker)
    await worker.kill()
    await asyncio.sleep(0.5)
    await worker.start()
    return await traffic.end("lost")


async def worker_stopped(stage: Stage, scenario: Scenario) -> Figures:
    """A worker stops for a while, with all its connections."""
    traffic = await begun(stage, scenario)
    await asyncio.sleep(0.5)
    stage.workers[0].send_signal(signal.SIGSTOP)
    await asyncio.sleep(stage.lease + 1.0 * scenario.size.scale)
    stage.workers[0].send_signal(signal.SIGCONT)
    await asyncio.sleep(0.5)
    # The runs of the worker have lost their lease.
    return await traffic.end("lost")


async def server_stopped(stage: Stage, scenario: Scenario) -> Figures:
    """The server stops for a while, with all its connections."""
    traffic = await begun(stage, scenario)
    await asyncio.sleep(0.5)
    stage.server.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.0 + 5.0 * scenario.size.scale)
    stage.server.send_signal(signal.SIGCONT)
    await asyncio.sleep(0.5)
    # The time of a lease goes on.
    return await traffic.end("lost")


async def rolling_restart(stage: Stage, scenario: Scenario) -> Figures:
    """All workers shut down and start again, one after the other."""
    traffic = await begun(stage, scenario)
    for worker in stage.workers:
        await asyncio.sleep(0.2)
        await worker.terminate()
        await worker.start()
    return await traffic.end("shutdown")


async def restart(stage: Stage, scenario: Scenario) -> Figures:
    """The server is killed, and starts again with all it has acknowledged."""
    traffic = await begun(stage, scenario)
    for _ in range(max(1, round(2 * scenario.size.scale))):
        await asyncio.sleep(0.7)
        await asyncio.to_thread(stage.server.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(stage.server.start)
    await asyncio.sleep(0.7)
    return await traffic.end()


async def restart_empty(stage: Stage, scenario: Scenario) -> Figures:
    """The server is killed, and starts again with nothing."""
    traffic = await begun(stage, scenario, loses=True)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(stage.server.kill)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(stage.server.start)
    await come_back(traffic)
    figures = await traffic.end()
    check_all_reset(stage, traffic)
    return figures


async def restart_old(stage: Stage, scenario: Scenario) -> Figures:
    """The server is killed, and starts again with what it had a while before."""
    traffic = await begun(stage, scenario, loses=True)
    with stage.server.client() as client:
        await asyncio.sleep(0.5)
        client.save()
    await asyncio.sleep(1.0)
    await asyncio.to_thread(stage.server.kill)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(stage.server.start)
    await come_back(traffic)
    return await traffic.end("lost")


async def come_back(traffic: Traffic) -> None:
    """Have some clients come back, to any worker, one after the other."""
    for client in traffic.everyone[::3]:
        client.cut()
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)


async def flush_all(stage: Stage, scenario: Scenario) -> Figures:
    """Somebody deletes everything."""
    traffic = await begun(stage, scenario, loses=True)
    await asyncio.sleep(1.0)
    # Nothing knows of a run then until its process writes again, so a reader that
    # comes just now would be told that there is none.
    await traffic.have_all_readers()
    with stage.server.client() as client:
        client.flushall()
    await asyncio.sleep(1.0)
    figures = await traffic.end()
    check_all_reset(stage, traffic)
    return figures


def check_all_reset(stage: Stage, traffic: Traffic) -> None:
    for client in traffic.clients:
        if not client.course.gaps["reset"]:
            stage.faults.add(f"{client.course.name}: no gap, although all is lost")


async def listeners_killed(stage: Stage, scenario: Scenario) -> Figures:
    """The server closes the connections for messages, again and again."""
    traffic = await begun(stage, scenario)
    with stage.server.client() as client:
        for _ in range(round(10 * scenario.size.scale)):
            await asyncio.sleep(0.2)
            client.client_kill_filter(_type="pubsub")
    return await traffic.end()


# Behind a proxy


async def proxy_cuts(stage: Stage, scenario: Scenario) -> Figures:
    """All connections between workers and the server are cut, again and again."""
    traffic = await begun(stage, scenario)
    assert stage.proxy is not None
    for _ in range(round(20 * scenario.size.scale)):
        await asyncio.sleep(stage.randomness.uniform(0.02, 0.3))
        stage.proxy.cut()
    return await traffic.end()


async def proxy_silent(stage: Stage, scenario: Scenario) -> Figures:
    """Nothing gets through between workers and the server, and later all of it."""
    traffic = await begun(stage, scenario)
    assert stage.proxy is not None
    await asyncio.sleep(0.5)
    stage.proxy.is_silent = True
    await asyncio.sleep(1.0 + 7.0 * scenario.size.scale)
    stage.proxy.is_silent = False
    await asyncio.sleep(0.5)
    return await traffic.end("lost")


async def listeners_silent(stage: Stage, scenario: Scenario) -> Figures:
    """Commands get through between workers and the server, and no messages."""
    traffic = await begun(stage, scenario)
    assert stage.proxy is not None
    await asyncio.sleep(0.5)
    stage.proxy.holds = lambda data: data.startswith((MESSAGE, CONFIRMATION))
    await asyncio.sleep(1.0 + 12.0 * scenario.size.scale)
    stage.proxy.holds = lambda data: False
    await asyncio.sleep(0.5)
    return await traffic.end()


async def promotion(stage: Stage, scenario: Scenario) -> Figures:
    """A replica that has not received the newest events becomes the server."""
    assert stage.proxy is not None
    master = stage.server
    replica = RedisServer(master.binary, "--repl-diskless-sync-delay", "0")
    try:
        await asyncio.to_thread(replica.start)
        async with proxy_of(master.port) as link:
            traffic = await begun(stage, scenario, loses=True)
            for old, new in ((master, replica), (replica, master)):
                link.server_port = old.port
                with new.client() as client:
                    await replicate(client, link.port)
                    await asyncio.sleep(0.5)
                    link.is_silent = True
                    await asyncio.sleep(0.7)
                    client.replicaof("NO", "ONE")
                stage.proxy.server_port = new.port
                stage.proxy.cut()
                stage.server = new
                await come_back(traffic)
                link.is_silent = False
                link.cut()
            return await traffic.end("lost")
    finally:
        stage.proxy.server_port = master.port
        stage.proxy.cut()
        stage.server = master
        replica.close()


async def replicate(client: redis.Redis, port: int) -> None:
    """Make a server the replica of another one."""
    client.replicaof("127.0.0.1", str(port))
    while client.info("replication")["master_link_status"] != "up":
        await asyncio.sleep(0.05)


# With a small history


async def frozen_readers(stage: Stage, scenario: Scenario) -> Figures:
    """Some clients do not read for a while, but the channels go on."""
    size = scenario.size
    few = size._replace(clients=size.clients // 3, channels=3, pause=0.2)
    traffic = await begun(stage, scenario._replace(size=few), padded=10, buffers=8192)
    await asyncio.sleep(0.3)
    frozen = traffic.clients[::3]
    for client in frozen:
        client.freeze()
    await asyncio.sleep(4.0)  # until the sockets are full
    for client in frozen:
        client.thaw()
    return await ended_with_gaps(stage, traffic)


async def frozen_worker(stage: Stage, scenario: Scenario) -> Figures:
    """A worker stops, and what it would have received is dropped meanwhile."""
    traffic = await begun(stage, scenario)
    await asyncio.sleep(0.3)
    stage.workers[0].send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.5)
    with stage.server.client() as client:
        client.client_kill_filter(_type="pubsub")
    await asyncio.sleep(1.0 + 3.0 * scenario.size.scale)
    stage.workers[0].send_signal(signal.SIGCONT)
    await asyncio.sleep(0.5)
    return await ended_with_gaps(stage, traffic)


async def ended_with_gaps(stage: Stage, traffic: Traffic) -> Figures:
    figures = await traffic.end("lost")
    if not figures.gaps:
        stage.faults.add("no client has missed anything")
    return figures


async def begun(stage: Stage, scenario: Scenario, **options: Any) -> Traffic:
    traffic = Traffic(stage, scenario.name, scenario.size, **options)
    await traffic.begin()
    return traffic


# Figures


async def quiet(stage: Stage, scenario: Scenario) -> Figures:
    """Nothing happens: how long do events take from worker to worker?"""
    few = scenario.size._replace(clients=30)
    traffic = await begun(stage, scenario._replace(size=few))
    await asyncio.sleep(3.0 * scenario.size.scale)
    figures = await traffic.end()
    figures.notes.append(f"delivered {percentiles(traffic.latencies)}")
    return figures


async def crowd_returns(stage: Stage, scenario: Scenario) -> Figures:
    """All clients of a worker come back at once, after it was killed."""
    size = scenario.size._replace(clients=scenario.size.crowd, channels=1, readers=0)
    traffic = await begun(stage, scenario._replace(size=size))
    [worker] = stage.workers
    connections = await connections_of(stage)
    traffic.notes.append(f"{connections} connections to the server")
    await asyncio.sleep(1.0)
    await traffic.stop_publishing()
    await traffic.have_all_events()
    stage.gate.clear()
    await worker.kill()
    await worker.start()
    with stage.server.client() as client:
        before = commands(client)
        began, used = time.perf_counter(), worker.cpu_seconds
        stage.gate.set()
        await stage.wait(
            lambda: all(reader.served_at > began for reader in traffic.clients),
            "served",
        )
        seconds = time.perf_counter() - began
        used = worker.cpu_seconds - used
        sent = commands(client) - before
    traffic.notes.append(
        f"all served in {seconds:.2f} s ({used:.2f} s of CPU) with {sent} commands"
    )
    return await traffic.end()


async def connections_of(stage: Stage) -> int:
    with stage.server.client() as client:
        return len(client.client_list()) - 1


def commands(client: redis.Redis) -> int:
    """Return how many commands workers have sent."""
    stats: Any = client.info("commandstats")
    names = ("evalsha", "subscribe", "unsubscribe")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names)


# Where they are played


class Setting(NamedTuple):
    """A server and workers, and what is played with them.

    Attributes:
        scenarios: The scenarios by name.
        options: Options of the server.
        stage: Arguments of `Stage`.
        behind_proxy: Whether there is a proxy before the server.
    """

    scenarios: Mapping[str, Play]
    options: Sequence[str] = ()
    stage: Mapping[str, Any] = MappingProxyType({})
    behind_proxy: bool = False


SETTINGS = [
    Setting(
        {
            "clients are cut": cuts,
            "kill -9 of readers' workers": readers_killed,
            "kill -9 of an owner of runs": owners_killed,
            "SIGSTOP of a worker": worker_stopped,
            "rolling restart of workers": rolling_restart,
            "CLIENT KILL TYPE pubsub": listeners_killed,
            "SIGSTOP of the server": server_stopped,
            "restart, append-only file": restart,
            "FLUSHALL": flush_all,
        },
        options=("--appendonly", "yes", "--appendfsync", "always"),
    ),
    Setting(
        {
            "restart without persistence": restart_empty,
            "restart, old snapshot": restart_old,
        }
    ),
    Setting(
        {
            "proxy cuts": proxy_cuts,
            "proxy is silent": proxy_silent,
            "proxy forwards no messages": listeners_silent,
            "promoted replica": promotion,
        },
        behind_proxy=True,
    ),
    Setting(
        {"frozen readers": frozen_readers, "frozen worker": frozen_worker},
        stage={"history": 5},
    ),
    Setting({"quiet": quiet}),
    Setting({"a crowd returns": crowd_returns}, stage={"workers": 1}),
]

SMALL = Size(
    clients=16,
    channels=2,
    pause=0.1,
    run_pause=0.4,
    readers=2,
    run_events=20,
    crowd=40,
    scale=0.5,
)
LARGE = Size(
    clients=300,
    channels=8,
    pause=0.4,
    run_pause=0.3,
    readers=3,
    run_events=60,
    crowd=1000,
    scale=1.0,
)


@contextlib.asynccontextmanager
async def staged(
    setting: Setting,
    server_name: str,
    faults: Faults,
    randomness: random.Random,
    slack: float,
) -> AsyncIterator[Stage]:
    """Start a server and workers."""
    server = RedisServer(BINARIES[server_name], *setting.options)
    try:
        await asyncio.to_thread(server.start)
        async with contextlib.AsyncExitStack() as stack:
            proxy = None
            if setting.behind_proxy:
                proxy = await stack.enter_async_context(proxy_of(server.port))
            stage = Stage(
                server, faults, randomness, proxy=proxy, slack=slack, **setting.stage
            )
            yield await stack.enter_async_context(stage)
    finally:
        server.close()
