"""The interface of stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Literal

    from typing_extensions import Self

    from .._core import EventLog

    IfRunning = Literal["reject", "attach", "replace"]


class History(NamedTuple):
    """How much of a log to keep.

    Attributes:
        events: Number of events.
        ttl: Seconds to keep the log after its last event, unless somebody reads it.
    """

    events: int
    ttl: float


class RunInfo(NamedTuple):
    """A run in a store.

    Attributes:
        log: Events of the run.
        status: `"running"`, or how the run ended.
        is_new: Whether the run has just been started.
    """

    log: EventLog
    status: str
    is_new: bool


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
        """Cancel all runs, and close the store."""

    def lifespan(self, app: Any) -> AbstractAsyncContextManager[None]:
        """Open the store while an application runs: the lifespan of an application."""

    async def log(self, name: str, history: History) -> EventLog:
        """Return a log, to read it; a new one if there is none."""

    async def append(
        self, name: str, frames: bytes, history: History, dedupe: str | None
    ) -> str:
        """Append events to a log, and return the position of the last one.

        Args:
            name: The log.
            frames: The events.
            history: How much of the log to keep.
            dedupe: Events that were appended with the same key are not appended again.
        """

    async def start_run(
        self, name: str, history: History, if_running: IfRunning
    ) -> RunInfo:
        """Start a run, or find the one that is running.

        Raises:
            RunExists: It is running, and `if_running` is `"reject"`.
        """

    async def run(self, name: str) -> RunInfo | None:
        """Return a run, if there is one that has not expired."""

    async def cancel_run(self, name: str) -> bool:
        """Ask the owner of a run to end it. Return whether it is running."""

    def own_run(self, name: str, info: RunInfo, cancel: Callable[[], None]) -> None:
        """Have a run that was started here cancelled by `cancel`.

        It is called at once if the run has been cancelled since it was started.
        """

    async def end_run(
        self, name: str, info: RunInfo, status: str, frame: bytes, without_id: bytes
    ) -> None:
        """End a run with its last event.

        Args:
            name: The run.
            info: What `start_run` has returned.
            status: How it ends.
            frame: The last event.
            without_id: What readers that are sent no positions get instead of it.
        """

    def start_task(self, function: Callable[..., Any], *args: Any) -> None:
        """Run an async function in a task that ends with the store."""
