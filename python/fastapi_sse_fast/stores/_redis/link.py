"""One connection for all commands.

A command is sent at once if none is in flight. Otherwise it waits for the answers to
those, and is sent together with all others that wait. So one connection is enough for
any number of channels and runs, and a busy process sends many commands at once.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..._stream.hooks import logger
from ...errors import StoreError
from ..memory import new_epoch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

LUA = importlib.resources.files(__package__).joinpath("log.lua").read_text("utf-8")

MOST_AT_ONCE = 256
"""Commands in one batch."""

ANSWER_TIMEOUT = 5.0
"""Seconds until a connection without an answer is given up."""

PING_INTERVAL = 5.0
"""Seconds without a command after which the connection is checked."""

PATIENCE = 10.0
"""Seconds that a command is tried for, unless the caller says otherwise."""

LONGEST_BACKOFF = 1.0
"""Seconds between two attempts to connect."""

LOST = (OSError, EOFError, RedisConnectionError, RedisTimeoutError)
"""A connection that raised one of these is replaced by a new one."""

NOT_NOW = (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
)
"""What a server answers that cannot do anything now. Another one may."""


class Call:
    """A command that waits to be sent, or for its answer."""

    __slots__ = ("answer", "args", "deadline", "key", "may_be_done", "operation")

    def __init__(
        self, operation: str, key: bytes, args: Sequence[Any], deadline: float
    ) -> None:
        self.operation = operation
        self.key = key
        self.args = args
        self.deadline = deadline
        # Whether it was sent already, on a connection that was lost before the answer.
        self.may_be_done = False
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            # The caller may have gone.
            self.answer.exception()


class Link:
    """The connection for commands.

    Args:
        connect: Makes a connection, not connected yet.
        running_set: The key of the set of all runs.

    Attributes:
        connects: How often it has connected.
        batches: How many batches of commands were sent.
        calls: How many commands were answered.
    """

    def __init__(
        self, connect: Callable[[], AbstractConnection], running_set: bytes
    ) -> None:
        self._connect = connect
        self._running_set = running_set
        self._waiting: deque[Call] = deque()
        self._wake = asyncio.Event()
        self._server = ""
        self._sha = ""
        self._connected = asyncio.Event()
        self._on_reconnect: list[Callable[[], object]] = []
        self._last_error: BaseException | None = None
        self.connects = 0
        self.batches = 0
        self.calls = 0

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connected.is_set()

    def on_reconnect(self, function: Callable[[], object]) -> None:
        """Add a function to call whenever the connection is a new one."""
        self._on_reconnect.append(function)

    async def call(
        self, operation: str, key: bytes, *args: Any, patience: float = PATIENCE
    ) -> Any:
        """Do an operation of `log.lua`, and return its result.

        Raises:
            StoreError: The server refused it, or could not be reached in time.
        """
        return await self.submit(operation, key, *args, patience=patience)

    def submit(
        self, operation: str, key: bytes, *args: Any, patience: float = PATIENCE
    ) -> asyncio.Future[Any]:
        """Have an operation done, in the order of these calls, and return a future."""
        call = Call(operation, key, args, time.monotonic() + patience)
        self._waiting.append(call)
        self._wake.set()
        return call.answer

    async def run(self) -> None:
        """Keep a connection, and do what is asked for, until this is cancelled."""
        backoff = 0.0
        try:
            while True:
                connection = self._connect()
                try:
                    await self._open(connection)
                    backoff = 0.0
                    await self._serve(connection)
                except (*LOST, *NOT_NOW, AuthenticationError) as error:
                    self._note(error)
                finally:
                    self._connected.clear()
                    await connection.disconnect(nowait=True)
                await self._wait_until(time.monotonic() + backoff * random.random())
                backoff = min(max(2 * backoff, 0.05), LONGEST_BACKOFF)
        finally:
            while self._waiting:
                self._waiting.popleft().fail(StoreError("the store was closed"))

    def _note(self, error: BaseException) -> None:
        if self._last_error is None:
            logger.warning("the connection to Redis was lost: %s", error)
        self._last_error = error

    async def _wait_until(self, then: float) -> None:
        """Wait, and give up calls whose time is over."""
        while True:
            now = time.monotonic()
            late = [call for call in self._waiting if call.deadline <= now]
            for call in late:
                self._waiting.remove(call)
                call.fail(StoreError(f"Redis is not available: {self._last_error}"))
            if now >= then:
                return
            await asyncio.sleep(min(then - now, 0.1))

    async def _open(self, connection: AbstractConnection) -> None:
        with anyio.fail_after(ANSWER_TIMEOUT):
            await connection.connect()  # type: ignore[no-untyped-call]
        info, sha = await self._ask(
            connection, [("INFO", "server"), ("SCRIPT", "LOAD", LUA)]
        )
        self._server = run_id(info)
        self._sha = sha.decode()
        if self._last_error is not None:
            logger.warning("connected to Redis again")
            self._last_error = None
        self.connects += 1
        self._connected.set()
        for function in self._on_reconnect:
            function()

    async def connected(self, seconds: float) -> None:
        """Wait for a connection.

        Raises:
            StoreError: There is none in this time.
        """
        try:
            with anyio.fail_after(seconds):
                await self._connected.wait()
        except TimeoutError:
            raise StoreError(f"Redis is not available: {self._last_error}") from None

    async def _serve(self, connection: AbstractConnection) -> None:
        while True:
            if not self._waiting:
                self._wake.clear()
                with anyio.move_on_after(PING_INTERVAL):
                    await self._wake.wait()
            if self._waiting:
                await self._serve_batch(connection)
            else:
                await self._ask(connection, [("PING",)])

    async def _serve_batch(self, connection: AbstractConnection) -> None:
        batch: list[Call] = []
        while self._waiting and len(batch) < MOST_AT_ONCE:
            call = self._waiting.popleft()
            if not call.answer.done():
                batch.append(call)
        answered = 0
        try:
            self.batches += 1
            commands = [self._command(call) for call in batch]
            for call in batch:
                call.may_be_done = True
            with anyio.fail_after(ANSWER_TIMEOUT):
                await _send(connection, commands)
                for call in batch:
                    answer = await _answer(connection)
                    if isinstance(answer, NOT_NOW):
                        raise answer
                    answered += 1
                    self.calls += 1
                    _set_answer(call, answer)
        finally:
            # What is not answered is asked again: every operation can be repeated.
            self._waiting.extendleft(reversed(batch[answered:]))

    def _command(self, call: Call) -> tuple[Any, ...]:
        return (
            "EVALSHA",
            self._sha,
            "1",
            call.key,
            call.operation,
            self._server,
            "1" if call.may_be_done else "0",
            new_epoch(),
            self._running_set,
            *call.args,
        )

    async def _ask(
        self, connection: AbstractConnection, commands: list[tuple[Any, ...]]
    ) -> list[Any]:
        with anyio.fail_after(ANSWER_TIMEOUT):
            await _send(connection, commands)
            answers = [await _answer(connection) for _ in commands]
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return answers


async def _send(
    connection: AbstractConnection, commands: list[tuple[Any, ...]]
) -> None:
    packed = connection.pack_commands(commands)
    await connection.send_packed_command(packed, check_health=False)


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def _set_answer(call: Call, answer: Any) -> None:
    if isinstance(answer, RedisError):
        error = StoreError(f"Redis has refused the operation: {answer}")
        error.__cause__ = answer
        call.fail(error)
    elif not call.answer.done():
        call.answer.set_result(answer)


def run_id(info: Any) -> str:
    """Return what tells server processes apart, from the answer to `INFO server`."""
    for line in bytes(info).splitlines():
        name, _, value = line.partition(b":")
        if name == b"run_id":
            return value.decode().strip()
    raise StoreError("the server is not a Redis: INFO has no run_id")
