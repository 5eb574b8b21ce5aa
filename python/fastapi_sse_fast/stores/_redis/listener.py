"""One connection that listens to the channels of all logs that are read here.

A channel of Redis tells what is new and can lose it: while the connection is away, and
when the server drops a slow one. So whoever subscribes must be able to read what it
missed, and is called when that may have happened.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import anyio
from redis.exceptions import RedisError

from ..._stream.hooks import logger
from .link import ANSWER_TIMEOUT, LONGEST_BACKOFF, LOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio.connection import AbstractConnection

    from .link import Link

PROBE_INTERVAL = 5.0
"""Seconds without a message after which this sends one to itself."""


class Channel:
    """A channel, and who listens to it."""

    __slots__ = ("confirmed", "listeners")

    def __init__(self) -> None:
        self.listeners: list[Callable[[bytes], object]] = []
        self.confirmed = asyncio.Event()


class Listener:
    """The connection for messages.

    Args:
        connect: Makes a connection, not connected yet.
        link: Sends the probes.
        own: A channel of this process, for probes and what only it is told.
        on_message: Called with what is sent to that channel.
        on_reconnect: Called when messages may have been lost.

    Attributes:
        connects: How often it has connected.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        link: Link,
        own: bytes,
        on_message: Callable[[bytes], object],
        on_reconnect: Callable[[], object],
    ) -> None:
        self._connect = connect
        self._link = link
        self._own = own
        self._on_reconnect = on_reconnect
        self._channels: dict[bytes, Channel] = {own: Channel()}
        self._channels[own].listeners.append(on_message)
        self._connection: AbstractConnection | None = None
        self._commands: list[tuple[Any, ...]] = []
        self._wake = asyncio.Event()
        self._heard_at = 0.0
        self.connects = 0

    async def subscribe(self, name: bytes, listener: Callable[[bytes], object]) -> None:
        """Call a function with every message to a channel that is sent from now on."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel()
            self._send("SUBSCRIBE", name)
        channel.listeners.append(listener)
        await channel.confirmed.wait()

    def unsubscribe(self, name: bytes, listener: Callable[[bytes], object]) -> None:
        """Do not call the function any more."""
        channel = self._channels.get(name)
        if channel is None or listener not in channel.listeners:
            return
        channel.listeners.remove(listener)
        if not channel.listeners:
            del self._channels[name]
            self._send("UNSUBSCRIBE", name)

    def _send(self, *command: Any) -> None:
        self._commands.append(command)
        self._wake.set()

    async def run(self) -> None:
        """Keep a connection, and call the listeners, until this is cancelled."""
        backoff = 0.0
        while True:
            connection = self._connect()
            try:
                with anyio.fail_after(ANSWER_TIMEOUT):
                    await connection.connect()  # type: ignore[no-untyped-call]
                for channel in self._channels.values():
                    channel.confirmed.clear()
                self._commands = [("SUBSCRIBE", *self._channels)]
                self.connects += 1
                backoff = 0.0
                await self._serve(connection)
            except (*LOST, RedisError) as error:
                logger.debug("the connection for messages was lost: %s", error)
            finally:
                await connection.disconnect(nowait=True)
            await asyncio.sleep(backoff * random.random())
            backoff = min(max(2 * backoff, 0.05), LONGEST_BACKOFF)

    async def _serve(self, connection: AbstractConnection) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, connection)
                tasks.start_soon(self._probe)
                await self._read(connection)
        except BaseException as error:
            # A group of one connection error is that error.
            cause = _only_cause(error)
            if cause is error:
                raise
            raise cause from None

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            commands, self._commands = self._commands, []
            if commands:
                with anyio.fail_after(ANSWER_TIMEOUT):
                    packed = connection.pack_commands(commands)
                    await connection.send_packed_command(packed, check_health=False)
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _read(self, connection: AbstractConnection) -> None:
        loop = asyncio.get_running_loop()
        waits_for = {*self._channels}
        while True:
            message: Any = await connection.read_response(disable_decoding=True)
            kind, name, payload = message
            self._heard_at = loop.time()
            channel = self._channels.get(name)
            if channel is None:
                continue
            if kind == b"message":
                for listener in tuple(channel.listeners):
                    listener(payload)
            elif kind == b"subscribe":
                channel.confirmed.set()
                if waits_for:
                    waits_for.intersection_update(self._channels)
                    waits_for.discard(name)
                    if not waits_for:
                        self._on_reconnect()

    async def _probe(self) -> None:
        """Fail if what is sent to a channel of this process does not arrive."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PROBE_INTERVAL / 5)
            silent = loop.time() - self._heard_at
            if silent > 2 * PROBE_INTERVAL and self._link.is_connected:
                raise ConnectionError("no message has arrived")
            if silent > PROBE_INTERVAL:
                self._link.submit("probe", self._own, patience=PROBE_INTERVAL)


def _only_cause(error: BaseException) -> BaseException:
    errors: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _only_cause(errors[0]) if len(errors) == 1 else error
