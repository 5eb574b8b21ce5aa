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

TICK = 0.25
"""Seconds between two looks at what is due."""

MIRROR_UNUSED = 10.0
"""Seconds that a log is kept in this process after its last reader."""

SWEEP_INTERVAL = 15.0
"""Seconds between two searches for runs whose process has died, by any process."""

REPLACE_INTERVAL = 0.05
"""Seconds between two looks at whether a run that is to be replaced has ended."""

MOST_COMPARES = 64
"""Logs that are compared with the server at the same time."""


class RedisStats(NamedTuple):
    """The store in this process, as `RedisStore.stats` returns it.

    Attributes:
        connected: Whether there is a connection for commands now.
        connects: Number of connections so far. There are two at a time.
        logs: Number of channels and runs that are read here.
        runs: Number of runs that were started here and have not ended.
        commands: Number of commands so far.
        round_trips: Number of times so far that commands were sent, together.
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
            `Sentinel(...).master_for(...)`. Its settings are used for connections of
            the store, except for timeouts and the protocol. The client itself is not.
        prefix: What the names of all keys begin with. Applications that use the same
            Redis need different ones, also if they use different databases.
    """

    def __init__(self, client: Redis, *, prefix: str = "sse:") -> None:
        self._pool = client.connection_pool
        self._prefix = prefix
        self._id = new_epoch()
        self._running_set = f"{prefix}runs".encode()
        self._worker = f"{prefix}worker:{self._id}".encode()
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
        """Open the store while an application runs: the lifespan of an application."""
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
        self._link = Link(self._connection, self._running_set)
        self._listener = Listener(
            self._connection, self._link, self._worker, self._hear, self._compare_all
        )
        self._link.on_reconnect(self._compare_all)
        tasks = await StoreTasks().__aenter__()
        tasks.start(self._link.run)
        tasks.start(self._listener.run)
        tasks.start(self._beat)
        tasks.start(self._tick)
        try:
            await self._link.connected(CONNECT_TIMEOUT)
        except BaseException as error:
            await tasks.__aexit__(type(error), error, error.__traceback__)
            raise
        self._tasks = tasks
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

    def _connection(self) -> AbstractConnection:
        """Make a connection like those of the client, with timeouts of the store."""
        connection: AbstractConnection = self._pool.connection_class(
            **{
                **self._pool.connection_kwargs,
                "decode_responses": False,
                "health_check_interval": 0,
                "protocol": 2,
                "retry": Retry(NoBackoff(), 0),
                "retry_on_error": [],
                "socket_keepalive": True,
                "socket_timeout": None,
                "socket_connect_timeout": CONNECT_TIMEOUT,
            }
        )
        return connection

    def stats(self) -> RedisStats:
        """Return the numbers of connections, logs and commands of this process."""
        self._open_tasks()
        return RedisStats(
            connected=self._link.is_connected,
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
            "read", self._key(name), _ms(history.ttl), "", "", "", 0
        )
        return Position(epoch.decode(), int(top))

    async def append(
        self, name: str, frames: bytes, history: History, dedupe: str | None
    ) -> Position:
        """Append events to a log, and return the position of the last one."""
        events, _ = split_events(frames)
        self._tokens += 1
        epoch, offset = await self._call(
            "append",
            self._key(name),
            history.events,
            _ms(history.ttl),
            dedupe or "",
            f"{self._id}{self._tokens}",
            *events,
        )
        return Position(epoch.decode(), int(offset))

    def _mirror(self, key: bytes, run: str, history: History) -> Mirror:
        self._open_tasks()
        mirror = self._mirrors.get((key, run))
        if mirror is None:
            mirror = self._mirrors[key, run] = Mirror(
                self._link, self._listener, key, run, history, self._lost
            )
        return mirror

    # Runs

    async def start_run(
        self, name: str, terms: RunTerms, if_running: IfRunning
    ) -> RunInfo:
        """Start a run, or find the one that is running."""
        key = self._key(name)
        owner = f"{self._id}:{new_epoch()}"
        while True:
            kind, *rest = await self._call(
                "start",
                key,
                owner,
                self._worker,
                if_running,
                _ms(terms.lease),
                _ms(terms.history.ttl),
                *terms.lost,
            )
            if kind == b"exists":
                raise RunExists(name)
            if kind != b"wait":
                break
            await asyncio.sleep(REPLACE_INTERVAL)
        id, epoch, top = rest[0].decode(), rest[1].decode(), int(rest[2])
        if rest[3] == b"1":
            self._lost(key)
        writer = None
        if kind == b"new":
            writer = self._writers[id] = Writer(
                self._link, key, id, owner, self._worker, terms, self._forget
            )
        return RunInfo(id, Position(epoch, top), "running", writer)

    def _forget(self, writer: Writer) -> None:
        self._writers.pop(writer.id, None)

    async def run(self, name: str) -> RunInfo | None:
        """Return a run, if there is one that has not expired."""
        key = self._key(name)
        status, id, epoch, top, is_lost = await self._call("status", key)
        if is_lost == b"1":
            self._lost(key)
        if not epoch:
            return None
        return RunInfo(id.decode(), Position(epoch.decode(), int(top)), status.decode())

    async def run_log(
        self, name: str, id: str, history: History, after: Position
    ) -> EventLog | None:
        """Return the log of a run, to read it, if it has not expired."""
        key = self._key(name)
        log = await self._mirror(key, id, history).reach(after)
        if log is None:
            self._mirrors.pop((key, id), None)
        return log

    async def cancel_run(self, name: str) -> bool:
        """Ask the process of a run to end it. Return whether it is running."""
        key = self._key(name)
        running, is_lost = await self._call("cancel", key)
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
        if kind == b"cancel" and (writer := self._writers.get(id.decode())) is not None:
            writer.ask_to_end("cancelled")

    def _compare_all(self) -> None:
        """Have all logs compared with the server: messages may have been lost."""
        for mirror in self._mirrors.values():
            mirror.compare_at = 0.0
        for writer in self._writers.values():
            writer.beat()

    async def _beat(self) -> None:
        """Renew the leases of the runs of this process."""
        while True:
            await asyncio.sleep(TICK)
            for writer in list(self._writers.values()):
                writer.beat()

    async def _tick(self) -> None:
        sweep_at = 0.0
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            if not self._link.is_connected:
                continue
            self._close_unused()
            due = [it for it in self._mirrors.values() if it.compare_at <= now]
            for start in range(0, len(due), MOST_COMPARES):
                async with anyio.create_task_group() as tasks:
                    for mirror in due[start : start + MOST_COMPARES]:
                        tasks.start_soon(mirror.compare)
            if now >= sweep_at:
                sweep_at = now + SWEEP_INTERVAL
                with contextlib.suppress(StoreError):
                    await self._sweep()

    def _close_unused(self) -> None:
        for key, mirror in list(self._mirrors.items()):
            if mirror.seconds_unused > MIRROR_UNUSED:
                del self._mirrors[key]
                self._compares += mirror.compares
                mirror.close()

    async def _sweep(self) -> None:
        """Find runs whose process has died and that nobody reads."""
        keys = await self._link.call(
            "sweep", self._running_set, self._worker, _ms(SWEEP_INTERVAL) - 1000
        )
        for key in keys:
            if (await self._link.call("status", key))[4] == b"1":
                self._lost(key)


CONNECT_TIMEOUT = 5.0
"""Seconds to connect."""


def _ms(seconds: float) -> int:
    return max(1, round(min(seconds, 2**31) * 1000))
