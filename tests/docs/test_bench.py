"""The servers that the benchmark measures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

from fastapi_sse_fast._bench.bursts import CHUNKS
from fastapi_sse_fast._bench.client import body_of, decode, fetch
from fastapi_sse_fast._bench.serving import serving

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize(
    ("app", "paths"),
    [
        ("fastapi_sse_fast", ["/awaiting/2", "/ready-awaiting/2"]),
        ("fastapi.sse", ["/awaiting/2"]),
        ("StreamingResponse", ["/awaiting/2", "/ready-awaiting/2"]),
        ("plain ASGI", ["/awaiting/2"]),
    ],
)
def test_all_send_the_same_events_one_per_await(app: str, paths: list[str]) -> None:
    with serving(app, None) as server:
        for path in paths:
            body = body_of(fetch(server.address, path))
            assert decode(body, CHUNKS * 2) == CHUNKS * 2, path


@on_linux
def test_a_server_has_the_same_path_for_modules_as_this_process() -> None:
    with serving("plain ASGI", None) as server:
        environ = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    found = [line for line in environ if line.startswith(b"PYTHONPATH=")]
    own = os.environ.get("PYTHONPATH")
    assert found == ([] if own is None else [f"PYTHONPATH={own}".encode()])
