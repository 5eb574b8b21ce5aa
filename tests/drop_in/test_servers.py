"""`fastapi_sse_fast.sse_starlette` on every server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.server import COMMANDS, Client, Server, serve_process, wait_until


@pytest.fixture(params=COMMANDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    app = "tests.support.drop_in_app:app"
    with serve_process(request.param, app, "/ready") as server:
        yield server


def test_a_client_that_leaves_and_a_signal(server: Server) -> None:
    with Client(server.port, "/endless") as client:
        body = client.read_until(b"data: 3")
        assert body.startswith(b"event: tick\r\ndata: 0\r\n\r\nevent: tick\r\n")
    wait_until(lambda: "generator" in server.said)
    assert server.said == ["http.disconnect", "generator"]
    with Client(server.port, "/endless") as client:
        client.read_until(b"data: 3")
        server.terminate()
        server.wait()
    assert server.said.count("generator") == 2
    assert not [line for line in server.log if "Traceback" in line]


def test_a_generator_sees_by_the_status_that_the_server_stops() -> None:
    app = "tests.support.drop_in_app:app"
    with serve_process("uvicorn-h11", app, "/ready") as server:
        with Client(server.port, "/polite") as client:
            client.read_until(b"data: on")
            server.terminate()
            assert client.read_to_end().endswith(b"data: off\r\n\r\n")
        server.wait()
