"""What publishes to channels."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

from fastapi_sse_fast import ServerSentEvent, StoreError
from fastapi_sse_fast.stores import SyncRedisStore

from .app import PADDING
from .courses import Log, parsed
from .stage import PATIENCE, Stage
from .workers import UNAVAILABLE


class Publisher:
    """Publishes numbered events to a channel, one after the other.

    Args:
        name: Its name, which is in every event.
        log: The channel.
        stage: The workers to choose from.
        store: What publishes instead of a worker.
        padded: Number of paddings in each event, of 20 kB each.

    Attributes:
        sent_at: When each event was published.
        unknown: Number of events that may or may not be in the store.
    """

    def __init__(
        self,
        name: str,
        log: Log,
        stage: Stage,
        store: SyncRedisStore | None,
        padded: int,
    ) -> None:
        self.log = log
        self.sent_at: dict[int, float] = {}
        self.unknown = 0
        self._name = name
        self._stage = stage
        self._store = store
        self._padded = padded

    async def publish(self, type: str) -> None:
        """Publish the next event, and note its position."""
        number = len(self.sent_at) + 1
        self.sent_at[number] = time.perf_counter()
        if self._store is not None:
            loop, threads = asyncio.get_running_loop(), self._stage.threads
            id = await loop.run_in_executor(threads, self._publish, number, type)
        else:
            id = await self._ask(number, type)
        if id is None:
            self.unknown += 1
            return
        [position] = parsed(id)
        self.log.acknowledge(position, type, json.dumps(self._data(number)))

    def _data(self, number: int) -> list[str | int]:
        return [self._name, number, *[PADDING] * self._padded]

    def _publish(self, number: int, type: str) -> str | None:
        event = ServerSentEvent(event=type, data=self._data(number))
        assert self._store is not None
        try:
            return self._store.publish(
                self.log.name, event, history=self._stage.history
            )
        except StoreError:
            return None

    async def _ask(self, number: int, type: str) -> str | None:
        """Ask one worker after the other, because any of them may die meanwhile."""
        path = (
            f"/events/{self.log.name}?publisher={self._name}&number={number}"
            f"&type={type}&padded={self._padded}"
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(*UNAVAILABLE):
                id: str = await self._stage.any_worker.request("POST", path)
                return id
            await asyncio.sleep(0.05)
        return None
