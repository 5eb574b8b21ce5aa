"""Ends open streams on server shutdown.

On shutdown, a server waits for its responses, and a stream may never complete. ASGI
does not announce the shutdown: the lifespan's shutdown event comes only after that
wait. But servers shut down because of a signal, and have a handler for it. While
streams are open, our handler replaces it, ends the streams and then calls it. A request
whose dependencies are still being opened is registered as well. Otherwise the server
would wait for its stream, which would be opened too late to be ended.

Signal handlers run in the main thread only. A server in another thread is shut down by
code, which can wait for the server in `shutting_down()`.

A request may arrive after the signal, because uvicorn accepts connections for up to
0.1 s longer. uvicorn's handler is a method of its server, whose state shows the
shutdown: `should_exit` is true, or its sockets are closed. This also shows a shutdown
without a signal, such as after `--limit-max-requests`. `_workers.py` does the same for
workers of other servers. Both also know how long the server waits for its responses.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from . import _workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    _get_handler: Callable[[int], Any]
    _set_handler: Callable[[int, Any], Any]
else:
    try:
        from _signal import getsignal as _get_handler
        from _signal import signal as _set_handler
    except ImportError:
        # These do the same, but look up every handler in an enum first. The error
        # message of that includes the `repr()` of the server, which costs 20 µs per
        # call, and a stream makes several calls.
        from signal import getsignal as _get_handler
        from signal import signal as _set_handler

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGBREAK")
    if hasattr(signal, name)
]
if "gunicorn" in sys.modules and hasattr(signal, "SIGQUIT"):
    # gunicorn's main process forwards SIGINT and SIGQUIT to its workers as SIGQUIT.
    # With other servers, SIGQUIT need not mean a shutdown: applications use it to print
    # stack traces.
    _SIGNALS.append(signal.SIGQUIT)

DEFAULT_SHUTDOWN_TIMEOUT: Final = 30.0
"""Seconds that a server is assumed to wait for its responses if it does not say. This
is the default grace period of Kubernetes, and the default of gunicorn."""

POLL_INTERVAL: Final = 0.5
"""Seconds between two checks of a server that may shut down without a signal."""

_lock = threading.RLock()  # A signal handler may run while its thread holds the lock.
_open: set[_Stream] = set()
_open_in_main: set[_Stream] = set()
"""The streams of the main thread. Our handlers are installed while there are any."""
_previous: dict[int, list[Callable[..., Any]]] = {}
"""The handlers that ours has replaced, by signal, the latest last.

Usually there is one, the handler of the server. Another library may then replace our
handler and call it. If ours replaces that one, it is in the chain twice.
"""
shutdown_callbacks: Final[list[Callable[[], object]]] = []
"""Functions to call on server shutdown, before the streams are ended."""
_shutdown_blocks = 0
"""How many `shutting_down` blocks are open."""
_poll: _Poll | None = None
"""The poll of the main thread's server, while it has streams."""
_depth: dict[int, int] = {}
"""How many calls of our handler are nested, by signal, because it is in the chain
several times."""


class _Stream(Protocol):
    def shut_down(self) -> None:
        """End the stream because the server shuts down. Called from any thread."""


def shutdown() -> None:
    """End all open streams of this process, as on server shutdown.

    This may be called from any thread. A stream that is opened later is ended as well
    if its dependencies are being opened now. To shut down a server by code, wait for it
    in `shutting_down()`.

    Examples:
        >>> shutdown()
    """
    with _lock:
        streams = list(_open)
    for stream in streams:
        stream.shut_down()


def _begin_server_shutdown() -> None:
    for callback in shutdown_callbacks:
        callback()
    shutdown()


@contextlib.contextmanager
def shutting_down() -> Iterator[None]:
    """End all streams of this process, including those that are opened in the block.

    Use it for an embedded server that is shut down by code and not by a signal: such a
    server still accepts clients for a moment. Blocks may be entered in any thread, and
    may overlap.

        with shutting_down():
            server.should_exit = True
            thread.join()
    """
    global _shutdown_blocks
    with _lock:
        _shutdown_blocks += 1
    try:
        shutdown()
        yield
    finally:
        with _lock:
            _shutdown_blocks -= 1


def server_shutdown_timeout(close_timeout: float) -> float:
    """Return how long a stream may continue on server shutdown, in seconds.

    The server waits for its responses for a limited time. Then it cancels them, or the
    process is killed. The stream has to end before, so that its generator can close.
    For that it gets a tenth of the time, but not much more than `close_timeout`.
    """
    if _in_main_thread():
        _workers.find_workers(_begin_server_shutdown)
    limits = [*_uvicorn_timeouts(), *_workers.graceful_timeouts()]
    if not limits:
        return DEFAULT_SHUTDOWN_TIMEOUT
    limit = min(limits)
    return max(0.0, limit - min(limit / 10, close_timeout + 1.0))


def _uvicorn_timeouts() -> Iterator[float]:
    """Yield the `timeout_graceful_shutdown` of uvicorn, or infinity if it is not set.

    uvicorn's worker for gunicorn usually does not set it. The limit is gunicorn's then.
    """
    for handler in _server_handlers():
        config = getattr(_server_of(handler), "config", None)
        seconds = getattr(config, "timeout_graceful_shutdown", "unknown")
        if seconds is None:
            yield math.inf
        elif isinstance(seconds, (int, float)):
            yield seconds


def server_is_forced_to_exit() -> bool:
    """Return whether a uvicorn that shuts down has received Ctrl+C again."""
    servers = (_server_of(handler) for handler in _server_handlers())
    return any(getattr(server, "force_exit", None) is True for server in servers)


class PendingStream:
    """A request whose stream is not open yet, registered for server shutdown.

    It is created before the dependencies are opened. The stream checks it later.

    Attributes:
        stopped: Whether the server shutdown has begun since then.
    """

    __slots__ = ("stopped",)

    def __init__(self) -> None:
        self.stopped = False
        _register(self)

    def shut_down(self) -> None:
        self.stopped = True

    def close(self) -> None:
        _unregister(self)


class ShutdownRegistration:
    """A context that calls `stream.shut_down()` on server shutdown.

    It also does so if the shutdown began earlier, after the request arrived.
    """

    __slots__ = ("_pending", "_stream")

    def __init__(self, stream: _Stream, pending: PendingStream | None) -> None:
        self._stream = stream
        self._pending = pending

    def __enter__(self) -> None:
        _register(self._stream)
        has_begun = self._pending is not None and self._pending.stopped
        if (
            has_begun
            or _shutdown_blocks
            or (_in_main_thread() and _server_is_shutting_down())
        ):
            self._stream.shut_down()

    def __exit__(self, *exc_info: object) -> None:
        _unregister(self._stream)


def _register(stream: _Stream) -> None:
    with _lock:
        _open.add(stream)
        if _in_main_thread():
            _open_in_main.add(stream)
            _install_handlers()
            _workers.find_workers(_begin_server_shutdown)
            _start_polling()


def _unregister(stream: _Stream) -> None:
    with _lock:
        _open.discard(stream)
        if _in_main_thread():
            _open_in_main.discard(stream)
            if not _open_in_main:
                _restore_handlers()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _install_handlers() -> None:
    for number in _SIGNALS:
        handler = _get_handler(number)
        # Without a handler, there is no server that would wait for its streams.
        if (
            callable(handler)
            and not isinstance(handler, _Handler)
            and handler is not signal.default_int_handler
        ):
            _previous.setdefault(number, []).append(handler)
            _set_handler(number, _Handler(number))


def _server_handlers() -> Iterator[Any]:
    """Yield the current handler of each signal, or the one that ours calls next."""
    for number in _SIGNALS:
        handler = _get_handler(number)
        if isinstance(handler, _Handler):
            handler = handler.previous
        yield handler


def _server_is_shutting_down() -> bool:
    return _workers.is_stopping() or any(map(_is_stopping, _server_handlers()))


def _is_stopping(handler: Any) -> bool:
    """Return whether a handler belongs to a uvicorn that is shutting down, or has."""
    server = _server_of(handler)
    if server is None:
        return False
    if server.should_exit is True:
        return True
    sockets: Any = getattr(server, "servers", None)
    try:
        return bool(sockets) and not any(one.is_serving() for one in sockets)
    except (AttributeError, TypeError):  # It is not a uvicorn.
        return False


def _server_of(handler: Any) -> Any:
    """Return the server that a handler is a method of, if it looks like a uvicorn."""
    server = getattr(handler, "__self__", None)
    return server if hasattr(server, "should_exit") else None


class _Poll:
    """Checks regularly whether the server shuts down without a signal."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._timer = self._schedule()

    def _schedule(self) -> asyncio.TimerHandle:
        # The timer must not keep the context of the request that happens to be first.
        context = contextvars.Context()
        return self.loop.call_later(POLL_INTERVAL, self._check, context=context)

    def _check(self) -> None:
        # A timer that has fired still refers to its callback. Frames of asyncio may
        # keep the timer until the garbage collector runs, so drop the reference.
        self._timer.cancel()
        if _server_is_shutting_down():
            _begin_server_shutdown()
        if _poll is self:
            self._timer = self._schedule()

    def end(self) -> None:
        self._timer.cancel()


def _start_polling() -> None:
    global _poll
    if _poll is not None and not _poll.loop.is_closed():
        return
    if _workers.needs_polling() or any(
        _server_of(handler) is not None for handler in _server_handlers()
    ):
        try:
            _poll = _Poll(asyncio.get_running_loop())
        except RuntimeError:  # The event loop is trio's.
            _poll = None


def _next_index(handlers: list[Callable[..., Any]]) -> int:
    """Return the index of the handler to call, skipping servers that are shutting down.

    A server that started after our handler was installed sends the signal again when it
    has shut down, so that the server before it gets the signal. If all servers are
    shutting down, this is the second Ctrl+C, and the latest handler gets it.
    """
    for index in reversed(range(len(handlers))):
        if not _is_stopping(handlers[index]):
            return index
    return len(handlers) - 1


def _restore_handlers() -> None:
    global _poll
    if _poll is not None:
        _poll.end()
        _poll = None
    for number, handlers in _previous.items():
        if handlers and isinstance(_get_handler(number), _Handler):
            index = _next_index(handlers)
            # A signal may arrive in between, so the handler is set first.
            _set_handler(number, handlers[index])
            del handlers[index:]


class _Handler:
    """Our signal handler: ends the streams, then calls the previous handler."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def previous(self) -> Any:
        """The handler to call next."""
        handlers = _previous.get(self._number)
        return handlers[_next_index(handlers)] if handlers else None

    @property
    def __self__(self) -> Any:
        """The object that the previous handler is a method of.

        Other libraries, such as sse-starlette, look for the server there.

        Raises:
            AttributeError: The previous handler is not a method.
        """
        return self.previous.__self__

    def __call__(self, number: int, frame: Any) -> None:
        _begin_server_shutdown()
        handlers = _previous.get(number, [])
        depth = _depth.get(number, 0)
        handlers = handlers[: len(handlers) - depth]
        if handlers:
            _depth[number] = depth + 1
            try:
                handlers[_next_index(handlers)](number, frame)
            finally:
                _depth[number] = depth
