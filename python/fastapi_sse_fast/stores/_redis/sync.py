"""A connection for threads, scripts and workers of job queues."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.retry import Retry

from ...errors import StoreError
from ..memory import new_epoch
from .connection import FAILURES, NOT_NOW, connecting, reason, settings
from .link import LUA, close_client, command, encoded, refused, run_id

if TYPE_CHECKING:
    from redis import ConnectionPool
    from redis.connection import AbstractConnection

    from .limits import RedisLimits


class SyncLink:
    """Does operations of `log.lua`, one at a time. Threads may share it.

    Args:
        pool: Its settings are those of the connection, except for the timeouts.
        limits: The limits of the store.
        running_set: The key of the set of all runs that are running.
    """

    def __init__(
        self, pool: ConnectionPool, limits: RedisLimits, running_set: bytes
    ) -> None:
        self._pool = pool
        self._limits = limits
        self._running_set = running_set
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._connection: AbstractConnection | None = None
        self._server = self._sha = b""
        self._client_id: Any = 0

    def call(self, operation: str, key: bytes, *args: Any) -> Any:
        """Do an operation, and return its result.

        Raises:
            StoreError: The server refused it, or could not be reached in time.
        """
        if self._process != os.getpid():
            self._forget()  # the connection is that of the parent process
        given = [operation.encode(), *encoded(args)]
        token = new_epoch().encode()
        deadline = time.monotonic() + self._limits.patience
        trouble = "other threads have waited for its answers all the time"
        may_be_done = False
        while self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            try:
                connection = self._connect()
                head = (self._sha, self._server, self._running_set)
                packed = command(*head, key, token, may_be_done, given)
                may_be_done = True
                return self._ask(connection, *packed)
            except ResponseError as error:
                if not isinstance(error, NOT_NOW):
                    raise refused(error) from error
                self._disconnect()
                trouble = reason(error)
            except AuthenticationError as error:
                raise refused(error) from error
            except FAILURES as error:
                self._disconnect()
                trouble = reason(error)
            except BaseException:
                # A signal, such as that of a time limit. The answer is still to come.
                self._disconnect()
                raise
            finally:
                self._lock.release()
            if time.monotonic() >= deadline:
                break
            time.sleep(0.1)
        raise StoreError(f"Redis is not available: {trouble}")

    def _connect(self) -> AbstractConnection:
        if self._connection is None:
            connection = self._pool.connection_class(
                **settings(
                    self._pool,
                    retry=Retry(NoBackoff(), 0),
                    socket_timeout=self._limits.answer_timeout,
                    socket_connect_timeout=self._limits.connect_timeout,
                )
            )
            try:
                with connecting():
                    connection.connect()
                server = run_id(self._ask(connection, "INFO", "server"))
                self._sha = self._ask(connection, "SCRIPT", "LOAD", LUA)
                if server == self._server:
                    # What was sent on the connection before may still be on its way.
                    self._try(connection, *close_client(self._client_id))
                self._client_id = self._try(connection, "CLIENT", "ID")
                self._server = server
            except BaseException:
                connection.disconnect()
                raise
            self._connection = connection
        return self._connection

    def _ask(self, connection: AbstractConnection, *command: Any) -> Any:
        connection.send_command(*command, check_health=False)  # type: ignore[no-untyped-call]
        return connection.read_response(disable_decoding=True)

    def _try(self, connection: AbstractConnection, *command: Any) -> Any:
        """Do what the server may forbid."""
        try:
            return self._ask(connection, *command)
        except ResponseError as error:
            return error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the connection. The next operation opens another one."""
        with self._lock:
            self._disconnect()
