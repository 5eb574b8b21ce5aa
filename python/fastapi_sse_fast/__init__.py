"""Server-Sent Events for FastAPI, encoded in Rust.

This package is a drop-in replacement for `fastapi.sse`. Its module `sse_starlette` is a
drop-in replacement for sse-starlette.
"""

from ._core import (
    KEEPALIVE_COMMENT,
    EncodedEvent,
    EventTemplate,
    __version__,
    encode_event,
    format_sse_event,
)
from ._seam import install, take_over, uninstall
from ._shutdown import shutdown, shutting_down
from .channels import Channels
from .errors import RunExists, StoreError
from .event import ServerSentEvent
from .event_stream import EventStream
from .last_event_id import LastEventID
from .options import StreamOptions
from .response import EventSourceResponse
from .runs import Run, Runs
from .subscription import Gap, Subscription
from .summary import StreamSummary
from .template import Slot

take_over(EventSourceResponse)
del take_over

__all__ = [
    "KEEPALIVE_COMMENT",
    "Channels",
    "EncodedEvent",
    "EventSourceResponse",
    "EventStream",
    "EventTemplate",
    "Gap",
    "LastEventID",
    "Run",
    "RunExists",
    "Runs",
    "ServerSentEvent",
    "Slot",
    "StoreError",
    "StreamOptions",
    "StreamSummary",
    "Subscription",
    "__version__",
    "encode_event",
    "format_sse_event",
    "install",
    "shutdown",
    "shutting_down",
    "uninstall",
]
