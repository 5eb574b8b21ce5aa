"""MCP's SDK, server and client, over uvicorn with our streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import mcp_types
import pytest
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from ..support.server import TIMEOUT, Client, Server, serve_process, wait_until

APP = "tests.e2e.mcp_app:app"
HEADERS = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
}


@pytest.fixture(scope="module", params=["uvicorn-h11", "uvicorn-uvloop"])
def mcp_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve_process(request.param, APP, "/ready") as server:
        yield server


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        await asyncio.wait_for(main(), TIMEOUT)

    asyncio.run(within())


@asynccontextmanager
async def session_of(
    server: Server, handler: Any = None
) -> AsyncIterator[ClientSession]:
    url = f"http://127.0.0.1:{server.port}/mcp"
    async with streamable_http_client(url) as streams:
        async with ClientSession(*streams, message_handler=handler) as session:
            await session.initialize()
            yield session


async def count(session: ClientSession, n: int, pause: float = 0.0) -> list[float]:
    """Call the tool, and return the steps that the server has reported."""
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    result = await session.call_tool(
        "count", {"n": n, "pause": pause}, progress_callback=note
    )
    assert text_of(result) == str(n)
    return steps


def text_of(result: Any) -> str:
    (content,) = result.content
    assert isinstance(content, mcp_types.TextContent)
    return content.text


def test_the_streams_are_ours(mcp_server: Server) -> None:
    assert "response fastapi_sse_fast.sse_starlette.sse" in mcp_server.said
    with Client(mcp_server.port, "/ready") as client:
        assert client.read_to_end() == b"data: ready\r\n\r\n"


def test_progress(mcp_server: Server) -> None:
    async def main() -> None:
        async with session_of(mcp_server) as session:
            assert await count(session, 5, pause=0.02) == [1, 2, 3, 4, 5]

    run(main)


def test_a_burst(mcp_server: Server) -> None:
    async def main() -> None:
        async with session_of(mcp_server) as session:
            assert await count(session, 300) == list(range(1, 301))

    run(main)


def test_many_calls_at_once(mcp_server: Server) -> None:
    async def main() -> None:
        async with session_of(mcp_server) as session:
            calls = [count(session, 10, pause=0.001) for _ in range(20)]
            for steps in await asyncio.gather(*calls):
                assert steps == list(range(1, 11))

    run(main)


def test_a_call_is_resumed(mcp_server: Server) -> None:
    async def main() -> None:
        async with session_of(mcp_server) as session:
            result = await session.call_tool("interrupted", {})
            assert text_of(result) == "resumed"

    run(main)
    wait_until(lambda: any("replays after" in line for line in mcp_server.said))


def test_the_stream_of_a_get(mcp_server: Server) -> None:
    async def main() -> None:
        announced = asyncio.Event()

        async def note(message: Any) -> None:
            if isinstance(message, mcp_types.ResourceListChangedNotification):
                announced.set()

        async with session_of(mcp_server, note) as session:
            # The client opens the stream of the GET in parallel to its first call.
            while not announced.is_set():
                await session.call_tool("announce", {})
                await asyncio.sleep(0.01)

    run(main)


def test_the_older_transport(mcp_server: Server) -> None:
    async def main() -> None:
        url = f"http://127.0.0.1:{mcp_server.port}/legacy/sse"
        async with sse_client(url) as streams, ClientSession(*streams) as session:
            await session.initialize()
            assert await count(session, 50) == list(range(1, 51))

    run(main)


def opened(client: httpx.Client, url: str) -> dict[str, str]:
    """Open a session without the SDK, and return the headers for its requests."""
    version = "2025-06-18"
    initialize = {
        "protocolVersion": version,
        "capabilities": {},
        "clientInfo": {"name": "e2e", "version": "1"},
    }
    reply = client.post(url, headers=HEADERS, json=rpc("initialize", initialize))
    assert reply.status_code == 200
    headers = {
        **HEADERS,
        "mcp-session-id": reply.headers["mcp-session-id"],
        "mcp-protocol-version": version,
    }
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    client.post(url, headers=headers, json=initialized)
    return headers


def rpc(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def call_of(tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": 1}}
    return {**rpc("tools/call", params), "id": 2}


def test_delete_ends_the_stream_of_a_get(mcp_server: Server) -> None:
    url = f"http://127.0.0.1:{mcp_server.port}/mcp"
    with httpx.Client(timeout=TIMEOUT) as client:
        headers = opened(client, url)
        with client.stream("GET", url, headers=headers) as stream:
            assert stream.status_code == 200
            assert client.delete(url, headers=headers).status_code == 200
            stream.read()  # It completes.


def test_a_client_that_vanishes(mcp_server: Server) -> None:
    url = f"http://127.0.0.1:{mcp_server.port}/mcp"
    log = len(mcp_server.log)
    with httpx.Client(timeout=TIMEOUT) as client:
        headers = opened(client, url)
        hung = mcp_server.said.count("hangs")
        with client.stream("POST", url, headers=headers, json=call_of("hang")) as reply:
            wait_until(lambda: mcp_server.said.count("hangs") > hung)
            assert reply.status_code == 200
        with client.stream("GET", url, headers=headers) as reply:
            assert reply.status_code == 200
        # The session still exists for a client that reconnects.
        reply = client.post(url, headers=headers, json=call_of("count", n=1, pause=0))
        assert reply.status_code == 200
    assert not [line for line in mcp_server.log[log:] if "Traceback" in line]


@pytest.mark.parametrize("name", ["uvicorn-h11", "uvicorn-uvloop"])
def test_sigterm(name: str) -> None:
    """The server waits for the end of a call and then exits."""
    with serve_process(name, APP, "/ready") as server:
        url = f"http://127.0.0.1:{server.port}/mcp"
        with httpx.Client(timeout=TIMEOUT) as client:
            headers = opened(client, url)
            call = call_of("count", n=10, pause=0.05)
            with (
                client.stream("GET", url, headers=headers) as get,
                client.stream("POST", url, headers=headers, json=call) as post,
            ):
                lines = post.iter_lines()
                next(line for line in lines if "notifications/progress" in line)
                server.terminate()
                with pytest.raises(httpx.RemoteProtocolError):
                    get.read()  # An EventSource reconnects.
                data = [line.removeprefix("data: ") for line in lines if "data" in line]
                assert json.loads(data[-1])["result"]["content"][0]["text"] == "10"
        assert server.wait() in (0, -15, 143)
