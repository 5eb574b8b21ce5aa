"""Two uvicorns in one event loop. A request to the first starts the second."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator

import uvicorn

from fastapi_sse_fast import EventSourceResponse

from .streams import app

tasks: list[asyncio.Task[None]] = []


@app.get("/second", response_class=EventSourceResponse)
async def second() -> AsyncIterator[int]:
    """Start the second server, and yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    tasks.append(asyncio.create_task(server.serve(sockets=[listener])))
    while not server.started:
        await asyncio.sleep(0.01)
    yield listener.getsockname()[1]


async def main() -> None:
    await uvicorn.Server(uvicorn.Config(app, fd=int(sys.argv[1]))).serve()
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main())
