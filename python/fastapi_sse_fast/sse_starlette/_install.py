"""Gives every library that imports sse-starlette ours instead."""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import _original

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "sse_starlette"
OURS = __package__
SUBMODULES = ("event", "sse")

_lock = threading.RLock()
_installed = False
_rebound: list[tuple[dict[str, Any], str, Any]] = []
"""Names in the namespaces of other modules, and what they were bound to."""


def install() -> None:
    """Have `import sse_starlette` find this module, in all of the process.

    For libraries whose imports cannot be changed, such as MCP's SDK. Names that a
    module has imported before are bound to ours. Calling it again does the same for
    modules that have been imported since. sse-starlette need not be installed.

    Raises:
        RuntimeError: A class of another module inherits from sse-starlette's response
            already, or sse-starlette is just being imported, or is something else.

    Examples:
        >>> install()
        >>> import sse_starlette
        >>> sse_starlette.EventSourceResponse.__module__
        'fastapi_sse_fast.sse_starlette.sse'
        >>> uninstall()
    """
    global _installed
    with _lock:
        theirs = {name: _original.module(name) for name, _ in _modules()}
        _check(theirs)
        for name, ours in _modules():
            original = theirs[name]
            if original is not None:
                _original.replaced[name] = original
                _rebind(original, ours)
            sys.modules[name] = ours
        _installed = True


def uninstall() -> None:
    """Undo `install()`. Modules that have imported from ours since then keep that."""
    global _installed
    with _lock:
        if not _installed:
            return
        for namespace, name, original in reversed(_rebound):
            namespace[name] = original
        _rebound.clear()
        for name, ours in _modules():
            if sys.modules.get(name) is ours:
                del sys.modules[name]
            original = _original.replaced.pop(name, None)
            if original is not None:
                sys.modules[name] = original
        _installed = False


def _modules() -> Iterator[tuple[str, ModuleType]]:
    yield NAME, importlib.import_module(OURS)
    for submodule in SUBMODULES:
        yield f"{NAME}.{submodule}", importlib.import_module(f"{OURS}.{submodule}")


def _check(theirs: dict[str, ModuleType | None]) -> None:
    for name, ours in _modules():
        found = sys.modules.get(name)
        if found is not None and found is not ours and found is not theirs[name]:
            raise RuntimeError(
                f"install() finds {found!r} as {name}, which is not sse-starlette: "
                "it is left alone"
            )
        if getattr(getattr(found, "__spec__", None), "_initializing", False):
            raise RuntimeError(
                f"install() is called while {name} is being imported: call it before "
                "or after that"
            )
    response = getattr(theirs[f"{NAME}.sse"], "EventSourceResponse", None)
    subclasses: list[type] = [] if response is None else response.__subclasses__()
    if subclasses:
        names = ", ".join(f"{one.__module__}.{one.__qualname__}" for one in subclasses)
        raise RuntimeError(
            f"install() comes too late for {names}: a class cannot change what it "
            "inherits from, so call install() before its module is imported"
        )


def _rebind(original: ModuleType, ours: ModuleType) -> None:
    """Bind names that others have imported from a module to what ours has instead."""
    instead = {id(original): ours}
    for name, value in vars(original).items():
        if getattr(value, "__module__", None) == original.__name__ and hasattr(
            ours, name
        ):
            instead[id(value)] = getattr(ours, name)
    for module_name, module in list(sys.modules.items()):
        # Not `isinstance()`: what cffi puts there only says that it is a module.
        if not issubclass(type(module), ModuleType):
            continue
        if _is_of(module_name, NAME, OURS):
            continue
        # Not `vars()`: a module that loads itself when it is asked would do so.
        namespace = object.__getattribute__(module, "__dict__")
        for name, value in list(namespace.items()):
            if id(value) in instead:
                _rebound.append((namespace, name, value))
                namespace[name] = instead[id(value)]


def _is_of(module: str, *packages: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in packages)
