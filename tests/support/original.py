"""sse-starlette itself, for comparison, if it is installed."""

from __future__ import annotations

from types import ModuleType

import pytest
import uvicorn


def imported() -> ModuleType:
    """Import sse-starlette, but undo its replacement of a method of uvicorn."""
    handle_exit = uvicorn.Server.handle_exit
    try:
        module: ModuleType = pytest.importorskip("sse_starlette.sse")
        return module
    finally:
        uvicorn.Server.handle_exit = handle_exit  # type: ignore[method-assign]
