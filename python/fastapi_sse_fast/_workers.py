"""Finds server workers that shut down because of a flag instead of a signal.

hypercorn's main process sets a flag that its workers share. In each worker, a task
waits for the flag, and another one for `max_requests`. gunicorn's `asgi` worker clears
its own flag after `max_requests`. Neither offers this to applications, but their tasks
refer to it, so the tasks of each event loop are searched once. If a release uses other
names, nothing is found, and the shutdown is noticed only if the server shows it in
another way.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_searched: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_gunicorn_workers: weakref.WeakSet[Any] = weakref.WeakSet()


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
    if loop in _searched:
        return
    _searched.add(loop)
    for task in asyncio.all_tasks(loop):
        coroutine = task.get_coro()
        name = getattr(coroutine, "__qualname__", "")
        if name == "raise_shutdown":
            task.add_done_callback(lambda _: on_shutdown())
        elif name == "ASGIWorker._serve":
            frame = getattr(coroutine, "cr_frame", None)
            if frame is not None and "self" in frame.f_locals:
                _gunicorn_workers.add(frame.f_locals["self"])


def needs_polling() -> bool:
    """Return whether a worker was found whose flag has to be polled."""
    return bool(_gunicorn_workers)


def is_stopping() -> bool:
    """Return whether such a worker is shutting down."""
    return any(getattr(worker, "alive", True) is False for worker in _gunicorn_workers)
