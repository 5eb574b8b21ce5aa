"""What the client says, read by the request and by the stream: one `receive` for both.

A stream waits for the client to leave from its first event to its last, and the
generator may ask for the body, or `await request.is_disconnected()`, meanwhile. ASGI
does not say what two calls of `receive` at a time do, and servers do not agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from .hooks import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Receive

KEPT = 1024 * 1024
"""Bytes of the request's body that are kept for a generator that has not read them."""

MESSAGE_SIZE = 256
"""Bytes that a message counts besides its body: it is a dict."""

MANY = 100
"""Messages after which the next ones are not asked for as fast as they come."""


class Client:
    """Shares the `receive` of one request.

    Args:
        receive: The server's.

    Attributes:
        receive: The server's.
    """

    __slots__ = (
        "_gone",
        "_kept",
        "_kept_bytes",
        "_news",
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
        self._news: anyio.Event | None = None

    @property
    def is_behind_base_http_middleware(self) -> bool:
        """Whether Starlette's middleware stands around us.

        It completes a response when the application returns, or raises.
        """
        return getattr(self.receive, "__module__", None) == "starlette.middleware.base"

    async def __call__(self) -> Message:
        """Receive a message, as the request does.

        Raises:
            RuntimeError: The body was too large to be kept.
        """
        while True:
            if self._kept:
                message = self._kept.pop(0)
                self._kept_bytes -= _size_of(message)
                return message
            if self._kept_bytes > KEPT:
                raise RuntimeError(
                    "the body of the request is too large to be read while events are "
                    "sent: read it before the first `yield`"
                )
            if self._gone is not None:
                return self._gone
            if not self._watched:
                if self._start_watch is None:
                    return await self.receive()
                # Not by a call of its own, which may be cancelled: some servers lose a
                # message then, or take it for the end.
                self.begin_watch()
                self._watched = True
            self._news = self._news or anyio.Event()
            await self._news.wait()

    @property
    def gone(self) -> Message | None:
        """What has told that the client has left."""
        return self._gone

    def watch_with(self, start: Callable[[], object] | None) -> None:
        """Note what starts the watch, when the request receives before it has begun."""
        self._start_watch = start

    def begin_watch(self) -> None:
        """Have the watch begin now, if it has not yet."""
        if self._start_watch is not None:
            self._start_watch()

    async def watch(
        self, turn: Callable[[], Awaitable[object]], left: Callable[[], object]
    ) -> None:
        """Wait for the client to leave, and call `left`, unless nobody can know.

        Args:
            turn: Lets the loop turn.
            left: Called when the client has left.
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
                        # A middleware that gives the body to whoever asks.
                        return
                    body_is_over = not message.get("more_body", False)
                    self._keep(message)
                # To receive need not wait for anything, so it may have no end.
                messages += 1
                await (anyio.sleep(0.001) if messages > MANY else turn())
        except Exception as error:
            logger.warning(
                "receive failed: when the client leaves is not known", exc_info=error
            )
            return
        finally:
            self._watched = False
            self._tell()
        left()

    def _keep(self, message: Message) -> None:
        self._kept_bytes += _size_of(message)
        if self._kept_bytes > KEPT:
            self._kept = None
        elif self._kept is None:
            self._kept = [message]
        else:
            self._kept.append(message)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set()


def _size_of(message: Message) -> int:
    return MESSAGE_SIZE + len(message.get("body", b""))
