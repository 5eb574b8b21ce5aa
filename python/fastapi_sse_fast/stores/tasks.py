"""The tasks of a store, and the end of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import anyio

from .._shutdown import server_is_forced_to_exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from anyio.abc import TaskGroup
    from typing_extensions import Self

POLL_INTERVAL = 0.2
"""Seconds between two checks of whether the server is forced to exit."""


class RunTask(Protocol):
    """A run of this process."""

    async def run(self) -> None:
        """Run until the end."""

    def shut_down(self) -> None:
        """End the run because the store is being closed, unless it ends soon anyway."""


class StoreTasks:
    """The tasks of an open store. Runs have time to end when it is closed.

    Args:
        after_runs: Awaited between the end of the runs and that of the other tasks.
    """

    def __init__(
        self, after_runs: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self._after_runs = after_runs
        self._group: TaskGroup = anyio.create_task_group()
        self._runs: set[RunTask] = set()
        self._runs_ended = anyio.Event()
        self._is_closing = False

    async def __aenter__(self) -> Self:
        """Begin to run tasks."""
        await self._group.__aenter__()
        return self

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        """Run an async function in a task. It is cancelled when the store is closed."""
        self._group.start_soon(function, *args)

    def start_run(self, run: RunTask) -> None:
        """Run a run in a task. It is shut down when the store is closed."""
        self._runs.add(run)
        self._group.start_soon(self._run, run)
        if self._is_closing:
            run.shut_down()

    async def _run(self, run: RunTask) -> None:
        try:
            await run.run()
        finally:
            self._runs.discard(run)
            if not self._runs:
                self._runs_ended.set()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Shut down the runs, wait for them, and cancel the other tasks."""
        try:
            if kind is None:
                await self._shut_down_runs()
                if self._after_runs is not None:
                    await self._after_runs()
        finally:
            self._group.cancel_scope.cancel()
            if isinstance(error, Exception):
                # It is raised as it is, and not in a group.
                await self._group.__aexit__(None, None, None)
            else:
                await self._group.__aexit__(kind, error, traceback)

    async def _shut_down_runs(self) -> None:
        self._is_closing = True
        for run in list(self._runs):
            run.shut_down()
        # A second Ctrl-C means that nobody wants to wait.
        while self._runs and not server_is_forced_to_exit():
            self._runs_ended = anyio.Event()
            with anyio.move_on_after(POLL_INTERVAL):
                await self._runs_ended.wait()
