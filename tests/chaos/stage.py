"""A server and its workers, on which faults are played."""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from typing_extensions import Self

from fastapi_sse_fast.stores import SyncRedisStore
from tests.soak.watch import Faults
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer

from .app import Settings
from .workers import Worker

PREFIX = "sse:"

PATIENCE = 30.0
"""Seconds in which everything must be well again after a fault."""


class Stage:
    """A server and workers that share it.

    Args:
        server: The server.
        faults: List of the faults that are found.
        randomness: Chooses what happens.
        workers: Number of workers.
        history: Number of events that channels keep.
        lease: Seconds until a run is lost.
        proxy: What the workers connect to instead of the server.
        slack: Seconds, in addition to the lease, in which readers of a run must know
            that it is lost.

    Attributes:
        gate: Clients wait here before they connect.
        store: What publishes without a worker.
        threads: Where it does. These threads wait while the server is away.
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
        url = (proxy or server).url
        settings = Settings(url, 0, history, lease, 0.0)
        self.workers = [Worker(number, settings) for number in range(workers)]
        self.gate = asyncio.Event()
        self.gate.set()
        self.store = SyncRedisStore.from_url(url)
        self.threads = ThreadPoolExecutor(max_workers=32)
        self._tasks = 0

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(worker.start() for worker in self.workers))
        except BaseException:
            await asyncio.gather(*(worker.kill() for worker in self.workers))
            raise
        self._tasks = max([(await it.state())["tasks"] for it in self.workers])
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.gather(*(worker.terminate() for worker in self.workers))
        self.threads.shutdown()
        self.store.close()
        for worker in self.workers:
            if worker.log:
                lines = "".join(worker.log[:60])
                self.faults.add(f"in the log of a worker:\n{lines}")

    @property
    def any_worker(self) -> Worker:
        return self.randomness.choice(self.workers)

    async def wait(self, condition: Any, what: str) -> None:
        """Wait for a condition. If it does not come true, that is a fault."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                self.faults.add(f"{what}: not after {PATIENCE} seconds")
                break
            await asyncio.sleep(0.01)

    async def check_nothing_left(self) -> None:
        """Check that nothing is left of all that was read and run."""
        deadline = time.monotonic() + PATIENCE
        with self.server.client() as client:
            while wrong := await self._left(client):
                if time.monotonic() > deadline:
                    for what in wrong:
                        self.faults.add(f"left: {what}")
                    break
                await asyncio.sleep(0.2)

    async def _left(self, client: redis.Redis) -> list[str]:
        wrong = []
        channels: Any = client.pubsub_channels()
        if len(channels) != len(self.workers):
            wrong.append(f"channels {channels}")
        connections = [
            (each["addr"], each["cmd"])
            for each in client.client_list()
            if each["id"] != str(client.client_id()) and each["flags"] in ("N", "P")
        ]
        if len(connections) > 2 * len(self.workers) + 1:  # the last is `self.store`
            wrong.append(f"connections {connections}")
        running: Any = client.smembers(f"{PREFIX}runs")
        for key in running:
            # If its end was lost, it is running until somebody asks for it.
            name = key.decode().rpartition(":")[2].rstrip("}")
            await self.any_worker.request("GET", f"/runs/{name}/status")
            wrong.append(f"run {name}")
        keys: Any = client.keys(f"{PREFIX}*")
        wrong += [f"{key} has no end" for key in keys if client.ttl(key) == -1]
        for worker in self.workers:
            state = await worker.state()
            in_use = ("subscribers", "readers", "running", "logs", "runs")
            if any(state[name] for name in in_use) or state["tasks"] > self._tasks:
                wrong.append(f"{state}, and not {self._tasks} tasks")
        return wrong
