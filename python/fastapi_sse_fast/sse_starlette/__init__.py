"""The second drop-in: the names of sse-starlette, on the driver of this package."""

from ._install import install, uninstall
from .event import JSONServerSentEvent, ServerSentEvent
from .sse import EventSourceResponse

__version__ = "3.7.0"
"""The release of sse-starlette whose names these are."""

__all__ = [
    "EventSourceResponse",
    "JSONServerSentEvent",
    "ServerSentEvent",
    "install",
    "uninstall",
]
