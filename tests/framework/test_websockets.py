"""WebSockets in the same application, and streams that deny a WebSocket."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI, WebSocket

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent

from ..support.asgi import receive_nothing
from ..support.server import opened, serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Newer releases deprecate httpx here.
    import starlette.testclient
    from starlette.testclient import TestClient


def websockets() -> FastAPI:
    app = FastAPI()

    async def reasons() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(event="denied", data="no token")

    @app.websocket("/denied")
    async def denied(websocket: WebSocket) -> None:
        await websocket.send_denial_response(
            EventSourceResponse(reasons(), status_code=403)
        )

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    @app.get("/", response_class=EventSourceResponse)
    async def items() -> AsyncIterator[int]:
        yield 1

    return app


def test_websockets_beside_streams(anyio_backend: Any) -> None:
    client = TestClient(websockets(), backend=anyio_backend)
    assert client.get("/").text == "data: 1\n\n"
    with client.websocket_connect("/echo") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"
    with pytest.raises(starlette.testclient.WebSocketDenialResponse) as denial:
        client.websocket_connect("/denied").__enter__()
    assert denial.value.status_code == 403
    assert denial.value.text == 'event: denied\ndata: "no token"\n\n'


def test_a_denied_websocket_has_a_stream_as_its_body_on_a_real_socket() -> None:
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    with serve(websockets(), ws="wsproto") as port:
        with opened(port, "/denied", **handshake) as response:
            assert response.status_code == 403
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.read() == b'event: denied\ndata: "no token"\n\n'


def test_a_denied_websocket_can_have_a_stream_as_its_body() -> None:
    sent = []

    async def main() -> None:
        async def send(message: Any) -> None:
            sent.append(message["type"])

        response = EventSourceResponse(["data: no\n\n"], status_code=403)
        await response({"type": "websocket"}, receive_nothing, send)

    anyio.run(main)
    assert sent[0] == "websocket.http.response.start"
    assert set(sent[1:]) == {"websocket.http.response.body"}
