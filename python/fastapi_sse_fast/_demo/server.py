"""The server of the demo page."""

import asyncio
import contextlib
import itertools
import os
import platform
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import fastapi
import uvicorn
from fastapi import FastAPI, Header, Query, Request
from fastapi.staticfiles import StaticFiles

from .. import EncodedEvent, EventSourceResponse, ServerSentEvent
from .._bench.serving import raise_file_limit
from . import chat
from .contestant import PACKAGES, Contestant
from .race import Workload, race
from .scenes import SCENES, play
from .stage import Stage

PORT = 8000

contestants = [Contestant(package) for package in PACKAGES]
stage = Stage()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    try:
        await asyncio.gather(*(one.start() for one in contestants))
        async with chat.store:  # the lifespan of a mounted application does not run
            yield
    finally:
        await asyncio.gather(*(one.kill() for one in contestants))


app = FastAPI(title="fastapi_sse_fast demo", lifespan=lifespan)


@app.get("/machine")
async def machine() -> dict[str, str]:
    return {
        "fastapi_sse_fast": version("fastapi_sse_fast"),
        "FastAPI": fastapi.__version__,
        "uvicorn": uvicorn.__version__,
        "Python": platform.python_version(),
        "CPU cores:": str(os.cpu_count()),
    }


# The race and the scenes: two servers besides this one, and clients of theirs


@app.get("/race", response_class=EventSourceResponse)
async def watch_race(
    workload: Annotated[Workload, Query()],
) -> AsyncIterator[EncodedEvent]:
    events = stage.watch("race", lambda: race(contestants, workload))
    async with aclosing(events):
        async for event in events:
            yield event


@app.get("/scenes/{name}", response_class=EventSourceResponse)
async def watch_scene(
    name: Literal["disconnect", "reload", "restart", "fail"],
) -> AsyncIterator[EncodedEvent]:
    events = stage.watch(name, lambda: play(SCENES[name], contestants))
    async with aclosing(events):
        async for event in events:
            yield event


# A stream to look at: it pings in its pauses, and resumes after `Last-Event-ID`

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
    """Do what a failing network does: the response is not completed."""
    for connection in list(server.server_state.connections):
        if connection.transport.get_extra_info("peername")[1] == port:
            connection.transport.abort()


app.mount("/openai", chat.app)
app.mount("/", StaticFiles(directory=Path(__file__).parent / "page", html=True))

# `cut` needs to know the connection itself, also where it is that of a proxy.
config = uvicorn.Config(app, log_level="warning", proxy_headers=False)
server = uvicorn.Server(config)


def listen(host: str, port: int | None) -> socket.socket:
    """Listen on a port; on the usual one, or any free one, if none is asked for."""
    # All need `listen` and not only `bind`, or two demos could bind the same port.
    if port is not None:
        return socket.create_server((host, port))
    try:
        return socket.create_server((host, PORT))
    except OSError:
        return socket.create_server((host, 0))


def main(host: str, port: int | None) -> None:
    """Serve the page until Ctrl-C."""
    try:
        sock = listen(host, port)
    except (OSError, OverflowError) as error:
        sys.exit(f"Cannot listen there: {error}")
    raise_file_limit()  # of the contestants, too
    with sock:
        got = sock.getsockname()[1]
        taken = f"Port {PORT} is taken. " if port is None and got != PORT else ""
        print(f"{taken}Serving http://{host}:{got} (Ctrl-C stops it)", flush=True)
        # uvicorn raises the Ctrl-C that it stopped for once more when it is done.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[sock])
