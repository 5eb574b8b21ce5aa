"""Server-Sent Events for FastAPI, encoded in Rust: change one import line."""

from ._core import KEEPALIVE_COMMENT, EncodedEvent, format_sse_event
from ._fastapi import install, uninstall
from .event import ServerSentEvent
from .response import EventSourceResponse

__all__ = [
    "KEEPALIVE_COMMENT",
    "EncodedEvent",
    "EventSourceResponse",
    "ServerSentEvent",
    "format_sse_event",
    "install",
    "uninstall",
]
