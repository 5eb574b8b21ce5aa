"""The clients, channels and runs of one scenario, and what is checked in the end."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from typing import Any, NamedTuple

import redis

from .clients import Client
from .courses import Course, Log, Position
from .publishers import Publisher
from .runs import Runs
from .stage import PREFIX, Stage


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


class Figures(NamedTuple):
    """What a scenario has found.

    Attributes:
        clients: Number of clients, of channels and runs.
        events: Number of events that they have received.
        reconnects: Number of times that they have come back.
        silence: The longest time without an event on a channel, in seconds.
        gaps: Number of gaps by reason.
        runs: Number of runs by how they have ended.
        lost: Number of events that the server has acknowledged and lost.
        unknown: Number of events whose publisher has no answer.
        refused: Number of responses that say that the store is not available.
        notes: Other figures.
    """

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
        texts = [
            f"{self.clients} clients",
            f"{self.events} events",
            f"{self.reconnects} reconnects",
            f"{self.silence:.1f} s silence",
            f"gaps: {counted(self.gaps)}",
            f"runs: {counted(self.runs)}",
        ]
        others = ((self.lost, "lost by the server"), (self.unknown, "not acknowledged"))
        for count, what in (*others, (self.refused, "refused")):
            if count:
                texts.append(f"{count} {what}")
        return ", ".join([*texts, *self.notes])


def counted(counter: Counter[str]) -> str:
    return " ".join(f"{n} {what}" for what, n in sorted(counter.items())) or "none"


def percentiles(seconds: list[float]) -> str:
    """Return a median and a percentile in milliseconds."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return f"p50 {1000 * statistics.median(ordered):.0f} ms p99 {1000 * p99:.0f} ms"


class Traffic:
    """The clients, channels and runs of one scenario.

    Args:
        stage: Where it takes place.
        name: Name of the scenario.
        size: How much happens.
        padded: Number of paddings in each event, of 20 kB each.
        buffers: Bytes that the sockets of clients buffer.
        loses: Whether the server loses what it has acknowledged.

    Attributes:
        clients: The clients of channels.
        runs: The runs, and their clients.
        latencies: How long events have taken from the publisher to each client.
        notes: Figures to print.
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
        self.latencies: list[float] = []
        self.notes: list[str] = []
        self._size = size
        self._buffers = buffers
        self._loses = loses
        self._is_over = False
        number = stage.randomness.randrange(10**6)
        prefix = "".join(word[0] for word in name.split()) + str(number)
        self._logs = [
            Log(f"{prefix}-{number}", stage.faults) for number in range(size.channels)
        ]
        self._publishers: dict[str, Publisher] = {}
        for log in self._logs:
            for how, store in (("http", None), ("thread", stage.store)):
                publisher = f"{log.name}-{how}"
                self._publishers[publisher] = Publisher(
                    publisher, log, stage, store, padded
                )
        self.clients = [self._client(number) for number in range(size.clients)]
        self.runs = Runs(
            prefix, stage, size.readers, size.run_events, stop_at_end=loses
        )
        self._reading: list[asyncio.Task[None]] = []
        self._publishing: list[asyncio.Task[None]] = []

    def _client(self, number: int) -> Client:
        logs = [self._logs[number % len(self._logs)]]
        if number % 8 == 7 and len(self._logs) > 1:  # some read two channels
            two = self.stage.randomness.sample(self._logs, 2)
            logs = sorted(two, key=lambda log: log.name)
        names = ",".join(log.name for log in logs)
        course = Course(f"client {number} of {names}", logs, self.stage.faults)
        return Client(course, f"/events/{names}", self.stage, self._note, self._buffers)

    def _note(self, data: str) -> None:
        """Note how long an event has taken."""
        publisher, number, *_ = json.loads(data)
        sent_at = self._publishers[publisher].sent_at[number]
        self.latencies.append(time.perf_counter() - sent_at)

    @property
    def everyone(self) -> list[Client]:
        return [*self.clients, *self.runs.readers]

    async def begin(self) -> None:
        """Connect all clients, and begin to publish and to start runs."""
        self._reading = [asyncio.create_task(client.run()) for client in self.clients]
        await self.stage.wait(
            lambda: all(client.served_at for client in self.clients), "positions"
        )
        works = [self._publish(publisher) for publisher in self._publishers.values()]
        if self._size.readers:
            works.append(self._start_runs())
        self._publishing = [asyncio.create_task(work) for work in works]

    async def _publish(self, publisher: Publisher) -> None:
        while not self._is_over:
            await publisher.publish("item")
            pause = self._size.pause * self.stage.randomness.uniform(0.5, 1.5)
            await asyncio.sleep(pause)

    async def _start_runs(self) -> None:
        while not self._is_over:
            self.runs.start()
            await asyncio.sleep(self._size.run_pause)

    async def stop_publishing(self) -> None:
        """Publish nothing more, and start no more runs."""
        self._is_over = True
        await asyncio.gather(*self._publishing)

    async def have_all_events(self) -> None:
        """Wait until all clients are at the newest event."""
        newest = {
            log.name: max((at.offset for at in log.acknowledged), default=0)
            for log in self._logs
        }
        await self.stage.wait(
            lambda: all(
                [at.offset for at in client.course.positions]
                == [newest[log.name] for log in client.course.logs]
                for client in self.clients
            ),
            "all events",
        )

    async def have_all_readers(self) -> None:
        """Start no run any more, and wait until all of them are read."""
        self.runs.starts = False
        await self.stage.wait(
            lambda: all(reader.served_at for reader in self.runs.readers), "readers"
        )

    async def end(self, *statuses: str) -> Figures:
        """Publish final events, wait until everybody has everything, and check it.

        Args:
            *statuses: How runs may end, but for the usual ways.
        """
        stage = self.stage
        await self.stop_publishing()
        finals = asyncio.create_task(self._publish_finals())
        await stage.wait(
            lambda: all(client.course.has_finals for client in self.clients),
            "final events",
        )
        finals.cancel()
        # Some of these tasks begin others.
        await stage.wait(
            lambda: all(task.done() for task in self.runs.tasks), "ends of runs"
        )
        tasks = [*self._reading, *self.runs.tasks, finals]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                stage.faults.add(repr(result))
        return self._figures(self._check({"done", "cancelled", *statuses}))

    async def _publish_finals(self) -> None:
        """Publish final events, also for clients that begin behind the first one."""
        while True:
            publishers = [*self._publishers.values()][::2]
            await asyncio.gather(*(each.publish("final") for each in publishers))
            await asyncio.sleep(0.5)

    def _check(self, statuses: set[str]) -> int:
        """Check everything, and return how many events the server has lost."""
        faults = self.stage.faults
        lost = 0
        with self.stage.server.client() as client:
            for log in self._logs:
                kept = kept_of(client, log)
                lost += log.lost({at.offset: event for at, event in kept.items()})
                for position, (type, data) in kept.items():
                    log.see(position, type, data)
        if lost and not self._loses:
            faults.add(f"{lost} acknowledged events are not in the store")
        for run in self.runs.runs:
            run.check(statuses, self.stage, loses=self._loses)
        for log in (*self._logs, *(run.log for run in self.runs.runs)):
            log.check_joins()
        for each in self.clients:
            if wrong := {*each.answers} - {503}:
                faults.add(f"{each.course.name}: answers {wrong}")
        return lost

    def _figures(self, lost: int) -> Figures:
        everyone = self.everyone
        gaps: Counter[str] = Counter()
        for client in everyone:
            gaps.update(client.course.gaps)
        return Figures(
            clients=len(everyone),
            events=sum(client.course.events for client in everyone),
            reconnects=sum(max(0, client.connects - 1) for client in everyone),
            silence=max(client.longest_silence for client in self.clients),
            gaps=gaps,
            runs=Counter(end for run in self.runs.runs for end, _ in run.log.ends),
            lost=lost,
            unknown=sum(each.unknown for each in self._publishers.values()),
            refused=sum(client.answers.count(503) for client in everyone),
            notes=[*self.notes, *self._notes_on_runs()],
        )

    def _notes_on_runs(self) -> list[str]:
        notes = []
        runs = self.runs.runs
        ended: list[float] = []
        told: list[float] = []
        for run in runs:
            ended += run.ended_after(run.cancelled_at)
            told += run.told_after("cancelled", run.cancelled_at)
        if ended and told:
            notes.append(f"cancelled {percentiles(ended)}, told {percentiles(told)}")
        lost = [s for run in runs for s in run.told_after("lost", run.killed_at)]
        if lost:
            notes.append(f"lost after {max(lost):.1f} s at most")
        return notes


def kept_of(client: redis.Redis, log: Log) -> dict[Position, tuple[str, str]]:
    """Return the type and data of the events of a channel that the server has."""
    key = f"{PREFIX}{{channel:{log.name}}}"
    epoch: Any = client.hget(key, "epoch")
    entries: Any = client.xrange(f"{key}:s")
    kept = {}
    for id, fields in entries:
        lines = fields[b"f"].decode().splitlines()
        event = dict(line.split(": ", 1) for line in lines if line)
        position = Position(epoch.decode(), int(id.partition(b"-")[0]))
        kept[position] = (event["event"], event["data"])
    return kept
