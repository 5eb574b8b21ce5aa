"""Serves the demo page."""

import asyncio
import contextlib
import itertools
import platform
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import fastapi
import uvicorn
from fastapi import FastAPI, Header, Query, Request
from fastapi.staticfiles import StaticFiles

from .. import EventSourceResponse, ServerSentEvent
from . import app as tutorial
from . import chat, crowd, race

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


# The race: its contestants are servers of their own, and so are their clients

CONTESTANTS = ["fastapi_sse_fast", "fastapi.sse"]


@app.get("/versions")
async def versions() -> dict[str, str]:
    return {
        "fastapi_sse_fast": version("fastapi_sse_fast"),
        "FastAPI": fastapi.__version__,
        "uvicorn": uvicorn.__version__,
        "Python": platform.python_version(),
    }


@app.get("/race", response_class=EventSourceResponse)
def run_race(
    streams: Annotated[int, Query(ge=1, le=1000)],
    number: Annotated[int, Query(ge=1, le=100_000)],
    pause: Annotated[float, Query(ge=0, le=10)] = 0,
) -> Iterator[ServerSentEvent]:
    """Tell how far each contestant is, in events of its name."""
    ports = app.state.ports
    race = crowd.race(ports, streams=streams, number=number, pause=pause)
    with contextlib.closing(race):
        for package, said in race:
            yield ServerSentEvent(event=package, data=said)


app.mount("/openai", chat.app)
app.mount("/tutorial", tutorial.app)
app.mount("/", StaticFiles(directory=Path(__file__).parent / "page", html=True))

# `cut` needs to know the connection itself, also where it is that of a proxy.
config = uvicorn.Config(app, log_level="warning", proxy_headers=False)
server = uvicorn.Server(config)


def listen(host: str, port: int | None) -> socket.socket:
    """Listens on a port; on the usual one, or any free one, if none is asked for."""
    # All need `listen` and not only `bind`, or two demos could bind the same port.
    if port is not None:
        return socket.create_server((host, port))
    try:
        return socket.create_server((host, PORT))
    except OSError:
        return socket.create_server((host, 0))


def main(host: str, port: int | None) -> None:
    """Serves the page until Ctrl-C."""
    try:
        sock = listen(host, port)
    except (OSError, OverflowError) as error:
        sys.exit(f"Cannot listen there: {error}")
    with sock, race.contestants(*CONTESTANTS) as app.state.ports:
        got = sock.getsockname()[1]
        taken = f"Port {PORT} is taken. " if port is None and got != PORT else ""
        print(f"{taken}Serving http://{host}:{got} (Ctrl-C stops it)", flush=True)
        # uvicorn raises the Ctrl-C that it stopped for once more when it is done.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[sock])
