"""Connections, which are replaced by new ones whenever they are lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import anyio
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from ..._stream.hooks import logger
from ...errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redis.asyncio.connection import AbstractConnection

    from .limits import RedisLimits

FAILURES = (OSError, EOFError, RedisError, StoreError)
"""A connection that raised one of these is replaced."""

CLOSE_TIMEOUT = 0.5
"""Seconds that closing a connection may take."""

NOT_NOW = (BusyLoadingError, ClusterDownError, NoScriptError, ReadOnlyError)
"""What a server answers that cannot do anything now. It, or another one, may soon."""


class Connection:
    """Keeps a connection.

    Args:
        connect: Makes a connection, not connected yet.
        limits: The limits of the store.

    Attributes:
        what: What the connection is for, in messages.
        connects: How often it has connected.
        is_ready: Whether there is a connection now.
    """

    what: str

    def __init__(
        self, connect: Callable[[], AbstractConnection], limits: RedisLimits
    ) -> None:
        self._connect = connect
        self._limits = limits
        self._backoff = 0.0
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last_error: Exception | None = None
        self.connects = 0
        self.is_ready = False

    async def run(self) -> None:
        """Keep a connection until this is cancelled."""
        while True:
            connection = self._connect()
            try:
                with anyio.fail_after(self._limits.connect_timeout), connecting():
                    await connection.connect()  # type: ignore[no-untyped-call]
                await self._serve(connection)
            except FAILURES as error:
                self._note(error)
            finally:
                self.is_ready = False
                # Over TLS, closing takes some turns of the event loop.
                with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await connection.disconnect()
            await asyncio.sleep(self._backoff * random.random())
            longest = self._limits.longest_backoff
            self._backoff = min(max(2 * self._backoff, 0.05), longest)

    async def _serve(self, connection: AbstractConnection) -> None:
        """Use a connection until it fails, or this is cancelled."""
        raise NotImplementedError

    def _note_ready(self) -> None:
        if self._last_error is not None:
            logger.warning("the connection to Redis for %s is back", self.what)
            self._last_error = None
        self.connects += 1
        self.is_ready = True
        if not self._first.done():
            self._first.set_result(None)

    def _note(self, error: Exception) -> None:
        if self._last_error is None:
            logger.warning(
                "the connection to Redis for %s was lost: %s", self.what, reason(error)
            )
        self._last_error = error
        is_final = isinstance(error, (AuthenticationError, ResponseError, StoreError))
        if is_final and not isinstance(error, NOT_NOW) and not self._first.done():
            self._first.set_exception(error)
            self._first.exception()  # nobody may be waiting for it

    @property
    def trouble(self) -> str:
        """Why there is no connection, or no answer."""
        error = self._last_error
        return "it does not answer" if error is None else reason(error)

    async def ready(self) -> None:
        """Wait for the first connection.

        Raises:
            StoreError: The server refuses it, or there is none in time.
        """
        try:
            with anyio.fail_after(self._limits.connect_timeout):
                await self._first
        except TimeoutError:
            raise StoreError(f"Redis is not available: {self.trouble}") from None
        except (RedisError, StoreError) as error:
            raise StoreError(f"Redis refuses the connection: {error}") from error


@contextlib.contextmanager
def connecting() -> Iterator[None]:
    """Have any error of an attempt to connect be one of `FAILURES`.

    Others come from code of the application, such as a credential provider.
    """
    try:
        yield
    except FAILURES:
        raise
    except Exception as error:
        raise ConnectionError(reason(error)) from error


def settings(pool: Any, **ours: Any) -> dict[str, Any]:
    """Return the arguments of a connection like those of a client.

    Args:
        pool: The connection pool of the client.
        **ours: What is different.
    """
    chosen = {
        **pool.connection_kwargs,
        "decode_responses": False,
        "health_check_interval": 0,
        "protocol": 2,
        "retry_on_error": [],
        **ours,
    }
    if "path" not in chosen:  # a Unix socket has no such option
        chosen["socket_keepalive"] = True
    return chosen


def reason(error: BaseException) -> str:
    """Return the text of an error, or its name if it has none."""
    return str(error) or type(error).__name__


def first_cause(error: BaseException) -> BaseException:
    """Return the error that has ended a group of tasks.

    If they were ended by lost connections alone, it is the first of these.
    """
    errors: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    causes = [first_cause(each) for each in errors]
    if not causes:
        return error
    return next((one for one in causes if not isinstance(one, FAILURES)), causes[0])


async def send(
    connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]
) -> None:
    """Send commands together."""
    packed = connection.pack_commands(commands)
    await connection.send_packed_command(packed, check_health=False)


async def answer(connection: AbstractConnection) -> Any:
    """Return the next answer, which may be an error."""
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error
