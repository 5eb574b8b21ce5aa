"""One performance at a time, for all pages that are open.

Two races at once would disturb each other, and a scene would disturb a race.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from .. import EncodedEvent

Events = AsyncGenerator[EncodedEvent, None]


class Stage:
    """Run performances one after the other.

    A page that asks for a running or waiting performance joins it, and gets all its
    events from the first one. A performance that no page watches any more is stopped.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._performances: dict[str, _Performance] = {}

    async def watch(self, name: str, begin: Callable[[], Events]) -> Events:
        """Yield the events of a performance.

        Args:
            name: Only one performance of a name runs or waits.
            begin: Called if there is none of this name.
        """
        performance = self._performances.get(name)
        if performance is None or performance.task.done():
            performance = _Performance(begin, self._turn)
            self._performances[name] = performance
        performance.watchers += 1
        try:
            seen = 0
            while True:
                changed, over = performance.changed, performance.task.done()
                while seen < len(performance.events):
                    seen += 1
                    yield performance.events[seen - 1]
                if over:
                    performance.task.result()  # or its exception
                    return
                await changed.wait()
        finally:
            performance.watchers -= 1
            if not performance.watchers:
                if self._performances.get(name) is performance:
                    del self._performances[name]
                performance.task.cancel()
                await asyncio.wait([performance.task])


class _Performance:
    """Events as they come, and all those before."""

    def __init__(self, begin: Callable[[], Events], turn: asyncio.Lock) -> None:
        self.watchers = 0
        self.events: list[EncodedEvent] = []
        self.changed = asyncio.Event()
        self.task = asyncio.create_task(self._run(begin, turn))
        self.task.add_done_callback(lambda _: self._change())

    async def _run(self, begin: Callable[[], Events], turn: asyncio.Lock) -> None:
        if turn.locked():
            self._add(EncodedEvent(event="waiting"))
        async with turn, aclosing(begin()) as events:
            async for event in events:
                self._add(event)

    def _add(self, event: EncodedEvent) -> None:
        self.events.append(event)
        self._change()

    def _change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
