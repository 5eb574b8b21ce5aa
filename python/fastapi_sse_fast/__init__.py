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
from .event import ServerSentEvent
from .event_stream import EventStream
from .options import StreamOptions
from .response import EventSourceResponse
from .summary import StreamSummary
from .template import Slot

take_over(EventSourceResponse)
del take_over

__all__ = [
    "KEEPALIVE_COMMENT",
    "EncodedEvent",
    "EventSourceResponse",
    "EventStream",
    "EventTemplate",
    "ServerSentEvent",
    "Slot",
    "StreamOptions",
    "StreamSummary",
    "__version__",
    "encode_event",
    "format_sse_event",
    "install",
    "shutdown",
    "shutting_down",
    "uninstall",
]
