"""A server with MCP's SDK and our streams. `install()` runs after its import."""

from __future__ import annotations

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import (
    EventCallback,
    EventId,
    EventMessage,
    EventStore,
    StreamId,
)
from mcp_types import JSONRPCMessage
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.routing import Mount

from fastapi_sse_fast.sse_starlette import install

from ..support.streams import say

install()


class Events(EventStore):
    """Keeps every event for clients that reconnect."""

    def __init__(self) -> None:
        self._events: list[tuple[StreamId, JSONRPCMessage | None]] = []

    async def store_event(
        self, stream_id: StreamId, message: JSONRPCMessage | None
    ) -> EventId:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(
        self, last_event_id: EventId, send_callback: EventCallback
    ) -> StreamId | None:
        say("replays after", last_event_id)
        cursor = int(last_event_id)
        stream_id, _ = self._events[cursor - 1]
        for index in range(cursor, len(self._events)):
            of_stream, message = self._events[index]
            if of_stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(index + 1)))
        return stream_id


server = MCPServer("e2e")


@server.tool()
async def count(n: int, pause: float, ctx: Context) -> int:
    """Report progress, with or without a pause after each step."""
    for step in range(n):
        await ctx.report_progress(step + 1, n)
        if pause:
            await anyio.sleep(pause)
    return n


@server.tool()
async def announce(ctx: Context) -> str:
    """Send a notification that belongs to no request, over the stream of a GET."""
    await ctx.session.send_resource_list_changed()
    return "announced"


@server.tool()
async def interrupted(ctx: Context) -> str:
    """Close the stream of this call. The client reconnects for the result."""
    await ctx.close_sse_stream()
    await anyio.sleep(0.05)
    return "resumed"


@server.tool()
async def hang(ctx: Context) -> str:
    """Never return."""
    await ctx.report_progress(1, 2)
    say("hangs")
    await anyio.sleep(3600)
    return "never"


@server.custom_route("/ready", methods=["GET"])  # type: ignore[untyped-decorator]
async def ready(request: Request) -> EventSourceResponse:
    say("response", EventSourceResponse.__module__)
    return EventSourceResponse(iter(["ready"]))


app = server.streamable_http_app(event_store=Events(), retry_interval=10)
app.routes.append(Mount("/legacy", server.sse_app()))
