"""Workers of an application, each a uvicorn with a port of its own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from .server import COMMANDS, PLAIN, Server, opened, serve_process

_numbers = itertools.count(1)

READY = """

from fastapi_sse_fast import EventSourceResponse


@app.get("/ready", response_class=EventSourceResponse)
async def ready():
    yield "ready"
"""


class Worker:
    """A worker.

    Args:
        server: Its process.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.port = server.port

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.request(method, url, **PLAIN, **more)

    @contextlib.contextmanager
    def stream(self, path: str, last: str = "") -> Iterator[Callable[[str], str]]:
        """Open a stream, and yield what reads its body until that has some text."""
        headers = {"Last-Event-ID": last} if last else {}
        with opened(self.port, path, **headers) as response:
            texts = response.iter_text()
            body = ""

            def read_until(text: str) -> str:
                nonlocal body
                while text not in body:
                    body += next(texts)
                return body

            yield read_until

    def terminate(self) -> None:
        """Shut it down, and wait for it."""
        self._server.terminate()
        self._server.wait()

    def kill(self) -> None:
        self._server.close()


@contextlib.contextmanager
def worker(folder: Path, code: str, **environment: str) -> Iterator[Worker]:
    """Run a worker.

    Args:
        folder: For a module.
        code: The module. It has an `app`.
        **environment: Environment variables.
    """
    name = f"worker_{next(_numbers)}"
    # The process is forked from one that has another environment.
    preamble = f"import os\n\nos.environ.update({environment!r})\n"
    (folder / f"{name}.py").write_text(preamble + code + READY)
    command = f"uvicorn {{app}} --fd {{fd}} --app-dir {folder}"
    with (
        mock.patch.dict(COMMANDS, {name: command}),
        serve_process(name, f"{name}:app", "/ready") as server,
    ):
        yield Worker(server)
