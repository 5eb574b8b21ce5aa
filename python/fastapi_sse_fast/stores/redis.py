"""A store in Redis or Valkey, for any number of processes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .._core import split_events
from ..errors import RunExists, StoreError
from ._redis.connection import settings
from ._redis.limits import RedisLimits, milliseconds
from ._redis.link import Link
from ._redis.listener import Listener
from ._redis.mirror import Mirror
from ._redis.writer import Writer
from .memory import NOT_OPEN, new_epoch
from .store import Position, RunInfo
from .tasks import StoreTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from redis.asyncio.connection import AbstractConnection
    from typing_extensions import Self

    from .._core import EventLog
    from .store import History, IfRunning, RunTerms
    from .tasks import RunTask


class RedisStats(NamedTuple):
    """The store in this process, as `RedisStore.stats` returns it.

    Attributes:
        connected: Whether there is a connection for commands now.
        connects: Number of connections so far. There are two at a time.
        logs: Number of channels and runs that are read here.
        runs: Number of runs that were started here and have not ended.
        commands: Number of commands so far.
        round_trips: Number of batches so far in which these commands were sent.
        compares: Number of times so far that a log was compared with the server.
    """

    connected: bool
    connects: int
    logs: int
    runs: int
    commands: int
    round_trips: int
    compares: int


class RedisStore:
    """A store in Redis or Valkey, for any number of processes.

        store = RedisStore.from_url("redis://localhost")
        channels = Channels(store)
        app = FastAPI(lifespan=store.lifespan)

    Install it with `pip install "fastapi_sse_fast[redis]"`. It needs Redis 6.2 or
    later, or Valkey, and runs on asyncio. Each process has two connections, however
    many channels, runs and subscribers there are.

    Args:
        client: A client of redis-py, such as `Redis(...)` or
            `Sentinel(...).master_for(...)`. The store uses its settings, except for
            timeouts and the protocol, but not its connections.
        prefix: What the names of all keys begin with. Applications that use the same
            Redis need different ones, also if they use different databases.
    """

    def __init__(self, client: Redis, *, prefix: str = "sse:") -> None:
        if not isinstance(client, Redis):
            raise TypeError(f"a store needs a redis.asyncio.Redis, not {client!r}")
        self._pool = client.connection_pool
        self._prefix = prefix
        self._id = new_epoch()
        self._running_set = f"{prefix}runs".encode()
        self._worker = f"{prefix}worker:{self._id}".encode()
        self._limits = RedisLimits()
        self._tasks: StoreTasks | None = None
        self._link: Link
        self._listener: Listener
        self._mirrors: dict[tuple[bytes, str], Mirror] = {}
        self._writers: dict[str, Writer] = {}
        self._lost_hooks: list[Callable[[str], Awaitable[object]]] = []
        self._compares = 0
        self._tokens = 0

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "sse:", **options: Any) -> Self:
        """Return a store.

        Args:
            url: Such as `redis://localhost:6379/0`, or `rediss://` for TLS, or
                `unix://`. With a user and password, `redis://user:password@host`.
            prefix: What the names of all keys begin with.
            **options: As in `redis.asyncio.Redis.from_url`.
        """
        return cls(Redis.from_url(url, **options), prefix=prefix)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Open the store while an application runs. Pass this as its `lifespan`."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            StoreError: Redis is not available.
            RuntimeError: It is open already.
        """
        if self._tasks is not None:
            raise RuntimeError("the store is open already")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("RedisStore runs on asyncio, not on trio") from None
        limits = self._limits
        self._link = Link(
            self._connection,
            limits,
            self._running_set,
            self._compare_all,
            self._beat_writers,
        )
        self._listener = Listener(
            self._connection,
            limits,
            self._link,
            self._worker,
            self._hear,
            self._compare_all,
        )
        tasks = await StoreTasks(after_runs=self._read_ends).__aenter__()
        tasks.start(self._link.run)
        tasks.start(self._listener.run)
        try:
            await self._link.ready()
            await self._listener.ready()
        except BaseException as error:
            await tasks.__aexit__(type(error), error, error.__traceback__)
            raise
        self._tasks = tasks
        tasks.start(self._beat)
        tasks.start(self._compare_due)
        tasks.start(self._sweep)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the runs of this process, and close the connections."""
        tasks = self._open_tasks()
        try:
            await tasks.__aexit__(kind, error, traceback)
        finally:
            self._tasks = None
            mirrors, self._mirrors = self._mirrors, {}
            for mirror in mirrors.values():
                if mirror.log is not None:
                    mirror.log.end()
            self._writers.clear()

    async def _read_ends(self) -> None:
        """Let streams of runs have the last events, which are still on their way."""
        with anyio.move_on_after(self._limits.last_read):
            async with anyio.create_task_group() as tasks:
                for mirror in self._mirrors.values():
                    if mirror.run and mirror.seconds_unused == 0.0:
                        tasks.start_soon(mirror.compare)

    def _connection(self) -> AbstractConnection:
        """Make a connection like those of the client, with timeouts of the store."""
        connection: AbstractConnection = self._pool.connection_class(
            **settings(
                self._pool,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,
                socket_connect_timeout=self._limits.connect_timeout,
            )
        )
        return connection

    def stats(self) -> RedisStats:
        """Return the numbers of connections, logs and commands of this process."""
        self._open_tasks()
        return RedisStats(
            connected=self._link.is_ready,
            connects=self._link.connects + self._listener.connects,
            logs=len(self._mirrors),
            runs=len(self._writers),
            commands=self._link.calls,
            round_trips=self._link.batches,
            compares=self._compares + sum(m.compares for m in self._mirrors.values()),
        )

    def start_task(self, function: Callable[..., Any], *args: Any) -> None:
        """Run an async function in a task that is cancelled with the store."""
        self._open_tasks().start(function, *args)

    def start_run_task(self, run: RunTask) -> None:
        """Run a run in a task. It is shut down when the store is closed."""
        self._open_tasks().start_run(run)

    def on_lost(self, function: Callable[[str], Awaitable[object]]) -> None:
        """Add a function to call with the name of a run that was found lost here."""
        self._lost_hooks.append(function)

    def _open_tasks(self) -> StoreTasks:
        if self._tasks is None:
            raise RuntimeError(NOT_OPEN)
        return self._tasks

    def _key(self, name: str) -> bytes:
        return f"{self._prefix}{{{name}}}".encode("utf-8", "surrogatepass")

    def _name(self, key: bytes) -> str:
        return key.decode("utf-8", "surrogatepass")[len(self._prefix) + 1 : -1]

    async def _call(self, operation: str, key: bytes, *args: Any) -> Any:
        self._open_tasks()
        return await self._link.call(operation, key, *args)

    async def _call_run(self, operation: str, key: bytes, *args: Any) -> Any:
        """Do an operation on a run. If the run has to end before, wait for that."""
        while True:
            answer = await self._call(operation, key, *args)
            if answer[0] != b"wait":
                return answer
            await asyncio.sleep(self._limits.wait_interval)

    # Channels

    async def log(
        self, name: str, history: History, after: Position | None = None
    ) -> EventLog:
        """Return a log, to read it. If there is none, make it."""
        log = await self._mirror(self._key(name), "", history).reach(after)
        assert log is not None  # the server makes it
        return log

    async def position(self, name: str, history: History) -> Position:
        """Return the position of the newest event of a log."""
        epoch, top, *_ = await self._call(
            "read", self._key(name), milliseconds(history.ttl), "", "", "", 0, 0
        )
        return Position(epoch.decode(), int(top))

    async def append(
        self, name: str, frames: bytes, history: History, dedupe: str | None
    ) -> Position:
        """Append events to a log, and return the position of the last one."""
        events, _ = split_events(frames)
        key = self._key(name)
        epoch, offset = await self._call(
            "append",
            key,
            history.events,
            milliseconds(history.ttl),
            "" if dedupe is None else f":{dedupe}",
            *events,
        )
        position = Position(epoch.decode(), int(offset))
        if (mirror := self._mirrors.get((key, ""))) is not None:
            mirror.note_published(position)
        return position

    def _mirror(self, key: bytes, run: str, history: History) -> Mirror:
        self._open_tasks()
        mirror = self._mirrors.get((key, run))
        if mirror is not None and mirror.has_failed:
            self._close_mirror(mirror)
            mirror = None
        if mirror is None:
            mirror = self._mirrors[key, run] = Mirror(
                self._link,
                self._listener,
                self._limits,
                key,
                run,
                history,
                self._lost,
            )
        return mirror

    def _close_mirror(self, mirror: Mirror) -> None:
        del self._mirrors[mirror.key, mirror.run]
        self._compares += mirror.compares
        mirror.close()

    # Runs

    async def start_run(
        self, name: str, terms: RunTerms, if_running: IfRunning
    ) -> RunInfo:
        """Start a run, or find the one that is running."""
        key = self._key(name)
        owner = f"{self._id}:{new_epoch()}"
        self._open_tasks()
        try:
            kind, *rest = await self._call_run(
                "start",
                key,
                owner,
                self._worker,
                if_running,
                milliseconds(terms.lease),
                milliseconds(terms.history.ttl),
                *terms.lost,
            )
        except BaseException:
            # It may have been started, and nobody would write it.
            self._link.submit("abandon", key, owner)
            raise
        if kind == b"exists":
            raise RunExists(name)
        id, epoch, top = rest[0].decode(), rest[1].decode(), int(rest[2])
        if rest[3] == b"1":
            self._lost(key)
        writer = None
        if kind == b"new":
            writer = self._writers[id] = Writer(
                self._link,
                self._limits,
                key,
                id,
                owner,
                self._worker,
                terms,
                self._forget,
            )
        return RunInfo(id, Position(epoch, top), "running", writer)

    def _forget(self, writer: Writer) -> None:
        self._writers.pop(writer.id, None)

    async def run(self, name: str) -> RunInfo | None:
        """Return a run, if there is one that has not expired."""
        key = self._key(name)
        while True:
            status, id, epoch, top, is_lost = await self._call_run("status", key)
            if epoch or not self._may_be_restored:
                break
            await asyncio.sleep(self._limits.wait_interval)
        if is_lost == b"1":
            self._lost(key)
        if not epoch:
            return None
        return RunInfo(id.decode(), Position(epoch.decode(), int(top)), status.decode())

    @property
    def _may_be_restored(self) -> bool:
        """Whether another process may be about to restore a run.

        It does so as soon as it is connected to the server that has taken over.
        """
        since = time.monotonic() - self._link.replaced_at
        return since < 2 * self._limits.longest_backoff

    async def run_log(
        self, name: str, id: str, history: History, after: Position
    ) -> EventLog | None:
        """Return the log of a run, to read it, if it has not expired."""
        return await self._mirror(self._key(name), id, history).reach(after)

    async def cancel_run(self, name: str) -> bool:
        """Ask the process of a run to end it. Return whether it is running."""
        key = self._key(name)
        running, is_lost = await self._call_run("cancel", key)
        if is_lost == b"1":
            self._lost(key)
        return bool(running == b"1")

    def _lost(self, key: bytes) -> None:
        for hook in self._lost_hooks:
            self.start_task(hook, self._name(key))

    # What is due

    def _hear(self, message: bytes) -> None:
        """Do what is told to this process alone."""
        kind, _, id = message.partition(b" ")
        writer = self._writers.get(id.decode("utf-8", "replace"))
        if kind == b"cancel" and writer is not None:
            writer.ask_to_end("cancelled")

    def _compare_all(self) -> None:
        """Have all logs compared with the server: messages may have been lost.

        The server may be another one, too, so runs show it that they have an owner.
        """
        for mirror in self._mirrors.values():
            mirror.compare_at = 0.0
        self._beat_writers()

    def _beat_writers(self) -> None:
        """Have runs try again what was refused, or learn that the store is closed."""
        for writer in list(self._writers.values()):
            writer.beat(now=True)

    async def _beat(self) -> None:
        """Do what is due and waits for nothing."""
        while True:
            await asyncio.sleep(self._limits.tick)
            self._link.give_up_late()
            for writer in list(self._writers.values()):
                writer.beat()
            for mirror in list(self._mirrors.values()):
                if mirror.seconds_unused > self._limits.mirror_unused:
                    self._close_mirror(mirror)

    async def _compare_due(self) -> None:
        """Compare logs with the server whose time has come."""
        while True:
            await asyncio.sleep(self._limits.tick)
            now = time.monotonic()
            async with anyio.create_task_group() as tasks:
                for mirror in self._mirrors.values():
                    mirror.note_hearing()
                    # A log that is being opened may have to wait for its subscription,
                    # and the others must not wait for it.
                    is_due = mirror.compare_at <= now and not mirror.is_busy
                    if is_due and self._link.is_ready:
                        tasks.start_soon(mirror.compare)

    async def _sweep(self) -> None:
        """Find runs whose process has died and that nobody reads."""
        interval = self._limits.sweep_interval
        lock = milliseconds(0.9 * interval)
        while True:
            with contextlib.suppress(StoreError):
                keys = await self._link.call(
                    "sweep", self._running_set, self._worker, lock
                )
                async with anyio.create_task_group() as tasks:
                    for key in keys:
                        tasks.start_soon(self._check, key)
            await asyncio.sleep(interval)

    async def _check(self, key: bytes) -> None:
        with contextlib.suppress(StoreError):
            await self.run(self._name(key))
