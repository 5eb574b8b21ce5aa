"""What is known of a stream when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal[
    "finished",
    "disconnected",
    "send_timeout",
    "max_duration",
    "shutdown",
    "cancelled",
    "error",
]
"""Why a stream is over."""


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What became of a stream.

    Attributes:
        reason: Why it is over: the generator `finished` or raised (`error`), the client
            `disconnected` or took nothing for `send_timeout`, `max_duration` has
            passed, the server stops (`shutdown`) or has `cancelled` the request.
        events: How many events were sent; pings and the like do not count, nor does
            what was being sent when the stream broke off.
        bytes: How many bytes of the body were sent.
        seconds_to_first_event: From the start to the first event, if there was one.
        seconds_open: From the start to the end.
    """

    reason: Reason
    events: int
    bytes: int
    seconds_to_first_event: float | None
    seconds_open: float
