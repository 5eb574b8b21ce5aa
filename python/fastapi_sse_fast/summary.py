"""The summary of a stream that `on_close` gets."""

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
"""Why a stream ended; see `StreamSummary`."""


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """The summary of a stream that has ended.

    Attributes:
        stream: The handle of the stream, the one that `on_open` was called with.
        reason: Why the stream ended:

            * `finished`: the generator returned.
            * `disconnected`: the client disconnected.
            * `send_timeout`: the client accepted nothing for `send_timeout` seconds.
            * `max_duration`: `max_duration` has passed.
            * `ended`: `EventStream.end` was called.
            * `shutdown`: the server is shutting down.
            * `cancelled`: the server cancelled the request.
            * `error`: the generator, or encoding an item, raised an exception.
        error: The exception that the stream raised, or `None`.
        status: The HTTP status code that was sent. `None` if no response head was sent,
            for example because an exception before the first event became an error
            response.
        events: How many events were sent. Pings, `retry` and final events do not count,
            and neither do events of a write that was interrupted.
        bytes: How many bytes of the body were sent.
        seconds_to_first_event: Seconds from the start to the first event, or `None`.
        seconds_open: Seconds from the start to the end.
        seconds_waiting: Seconds of this time in which sending had to wait for the
            client.
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
        """The path of the route, such as `"/items/{item_id}/events"`, or `None`."""
        return self.stream.route
