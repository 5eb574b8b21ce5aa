"""A drop-in replacement for sse-starlette."""

from ._install import install, uninstall
from .event import JSONServerSentEvent, ServerSentEvent
from .sse import EventSourceResponse

__version__ = "3.7.0"
"""The release of sse-starlette that this package replaces."""

__all__ = [
    "EventSourceResponse",
    "JSONServerSentEvent",
    "ServerSentEvent",
    "install",
    "uninstall",
]
