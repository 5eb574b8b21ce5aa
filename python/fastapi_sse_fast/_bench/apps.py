"""The contestants: one application each, with the same streams under the same paths.

Run by `serving.py` as `python -m _bench.apps NAME`: a process prints the port that it
serves one of them on. It imports none of the others, and this package only for ours;
therefore its parent package is not named.

Each is written as its documentation says. Those that take pydantic models are given
models; those that take text or bytes make them of the models, as their users have to,
unless a row says that they were made beforehand.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn

from .by_hand import plain_asgi_app, sse_starlette_app, streaming_response_app
from .drop_ins import fastapi_app, fastapi_sse_fast_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

APPS: dict[str, Callable[[], ASGIApp]] = {
    "fastapi_sse_fast": fastapi_sse_fast_app,
    "fastapi.sse": fastapi_app,
    "StreamingResponse": streaming_response_app,
    "sse-starlette": sse_starlette_app,
    "plain ASGI": plain_asgi_app,
}


def main(name: str) -> None:
    config = uvicorn.Config(
        APPS[name](),
        lifespan="off",
        access_log=False,
        log_level="critical",  # fastapi.sse logs an error when a client leaves
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=exit_with_parent, daemon=True).start()
        uvicorn.Server(config).run(sockets=[listener])


def exit_with_parent() -> None:
    """Ends the process with its standard input, whatever it is doing."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
