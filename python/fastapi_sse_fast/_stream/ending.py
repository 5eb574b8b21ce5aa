"""Why a stream ends, and by when.

    open ── note(reason) ──────▶ over: the first reason counts
    open ── shut_down(grace) ──▶ open, but it ends after that time, if not before
    open ── end() ─────────────▶ open, but it ends now
    open ── ends_at is reached ▶ the outlet ends the stream, and notes `ends_for`

Pure: it is told the time and never asks for it. Times are seconds on the clock of the
event loop.
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
        started_at: When the stream began.
        seconds_to_live: After which it is ended, perhaps infinity.
        limits: The stream's.

    Attributes:
        reason: Why the stream is over; `None` while it is not.
        ends_at: When it is ended, although its source would go on.
        ends_for: Why it is ended then.
    """

    __slots__ = (
        "_limits",
        "_started_at",
        "_stops_at",
        "_stops_for",
        "ends_at",
        "ends_for",
        "reason",
    )

    def __init__(
        self, started_at: float, *, seconds_to_live: float, limits: Limits
    ) -> None:
        self._limits = limits
        self._started_at = started_at
        # What stops the stream waits no longer than until then.
        self._stops_at = math.inf
        self._stops_for: Reason = "shutdown"
        self.reason: Reason | None = None
        self.ends_at = started_at + seconds_to_live
        self.ends_for: Reason = "max_duration"

    def note(self, reason: Reason) -> None:
        """Note why the stream is over, unless something else has ended it before."""
        if self.reason is None:
            self.reason = reason

    def shut_down(self, now: float, *, grace: float) -> None:
        """Bring the end forward: the server stops."""
        ends_at = max(now + grace, self._started_at + self._limits.least_duration)
        self._bring_forward(ends_at, "shutdown")

    def end(self, now: float) -> None:
        """Bring the end forward: somebody has asked for it."""
        self._bring_forward(now, "ended")

    def _bring_forward(self, ends_at: float, reason: Reason) -> None:
        if ends_at < self.ends_at:
            self.ends_at = ends_at
            self.ends_for = reason
        # A client that does not read must not keep the generator.
        self._stops_at = self.ends_at
        self._stops_for = reason

    def send_by(self, began_at: float, timeout: float) -> float:
        """Return by when a send has to be done that began at a time."""
        send_by = began_at + timeout
        if self._stops_at == math.inf:
            return send_by
        stops_at = max(began_at, self._stops_at)
        return min(send_by, stops_at + self._limits.last_send_timeout)

    def note_missed_send(self, now: float) -> None:
        """Note that a send was not done by then."""
        self.note(self._stops_for if now >= self._stops_at else "send_timeout")
