"""One `receive`, shared by the request and its stream.

The stream waits for the client to disconnect, from its first event to its last.
Meanwhile the generator may read the body, or `await request.is_disconnected()`. ASGI
does not define what two concurrent calls of `receive` do, and servers differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from .hooks import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Receive

MAX_KEPT_BYTES = 1024 * 1024
"""Bytes of the request body that are kept until the generator reads them."""

MESSAGE_OVERHEAD = 256
"""Bytes that a message counts in addition to its body, because it is a dict."""

MAX_FAST_MESSAGES = 100
"""The number of messages after which further ones are received more slowly."""


class Client:
    """The client of one request, whose `receive` is shared.

    Args:
        receive: The `receive` of the server.

    Attributes:
        receive: The `receive` of the server.
    """

    __slots__ = (
        "_changed",
        "_gone",
        "_kept",
        "_kept_bytes",
        "_start_watch",
        "_watched",
        "receive",
    )

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self._watched = False
        self._start_watch: Callable[[], object] | None = None
        self._gone: Message | None = None
        self._kept: list[Message] | None = None
        self._kept_bytes = 0
        self._changed: anyio.Event | None = None

    @property
    def is_behind_base_http_middleware(self) -> bool:
        """Whether the request comes through Starlette's `BaseHTTPMiddleware`.

        That middleware completes a response even if the application has aborted it.
        """
        return getattr(self.receive, "__module__", None) == "starlette.middleware.base"

    async def __call__(self) -> Message:
        """Receive a message for the request.

        Raises:
            RuntimeError: The request body was too large to be kept.
        """
        while True:
            if self._kept:
                message = self._kept.pop(0)
                self._kept_bytes -= _size_of(message)
                return message
            if self._kept_bytes > MAX_KEPT_BYTES:
                raise RuntimeError(
                    "the request body is too large to be read while events are sent "
                    f"(more than {MAX_KEPT_BYTES} bytes): read it before the first "
                    "`yield`"
                )
            if self._gone is not None:
                return self._gone
            if not self._watched:
                if self._start_watch is None:
                    return await self.receive()
                # This call may be cancelled, and some servers would then lose a message
                # or treat the client as disconnected. The watch receives instead.
                self.begin_watch()
                self._watched = True
            self._changed = self._changed or anyio.Event()
            await self._changed.wait()

    @property
    def gone(self) -> Message | None:
        """The message that said that the client has disconnected, or `None`."""
        return self._gone

    def start_watch_with(self, start: Callable[[], object] | None) -> None:
        """Set the function that starts the watch, for a request that receives early."""
        self._start_watch = start

    def begin_watch(self) -> None:
        """Start the watch now, if it has not been started."""
        if self._start_watch is not None:
            self._start_watch()

    async def watch(
        self, turn: Callable[[], Awaitable[object]], on_disconnect: Callable[[], object]
    ) -> None:
        """Wait for the client to disconnect, as far as `receive` reports that.

        Args:
            turn: Lets the event loop run other tasks.
            on_disconnect: Called when the client has disconnected.
        """
        self._watched = True
        self._start_watch = None
        body_is_over = False
        messages = 0
        try:
            while True:
                message = await self.receive()
                kind = message["type"]
                if kind in ("http.disconnect", "websocket.disconnect"):
                    self._gone = message
                    break
                if kind == "http.request":
                    if body_is_over:
                        # A middleware repeats the body on every call, so a disconnect
                        # will not be reported.
                        return
                    body_is_over = not message.get("more_body", False)
                    self._keep(message)
                # `receive` may return without waiting. Other tasks have to run, too.
                messages += 1
                await (anyio.sleep(0.001) if messages > MAX_FAST_MESSAGES else turn())
        except Exception as error:
            logger.warning(
                "receive failed: the stream will notice that the client has "
                "disconnected only when send fails or times out",
                exc_info=error,
            )
            return
        finally:
            self._watched = False
            self._notify()
        on_disconnect()

    def _keep(self, message: Message) -> None:
        self._kept_bytes += _size_of(message)
        if self._kept_bytes > MAX_KEPT_BYTES:
            self._kept = None
        elif self._kept is None:
            self._kept = [message]
        else:
            self._kept.append(message)
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()


def _size_of(message: Message) -> int:
    return MESSAGE_OVERHEAD + len(message.get("body", b""))
