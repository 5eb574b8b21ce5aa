"""Publishing to a `RedisStore` from threads, scripts and workers of job queues."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from redis import Redis

from .._core import EncodedEvent, encode_event, split_events
from .._stream.hooks import logger
from ..errors import RunExists, StoreError
from ._redis.limits import RedisLimits, milliseconds
from ._redis.sync import SyncLink
from .memory import new_epoch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from ..options import Json


class SyncRedisStore:
    """Publishes to the channels of a `RedisStore`, and writes runs, without asyncio.

        store = SyncRedisStore.from_url("redis://localhost")
        store.publish("user:7", {"unread": 3})

        with store.run("report:9") as run:
            for row in rows:
                run.write(row)

    Applications read these channels and runs with `Channels` and `Runs`. Use the same
    prefix as they do, and for a channel the same history and ttl. Threads may share a
    store. A forked process may use it, too, and opens its own connection.

    Args:
        client: A client of redis-py, such as `Redis(...)`. Its settings are used for a
            connection of the store, except for timeouts and the protocol.
        prefix: What the names of all keys begin with.
        json: Format of data that is not a pydantic model, as in `StreamOptions`.
    """

    def __init__(
        self, client: Redis, *, prefix: str = "sse:", json: Json = "fastapi"
    ) -> None:
        if not isinstance(client, Redis):
            raise TypeError(f"a store needs a redis.Redis, not {client!r}")
        self._limits = RedisLimits()
        self._link = SyncLink(
            client.connection_pool, self._limits, f"{prefix}runs".encode()
        )
        self._prefix = prefix
        self._json = json
        self._id = new_epoch()

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "sse:", json: Json = "fastapi", **options: Any
    ) -> Self:
        """Return a store.

        Args:
            url: As in `RedisStore.from_url`.
            prefix: What the names of all keys begin with.
            json: Format of data that is not a pydantic model, as in `StreamOptions`.
            **options: As in `redis.Redis.from_url`.
        """
        return cls(Redis.from_url(url, **options), prefix=prefix, json=json)

    def publish(
        self,
        name: str,
        item: Any,
        *,
        dedupe: str | None = None,
        history: int = 1000,
        ttl: float = 3600.0,
    ) -> str:
        """Publish an event to a channel, and return its `id`.

        Args:
            name: The channel.
            item: Anything that a stream can yield: an event, a model, data.
            dedupe: As in `Channels.publish`.
            history: Number of events that the channel keeps.
            ttl: Seconds to keep the channel after its last event, unless somebody
                reads it.

        Raises:
            ValueError: The item cannot be encoded, or is an event that has an `id`.
            TypeError: The item cannot be encoded, or the name is not a `str`.
            StoreError: Redis could not be reached in time, or refused it.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a channel must be a str, not {name!r}")
        epoch, offset = self._link.call(
            "append",
            self._key(f"channel:{name}"),
            history,
            milliseconds(ttl),
            "" if dedupe is None else f":{dedupe}",
            *self._frames(item),
        )
        return f"{epoch.decode()}.{offset.decode()}"

    @contextlib.contextmanager
    def run(
        self, name: str, *, ttl: float = 3600.0, lease: float = 15.0
    ) -> Iterator[SyncRun]:
        """Start a run that this thread writes, and end it with the block.

        If the block raises an exception, the run has failed. A thread renews the lease
        meanwhile.

        Args:
            name: Name of the run.
            ttl: Seconds to keep the run after its end, unless somebody reads it.
            lease: Seconds after which the run is lost if this process has died.

        Raises:
            RunExists: A run of this name is running.
            StoreError: Redis could not be reached in time, or refused it.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a run must be a str, not {name!r}")
        run = SyncRun(self, self._key(f"run:{name}"), name, ttl, lease)
        with run:
            yield run

    def close(self) -> None:
        """Close the connection. It is opened again when it is needed."""
        self._link.close()

    def _key(self, name: str) -> bytes:
        return f"{self._prefix}{{{name}}}".encode("utf-8", "surrogatepass")

    def _frames(self, item: Any) -> list[bytes]:
        return split_events(bytes(encode_event(item, json=self._json)))[0]


class SyncRun:
    """A run that a thread writes, as `SyncRedisStore.run` yields it."""

    def __init__(
        self, store: SyncRedisStore, key: bytes, name: str, ttl: float, lease: float
    ) -> None:
        self._store = store
        self._key = key
        self._name = name
        self._ttl = ttl
        self._lease = lease
        self._owner = f"{store._id}:{new_epoch()}"
        self._id = ""
        self._top = 0
        # Events of a write that has failed. Whether the server has them is not known.
        self._unsure: list[bytes] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled the run.

        It is known after `write`, or within a third of the lease.
        """
        return self._is_cancelled

    def write(self, item: Any) -> None:
        """Append an event, or several.

        After a `StoreError`, or an exception that a signal has raised, the event may or
        may not be stored. If the next call writes the same event, it is stored once.

        Args:
            item: Anything that a stream can yield: an event, a model, data.

        Raises:
            ValueError: The item cannot be encoded, or is an event that has an `id`.
            StoreError: The run is lost, or Redis could not be reached in time.
        """
        self._write(self._store._frames(item))

    def _write(self, frames: list[bytes]) -> None:
        with self._lock:
            if frames:
                if self._unsure not in ([], frames):
                    self._top = self._ask_to_append([])
                self._unsure = frames
            self._ask_to_append(frames)
            if frames:
                self._top += len(frames)
                self._unsure = []

    def _ask_to_append(self, frames: list[bytes]) -> int:
        """Append what the server does not have yet, and return the newest offset."""
        answer = self._call("write", self._top, self._top + 1, *frames)
        if answer[0] != b"ok":
            raise StoreError(f"the run {self._name!r} is lost")
        self._is_cancelled = self._is_cancelled or answer[2] != b""
        return int(answer[1])

    def _call(self, operation: str, *args: Any) -> Any:
        return self._store._link.call(
            operation, self._key, self._id, self._owner, *args
        )

    def __enter__(self) -> Self:
        """Start the run."""
        while True:
            kind, *rest = self._store._link.call(
                "start",
                self._key,
                self._owner,
                f"{self._store._prefix}worker:{self._store._id}",
                "reject",
                milliseconds(self._lease),
                milliseconds(self._ttl),
                *_last_event("lost"),
            )
            if kind != b"wait":
                break
            time.sleep(self._store._limits.wait_interval)
        if kind != b"new":
            raise RunExists(self._name)
        self._id = rest[0].decode()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def _beat(self) -> None:
        while not self._is_over.wait(self._lease / 3):
            self._renew_lease()

    def _renew_lease(self) -> None:
        try:
            self._write([])
        except StoreError:
            pass  # It is tried again, and `write` raises it.
        except Exception:
            logger.exception("the lease of the run %r was not renewed", self._name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the run."""
        self._is_over.set()
        status = "failed" if kind else "cancelled" if self._is_cancelled else "done"
        last = _last_event(status)
        with self._lock:
            try:
                answer = self._call("finish", self._top + 1, status, *last)
            except StoreError:
                if error is None:
                    raise
                logger.exception("the end of the run %r was not stored", self._name)
                return
        if error is None and answer != [b"ended", status.encode()]:
            raise StoreError(f"the run {self._name!r} is lost")


def _last_event(status: str) -> tuple[bytes, bytes]:
    if status in ("done", "cancelled"):
        return bytes(EncodedEvent(event="end", data={"status": status})), b""
    without_id = {"error": {"message": status, "code": status}}
    return (
        bytes(EncodedEvent(event="error", data={"code": status})),
        bytes(EncodedEvent(data=without_id)),
    )
