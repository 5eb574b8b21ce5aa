"""Access to sse-starlette itself, which does not have to be installed.

It is never imported from here. Its objects can reach us only if the application has
imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

replaced: dict[str, ModuleType] = {}
"""The modules of sse-starlette that `install()` has replaced."""


def module(name: str) -> ModuleType | None:
    """Return a module of sse-starlette if it has been imported."""
    found = replaced.get(name) or sys.modules.get(name)
    return found if getattr(found, "__name__", None) == name else None


def is_event(item: object) -> bool:
    """Return whether an item is an event of sse-starlette's class."""
    event = getattr(module("sse_starlette.event"), "ServerSentEvent", None)
    return isinstance(event, type) and isinstance(item, event)


def combined_exception(ours: type[Exception]) -> type[Exception]:
    """Return a subclass of `ours` and of sse-starlette's exception of that name."""
    theirs = getattr(module("sse_starlette.sse"), ours.__name__, None)
    if not (isinstance(theirs, type) and issubclass(theirs, Exception)):
        return ours
    return type(ours.__name__, (ours, theirs), {"__module__": ours.__module__})
