"""The times and sizes of a stream that are no options."""

from __future__ import annotations

from typing import NamedTuple

LATE = 0.01
"""Seconds; a timer that fires later than that tells of a loop that stood still."""

SECOND_LOOK = 0.02
"""Seconds that such a loop gets to see what has happened meanwhile."""


class Limits(NamedTuple):
    """Times in seconds."""

    loop_slice: float = 0.001
    """How long an async generator with ready events may keep the event loop."""

    thread_slice: float = 0.005
    """How long a sync generator may keep its worker thread."""

    least_duration: float = 0.1
    """How long a stream may go on, however soon after its start the server stops.

    A short one, of a request that came just then, is not cut.
    """

    last_send_timeout: float = 0.5
    """How long a client may hold up the end of its stream when the server stops."""
