"""The connection that listens to the channels of all logs that are read here.

A channel of Redis can lose messages: while the connection is away, and when the server
drops a slow one. So whoever subscribes must be able to read what it missed, and is told
when that may have happened.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
from redis.exceptions import RedisError

from ...errors import StoreError
from .connection import Connection, answer, first_cause, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio.connection import AbstractConnection

    from .limits import RedisLimits
    from .link import Link


class Channel:
    """A channel, and who listens to it."""

    __slots__ = ("confirmed", "listeners")

    def __init__(self) -> None:
        self.listeners: list[Callable[[bytes], object]] = []
        self.confirmed = asyncio.Event()


class Listener(Connection):
    """The connection for messages.

    Args:
        connect: Makes a connection, not connected yet.
        limits: The limits of the store.
        link: Sends the probes.
        own: A channel of this process, for probes and what only it is told.
        on_message: Called with what is sent to that channel.
        on_connect: Called when messages may have been lost before.
    """

    what = "messages"

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        limits: RedisLimits,
        link: Link,
        own: bytes,
        on_message: Callable[[bytes], object],
        on_connect: Callable[[], object],
    ) -> None:
        super().__init__(connect, limits)
        self._link = link
        self._own = own
        self._on_message = on_message
        self._on_connect = on_connect
        self._channels: dict[bytes, Channel] = {own: Channel()}
        self._channels[own].listeners.append(self._hear)
        self._commands: list[tuple[Any, ...]] = []
        self._wake = asyncio.Event()
        # How many confirmations of each channel are to come. Only the last one counts,
        # because the channel may have been unsubscribed before it.
        self._unconfirmed: Counter[bytes] = Counter()
        # The channels that this connection began with and that are not confirmed yet.
        self._initial: set[bytes] = set()
        self._probed = asyncio.Event()

    async def subscribe(self, name: bytes, listener: Callable[[bytes], object]) -> None:
        """Call a function with every message to a channel that is sent from now on.

        If there is no connection, or the server does not confirm that in time, this
        returns all the same, and `hears` tells when it has.
        """
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel()
            self._send("SUBSCRIBE", name)
            self._unconfirmed[name] += 1
        channel.listeners.append(listener)
        try:
            if self.is_ready:
                with anyio.move_on_after(self._limits.confirm_timeout):
                    await channel.confirmed.wait()
        except BaseException:
            self.unsubscribe(name, listener)
            raise

    def hears(self, name: bytes) -> bool:
        """Return whether messages to a channel arrive, as far as is known."""
        channel = self._channels.get(name)
        return self.is_ready and channel is not None and channel.confirmed.is_set()

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

    async def _serve(self, connection: AbstractConnection) -> None:
        for channel in self._channels.values():
            channel.confirmed.clear()
        self._initial = {*self._channels}
        self._unconfirmed = Counter(self._initial)
        self._commands = [("SUBSCRIBE", *self._channels)]
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, connection)
                tasks.start_soon(self._probe)
                await self._read(connection)
        except BaseException as error:
            cause = first_cause(error)
            if cause is error:
                raise
            raise cause from None

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            commands, self._commands = self._commands, []
            if commands:
                with anyio.fail_after(self._limits.answer_timeout):
                    await send(connection, commands)
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            message = await answer(connection)
            if isinstance(message, RedisError):
                raise message
            kind, name, payload = message
            channel = self._channels.get(name)
            if kind == b"message" and channel is not None:
                for listener in tuple(channel.listeners):
                    listener(payload)
            elif kind == b"subscribe":
                self._confirm(name, channel)

    def _confirm(self, name: bytes, channel: Channel | None) -> None:
        self._unconfirmed[name] -= 1
        if not self._unconfirmed[name]:
            del self._unconfirmed[name]
            if channel is not None:
                channel.confirmed.set()
        if name in self._initial:
            self._initial.remove(name)
            if not self._initial:
                self._backoff = 0.0
                self._note_ready()
                self._on_connect()

    def _hear(self, message: bytes) -> None:
        if message == b"probe":
            self._probed.set()
        else:
            self._on_message(message)

    async def _probe(self) -> None:
        """Fail if what is sent to the channel of this process does not arrive."""
        interval = self._limits.probe_interval
        while True:
            await asyncio.sleep(interval)
            self._probed.clear()
            try:
                await self._link.call("probe", self._own, patience=interval)
            except StoreError:
                continue  # that is the other connection
            with anyio.move_on_after(interval):
                await self._probed.wait()
            if not self._probed.is_set():
                # If the event loop stood still, the message may have come meanwhile.
                with anyio.fail_after(self._limits.tick):
                    await self._probed.wait()
