"""Serves the demo page: `python examples/demo.py`, or `make demo`."""

import asyncio
import contextlib
import itertools
import platform
import socket
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import app as tutorial
import chat
import fastapi
import race
import uvicorn
from fastapi import FastAPI, Header, Request
from fastapi.staticfiles import StaticFiles

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent

HOST = "127.0.0.1"
PORT = 8000

app = FastAPI(title="fastapi_sse_fast demo")


# A stream to look at: it pings in its pauses, and goes on after `Last-Event-ID`

Counting = EventSourceResponse.with_options(ping_interval=1.0, retry=500)


async def numbers(start: int) -> AsyncIterator[ServerSentEvent]:
    for number in itertools.count(start):
        yield ServerSentEvent(data={"number": number}, event="count", id=str(number))
        await asyncio.sleep(2.5 if number % 10 == 0 else 0.25)


@app.get("/count")
async def count(
    request: Request, last_event_id: Annotated[int, Header(ge=0)] = 0
) -> EventSourceResponse:
    assert request.client is not None
    headers = {"X-Connection": str(request.client.port)}
    return Counting(numbers(last_event_id + 1), headers=headers)


@app.delete("/connections/{port}", status_code=204)
async def cut(port: int) -> None:
    """Does what a failing network does: neither side gets to say a last word."""
    for connection in list(server.server_state.connections):
        if connection.transport.get_extra_info("peername")[1] == port:
            connection.transport.abort()


# The race: its contestants are servers of their own

CONTESTANTS = ["fastapi_sse_fast", "fastapi.sse"]


@app.get("/contestants")
async def contestants() -> dict[str, Any]:
    return {
        "ports": app.state.ports,
        "versions": {
            "fastapi_sse_fast": version("fastapi_sse_fast"),
            "FastAPI": fastapi.__version__,
            "uvicorn": uvicorn.__version__,
            "Python": platform.python_version(),
        },
    }


app.mount("/openai", chat.app)
app.mount("/tutorial", tutorial.app)
app.mount("/", StaticFiles(directory=Path(__file__).parent / "page", html=True))

server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))


def listen() -> socket.socket:
    """Listens on the usual port or, where that is taken, on any free one."""
    # Both need `listen` and not only `bind`, or two demos could bind the same port.
    try:
        return socket.create_server((HOST, PORT))
    except OSError:
        return socket.create_server((HOST, 0))


def main() -> None:
    with listen() as sock, race.contestants(*CONTESTANTS) as app.state.ports:
        port = sock.getsockname()[1]
        taken = "" if port == PORT else f"Port {PORT} is taken. "
        print(f"{taken}Serving http://{HOST}:{port} (Ctrl-C stops it)", flush=True)
        # uvicorn raises the Ctrl-C that it stopped for once more when it is done.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[sock])


if __name__ == "__main__":
    main()
