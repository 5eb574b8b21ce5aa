"""What is known of sse-starlette itself, which need not be installed.

Nothing is imported: only what the application has imported can reach us.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

replaced: dict[str, ModuleType] = {}
"""Its modules that `install()` has put ours in the place of."""


def module(name: str) -> ModuleType | None:
    """Return a module of sse-starlette's, if it was imported."""
    found = replaced.get(name) or sys.modules.get(name)
    return found if getattr(found, "__name__", None) == name else None


def is_event(item: object) -> bool:
    """Return whether an item is an event of sse-starlette's own class."""
    event = getattr(module("sse_starlette.event"), "ServerSentEvent", None)
    return isinstance(event, type) and isinstance(item, event)


def caught_by_both(ours: type[Exception]) -> type[Exception]:
    """Return an exception that is `ours`, and sse-starlette's of the same name."""
    theirs = getattr(module("sse_starlette.sse"), ours.__name__, None)
    if not (isinstance(theirs, type) and issubclass(theirs, Exception)):
        return ours
    return type(ours.__name__, (ours, theirs), {"__module__": ours.__module__})
