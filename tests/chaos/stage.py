"""Workers, clients and publishers, and what is checked when a fault is over."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import redis
from typing_extensions import Self

from fastapi_sse_fast.stores import SyncRedisStore
from tests.soak.watch import Faults
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer

from .clients import Client
from .oracle import Course, Log, Position
from .processes import Worker
from .traffic import Publisher, Runs
from .worker import Settings

PREFIX = "sse:"


class Size(NamedTuple):
    """How much happens at a time.

    Attributes:
        clients: Number of clients that read channels.
        channels: Number of channels.
        pause: Seconds between two events of a publisher. Each channel has two.
        run_pause: Seconds between the starts of two runs.
        readers: Number of readers of a run.
        run_events: Number of events of a run, at most.
        crowd: Number of clients that come back at once.
        scale: By how much scenarios take longer than they must.
    """

    clients: int
    channels: int
    pause: float
    run_pause: float
    readers: int
    run_events: int
    crowd: int
    scale: float


class Stage:
    """A server, workers, and the traffic of one scenario after the other.

    Args:
        server: The server.
        faults: List of the faults that are found.
        randomness: Chooses what happens.
        workers: Number of workers.
        history: Number of events that channels keep.
        lease: Seconds until a run is lost.
        proxy: What the workers connect to instead of the server.
        slack: Seconds, in addition to the lease, after which readers of a run know that
            it is lost.
    """

    def __init__(
        self,
        server: RedisServer,
        faults: Faults,
        randomness: random.Random,
        *,
        workers: int = 3,
        history: int = 1000,
        lease: float = 2.0,
        proxy: Proxy | None = None,
        slack: float = 1.0,
    ) -> None:
        self.server = server
        self.faults = faults
        self.randomness = randomness
        self.history = history
        self.lease = lease
        self.proxy = proxy
        self.slack = slack
        port = server.port if proxy is None else proxy.port
        url = f"redis://127.0.0.1:{port}"
        settings = Settings(url, 0, history, lease, 0.0)
        self.workers = [Worker(number, settings) for number in range(workers)]
        self.store = SyncRedisStore.from_url(url)
        # Its threads wait while the server is away, and others must not.
        self.threads = ThreadPoolExecutor(max_workers=32)
        self._quiet_tasks: list[int] = []

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(worker.start() for worker in self.workers))
        except BaseException:
            await asyncio.gather(*(worker.kill() for worker in self.workers))
            raise
        self._quiet_tasks = [
            (await worker.request("GET", "/state"))["tasks"] for worker in self.workers
        ]
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.gather(*(worker.terminate() for worker in self.workers))
        self.threads.shutdown()
        self.store.close()
        for worker in self.workers:
            unexpected = [line for line in worker.log if not is_expected(line)]
            if unexpected:
                lines = "".join(unexpected[:60])
                self.faults.add(f"in the log of a worker:\n{lines}")

    async def check_nothing_left(self) -> None:
        """Check that nothing is left of all scenarios."""
        deadline = time.monotonic() + 15
        with redis.Redis(port=self.server.port) as client:
            while True:
                wrong = await self._left(client)
                if not wrong:
                    return
                if time.monotonic() > deadline:
                    for fault in wrong:
                        self.faults.add(f"left: {fault}")
                    return
                await asyncio.sleep(0.2)

    async def _left(self, client: redis.Redis) -> list[str]:
        wrong = []
        workers = len(self.workers)
        channels: Any = client.pubsub_channels()
        if len(channels) != workers:
            wrong.append(f"{len(channels)} channels: {channels[:5]}")
        connections = [
            each
            for each in client.client_list()
            if each["flags"] in ("N", "P") and each["id"] != str(client.client_id())
        ]
        if not 2 * workers <= len(connections) <= 2 * workers + 1:
            wrong.append(f"{len(connections)} connections: {connections}")
        running: Any = client.smembers(f"{PREFIX}runs")
        for key in running:
            # Its end was lost with the newest events, and nobody asks for it.
            name = key.decode().rpartition(":")[2].rstrip("}")
            await self.workers[0].request("GET", f"/runs/{name}/status")
        if running:
            wrong.append(f"runs: {running}")
        keys: Any = client.keys(f"{PREFIX}*")
        endless = [key for key in keys if client.ttl(key) == -1]
        if endless:
            wrong.append(f"keys without end: {endless[:5]}")
        for number, worker in enumerate(self.workers):
            state = await worker.request("GET", "/state")
            store = state["store"]
            counts = [state["subscribers"], state["readers"], state["running"]]
            counts += [store["logs"], store["runs"]]
            if any(counts):
                wrong.append(f"worker {number}: {state}")
            if state["tasks"] > max(self._quiet_tasks):
                wrong.append(f"worker {number}: {state['tasks']} tasks")
        return wrong


class Figures(NamedTuple):
    """What a scenario has found."""

    clients: int
    events: int
    reconnects: int
    silence: float
    gaps: Counter[str]
    runs: Counter[str]
    lost: int
    unknown: int
    refused: int
    notes: list[str]

    def __str__(self) -> str:
        gaps = " ".join(f"{n} {reason}" for reason, n in sorted(self.gaps.items()))
        runs = " ".join(f"{n} {status}" for status, n in sorted(self.runs.items()))
        texts = [
            f"{self.clients} clients",
            f"{self.events} events",
            f"{self.reconnects} reconnects",
            f"{self.silence:.1f} s silence",
            f"gaps: {gaps or 'none'}",
            f"runs: {runs or 'none'}",
            *([f"{self.lost} lost by the server"] if self.lost else []),
            *([f"{self.unknown} not acknowledged"] if self.unknown else []),
            *([f"{self.refused} refused"] if self.refused else []),
            *self.notes,
        ]
        return ", ".join(texts)


class Traffic:
    """The clients, channels and runs of one scenario.

    Args:
        stage: Where it takes place.
        name: Name of the scenario.
        size: How much happens.
        padded: Number of paddings in each event, of 20 kB each.
        buffers: Bytes that the sockets of clients buffer.
        loses: Whether the server will lose what it has acknowledged.
    """

    def __init__(
        self,
        stage: Stage,
        name: str,
        size: Size,
        *,
        padded: int = 0,
        buffers: int | None = None,
        loses: bool = False,
    ) -> None:
        self.stage = stage
        self.size = size
        self.notes: list[str] = []
        self._buffers = buffers
        self._loses = loses
        self.latencies: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._is_over = False
        prefix = "".join(word[0] for word in name.split()) + str(
            stage.randomness.randrange(10**6)
        )
        names = sorted(f"{prefix}-{number}" for number in range(size.channels))
        faults, chance = stage.faults, stage.randomness
        self.logs = [Log(name, faults) for name in names]
        self.publishers: dict[str, Publisher] = {}
        for log in self.logs:
            for how, store in (("http", None), ("sync", stage.store)):
                name = f"{log.name}-{how}"
                publisher = Publisher(
                    name, log, stage.workers, store, stage.threads, chance
                )
                publisher.history = stage.history
                publisher.padded = padded
                self.publishers[name] = publisher
        self.clients = [self._client(number) for number in range(size.clients)]
        self.runs = Runs(
            prefix, stage.workers, faults, chance, self.gate, size.run_events
        )
        # The server may have lost the end, and then there is another one.
        self.runs.stop_at_end = loses
        self._tasks: list[asyncio.Task[None]] = []
        self._publishing: list[asyncio.Task[None]] = []

    def _client(self, number: int) -> Client:
        stage, chance = self.stage, self.stage.randomness
        # Some read two channels.
        logs = [self.logs[number % len(self.logs)]]
        if number % 8 == 7 and len(self.logs) > 1:
            logs = sorted(chance.sample(self.logs, 2), key=lambda log: log.name)
        names = [log.name for log in logs]
        course = Course(f"client {number} of {','.join(names)}", logs, stage.faults)
        path = f"/events/{','.join(names)}"
        return Client(
            course, path, stage.workers, chance, self._note, self.gate, self._buffers
        )

    def _note(self, data: str) -> None:
        """Note how long an event has taken."""
        publisher, number, *_ = json.loads(data)
        sent_at = self.publishers[publisher].sent_at[number]
        self.latencies.append(time.perf_counter() - sent_at)

    async def begin(self) -> None:
        """Connect all clients, and begin to publish and to start runs."""
        self._tasks = [asyncio.create_task(client.run()) for client in self.clients]
        await self.wait(lambda: all(c.course.positions for c in self.clients), "begin")
        size = self.size
        self._publishing = [
            asyncio.create_task(publisher.run(size.pause, lambda: self._is_over))
            for publisher in self.publishers.values()
        ]
        if size.readers:
            runs = self.runs.run(size.run_pause, size.readers, lambda: self._is_over)
            self._publishing.append(asyncio.create_task(runs))

    async def pause(self) -> None:
        """Publish nothing more, and wait until all clients have everything."""
        self._is_over = True
        await asyncio.gather(*self._publishing)
        newest = {
            log.name: max(position.offset for position in log.acknowledged)
            for log in self.logs
        }
        await self.wait(
            lambda: all(
                [p.offset for p in client.course.positions or ()]
                == [newest[log.name] for log in client.course.logs]
                for client in self.clients
            ),
            "all events",
        )

    async def wait(self, condition: Any, what: str, seconds: float = 30.0) -> float:
        """Wait for a condition, and return how long it has taken."""
        began = time.perf_counter()
        while not condition():
            if time.perf_counter() - began > seconds:
                self.stage.faults.add(f"{what}: not after {seconds} seconds")
                break
            await asyncio.sleep(0.01)
        return time.perf_counter() - began

    async def have_all_readers(self) -> None:
        """Start no run any more, and wait until all of them are read."""
        self.runs.starts = False
        await self.wait(
            lambda: all(reader.served_at for reader in self.readers()), "readers"
        )

    def readers(self) -> list[Client]:
        return [reader for run in self.runs.runs for reader in run.readers]

    def note_kill(self, worker: Worker) -> None:
        """Note that a worker is killed now."""
        for run in self.runs.runs:
            if run.owner is worker and not run.log.ends and not run.killed_at:
                run.killed_at = time.perf_counter()

    async def end(self, statuses: Sequence[str] = ("done", "cancelled")) -> Figures:
        """Publish final events, wait until everybody has everything, and check it.

        Args:
            statuses: How runs may end.
        """
        self._is_over = True
        await asyncio.gather(*self._publishing)
        self.gate.set()
        finals = asyncio.create_task(self._publish_finals())
        await self.wait(self._have_all_finals, "final events")
        finals.cancel()
        await asyncio.gather(finals, return_exceptions=True)
        readers = self.readers()
        # Some of the tasks start readers.
        await self.wait(lambda: all(task.done() for task in self.runs.tasks), "runs")
        for task in [*self._tasks, *self.runs.tasks]:
            task.cancel()
        results = await asyncio.gather(
            *self._tasks, *self.runs.tasks, return_exceptions=True
        )
        for result in results:
            if isinstance(result, Exception):
                self.stage.faults.add(f"{result!r}")
        readers = self.readers()
        lost = self._check(set(statuses))
        everyone = [*self.clients, *readers]
        gaps: Counter[str] = Counter()
        for client in everyone:
            gaps.update(client.course.gaps)
        return Figures(
            clients=len(everyone),
            events=sum(client.course.events for client in everyone),
            reconnects=sum(max(0, client.connects - 1) for client in everyone),
            silence=max((c.longest_silence for c in self.clients), default=0.0),
            gaps=gaps,
            runs=Counter(s for run in self.runs.runs for s, _ in run.log.ends),
            lost=lost,
            unknown=sum(it.unknown for it in self.publishers.values()),
            refused=sum(client.answers.count(503) for client in everyone),
            notes=[*self.notes, *self._run_notes()],
        )

    async def _publish_finals(self) -> None:
        while True:
            await asyncio.gather(
                *(
                    publisher.publish("final")
                    for publisher in list(self.publishers.values())[::2]
                )
            )
            await asyncio.sleep(0.5)

    def _have_all_finals(self) -> bool:
        return all(
            len(client.course.finals) == len(client.course.logs)
            for client in self.clients
        )

    def _check(self, statuses: set[str]) -> int:
        faults = self.stage.faults
        lost = 0
        with redis.Redis(port=self.stage.server.port) as client:
            for log in self.logs:
                kept = kept_of(client, log)
                lost += log.lost({at.offset: data for at, data in kept.items()})
                for position, data in kept.items():
                    log.see(position, data)
                log.check_joins()
        if lost and not self._loses:
            faults.add(f"{lost} acknowledged events are not in the store")
        for run in self.runs.runs:
            run.log.check_joins()
            run.check(statuses, faults, loses=self._loses)
        for client_ in self.clients:
            unavailable = [status for status in client_.answers if status != 503]
            if unavailable:
                faults.add(f"{client_.course.name}: answers {unavailable}")
        return lost

    def _run_notes(self) -> list[str]:
        notes = []
        cancels = self._delays("cancelled", lambda run: run.cancelled_at)
        if cancels:
            p99 = cancels[min(len(cancels) - 1, round(0.99 * len(cancels)))]
            notes.append(
                f"cancel p50 {1000 * statistics.median(cancels):.0f} ms "
                f"p99 {1000 * p99:.0f} ms"
            )
        losses = self._delays("lost", lambda run: run.killed_at)
        if losses:
            notes.append(f"lost after {losses[-1]:.1f} s at most")
        return notes

    def _delays(self, status: str, since: Any) -> list[float]:
        """Return how long after something readers have received the end of runs."""
        return sorted(
            reader.ended_at - since(run)
            for run in self.runs.runs
            for reader in run.readers
            if since(run) and reader.course.end == status
        )


def kept_of(client: redis.Redis, log: Log) -> dict[Position, str]:
    """Return what the server has of a channel."""
    key = f"{PREFIX}{{channel:{log.name}}}"
    epoch: Any = client.hget(key, "epoch")
    entries: Any = client.xrange(f"{key}:s")
    kept = {}
    for id, fields in entries:
        lines = fields[b"f"].decode().splitlines()
        [data] = [line[6:] for line in lines if line.startswith("data: ")]
        kept[Position(epoch.decode(), int(id.partition(b"-")[0]))] = data
    return kept


def is_expected(line: str) -> bool:
    """Return whether a line of a log says what a fault does."""
    return not line.strip() or any(
        expected in line
        for expected in (
            "the connection to Redis for",
            # uvicorn says so of streams that end with the server.
            "ASGI callable returned without completing response",
        )
    )
