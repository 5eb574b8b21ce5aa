"""Run the tests of MCP's SDK on `fastapi_sse_fast.sse_starlette`.

The tests come from the source distribution of the installed `mcp` and are not changed:
`install()` gives the SDK our response. This needs a package index, so it is a command
(`make mcp-tests`) and not a test.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.archives import run_pytest, unpacked

TESTS = [
    "tests/client/test_http_unicode.py",
    "tests/client/test_streamable_http.py",
    "tests/client/test_transport_stream_cleanup.py",
    "tests/interaction",
    "tests/server/test_sse_security.py",
    "tests/server/test_streamable_http_manager.py",
    "tests/server/test_streamable_http_modern.py",
    "tests/server/test_streamable_http_router.py",
    "tests/server/test_streamable_http_security.py",
    "tests/shared/test_sse.py",
    "tests/shared/test_streamable_http.py",
    "tests/transports",
]
"""The tests of the two transports over HTTP."""

OPTIONS = ["-p", "sse_starlette_installed", "-p", "anyio", "-o", "addopts="]
"""Options in place of the SDK's own, which need its tools for examples."""


def main() -> int:
    root = unpacked("mcp")
    print(f"{root.name}, on fastapi_sse_fast.sse_starlette", flush=True)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.resolve() / "support")
    tests = [name for name in TESTS if (root / name).exists()]
    return run_pytest(root, *OPTIONS, *tests, *sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
