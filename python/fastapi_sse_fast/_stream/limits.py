"""Time limits of a stream that are not options."""

from __future__ import annotations

from typing import NamedTuple

BLOCKED_AFTER = 0.01
"""Seconds. If a timer fires later than this, the event loop was blocked."""

RECHECK_DELAY = 0.02
"""Seconds that an event loop gets to process its sockets after it was blocked."""


class Limits(NamedTuple):
    """Time limits in seconds."""

    loop_slice: float = 0.001
    """How long an async generator that does not wait may keep the event loop busy."""

    thread_slice: float = 0.005
    """How long a sync generator may keep its worker thread for one batch of events."""

    min_duration: float = 0.1
    """How long a stream may last on server shutdown, even if it has just begun.

    A short stream, whose request arrived just before the shutdown, can complete.
    """

    last_send_timeout: float = 0.5
    """How long a client may hold up the end of its stream on server shutdown."""
