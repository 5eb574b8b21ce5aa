"""Server-Sent Events for FastAPI, encoded in Rust.

This package is a drop-in replacement for `fastapi.sse`. Its module `sse_starlette` is a
drop-in replacement for sse-starlette.
"""

import importlib
from typing import TYPE_CHECKING

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
from .template import Slot

if TYPE_CHECKING:
    from .channels import Channels, ChannelStats
    from .errors import RunExists, StoreError
    from .last_event_id import LastEventID
    from .runs import Run, RunResult, Runs, RunStats
    from .subscription import Gap, Subscription
    from .summary import StreamSummary

take_over(EventSourceResponse)
del take_over

__all__ = [
    "KEEPALIVE_COMMENT",
    "ChannelStats",
    "Channels",
    "EncodedEvent",
    "EventSourceResponse",
    "EventStream",
    "EventTemplate",
    "Gap",
    "LastEventID",
    "Run",
    "RunExists",
    "RunResult",
    "RunStats",
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

_IMPORTED_WHEN_USED = {
    "ChannelStats": "channels",
    "Channels": "channels",
    "Gap": "subscription",
    "LastEventID": "last_event_id",
    "Run": "runs",
    "RunExists": "errors",
    "RunResult": "runs",
    "RunStats": "runs",
    "Runs": "runs",
    "StoreError": "errors",
    "StreamSummary": "summary",
    "Subscription": "subscription",
}
"""Names that most applications do not use, with their modules."""


# For a type checker, a module with this function would have every attribute.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a name when it is used first, which keeps the import fast."""
        try:
            module = importlib.import_module(f".{_IMPORTED_WHEN_USED[name]}", __name__)
        except KeyError:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message) from None
        globals()[name] = value = getattr(module, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_IMPORTED_WHEN_USED})
