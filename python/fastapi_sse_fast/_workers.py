"""Finds server workers, which know when and by when they shut down.

hypercorn's main process sets a flag that its workers share. In each worker, a task
waits for the flag, and another one for `max_requests`. gunicorn's `asgi` worker clears
its own flag after `max_requests`. Both servers wait for open responses for a time that
is a setting. They do not offer any of this to applications, but their tasks refer to
it, so the tasks of each event loop are searched until they are found. If a release uses
other names, nothing is found. Then a shutdown is noticed only if the server shows it in
another way.
"""

from __future__ import annotations

import asyncio
import math
import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_search_at: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float]
_search_at = weakref.WeakKeyDictionary()
"""When to search an event loop again, on its clock. Before a server accepts its first
connection, such as during the lifespan's startup, there may be nothing to find."""
_awaited: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
"""Tasks that end when a worker of hypercorn shuts down."""
SEARCH_INTERVAL = 1.0
"""Seconds between two searches."""
_gunicorn_workers: weakref.WeakSet[Any] = weakref.WeakSet()
_hypercorn_configs: weakref.WeakSet[Any] = weakref.WeakSet()

_GUNICORN = ("ASGIWorker._serve", "UvicornWorker._serve")
"""The main task of a worker of gunicorn, the one of uvicorn included."""

_HYPERCORN = "worker_serve.<locals>._server_callback"
"""A task of hypercorn that serves a connection."""


def find_workers(on_shutdown: Callable[[], object]) -> None:
    """Search the event loop for workers.

    Args:
        on_shutdown: Called when a worker of hypercorn shuts down.
    """
    if "hypercorn" not in sys.modules and "gunicorn" not in sys.modules:
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # The event loop is trio's.
        return
    now = loop.time()
    if now < _search_at.get(loop, now):
        return
    _search_at[loop] = now + SEARCH_INTERVAL
    for task in asyncio.all_tasks(loop):
        coroutine = task.get_coro()
        name = getattr(coroutine, "__qualname__", "")
        if name == "raise_shutdown" and task not in _awaited:
            _awaited.add(task)
            task.add_done_callback(lambda _: on_shutdown())
        elif name in _GUNICORN:
            _search_at[loop] = math.inf
            _add_local(_gunicorn_workers, coroutine, "self")
        elif name == _HYPERCORN:
            _search_at[loop] = math.inf
            _add_local(_hypercorn_configs, coroutine, "config")


def _add_local(found: weakref.WeakSet[Any], coroutine: object, name: str) -> None:
    """Add a local variable of a coroutine to a set."""
    frame = getattr(coroutine, "cr_frame", None)
    if frame is not None and name in frame.f_locals:
        found.add(frame.f_locals[name])


def _is_limited(config: Any) -> bool:
    """Return whether hypercorn limits the time of responses, or is told to.

    It first awaits `asyncio.Server.wait_closed()`, which waits for all connections
    since Python 3.12. The limit begins after that, so the default has no meaning.
    """
    return sys.version_info < (3, 12) or "graceful_timeout" in vars(config)


def needs_polling() -> bool:
    """Return whether a worker was found whose flag has to be polled."""
    return bool(_gunicorn_workers)


def is_stopping() -> bool:
    """Return whether such a worker is shutting down."""
    return any(getattr(worker, "alive", True) is False for worker in _gunicorn_workers)


def graceful_timeouts() -> Iterator[float]:
    """Yield how long each worker waits for its responses on shutdown, in seconds."""
    gunicorn = (getattr(worker, "cfg", None) for worker in _gunicorn_workers)
    for settings in (*gunicorn, *filter(_is_limited, _hypercorn_configs)):
        seconds = getattr(settings, "graceful_timeout", None)
        if isinstance(seconds, (int, float)):
            yield seconds
