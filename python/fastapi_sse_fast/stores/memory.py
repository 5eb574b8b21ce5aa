"""A store in the memory of one process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import string
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from .._core import EventLog
from ..errors import RunExists
from .store import Position, RunInfo
from .tasks import StoreTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from typing_extensions import Self

    from .store import History, IfRunning, LastEvent, RunStatus, RunTerms
    from .tasks import RunTask

TURNS = 4
"""Turns of the event loop in which a stream that was woken sends what it has."""

_BASE62 = string.digits + string.ascii_letters


def new_epoch() -> str:
    """Return a name for a new life of a log, of eight characters."""
    number = int.from_bytes(os.urandom(8), "big")
    digits = []
    for _ in range(8):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(digits)


class _Kept:
    """A log, and what the store knows of it."""

    __slots__ = ("dedupe", "ended", "history", "log", "status", "used_at", "writer")

    def __init__(self, log: EventLog, history: History) -> None:
        self.log = log
        self.history = history
        self.used_at = time.monotonic()
        # Positions by the key that the event was published with.
        self.dedupe: OrderedDict[str, Position] = OrderedDict()
        # Of a run.
        self.status: RunStatus = "done"
        self.writer: _Writer | None = None
        self.ended = anyio.Event()

    @property
    def position(self) -> Position:
        return Position(self.log.epoch, self.log.top)

    def is_expired(self, now: float) -> bool:
        unused = min(now - self.used_at, self.log.seconds_unread)
        return self.status != "running" and unused > self.history.ttl


class _Writer:
    """Appends the events of a run."""

    def __init__(self, kept: _Kept) -> None:
        self._kept = kept
        self._on_end: Callable[[RunStatus], None] | None = None
        self._is_cancelled = False

    def append(self, frames: bytes) -> None:
        self._kept.log.append(frames)

    @property
    def events(self) -> int:
        return self._kept.log.top

    async def drain(self) -> None:
        pass

    async def end(self, status: RunStatus, last: LastEvent) -> RunStatus:
        kept = self._kept
        if kept.status == "running":
            kept.log.end(last.frame, without_id=last.without_id)
            kept.status = status
            kept.used_at = time.monotonic()
            kept.writer = self._on_end = None
            kept.ended.set()
        return kept.status

    def on_end(self, function: Callable[[RunStatus], None]) -> None:
        self._on_end = function
        if self._is_cancelled:
            function("cancelled")

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._on_end is not None:
            self._on_end("cancelled")


class MemoryStore:
    """A store in the memory of one process.

    Open it with the application:

        store = MemoryStore()
        app = FastAPI(lifespan=store.lifespan)

    If the application has a lifespan already, use `async with store:` in it.

    Workers do not share anything. Closing the store ends all runs and forgets
    everything.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        # Runs by their names and ids, after another run of the name was started.
        self._replaced: dict[tuple[str, str], _Kept] = {}
        self._tasks: StoreTasks | None = None
        self._call_soon: Callable[..., Any] | None = None
        self._is_used: anyio.Event  # set when there is a log

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Open the store while an application runs. Pass this as its `lifespan`."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            RuntimeError: It is open already.
        """
        if self._tasks is not None:
            raise RuntimeError("the store is open already")
        self._call_soon = _call_soon()
        self._is_used = anyio.Event()
        self._tasks = await StoreTasks().__aenter__()
        self._tasks.start(self._sweep)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all runs, and forget everything."""
        tasks = self._open_tasks()
        try:
            await tasks.__aexit__(kind, error, traceback)
        finally:
            self._tasks = self._call_soon = None
            kept = [*self._kept.values(), *self._replaced.values()]
            self._kept, self._replaced = {}, {}
            for one in kept:
                one.log.end()

    def start_task(self, function: Callable[..., Any], *args: Any) -> None:
        """Run an async function in a task that is cancelled with the store."""
        self._open_tasks().start(function, *args)

    def start_run_task(self, run: RunTask) -> None:
        """Run a run in a task. It is shut down when the store is closed."""
        self._open_tasks().start_run(run)

    def on_lost(self, function: Callable[[str], Awaitable[object]]) -> None:
        """Do nothing: a run never outlives this store, so none can be lost."""

    def _open_tasks(self) -> StoreTasks:
        if self._tasks is None:
            raise RuntimeError(NOT_OPEN)
        return self._tasks

    async def _sweep(self) -> None:
        """Drop logs whose time has come."""
        while True:
            if not self._kept:
                self._is_used = anyio.Event()
                await self._is_used.wait()
            shortest = min(kept.history.ttl for kept in self._kept.values())
            await anyio.sleep(min(max(shortest / 4, 0.05), 60.0))
            _drop_expired(self._kept)
            _drop_expired(self._replaced)

    def _find(self, name: str) -> _Kept | None:
        self._open_tasks()
        kept = self._kept.get(name)
        if kept is not None and kept.is_expired(time.monotonic()):
            del self._kept[name]
            return None
        return kept

    def _new(self, name: str, history: History) -> _Kept:
        call_soon = self._call_soon
        assert call_soon is not None
        log = EventLog(new_epoch(), most=history.events, call_soon=call_soon)
        kept = self._kept[name] = _Kept(log, history)
        self._is_used.set()
        return kept

    # Channels

    async def log(
        self, name: str, history: History, after: Position | None = None
    ) -> EventLog:
        """Return a log, to read it. If there is none, make it."""
        kept = self._find(name) or self._new(name, history)
        kept.used_at = time.monotonic()
        return kept.log

    async def position(self, name: str, history: History) -> Position:
        """Return the position of the newest event of a log."""
        await self.log(name, history)
        return self._kept[name].position

    async def append(
        self, name: str, frames: bytes, history: History, dedupe: str | None
    ) -> Position:
        """Append events to a log, and return the position of the last one."""
        kept = self._find(name) or self._new(name, history)
        if dedupe is not None and dedupe in kept.dedupe:
            return kept.dedupe[dedupe]
        kept.log.append(frames)
        position = kept.position
        kept.used_at = time.monotonic()
        if dedupe is not None:
            kept.dedupe[dedupe] = position
            if len(kept.dedupe) > history.events:
                kept.dedupe.popitem(last=False)
        await _let_readers_run(kept.log, position.offset - history.events // 2)
        return position

    # Runs

    async def start_run(
        self, name: str, terms: RunTerms, if_running: IfRunning
    ) -> RunInfo:
        """Start a run, or find the one that is running."""
        while (kept := self._find(name)) is not None and kept.writer is not None:
            if if_running == "reject":
                raise RunExists(name)
            if if_running == "attach":
                return RunInfo(kept.log.epoch, kept.position, kept.status)
            kept.writer.cancel()
            await kept.ended.wait()
        if kept is not None:
            # Its readers may still come.
            self._replaced[name, kept.log.epoch] = kept
        kept = self._new(name, terms.history)
        kept.status = "running"
        kept.writer = _Writer(kept)
        return RunInfo(kept.log.epoch, kept.position, kept.status, kept.writer)

    async def run(self, name: str) -> RunInfo | None:
        """Return a run, if there is one that has not expired."""
        kept = self._find(name)
        return (
            None
            if kept is None
            else RunInfo(kept.log.epoch, kept.position, kept.status)
        )

    async def run_log(
        self, name: str, id: str, history: History, after: Position
    ) -> EventLog | None:
        """Return the log of a run, to read it, if it has not expired."""
        kept = self._find(name)
        if kept is None or kept.log.epoch != id:
            kept = self._replaced.get((name, id))
        if kept is None or kept.is_expired(time.monotonic()):
            return None
        return kept.log

    async def cancel_run(self, name: str) -> bool:
        """Ask the process of a run to end it. Return whether it is running."""
        kept = self._find(name)
        if kept is None or kept.writer is None:
            return False
        kept.writer.cancel()
        return True


NOT_OPEN = (
    "the store is not open: pass `lifespan=store.lifespan` to FastAPI, or use `async "
    "with store:` in your own lifespan"
)


def _drop_expired(logs: dict[Any, _Kept]) -> None:
    now = time.monotonic()
    for name in [name for name, kept in logs.items() if kept.is_expired(now)]:
        del logs[name]


async def _let_readers_run(log: EventLog, offset: int) -> None:
    """Let the readers of a log run until they have the event at an offset.

    A publisher does not wait for clients. But readers need turns of the event loop to
    keep up with a publisher that waits for nothing else.
    """
    if log.top - log.undelivered >= offset:
        return
    while log.top - log.undelivered < offset:
        await anyio.lowlevel.checkpoint()
    # Streams that could not send at once have been woken, and need some turns, too.
    for _ in range(TURNS):
        await anyio.lowlevel.checkpoint()


def _call_soon() -> Callable[..., Any]:
    """Return what schedules a function in the event loop that runs this."""
    try:
        return asyncio.get_running_loop().call_soon
    except RuntimeError:
        from trio.lowlevel import current_trio_token

        return current_trio_token().run_sync_soon
