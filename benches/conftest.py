from __future__ import annotations

import pytest

from fastapi_sse_fast._bench.machine import DEBUG_BUILD, is_debug_build


def pytest_sessionstart() -> None:
    if is_debug_build():
        pytest.exit(DEBUG_BUILD, returncode=1)
