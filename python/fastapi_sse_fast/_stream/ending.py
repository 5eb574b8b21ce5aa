"""The reason and the deadline of the end of a stream.

    open ── note(reason) ──────▶ closed: the first reason counts
    open ── shut_down(grace) ──▶ open until `grace` has passed, at most
    open ── end() ─────────────▶ open until the outlet sees that `ends_at` has passed
    open ── `ends_at` passes ──▶ the outlet ends the stream and notes `end_reason`

This module does no I/O and never reads a clock: callers pass the time. Times are
seconds on the clock of the event loop.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..summary import Reason
    from .limits import Limits


class Ending:
    """The end of one stream.

    Args:
        started_at: When the stream was opened.
        seconds_to_live: Seconds after which the stream is ended. May be infinity.
        limits: The limits of the stream.

    Attributes:
        reason: Why the stream ended. `None` while it is open.
        ends_at: When the stream will be ended, even if its source has more items.
        end_reason: Why it will be ended at that time.
    """

    __slots__ = (
        "_forced_at",
        "_forced_reason",
        "_limits",
        "_started_at",
        "end_reason",
        "ends_at",
        "reason",
    )

    def __init__(
        self, started_at: float, *, seconds_to_live: float, limits: Limits
    ) -> None:
        self._limits = limits
        self._started_at = started_at
        # After this time, the client may not hold up the end of the stream any longer.
        self._forced_at = math.inf
        self._forced_reason: Reason = "shutdown"
        self.reason: Reason | None = None
        self.ends_at = started_at + seconds_to_live
        self.end_reason: Reason = "max_duration"

    def note(self, reason: Reason) -> None:
        """Set the reason of the end, unless there is one already."""
        if self.reason is None:
            self.reason = reason

    def shut_down(self, now: float, *, grace: float) -> None:
        """Bring the end forward because the server is shutting down."""
        ends_at = max(now + grace, self._started_at + self._limits.min_duration)
        self._bring_forward(ends_at, "shutdown")

    def end(self, now: float) -> None:
        """Bring the end forward because `EventStream.end` was called."""
        self._bring_forward(now, "ended")

    def _bring_forward(self, ends_at: float, reason: Reason) -> None:
        if ends_at < self.ends_at:
            self.ends_at = ends_at
            self.end_reason = reason
        # A client that does not read must not keep the generator open.
        self._forced_at = self.ends_at
        self._forced_reason = reason

    def send_by(self, began_at: float, timeout: float) -> float:
        """Return the deadline of a send that began at a given time."""
        send_by = began_at + timeout
        if self._forced_at == math.inf:
            return send_by
        forced_at = max(began_at, self._forced_at)
        return min(send_by, forced_at + self._limits.last_send_timeout)

    def note_missed_send(self, now: float) -> None:
        """Set the reason because a send has missed its deadline."""
        self.note(self._forced_reason if now >= self._forced_at else "send_timeout")
