"""What is published, and the runs that are started, cancelled and read."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from fastapi_sse_fast import ServerSentEvent
from fastapi_sse_fast.errors import StoreError
from fastapi_sse_fast.stores import SyncRedisStore
from tests.soak.watch import Faults

from .clients import Client
from .oracle import Course, Log, parsed
from .processes import Worker
from .worker import PADDING

PATIENCE = 40.0
"""Seconds that a publisher tries to publish an event."""


class Publisher:
    """Publishes numbered events to a channel, one after the other.

    Args:
        name: Its name, which is in every event.
        log: The channel.
        workers: Whom it asks to publish.
        store: What publishes instead of a worker.
        threads: Where it does.
        randomness: Chooses a worker.

    Attributes:
        history: Number of events that the channel keeps.
        number: Number of events.
        padded: Number of paddings in each event, of 20 kB each.
        sent_at: When each event was published.
        unknown: Number of events that may or may not be in the store.
    """

    def __init__(
        self,
        name: str,
        log: Log,
        workers: Sequence[Worker],
        store: SyncRedisStore | None,
        threads: Executor,
        randomness: random.Random,
    ) -> None:
        self.log = log
        self.history = 1000
        self.number = 0
        self.padded = 0
        self.unknown = 0
        self.sent_at: dict[int, float] = {}
        self._name = name
        self._workers = workers
        self._store = store
        self._threads = threads
        self._randomness = randomness

    async def run(self, pause: float, is_over: Callable[[], bool]) -> None:
        while not is_over():
            await self.publish("item")
            await asyncio.sleep(pause * self._randomness.uniform(0.5, 1.5))

    async def publish(self, type: str) -> None:
        """Publish the next event, and note its position."""
        self.number += 1
        number = self.number
        self.sent_at[number] = time.perf_counter()
        if self._store is not None:
            loop = asyncio.get_running_loop()
            id = await loop.run_in_executor(
                self._threads, self._publish, self._store, number, type
            )
        else:
            id = await self._ask(number, type)
        if id is None:
            self.unknown += 1
            return
        [position] = parsed(id)
        data = json.dumps(self._data(number))
        self.log.acknowledge(position, data)

    def _data(self, number: int) -> list[str | int]:
        return [self._name, number, *[PADDING] * self.padded]

    def _publish(self, store: SyncRedisStore, number: int, type: str) -> str | None:
        event = ServerSentEvent(event=type, data=self._data(number))
        try:
            return store.publish(self.log.name, event, history=self.history)
        except StoreError:
            return None

    async def _ask(self, number: int, type: str) -> str | None:
        """Ask one worker after the other, because any of them may die meanwhile."""
        path = (
            f"/events/{self.log.name}?publisher={self._name}&number={number}"
            f"&type={type}&padded={self.padded}"
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            worker = self._randomness.choice(self._workers)
            try:
                id: str = await worker.request("POST", path)
                return id
            except (OSError, EOFError, asyncio.TimeoutError):
                await asyncio.sleep(0.05)
        return None


class RunOfTraffic:
    """A run that is read by several clients, and how it has to end.

    Attributes:
        owner: The worker that has started it.
        readers: Its readers.
        cancelled_at: When a worker was asked to cancel it.
        killed_at: When its owner was killed.
    """

    def __init__(self, log: Log, owner: Worker, events: int) -> None:
        self.log = log
        self.owner = owner
        self.events = events
        self.readers: list[Client] = []
        self.cancelled_at = 0.0
        self.killed_at = 0.0

    def check(self, allowed: set[str], faults: Faults, *, loses: bool) -> None:
        """Check that all clients have received the same end, and how it has ended.

        Args:
            allowed: How it may have ended.
            faults: List of the faults that are found.
            loses: Whether the server may have lost its end.
        """
        ends = self.log.ends
        name = self.log.name
        if not ends or (len(ends) > 1 and not loses):
            faults.add(f"{name} has the ends {ends}")
        for status, offset in ends:
            if status not in allowed:
                faults.add(f"{name} has ended: {status}")
            if status == "done" and offset != self.events + 1:
                faults.add(f"{name} is done after {offset - 1} of {self.events} events")
        for reader in self.readers:
            if reader.course.end is None:
                faults.add(f"{reader.course.name} has not received an end")


class Runs:
    """Starts runs, attaches readers to them, and cancels some.

    Args:
        prefix: What the names of all runs begin with.
        workers: Whom it asks.
        faults: List of the faults that are found.
        randomness: Chooses what happens.
        gate: Of the readers.
        events: Number of events of a run, at most.

    Attributes:
        starts: Whether runs are started.
        stop_at_end: Whether clients do not come back when they have received the end.
    """

    def __init__(
        self,
        prefix: str,
        workers: Sequence[Worker],
        faults: Faults,
        randomness: random.Random,
        gate: asyncio.Event,
        events: int,
    ) -> None:
        self.runs: list[RunOfTraffic] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.stop_at_end = False
        self.starts = True
        self._prefix = prefix
        self._workers = workers
        self._faults = faults
        self._randomness = randomness
        self._gate = gate
        self._events = events

    async def run(
        self, pause: float, readers: int, is_over: Callable[[], bool]
    ) -> None:
        while not is_over():
            if self.starts:
                self.tasks.append(asyncio.create_task(self._one(readers)))
            await asyncio.sleep(pause)

    async def _one(self, readers: int) -> None:
        chance = self._randomness
        name = f"{self._prefix}-run{len(self.tasks)}"
        # Some are silent for so long that only heartbeats keep them.
        events, pause = chance.randrange(10, self._events), 0.05
        if chance.random() < 0.2:
            events, pause = 2, 0.025 * self._events
        owner = chance.choice(self._workers)
        path = f"/runs/{name}?events={events}&pause={pause}"
        try:
            await owner.request("POST", path)
        except (OSError, EOFError, asyncio.TimeoutError):
            return  # it may be running, and nobody reads it
        run = RunOfTraffic(Log(name, self._faults), owner, events)
        self.runs.append(run)
        for number in range(readers):
            course = Course(f"reader {number} of {name}", [run.log], self._faults)
            client = Client(
                course,
                f"/runs/{name}",
                self._workers,
                chance,
                lambda data: None,
                self._gate,
            )
            client.stops_at_end = self.stop_at_end
            run.readers.append(client)
            self.tasks.append(asyncio.create_task(client.run()))
        if chance.random() < 0.4:
            await asyncio.sleep(chance.uniform(0.1, pause * events))
            await self._cancel(run)

    async def _cancel(self, run: RunOfTraffic) -> None:
        path = f"/runs/{run.log.name}/cancel"
        while True:
            worker = self._randomness.choice(self._workers)
            began = time.perf_counter()
            try:
                is_running = await worker.request("POST", path)
            except (OSError, EOFError, asyncio.TimeoutError):
                await asyncio.sleep(0.05)
            else:
                run.cancelled_at = began if is_running else 0.0
                return
