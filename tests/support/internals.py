"""Everything that tests know about the internals of the package.

When the internals change, only this file has to change. No test uses a private module
itself.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from anyio._backends._asyncio import WorkerThread

from fastapi_sse_fast import EventSourceResponse, Runs, Subscription, _shutdown
from fastapi_sse_fast._core import EventLog
from fastapi_sse_fast.stores import memory
from fastapi_sse_fast.subscription import Readings

from .server import wait_until


def limits(
    monkeypatch: pytest.MonkeyPatch,
    *,
    last_send_timeout: float | None = None,
    least_duration: float | None = None,
) -> None:
    """Change for one test how long streams wait.

    Args:
        monkeypatch: Fixture of the test.
        last_send_timeout: Seconds that a client may delay the end of its stream at
            server shutdown.
        least_duration: Seconds that a stream may last, even if the server shuts down.
    """
    times = {
        "last_send_timeout": last_send_timeout,
        "min_duration": least_duration,
    }
    changed = {name: time for name, time in times.items() if time is not None}
    limits = EventSourceResponse._limits._replace(**changed)
    monkeypatch.setattr(EventSourceResponse, "_limits", limits)


def open_streams() -> int:
    """Return the number of streams that a shutdown would end."""
    return len(_shutdown._open)


def forget_open_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep streams that this test does not close from affecting other tests."""
    for name in ("_open", "_open_in_main"):
        monkeypatch.setattr(_shutdown, name, set())


def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assume that a server whose grace period is unknown does not wait."""
    monkeypatch.setattr(_shutdown, "DEFAULT_SHUTDOWN_TIMEOUT", 0.0)


def shutdown_grace_of(runs: Runs) -> float | None:
    """Return how long a run that begins now may continue on server shutdown."""
    return runs._options_now().shutdown_grace


def seconds_to_go_on(close_timeout: float) -> float:
    """Return how long a stream goes on when the server of this process shuts down."""
    return _shutdown.server_shutdown_timeout(close_timeout)


def before_handlers_change(monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    """Call a function with the number of a signal before its handler changes."""
    set_handler = _shutdown._set_handler

    def set_handler_late(number: int, handler: Any) -> Any:
        call(number)
        return set_handler(number, handler)

    monkeypatch.setattr(_shutdown, "_set_handler", set_handler_late)


def is_of_the_package(module: str) -> bool:
    """Return whether a module belongs to the package."""
    return module.startswith("fastapi_sse_fast.")


@contextlib.contextmanager
def nothing_for_the_collector() -> Iterator[None]:
    """Fail if the block leaves objects that only the garbage collector frees.

    Existing objects are frozen, so that looking at the others is fast.
    """
    gc.disable()
    gc.freeze()
    try:
        before = objects_of_streams()
        yield
        wait_until(all_workers_wait)
        assert objects_of_streams() == before
    finally:
        gc.unfreeze()
        gc.enable()


def all_workers_wait() -> bool:
    """Return whether AnyIO's threads on asyncio have dropped the last function.

    They pass its result to the event loop first, so a stream can end before that.
    """
    frames = sys._current_frames()
    workers = [each for each in threading.enumerate() if isinstance(each, WorkerThread)]
    return all(_waits_for_work(frames.get(each.ident or 0)) for each in workers)


def _waits_for_work(frame: types.FrameType | None) -> bool:
    while frame is not None and frame.f_code is not queue.Queue.get.__code__:
        frame = frame.f_back
    return frame is not None


def objects_of_streams() -> int:
    """Return the number of objects of the package, and of all generators.

    AnyIO's generators do not count, because its worker threads keep one for a moment.
    The code uses neither `__class__` nor `__hash__`: some objects misbehave.
    """
    objects = gc.get_objects()
    kinds = {id(kind): kind for kind in map(type, objects)}
    counted = {number for number, kind in kinds.items() if _is_of_streams(kind)}
    return sum(
        id(type(thing)) in counted and not _is_anyios(thing) for thing in objects
    )


def _is_of_streams(kind: type) -> bool:
    if kind is types.GeneratorType or kind is types.AsyncGeneratorType:
        return True
    module = type.__getattribute__(kind, "__module__")
    return str(module).startswith("fastapi_sse_fast")


def _is_anyios(thing: object) -> bool:
    if type(thing) is types.GeneratorType:
        return "anyio" in thing.gi_code.co_filename
    return False


def new_log(
    epoch: str = "Ab3dE9xZ",
    *,
    most: int = 9,
    top: int = 0,
    earlier: Sequence[tuple[str, int]] = (),
) -> EventLog:
    """Return a log that belongs to no store."""
    return EventLog(
        epoch, most=most, call_soon=memory._call_soon(), top=top, earlier=[*earlier]
    )


def subscription_to(
    *logs: EventLog,
    last: str | None = None,
    start_task: Callable[..., None] | None = None,
    **options: Any,
) -> Subscription:
    """Return a subscription to logs. Without a cursor, it begins with what is next.

    Args:
        *logs: The logs.
        last: A cursor.
        start_task: Starts a task for an async `on_gap`.
        **options: As `Subscription` has them.
    """

    async def open_logs(positions: Any) -> Sequence[EventLog]:
        return logs

    def start_nothing(*args: Any) -> None:
        raise AssertionError

    arguments = {
        "name": "logs",
        "readings": Readings(),
        "start_task": start_task or start_nothing,
        "from_start": False,
        **options,
    }
    return Subscription(open_logs, last, **arguments)
