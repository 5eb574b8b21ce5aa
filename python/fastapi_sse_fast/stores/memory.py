"""The store that is built in: logs in the memory of one process."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import string
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import anyio

from .._core import EventLog
from ..errors import RunExists
from .store import History, RunInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from anyio.abc import TaskGroup
    from typing_extensions import Self

    from .store import IfRunning

_BASE62 = string.digits + string.ascii_letters


def new_epoch() -> str:
    """Return a name for a new life of a log."""
    return "".join(secrets.choice(_BASE62) for _ in range(8))


class _Kept:
    """A log, and what the store knows of it."""

    __slots__ = (
        "cancel_with",
        "dedupe",
        "ended",
        "history",
        "is_cancelled",
        "log",
        "status",
        "used_at",
    )

    def __init__(self, log: EventLog, history: History, status: str) -> None:
        self.log = log
        self.history = history
        self.used_at = time.monotonic()
        # Ids by the key they were published with.
        self.dedupe: OrderedDict[str, str] = OrderedDict()
        # Of a run.
        self.status = status
        self.cancel_with: Callable[[], None] | None = None
        self.is_cancelled = False
        self.ended = anyio.Event()

    def cancel(self) -> None:
        self.is_cancelled = True
        if self.cancel_with is not None:
            self.cancel_with()

    def is_expired(self, now: float) -> bool:
        unused = min(now - self.used_at, self.log.seconds_unread)
        return self.status != "running" and unused > self.history.ttl


class MemoryStore:
    """A store in the memory of one process.

    Open it with the application:

        store = MemoryStore()
        app = FastAPI(lifespan=store.lifespan)

    If the application has a lifespan already, use `async with store:` in it.

    Several workers share nothing, and closing the store cancels all runs and forgets
    everything.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._tasks: TaskGroup | None = None
        self._call_soon: Callable[..., Any] | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Open the store while an application runs: the lifespan of an application."""
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
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._sweep)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel all runs, and forget everything."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        tasks.cancel_scope.cancel()
        try:
            await tasks.__aexit__(kind, error, traceback)
        finally:
            self._call_soon = None
            kept, self._kept = self._kept, {}
            for one in kept.values():
                one.log.end()

    def start_task(self, function: Callable[..., Any], *args: Any) -> None:
        """Run an async function in a task that ends with the store."""
        self._open_tasks().start_soon(function, *args)

    def _open_tasks(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError(
                "the store is not open: pass `lifespan=store.lifespan` to FastAPI, or "
                "use `async with store:` in your own lifespan"
            )
        return self._tasks

    async def _sweep(self) -> None:
        """Drop logs whose time has come."""
        while True:
            shortest = min(
                (kept.history.ttl for kept in self._kept.values()), default=60.0
            )
            await anyio.sleep(min(max(shortest / 4, 0.05), 60.0))
            now = time.monotonic()
            for name in [n for n, k in self._kept.items() if k.is_expired(now)]:
                del self._kept[name]

    # Logs

    def _find(self, name: str) -> _Kept | None:
        self._open_tasks()
        kept = self._kept.get(name)
        if kept is not None and kept.is_expired(time.monotonic()):
            del self._kept[name]
            return None
        return kept

    def _new(self, name: str, history: History, status: str = "") -> _Kept:
        call_soon = self._call_soon
        assert call_soon is not None
        log = EventLog(new_epoch(), most=history.events, call_soon=call_soon)
        kept = self._kept[name] = _Kept(log, history, status)
        return kept

    async def log(self, name: str, history: History) -> EventLog:
        """Return a log, to read it; a new one if there is none."""
        kept = self._find(name) or self._new(name, history)
        kept.used_at = time.monotonic()
        return kept.log

    async def append(
        self, name: str, frames: bytes, history: History, dedupe: str | None
    ) -> str:
        """Append events to a log, and return the position of the last one."""
        kept = self._find(name) or self._new(name, history)
        if dedupe is not None and dedupe in kept.dedupe:
            return kept.dedupe[dedupe]
        position = kept.log.position(kept.log.append(frames))
        kept.used_at = time.monotonic()
        if dedupe is not None:
            kept.dedupe[dedupe] = position
            if len(kept.dedupe) > history.events:
                kept.dedupe.popitem(last=False)
        return position

    # Runs

    async def start_run(
        self, name: str, history: History, if_running: IfRunning
    ) -> RunInfo:
        """Start a run, or find the one that is running."""
        while (kept := self._find(name)) is not None and kept.status == "running":
            if if_running == "reject":
                raise RunExists(name)
            if if_running == "attach":
                return RunInfo(kept.log, kept.status, is_new=False)
            kept.cancel()
            await kept.ended.wait()
        kept = self._new(name, history, "running")
        return RunInfo(kept.log, kept.status, is_new=True)

    async def run(self, name: str) -> RunInfo | None:
        """Return a run, if there is one that has not expired."""
        kept = self._find(name)
        return None if kept is None else RunInfo(kept.log, kept.status, is_new=False)

    async def cancel_run(self, name: str) -> bool:
        """Ask the owner of a run to end it. Return whether it is running."""
        kept = self._find(name)
        if kept is None or kept.status != "running":
            return False
        kept.cancel()
        return True

    def own_run(self, name: str, info: RunInfo, cancel: Callable[[], None]) -> None:
        """Have a run that was started here cancelled by `cancel`."""
        kept = self._kept.get(name)
        if kept is not None and kept.log is info.log:
            kept.cancel_with = cancel
            if kept.is_cancelled:
                cancel()

    async def end_run(
        self, name: str, info: RunInfo, status: str, frame: bytes, without_id: bytes
    ) -> None:
        """End a run with its last event."""
        info.log.end(frame, without_id=without_id)
        kept = self._kept.get(name)
        if kept is not None and kept.log is info.log and kept.status == "running":
            kept.status = status
            kept.cancel_with = None
            kept.used_at = time.monotonic()
            kept.ended.set()


def _call_soon() -> Callable[..., Any]:
    """Return what schedules a function in the event loop that runs this."""
    try:
        return asyncio.get_running_loop().call_soon
    except RuntimeError:
        from trio.lowlevel import current_trio_token

        return current_trio_token().run_sync_soon
