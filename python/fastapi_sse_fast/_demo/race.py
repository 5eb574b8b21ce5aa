"""A contestant of the demo's race: a server in a process of its own.

`python -m fastapi_sse_fast._demo.race fastapi.sse` serves the streams below with one of
the two packages. They differ in nothing but that import. Only a `crowd.py` beside it
reads them: the page needs no port but the demo's own.
"""

import asyncio
import importlib
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query
from pydantic import BaseModel

REPLY = (Path(__file__).parent / "reply.txt").read_text(encoding="utf-8")


class Delta(BaseModel):
    content: str


class Choice(BaseModel):
    delta: Delta
    index: int = 0
    finish_reason: str | None = None


class Chunk(BaseModel):
    choices: list[Choice]
    id: str = "chatcmpl-0123456789abcdef0123456789abcdef"
    object: str = "chat.completion.chunk"
    created: int = 1700000000
    model: str = "replay"


CHUNKS = [
    Chunk(choices=[Choice(delta=Delta(content=token))])
    for token in re.findall(r"\s*\S{1,4}", REPLY)
]


class Usage(BaseModel):
    clock: float
    cpu: float


def contestant(package: str) -> FastAPI:
    sse: Any = importlib.import_module(package)
    app = FastAPI()

    @app.get("/events", response_class=sse.EventSourceResponse)
    async def events(
        number: Annotated[int, Query(ge=1)], pause: Annotated[float, Query(ge=0)] = 0
    ) -> AsyncIterable[Chunk]:
        for chunk in itertools.islice(itertools.cycle(CHUNKS), number):
            yield chunk
            if pause:
                await asyncio.sleep(pause)

    @app.get("/usage", response_class=sse.EventSourceResponse)
    async def usage() -> AsyncIterable[Usage]:
        while True:
            yield Usage(clock=time.perf_counter(), cpu=time.process_time())
            await asyncio.sleep(0.1)

    return app


def serve(package: str) -> None:
    app = contestant(package)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        print(sock.getsockname()[1], flush=True)
        threading.Thread(target=exit_with_parent, daemon=True).start()
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[sock])


def exit_with_parent() -> None:
    """Ends the process with its standard input, whatever it is doing."""
    sys.stdin.read()
    os._exit(0)


@contextmanager
def contestants(*packages: str) -> Iterator[dict[str, int]]:
    """Servers with some packages; yields the port of each."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", __name__, package],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for the demo to see
                )
            )
            for package in packages
        ]
        yield {
            package: int(process.stdout.readline())
            for package, process in zip(packages, processes, strict=True)
            if process.stdout is not None
        }


if __name__ == "__main__":
    serve(*sys.argv[1:])
