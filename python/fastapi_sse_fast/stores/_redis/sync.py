"""A connection for threads, scripts and workers of job queues."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from ...errors import StoreError
from ..memory import new_epoch
from .link import ANSWER_TIMEOUT, LOST, LUA, NOT_NOW, PATIENCE, run_id

if TYPE_CHECKING:
    from redis import ConnectionPool
    from redis.connection import AbstractConnection


class SyncLink:
    """Does operations of `log.lua`, one at a time. Threads may share it.

    Args:
        pool: Its settings are those of the connection, except for the timeouts.
        running_set: The key of the set of all runs.
    """

    def __init__(self, pool: ConnectionPool, running_set: bytes) -> None:
        self._pool = pool
        self._running_set = running_set
        self._lock = threading.Lock()
        self._connection: AbstractConnection | None = None
        self._server = ""
        self._sha = ""

    def call(
        self, operation: str, key: bytes, *args: Any, patience: float = PATIENCE
    ) -> Any:
        """Do an operation, and return its result.

        Raises:
            StoreError: The server refused it, or could not be reached in time.
        """
        deadline = time.monotonic() + patience
        may_be_done = "0"
        while True:
            try:
                with self._lock:
                    connection = self._connect()
                    command = (
                        "EVALSHA",
                        self._sha,
                        "1",
                        key,
                        operation,
                        self._server,
                        may_be_done,
                        new_epoch(),
                        self._running_set,
                        *args,
                    )
                    may_be_done = "1"
                    return self._ask(connection, *command)
            except (*LOST, *NOT_NOW, AuthenticationError) as error:  # noqa: PERF203
                self.close()
                if time.monotonic() >= deadline:
                    raise StoreError(f"Redis is not available: {error}") from error
                time.sleep(0.1)
            except RedisError as error:
                raise StoreError(f"Redis has refused the operation: {error}") from error

    def _connect(self) -> AbstractConnection:
        if self._connection is None:
            connection = self._pool.connection_class(
                **{
                    **self._pool.connection_kwargs,
                    "decode_responses": False,
                    "health_check_interval": 0,
                    "protocol": 2,
                    "retry": Retry(NoBackoff(), 0),
                    "retry_on_error": [],
                    "socket_keepalive": True,
                    "socket_timeout": ANSWER_TIMEOUT,
                    "socket_connect_timeout": ANSWER_TIMEOUT,
                }
            )
            connection.connect()
            self._server = run_id(self._ask(connection, "INFO", "server"))
            self._sha = self._ask(connection, "SCRIPT", "LOAD", LUA).decode()
            self._connection = connection
        return self._connection

    def _ask(self, connection: AbstractConnection, *command: Any) -> Any:
        connection.send_command(*command, check_health=False)  # type: ignore[no-untyped-call]
        return connection.read_response(disable_decoding=True)

    def close(self) -> None:
        """Close the connection. The next operation opens another one."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.disconnect()  # type: ignore[no-untyped-call]
