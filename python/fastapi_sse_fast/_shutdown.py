"""Ends open streams when the server stops.

A server that is told to stop waits for its responses to end, and an event stream has no
reason to. ASGI has no word for it: the lifespan's shutdown comes only after that wait.
But every server is told by a signal and has a handler for it; while streams are open,
ours stands before that handler: it ends the streams, then calls it. A request whose
dependencies are still being opened is counted too, or the server would wait for its
stream, which nobody ends any more.

Handlers belong to the main thread. A server in another thread is stopped by code, and
that code can wait for it in `shutting_down()`.

What begins after the signal cannot be told of it any more: uvicorn accepts connections
for up to 0.1 s longer. Its handler is a method of the server, and that tells: by its
`should_exit`, and by its sockets, which it closes. So a uvicorn is also seen to stop
that nobody has sent a signal, as after `--limit-max-requests`. How others are seen that
are told by no signal is in `_workers.py`.
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
        # The same, but every handler is first looked up in an enum, whose error message
        # has the `repr` of all of the server: 20 µs a call, and some calls a stream.
        from signal import getsignal as _get_handler
        from signal import signal as _set_handler

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGBREAK")
    if hasattr(signal, name)
]
if "gunicorn" in sys.modules and hasattr(signal, "SIGQUIT"):
    # Its workers get this one where its main process gets SIGINT or SIGQUIT. Elsewhere
    # it is no order to stop: a handler of the application may print stacks.
    _SIGNALS.append(signal.SIGQUIT)

UNKNOWN_PATIENCE: Final = 30.0
"""Seconds that a server is taken to wait for its responses, where it does not tell: as
long as Kubernetes gives a container, and gunicorn a worker."""

SECONDS_BETWEEN_LOOKS: Final = 0.5
"""How often a server that does not say that it stops is looked at, while it streams."""

_lock = threading.RLock()  # a handler may run while its own thread holds it
_open: set[_Stream] = set()
_open_in_main: set[_Stream] = set()
"""Those of the main thread, for whose sake our handlers stand."""
_below: dict[int, list[Callable[..., Any]]] = {}
"""For each signal the handlers that ours stands before, the topmost last.

Usually that is one, the server's. Another library may stand before ours in turn and
call it; when ours then stands before that one, it is in the chain twice.
"""
tell_of_a_stop: Final[list[Callable[[], object]]] = []
"""Called when the server is told to stop while there are streams, before they end."""
_stopping = 0
"""How many blocks of `shutting_down` are open."""
_watch: _Watch | None = None
"""Of the server of the main thread, while it has streams."""
_depth: dict[int, int] = {}
"""How many times ours is being called for a signal, by itself through the chain."""


class _Stream(Protocol):
    def shut_down(self) -> None:
        """Ends the stream; called from any thread."""


def shutdown() -> None:
    """Ends all open streams of this process, as when a server is told to stop.

    May be called from any thread. Of streams that begin later, those are ended too
    whose dependencies are being opened now. To stop a server by code, wait for it in
    `shutting_down()`.

    Examples:
        >>> shutdown()
    """
    with _lock:
        streams = list(_open)
    for stream in streams:
        stream.shut_down()


def _server_stops() -> None:
    for tell in tell_of_a_stop:
        tell()
    shutdown()


@contextlib.contextmanager
def shutting_down() -> Iterator[None]:
    """Ends all streams of this process, also those that begin within the block.

    For servers that are embedded and stopped by code, without a signal: they accept
    clients for a moment after they were told to stop. May be entered in any thread, and
    more than once at a time.

        with shutting_down():
            server.should_exit = True
            thread.join()
    """
    global _stopping
    with _lock:
        _stopping += 1
    try:
        shutdown()
        yield
    finally:
        with _lock:
            _stopping -= 1


def server_patience() -> float:
    """Return how long the server waits for its responses once it stops, in seconds.

    That is uvicorn's `timeout_graceful_shutdown`, less what a generator takes to close:
    at the end of it uvicorn cancels its requests. Without it uvicorn waits for ever.
    """
    for handler in _handlers():
        config = getattr(_server_of(handler), "config", None)
        seconds = getattr(config, "timeout_graceful_shutdown", "unknown")
        if seconds is None:
            return math.inf
        if isinstance(seconds, (int, float)):
            return max(0.0, seconds - min(1.0, seconds / 10))
    return UNKNOWN_PATIENCE


class Opening:
    """A request, from before its dependencies are opened; its stream asks it.

    Attributes:
        stopped: Whether the server was told to stop since then.
    """

    __slots__ = ("stopped",)

    def __init__(self) -> None:
        self.stopped = False
        _add(self)

    def shut_down(self) -> None:
        self.stopped = True

    def close(self) -> None:
        _discard(self)


class EndedAtShutdown:
    """Has `stream.shut_down()` called if the server stops meanwhile, or already."""

    __slots__ = ("_opening", "_stream")

    def __init__(self, stream: _Stream, opening: Opening | None) -> None:
        self._stream = stream
        self._opening = opening

    def __enter__(self) -> None:
        _add(self._stream)
        told = self._opening is not None and self._opening.stopped
        if told or _stopping or (_in_main_thread() and _server_is_stopping()):
            self._stream.shut_down()

    def __exit__(self, *exc_info: object) -> None:
        _discard(self._stream)


def _add(stream: _Stream) -> None:
    with _lock:
        _open.add(stream)
        if _in_main_thread():
            _open_in_main.add(stream)
            _stand_before_the_servers_handlers()
            _workers.hear_of_a_stop(_server_stops)
            _watch_the_server()


def _discard(stream: _Stream) -> None:
    with _lock:
        _open.discard(stream)
        if _in_main_thread():
            _open_in_main.discard(stream)
            if not _open_in_main:
                _step_aside()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stand_before_the_servers_handlers() -> None:
    for number in _SIGNALS:
        handler = _get_handler(number)
        # Without a handler there is no server that would wait for its streams.
        if (
            callable(handler)
            and not isinstance(handler, _Handler)
            and handler is not signal.default_int_handler
        ):
            _below.setdefault(number, []).append(handler)
            _set_handler(number, _Handler(number))


def _handlers() -> Iterator[Any]:
    """For each signal the handler that is to be called next, but for ours."""
    for number in _SIGNALS:
        handler = _get_handler(number)
        if isinstance(handler, _Handler):
            handler = handler.below
        yield handler


def _server_is_stopping() -> bool:
    return _workers.is_stopping() or any(map(_has_been_told, _handlers()))


def _has_been_told(handler: Any) -> bool:
    """Whether it is that of a uvicorn which is to stop, or has stopped."""
    server = _server_of(handler)
    if server is None:
        return False
    if server.should_exit is True:
        return True
    sockets: Any = getattr(server, "servers", None)
    try:
        return bool(sockets) and not any(one.is_serving() for one in sockets)
    except (AttributeError, TypeError):  # it is no uvicorn
        return False


def _server_of(handler: Any) -> Any:
    """The uvicorn, or what looks like one, whose method a handler is."""
    server = getattr(handler, "__self__", None)
    return server if hasattr(server, "should_exit") else None


class _Watch:
    """Looks now and then whether the server stops without a signal."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._timer = self._look_later()

    def _look_later(self) -> asyncio.TimerHandle:
        # Not in the context of the request that happens to be first.
        context = contextvars.Context()
        return self.loop.call_later(SECONDS_BETWEEN_LOOKS, self._look, context=context)

    def _look(self) -> None:
        # A timer that rang has its callback, and may be in what others leave to the
        # garbage collector: asyncio's loop has lists of timers in its frames.
        self._timer.cancel()
        if _server_is_stopping():
            _server_stops()
        if _watch is self:
            self._timer = self._look_later()

    def end(self) -> None:
        self._timer.cancel()


def _watch_the_server() -> None:
    global _watch
    if _watch is not None and not _watch.loop.is_closed():
        return
    if _workers.there_is_one_to_ask() or any(
        _server_of(handler) is not None for handler in _handlers()
    ):
        try:
            _watch = _Watch(asyncio.get_running_loop())
        except RuntimeError:  # there is none: it is trio's
            _watch = None


def _topmost(handlers: list[Callable[..., Any]]) -> int:
    """The index of the handler to call, but for that of a server that has been told.

    One that began when ours was set gives the signal back to it when it has stopped,
    so that the server below gets it. If all have been told, it is the second Ctrl+C.
    """
    for index in reversed(range(len(handlers))):
        if not _has_been_told(handlers[index]):
            return index
    return len(handlers) - 1


def _step_aside() -> None:
    global _watch
    if _watch is not None:
        _watch.end()
        _watch = None
    for number, handlers in _below.items():
        if handlers and isinstance(_get_handler(number), _Handler):
            index = _topmost(handlers)
            # In this order: a signal may come between the two.
            _set_handler(number, handlers[index])
            del handlers[index:]


class _Handler:
    """Our handler of a signal: ends the streams, then calls the one below."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def below(self) -> Any:
        """The handler that this one stands before."""
        handlers = _below.get(self._number)
        return handlers[_topmost(handlers)] if handlers else None

    @property
    def __self__(self) -> Any:
        """The object whose method the handler below is.

        Others look for the server there, as sse-starlette does.

        Raises:
            AttributeError: It is no method.
        """
        return self.below.__self__

    def __call__(self, number: int, frame: Any) -> None:
        _server_stops()
        handlers = _below.get(number, [])
        depth = _depth.get(number, 0)
        handlers = handlers[: len(handlers) - depth]
        if handlers:
            _depth[number] = depth + 1
            try:
                handlers[_topmost(handlers)](number, frame)
            finally:
                _depth[number] = depth
