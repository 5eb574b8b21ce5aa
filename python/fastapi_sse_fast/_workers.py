"""Workers that are told to stop by a flag and by no signal.

The main process of hypercorn sets a flag that its workers share, and a task of each
waits for it; another waits for `max_requests`. gunicorn's own worker has a flag that
`max_requests` clears. What both have is not offered to applications: it is in their
tasks, which asyncio lists, and is looked for once in each loop. Where a release names
it differently, nothing is found, and a stop is seen as late as the server shows it.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_looked_at: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_gunicorns: weakref.WeakSet[Any] = weakref.WeakSet()


def hear_of_a_stop(told: Callable[[], object]) -> None:
    """Have something called when a worker of hypercorn in this loop is told to stop."""
    if "hypercorn" not in sys.modules and "gunicorn" not in sys.modules:
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # it is trio's
        return
    if loop in _looked_at:
        return
    _looked_at.add(loop)
    for task in asyncio.all_tasks(loop):
        coroutine = task.get_coro()
        name = getattr(coroutine, "__qualname__", "")
        if name == "raise_shutdown":
            task.add_done_callback(lambda _: told())
        elif name == "ASGIWorker._serve":
            frame = getattr(coroutine, "cr_frame", None)
            if frame is not None and "self" in frame.f_locals:
                _gunicorns.add(frame.f_locals["self"])


def there_is_one_to_ask() -> bool:
    """Return whether a worker was found that does not say by itself that it stops."""
    return bool(_gunicorns)


def is_stopping() -> bool:
    """Return whether such a worker has been told to stop."""
    return any(getattr(worker, "alive", True) is False for worker in _gunicorns)
