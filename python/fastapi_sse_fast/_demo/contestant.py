"""A contestant of the demo: a server process with one of the two packages.

`python -m fastapi_sse_fast._demo.contestant fastapi.sse` serves `streams.py` with its
import line replaced. It prints its port, and ends with its standard input.
"""

import asyncio
import logging
import os
import socket
import sys
import threading
import types
from pathlib import Path

import uvicorn
from fastapi import FastAPI

HOST = "127.0.0.1"

PACKAGES = ["fastapi.sse", "fastapi_sse_fast"]
"""In the order of the race."""

STREAMS = Path(__file__).parent / "streams.py"


class Contestant:
    """A server that can be stopped and started again at the same port."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process, unless it runs."""
        if self._process is not None and self._process.returncode is None:
            return
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, self.package, str(self.port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo to see
        )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server with {self.package} does not start")
        self.port = int(line)

    async def terminate(self, timeout: float) -> bool:
        """Send SIGTERM and wait. Return whether the process has ended in time."""
        assert self._process is not None
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    async def kill(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()


def application(package: str) -> FastAPI:
    """Return the application of `streams.py`, with the streams of a package."""
    source = STREAMS.read_text(encoding="utf-8")
    ours = "\nfrom fastapi_sse_fast import "
    assert source.count(ours) == 1
    source = source.replace(ours, f"\nfrom {package} import ")
    module = types.ModuleType("streams")
    module.__file__ = str(STREAMS)
    exec(compile(source, STREAMS, "exec"), module.__dict__)
    app: FastAPI = module.app
    if package == "fastapi_sse_fast":
        from .answers import router  # not in the process of the other package

        app.include_router(router)
    return app


def serve(package: str, port: int) -> None:
    app = application(package)
    # The scenes make streams fail. The page shows it, the terminal need not.
    logging.disable()
    with socket.create_server((HOST, port)) as sock:
        print(sock.getsockname()[1], flush=True)
        threading.Thread(target=exit_with_parent, daemon=True).start()
        uvicorn.Server(uvicorn.Config(app, log_config=None)).run(sockets=[sock])


def exit_with_parent() -> None:
    """End the process with its standard input, whatever it is doing."""
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
