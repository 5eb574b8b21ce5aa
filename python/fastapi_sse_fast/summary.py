"""What is known of a stream when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from .event_stream import EventStream

Reason: TypeAlias = Literal[
    "finished",
    "disconnected",
    "send_timeout",
    "max_duration",
    "ended",
    "shutdown",
    "cancelled",
    "error",
]
"""Why a stream is over."""


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What became of a stream.

    Attributes:
        stream: The stream, as `on_open` was given it.
        reason: Why it is over: the generator `finished` or raised (`error`), the client
            `disconnected` or took nothing for `send_timeout`, `max_duration` has
            passed, `EventStream.end` was called (`ended`), the server stops
            (`shutdown`) or has `cancelled` the request.
        error: The exception that it has raised, if it did.
        status: The status that was sent; `None` where no head was, as for an error
            before the first event, which is answered by another response.
        events: How many events were sent; pings and the like do not count, nor does
            what was being sent when the stream broke off.
        bytes: How many bytes of the body were sent.
        seconds_to_first_event: From the start to the first event, if there was one.
        seconds_open: From the start to the end.
        seconds_waiting: How long of that the client did not take what was sent, because
            it is slow, or its network.
    """

    stream: EventStream
    reason: Reason
    error: Exception | None
    status: int | None
    events: int
    bytes: int
    seconds_to_first_event: float | None
    seconds_open: float
    seconds_waiting: float

    @property
    def route(self) -> str | None:
        """The path of its route, as `"/items/{item_id}/events"`, if it has one."""
        return self.stream.route
