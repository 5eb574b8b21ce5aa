"""The runs that are started, cancelled and read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from .clients import Client
from .courses import Course, Log
from .stage import Stage
from .workers import UNAVAILABLE, Worker

PAUSE = 0.05
"""Seconds between two events of a run."""


class Run:
    """A run that is read by several clients.

    Args:
        log: Its events.
        owner: The worker that has started it.
        events: Number of its events.

    Attributes:
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

    def check(self, allowed: set[str], stage: Stage, *, loses: bool) -> None:
        """Check that all clients have received the same end, and how it has ended.

        Args:
            allowed: How it may have ended.
            stage: Where it has run.
            loses: Whether the server may have lost its end. Then there is another one.
        """
        name, ends, faults = self.log.name, self.log.ends, stage.faults
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
        if self.killed_at and {status for status, _ in ends} == {"lost"}:
            self._check_lost(stage)

    def _check_lost(self, stage: Stage) -> None:
        """Check that one worker has found it, and that readers were told in time."""
        name = self.log.name
        for reader in self.readers:
            after = reader.ended_at - self.killed_at
            if after > stage.lease + stage.slack:
                stage.faults.add(f"{name}: lost, told after {after:.1f} s")
        lines = [said.line for worker in stage.workers for said in worker.said]
        if (found := lines.count(f"lost {name}")) != 1:
            stage.faults.add(f"{name}: found lost by {found} workers")

    def told_after(self, status: str, since: float) -> list[float]:
        """Return how long after a time readers have received that it has ended."""
        if not since:
            return []
        ended = [it.ended_at for it in self.readers if it.course.end == status]
        return [ended_at - since for ended_at in ended]

    def ended_after(self, since: float) -> list[float]:
        """Return how long after a time its owner has ended it."""
        lines = [said for said in self.owner.said if since and said.at > since]
        name = self.log.name
        return [it.at - since for it in lines if it.line == f"ended {name} cancelled"]


class Runs:
    """Starts runs, attaches readers to them, and cancels some.

    Args:
        prefix: What the names of all runs begin with.
        stage: The workers to choose from.
        readers: Number of readers of each run.
        events: Number of events of a run, at most.
        stop_at_end: Whether clients do not come back when they have received the end.

    Attributes:
        runs: The runs so far.
        tasks: The readers, and what starts and cancels runs.
        starts: Whether another run is to be started.
    """

    def __init__(
        self, prefix: str, stage: Stage, readers: int, events: int, *, stop_at_end: bool
    ) -> None:
        self.runs: list[Run] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.starts = True
        self._prefix = prefix
        self._stage = stage
        self._readers = readers
        self._events = events
        self._stop_at_end = stop_at_end

    @property
    def readers(self) -> list[Client]:
        return [reader for run in self.runs for reader in run.readers]

    def start(self) -> None:
        """Start another run, unless it was said to start none."""
        if self.starts:
            self._begin(self._play(f"{self._prefix}-run{len(self.tasks)}"))

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(coroutine))

    async def _play(self, name: str) -> None:
        stage, chance = self._stage, self._stage.randomness
        events, pause = chance.randrange(10, self._events), PAUSE
        if chance.random() < 0.2:
            # It is silent for so long that only heartbeats renew its lease.
            events, pause = 2, PAUSE * self._events / 2
        owner = stage.any_worker
        try:
            await owner.request("POST", f"/runs/{name}?events={events}&pause={pause}")
        except UNAVAILABLE:
            return  # it may be running, and nobody reads it
        run = Run(Log(name, stage.faults), owner, events)
        self.runs.append(run)
        for number in range(self._readers):
            course = Course(f"reader {number} of {name}", [run.log], stage.faults)
            client = Client(course, f"/runs/{name}", stage)
            client.stops_at_end = self._stop_at_end
            run.readers.append(client)
            self._begin(client.run())
        if chance.random() < 0.4:
            await asyncio.sleep(chance.uniform(0.1, pause * events))
            await self._cancel(run)

    async def _cancel(self, run: Run) -> None:
        while True:
            began = time.perf_counter()
            try:
                path = f"/runs/{run.log.name}/cancel"
                is_running = await self._stage.any_worker.request("POST", path)
            except UNAVAILABLE:
                await asyncio.sleep(0.05)
            else:
                run.cancelled_at = began if is_running else 0.0
                return

    def note_kill(self, worker: Worker) -> None:
        """Note that a worker is killed now."""
        for run in self.runs:
            if run.owner is worker and not run.log.ends and not run.killed_at:
                run.killed_at = time.perf_counter()
