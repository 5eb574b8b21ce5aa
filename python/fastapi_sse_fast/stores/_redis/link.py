"""The connection for all commands.

A command is sent at once if none is in flight. Otherwise it waits for the answers to
those, and is sent together with all others that wait. So one connection is enough for
any number of channels and runs, and a busy process sends many commands at once.

If a connection is lost, what was not answered is sent again: every operation can be
repeated.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
from redis.exceptions import RedisError

from ...errors import StoreError
from ..memory import new_epoch
from .connection import NOT_NOW, Connection, answer, send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from .limits import RedisLimits

LUA = importlib.resources.files(__package__).joinpath("log.lua").read_text("utf-8")

HANDSHAKE = (("INFO", "server"), ("SCRIPT", "LOAD", LUA), ("CLIENT", "ID"))
"""What a connection begins with. The last one may be forbidden."""


def close_client(id: Any) -> tuple[Any, ...]:
    """Return the command that closes a connection of the server.

    The server may forbid it.

    Args:
        id: Its answer to `CLIENT ID`, which may be an error.
    """
    return "CLIENT", "KILL", "ID", id if isinstance(id, int) else 0


class Call:
    """A command that waits to be sent, or for its answer."""

    __slots__ = ("answer", "args", "deadline", "key", "may_be_done", "size", "token")

    def __init__(
        self,
        key: bytes,
        args: list[bytes],
        answer: asyncio.Future[Any],
        patience: float,
    ) -> None:
        self.key = key
        self.args = args
        self.size = sum(map(len, args))
        self.token = new_epoch().encode()
        # Whether it was sent on a connection that was lost before the answer.
        self.may_be_done = False
        self.answer = answer
        self.deadline = time.monotonic() + patience

    def fail(self, error: StoreError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # the caller may have been cancelled

    def finish(self, value: Any) -> None:
        if isinstance(value, RedisError):
            self.fail(refused(value))
        elif not self.answer.done():
            self.answer.set_result(value)


class Link(Connection):
    """The connection for commands.

    Args:
        connect: Makes a connection, not connected yet.
        limits: The limits of the store.
        running_set: The key of the set of all runs that are running.
        on_connect: Called whenever the connection is a new one.
        on_close: Called when no command will be sent any more.

    Attributes:
        server: Tells server processes apart: the one of the newest connection.
        replaced_at: When it was found to be another one, on the monotonic clock.
        batches: How often commands were sent.
        calls: How many commands were answered.
    """

    what = "commands"

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        limits: RedisLimits,
        running_set: bytes,
        on_connect: Callable[[], object],
        on_close: Callable[[], object],
    ) -> None:
        super().__init__(connect, limits)
        self._running_set = running_set
        self._on_connect = on_connect
        self._on_close = on_close
        self._waiting: deque[Call] = deque()
        self._in_flight: list[Call] = []
        self._wake = asyncio.Event()
        self._sha = b""
        self._client_id: Any = 0
        self._is_closed = False
        self.server = b""
        self.replaced_at = -math.inf
        self.batches = 0
        self.calls = 0

    async def call(
        self, operation: str, key: bytes, *args: Any, patience: float | None = None
    ) -> Any:
        """Do an operation of `log.lua`, and return its result.

        Raises:
            StoreError: The server refused it, or could not be reached in time.
        """
        return await self.submit(operation, key, *args, patience=patience)

    def submit(
        self, operation: str, key: bytes, *args: Any, patience: float | None = None
    ) -> asyncio.Future[Any]:
        """Have an operation done, in the order of these calls, and return a future."""
        call = Call(
            key,
            [operation.encode(), *encoded(args)],
            asyncio.get_running_loop().create_future(),
            self._limits.patience if patience is None else patience,
        )
        if self._is_closed:
            call.fail(StoreError("the store was closed"))
        else:
            self._waiting.append(call)
            self._wake.set()
        return call.answer

    def give_up_late(self) -> None:
        """Fail the calls whose time is over. They may have been done, or not."""
        now = time.monotonic()
        for call in (*self._in_flight, *self._waiting):
            if call.deadline <= now:
                call.fail(StoreError(f"Redis is not available: {self.trouble}"))
        self._waiting = deque(call for call in self._waiting if not call.answer.done())

    async def run(self) -> None:
        """Keep a connection, and do what is asked for, until this is cancelled."""
        try:
            await super().run()
        finally:
            self._is_closed = True
            while self._waiting:
                self._waiting.popleft().fail(StoreError("the store was closed"))
            self._on_close()

    async def _serve(self, connection: AbstractConnection) -> None:
        info, sha, client_id = await self._answers(connection, HANDSHAKE)
        for needed in (info, sha):
            if isinstance(needed, RedisError):
                raise needed
        server = run_id(info)
        if server == self.server:
            # What was sent on the connection before may still be on its way. It must
            # not arrive after it was sent again.
            await self._answers(connection, [close_client(self._client_id)])
        elif self.server:
            self.replaced_at = time.monotonic()
        self.server, self._sha, self._client_id = server, sha, client_id
        self._note_ready()
        self._on_connect()
        while True:
            if not self._waiting:
                self._wake.clear()
                with anyio.move_on_after(self._limits.probe_interval):
                    await self._wake.wait()
            if self._waiting:
                await self._serve_batch(connection)
            else:
                await self._ping(connection)
            self._backoff = 0.0

    def _next_batch(self) -> list[Call]:
        batch: list[Call] = []
        size = 0
        while self._waiting and len(batch) < self._limits.batch_calls:
            size += self._waiting[0].size
            if batch and size > self._limits.batch_bytes:
                break
            call = self._waiting.popleft()
            if not call.answer.done():
                batch.append(call)
        return batch

    async def _serve_batch(self, connection: AbstractConnection) -> None:
        batch = self._in_flight = self._next_batch()
        if not batch:
            return
        self.batches += 1
        answered = 0
        try:
            commands = [self._command(call) for call in batch]
            for call in batch:
                call.may_be_done = True
            with anyio.fail_after(self._limits.answer_timeout):
                await send(connection, commands)
                for call in batch:
                    value = await answer(connection)
                    if isinstance(value, NOT_NOW):
                        raise value
                    answered += 1
                    self.calls += 1
                    call.finish(value)
        finally:
            self._in_flight = []
            self._waiting.extendleft(reversed(batch[answered:]))

    def _command(self, call: Call) -> tuple[bytes, ...]:
        head = (self._sha, self.server, self._running_set)
        return command(*head, call.key, call.token, call.may_be_done, call.args)

    async def _ping(self, connection: AbstractConnection) -> None:
        [value] = await self._answers(connection, [("PING",)])
        if isinstance(value, RedisError):
            raise value

    async def _answers(
        self, connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        with anyio.fail_after(self._limits.answer_timeout):
            await send(connection, commands)
            return [await answer(connection) for _ in commands]


def encoded(args: Sequence[Any]) -> list[bytes]:
    """Return arguments as they are sent."""
    return [
        arg if isinstance(arg, bytes) else str(arg).encode("utf-8", "surrogatepass")
        for arg in args
    ]


def command(
    sha: bytes,
    server: bytes,
    running_set: bytes,
    key: bytes,
    token: bytes,
    may_be_done: bool,
    args: list[bytes],
) -> tuple[bytes, ...]:
    """Return the command that does an operation of `log.lua`."""
    operation, *rest = args
    again = b"1" if may_be_done else b"0"
    head = (b"EVALSHA", sha, b"1", key, operation, server, again, token, running_set)
    return (*head, *rest)


def refused(error: RedisError) -> StoreError:
    """Return the error for what the server refuses to do."""
    store_error = StoreError(f"Redis has refused the operation: {error}")
    store_error.__cause__ = error
    return store_error


def run_id(info: Any) -> bytes:
    """Return what tells server processes apart, from the answer to `INFO server`."""
    for line in bytes(info).splitlines():
        name, _, value = line.partition(b":")
        if name == b"run_id":
            return value.strip()
    raise StoreError("INFO has no run_id")
