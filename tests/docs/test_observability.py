"""What the examples of `docs/observability.md` do on a real server."""

from __future__ import annotations

import collections
import contextlib
import re
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from ..support.asgi import call, fetch
from ..support.server import COMMANDS, Client, get, serve_process, wait_until
from .test_docs import SECTIONS


def code_of(title: str) -> list[str]:
    """The Python blocks of a section, but those with prompts."""
    section = next(
        section
        for section in SECTIONS
        if section.page.name == "observability.md" and section.title == title
    )
    blocks = [block for block in section.blocks if block.language == "python"]
    return [block.text for block in blocks if ">>> " not in block.text]


def numbers_of(metrics: str) -> dict[str, float]:
    pairs = re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", metrics, re.M)
    return {name: float(value) for name, value in pairs}


def test_the_metrics_of_two_workers_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prometheus_client")
    single, several, _ = code_of("Metrics with Prometheus")
    # The `/metrics` of the second block, in place of that of the first.
    single = single[: single.index('@app.get("/metrics")')]
    several = several.replace("app = FastAPI()\n", "")
    (tmp_path / "measured.py").write_text(
        f"{single}\n{several}\n\n"
        '@app.get("/idle", response_class=Measured)\n'
        "async def idle() -> AsyncIterable[int]:\n"
        "    import anyio\n"
        "    yield 1\n"
        "    await anyio.sleep(3600)\n"
    )
    directory = tmp_path / "metrics"
    directory.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(directory))
    command = f"uvicorn {{app}} --fd {{fd}} --workers 2 --app-dir {tmp_path}"
    monkeypatch.setitem(COMMANDS, "measured", command)
    path = "/prices/ABC"
    labels = 'route="/prices/{symbol}"'

    def metrics() -> dict[str, float]:
        return numbers_of(page(server.port, "/metrics"))

    # Not forked: the variable is not that of the process that forks.
    with (
        serve_process("measured", "measured:app", path, is_forked=False) as server,
        contextlib.ExitStack() as streams,
    ):
        wait_until(lambda: "".join(server.log).count("startup complete") == 2)
        # Which worker gets a connection is up to the kernel.
        wait_until(lambda: get(server.port, path) and len(workers_in(directory)) == 2)
        before = metrics()[f"sse_events_total{{{labels}}}"]
        for _ in range(20):
            client = streams.enter_context(Client(server.port, "/idle"))
            client.read_until(b"data: 1\n\n")
        for _ in range(20):
            get(server.port, path)
        assert metrics()['sse_open_streams{route="/idle"}'] == 20
        assert metrics()[f"sse_events_total{{{labels}}}"] == before + 40
        streams.close()
        gauge = 'sse_open_streams{route="/idle"}'
        wait_until(lambda: metrics()[gauge] == 0)
        ended = 'sse_streams_total{reason="disconnected",route="/idle"}'
        assert metrics()[ended] == 20


def workers_in(directory: Path) -> set[str]:
    return {re.sub(r"\D", "", path.name) for path in directory.iterdir()}


def page(port: int, path: str) -> str:
    """The body of a response that has a length."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        with connection.makefile("rb") as reader:
            return reader.read().decode()


def test_a_slot_is_free_again_when_its_client_has_disconnected() -> None:
    block = code_of("Limit the number of open streams with a 503")[0]
    block = block.replace("yield 9.99", "yield 9.99; await anyio.sleep(3600)")
    namespace: dict[str, Any] = {"__name__": "main", "anyio": anyio}
    exec(block.replace("MAX_STREAMS = 1000", "MAX_STREAMS = 2"), namespace)
    app = namespace["app"]

    async def main() -> None:
        gone = anyio.Event()
        replies = []

        async def stream() -> None:
            replies.append(await call(app, "/prices", disconnect_at=gone))

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(stream)
            while namespace["open_streams"] < 2:
                await anyio.sleep(0.001)
            refused = await call(app, "/prices")
            assert refused.status == 503
            assert (b"retry-after", b"5") in refused.headers
            assert namespace["open_streams"] == 2
            gone.set()
        assert collections.Counter(reply.status for reply in replies) == {200: 2}
        assert namespace["open_streams"] == 0

    anyio.run(main)
    reply = fetch(app, "/prices", disconnect_after=1)
    assert reply.status == 200
