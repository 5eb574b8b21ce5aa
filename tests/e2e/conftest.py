"""Fixtures for the application's server and for its clients."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from ..support.server import Server, serve_process
from .clients import (
    PACKAGES,
    Client,
    Node,
    needed,
    path_of,
    see_with_curl,
    see_with_httpx_sse,
)

HAS_MCP = importlib.util.find_spec("mcp") is not None

collect_ignore = [] if HAS_MCP else ["test_mcp.py", "test_sdks.py"]


def pytest_report_header() -> list[str]:
    lines = [f"{program}: {version_of(program)}" for program in PACKAGES]
    if not HAS_MCP:
        lines.append("mcp: MISSING, its tests are skipped: pip install --group e2e")
    return lines


def version_of(program: str) -> str:
    path = path_of(program)
    if path is None:
        return f"MISSING, its tests are skipped: apt-get install {PACKAGES[program]}"
    option = {"caddy": "version"}.get(program, "--version")
    if program in ("apache2", "haproxy", "nginx"):
        option = "-v"
    printed = subprocess.run(
        [path, option], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout
    return printed.decode().splitlines()[0]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serve_process("uvicorn-uvloop", "tests.e2e.app:app", "/events") as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def run() -> str:
    """Return a name for the requests of one test, which the application prints."""
    return uuid.uuid4().hex


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


@pytest.fixture
def client(client_name: str, request: pytest.FixtureRequest) -> Client:
    """Return the client whose name is a parameter of the test."""
    if client_name == "httpx-sse":
        return see_with_httpx_sse
    if client_name == "curl":
        return see_with_curl
    if "chromium" in client_name:
        needed("chromium")
    node: Node = request.getfixturevalue("node")
    return functools.partial(node.see, client_name)
