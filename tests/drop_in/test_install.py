"""`install()` replaces the modules of sse-starlette for all imports."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from fastapi_sse_fast import sse_starlette as ours
from fastapi_sse_fast.sse_starlette import install, uninstall

from ..support import original
from ..support.asgi import fetch

NAMES = ["sse_starlette", "sse_starlette.sse", "sse_starlette.event"]


@pytest.fixture(autouse=True)
def not_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules = {name: sys.modules.get(name) for name in NAMES}
    yield
    uninstall()
    for name, module in modules.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


@pytest.fixture
def theirs() -> ModuleType:
    """Import sse-starlette itself."""
    original.imported()
    return sys.modules["sse_starlette"]


def without_original() -> None:
    for name in [*NAMES, "sse_starlette._utils"]:
        sys.modules.pop(name, None)


def a_module(source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType("a_library")
    monkeypatch.setitem(sys.modules, "a_library", module)
    exec(source, vars(module))
    return module


IMPORTS = """
import sse_starlette
import sse_starlette.sse as submodule
from sse_starlette import EventSourceResponse, ServerSentEvent, JSONServerSentEvent
from sse_starlette import sse
from sse_starlette.event import ensure_bytes
from sse_starlette.sse import AppStatus, SendTimeoutError
from sse_starlette.sse import EventSourceResponse as Response
"""


def assert_has_ours(module: Any) -> None:
    assert module.EventSourceResponse is module.Response is ours.EventSourceResponse
    assert module.ServerSentEvent is ours.ServerSentEvent
    assert module.JSONServerSentEvent is ours.JSONServerSentEvent
    assert module.ensure_bytes is ours.event.ensure_bytes
    assert module.AppStatus is ours.sse.AppStatus
    assert module.SendTimeoutError is ours.sse.SendTimeoutError
    assert module.sse_starlette is ours
    assert module.sse is module.submodule is ours.sse


def test_a_module_that_is_imported_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    without_original()
    install()
    assert_has_ours(a_module(IMPORTS, monkeypatch))
    assert sys.modules["sse_starlette"] is ours


def test_a_module_that_was_imported_before(
    theirs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = a_module(IMPORTS, monkeypatch)
    assert module.EventSourceResponse is theirs.EventSourceResponse
    install()
    assert_has_ours(module)
    install()
    assert_has_ours(module)


def test_a_function_that_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
def stream():
    from sse_starlette.sse import EventSourceResponse
    return EventSourceResponse(["a"])
"""
    module = a_module(source, monkeypatch)
    install()
    assert fetch(module.stream()).body == b"data: a\r\n\r\n"


def test_uninstall(theirs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    module = a_module(IMPORTS, monkeypatch)
    uninstall()  # Nothing is installed.
    install()
    uninstall()
    assert module.EventSourceResponse is theirs.EventSourceResponse
    assert module.sse_starlette is theirs
    for name in NAMES:
        assert importlib.import_module(name).__name__ == name
    assert ours.__name__ == "fastapi_sse_fast.sse_starlette"


def test_uninstall_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    without_original()
    install()
    uninstall()
    assert not set(NAMES) & sys.modules.keys()


def test_its_events_are_accepted_once_it_is_replaced(theirs: ModuleType) -> None:
    event = theirs.ServerSentEvent("a", id="1")
    install()
    body = fetch(ours.EventSourceResponse([event])).body
    assert body == b"id: 1\r\ndata: a\r\n\r\n"


def test_a_class_that_inherits_already(theirs: ModuleType) -> None:
    class Mine(theirs.EventSourceResponse):  # type: ignore[misc, name-defined]
        pass

    with pytest.raises(RuntimeError, match=r"already inherit from .*\.Mine; call"):
        install()
    assert sys.modules["sse_starlette"] is theirs
    del Mine
    gc.collect()
    install()


def test_a_module_that_is_not_sse_starlette(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("another")
    monkeypatch.setitem(sys.modules, "sse_starlette", fake)
    with pytest.raises(RuntimeError, match="which is not sse-starlette"):
        install()
    assert sys.modules["sse_starlette"] is fake


def test_a_module_that_is_being_imported(
    theirs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theirs.__spec__, "_initializing", True, raising=False)
    with pytest.raises(
        RuntimeError, match=r"cannot install while .* is being imported"
    ):
        install()


def test_modules_that_are_odd(
    theirs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise LookupError(name)

    class Pretending:
        __slots__ = ()

        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            return ModuleType

    monkeypatch.setitem(sys.modules, "pretending", Pretending())
    odd = Odd("odd")
    object.__getattribute__(odd, "__dict__")["EventSourceResponse"] = (
        theirs.EventSourceResponse
    )
    monkeypatch.setitem(sys.modules, "odd", odd)
    monkeypatch.setitem(sys.modules, "none", None)
    install()
    namespace = object.__getattribute__(odd, "__dict__")
    assert namespace["EventSourceResponse"] is ours.EventSourceResponse
