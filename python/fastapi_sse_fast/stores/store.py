"""The interface of stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Literal

    from typing_extensions import Self

    from .._core import EventLog
    from .tasks import RunTask

    IfRunning = Literal["reject", "attach", "replace"]

    RunStatus = Literal[
        "running", "done", "cancelled", "failed", "lost", "timeout", "shutdown"
    ]


class Position(NamedTuple):
    """A position in a log.

    Attributes:
        epoch: Random name, which is new whenever the log begins anew.
        offset: Number of the last event that a reader has, 0 before the first one.
    """

    epoch: str
    offset: int


START = Position("", 0)
"""Before the first event of any log."""


class History(NamedTuple):
    """How much of a log to keep.

    Attributes:
        events: Number of events.
        ttl: Seconds to keep the log after its last event, unless somebody reads it.
    """

    events: int
    ttl: float


class LastEvent(NamedTuple):
    """The last event of a run.

    Attributes:
        frame: The event.
        without_id: What readers that are sent no positions get instead of it.
    """

    frame: bytes
    without_id: bytes


class RunTerms(NamedTuple):
    """How to keep a run.

    Attributes:
        history: How much of its log to keep.
        lease: Seconds without a sign of its process after which a run is lost.
        lost: The last event of a run that is lost.
    """

    history: History
    lease: float
    lost: LastEvent


class RunWriter(Protocol):
    """Appends the events of a run, in the process that has started it."""

    @property
    def events(self) -> int:
        """The number of events so far."""

    def append(self, frames: bytes) -> None:
        """Append events. The last one may be continued in the next call.

        Raises:
            StoreError: The store has not accepted earlier events.
        """

    async def drain(self) -> None:
        """Wait until the store has taken most of the events."""

    async def end(self, status: RunStatus, last: LastEvent) -> RunStatus:
        """End the run with its last event, and return how it has ended.

        That is another status if the run was lost in the meantime.

        Raises:
            StoreError: The store did not accept the event.
        """

    def on_end(self, function: Callable[[RunStatus], None]) -> None:
        """Set what is called if the run is to end now.

        It is called with `"cancelled"`, `"lost"` or `"failed"`, and at once if the run
        was to end before.
        """


class RunInfo(NamedTuple):
    """A run in a store.

    Attributes:
        id: Tells runs of the same name apart.
        position: Position of its newest event.
        status: `"running"`, or how the run ended.
        writer: Appends its events, if the run has just been started.
    """

    id: str
    position: Position
    status: RunStatus
    writer: RunWriter | None = None


class Store(Protocol):
    """The interface of stores, which `Channels` and `Runs` use.

    Use it to annotate code that accepts any store. A store keeps *logs*: the events of
    a channel or a run, by position. The interface can still change.
    """

    async def __aenter__(self) -> Self:
        """Open the store."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all runs of this process, and close the store."""

    def lifespan(self, app: Any) -> AbstractAsyncContextManager[None]:
        """Open the store while an application runs. Pass this as its `lifespan`."""

    def start_task(self, function: Callable[..., Any], *args: Any) -> None:
        """Run an async function in a task that is cancelled with the store."""

    def start_run_task(self, run: RunTask) -> None:
        """Run a run in a task. It is shut down when the store is closed."""

    def on_lost(self, function: Callable[[str], Awaitable[object]]) -> None:
        """Add a function to call with the name of a run that was found lost here."""

    # Channels

    async def log(
        self, name: str, history: History, after: Position | None = None
    ) -> EventLog:
        """Return a log, to read it. If there is none, make it.

        Args:
            name: The log.
            history: How much of it to keep.
            after: The log reaches back to this position, or as far as the store does.
                `None` if only events from now on will be read.
        """

    async def position(self, name: str, history: History) -> Position:
        """Return the position of the newest event of a log."""

    async def append(
        self, name: str, frames: bytes, history: History, dedupe: str | None
    ) -> Position:
        """Append events to a log, and return the position of the last one.

        Args:
            name: The log.
            frames: The events.
            history: How much of the log to keep.
            dedupe: Events that were appended with the same key are not appended again.
        """

    # Runs

    async def start_run(
        self, name: str, terms: RunTerms, if_running: IfRunning
    ) -> RunInfo:
        """Start a run, or find the one that is running.

        Raises:
            RunExists: It is running, and `if_running` is `"reject"`.
        """

    async def run(self, name: str) -> RunInfo | None:
        """Return a run, if there is one that has not expired."""

    async def run_log(
        self, name: str, id: str, history: History, after: Position
    ) -> EventLog | None:
        """Return the log of a run, to read it, if it has not expired.

        Args:
            name: Name of the run.
            id: Id of the run.
            history: As in `log`.
            after: As in `log`.
        """

    async def cancel_run(self, name: str) -> bool:
        """Ask the process of a run to end it. Return whether it is running."""
