"""Make libraries that import sse-starlette get this package instead."""

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
"""The names that were rebound in other modules, with their original values."""


def install() -> None:
    """Make `import sse_starlette` import this package, in the whole process.

    Use it for libraries whose imports you cannot change, such as the MCP SDK. Names
    that other modules have already imported from sse-starlette are rebound. Calling it
    again also rebinds names that modules have imported since. sse-starlette does not
    have to be installed.

    Raises:
        RuntimeError: A class already inherits from sse-starlette's response, or
            sse-starlette is being imported, or another module has its name.

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
    """Undo `install()`.

    Modules that have imported from `sse_starlette` since then keep this package.
    """
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
                f"cannot install: the module {name!r} is {found!r}, which is not "
                "sse-starlette"
            )
        if getattr(getattr(found, "__spec__", None), "_initializing", False):
            raise RuntimeError(
                f"cannot install while {name!r} is being imported: call install() "
                "before or after the import"
            )
    response = getattr(theirs[f"{NAME}.sse"], "EventSourceResponse", None)
    subclasses: list[type] = [] if response is None else response.__subclasses__()
    if subclasses:
        names = ", ".join(f"{one.__module__}.{one.__qualname__}" for one in subclasses)
        raise RuntimeError(
            "cannot install, because these classes already inherit from "
            f"sse-starlette's EventSourceResponse: {names}; call install() before "
            "their modules are imported"
        )


def _rebind(original: ModuleType, ours: ModuleType) -> None:
    """Rebind names that other modules have imported from `original` to `ours`."""
    replacements = {id(original): ours}
    for name, value in vars(original).items():
        if getattr(value, "__module__", None) == original.__name__ and hasattr(
            ours, name
        ):
            replacements[id(value)] = getattr(ours, name)
    for module_name, module in list(sys.modules.items()):
        # `isinstance()` would be true for objects of cffi, which only claim to be
        # modules.
        if not issubclass(type(module), ModuleType):
            continue
        if _belongs_to(module_name, NAME, OURS):
            continue
        # `vars()` would make a lazy module load itself.
        namespace = object.__getattribute__(module, "__dict__")
        for name, value in list(namespace.items()):
            if id(value) in replacements:
                _rebound.append((namespace, name, value))
                namespace[name] = replacements[id(value)]


def _belongs_to(module: str, *packages: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in packages)
