"""sse-starlette itself, to compare with, where it is installed."""

from __future__ import annotations

from types import ModuleType

import pytest
import uvicorn


def imported() -> ModuleType:
    """Imports sse-starlette without the method of uvicorn's that it replaces."""
    handle_exit = uvicorn.Server.handle_exit
    try:
        module: ModuleType = pytest.importorskip("sse_starlette.sse")
        return module
    finally:
        uvicorn.Server.handle_exit = handle_exit  # type: ignore[method-assign]
