"""The contestants: one application each, with the same streams under the same paths.

Run by `serving.py` as `python -m fastapi_sse_fast._bench.apps NAME`: a process prints
the port that it serves one of them on. It imports none of the others. This package is
imported in all of them, because the module is part of it; routes of other response
classes get the handler that FastAPI made, unchanged.

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
from starlette.middleware.base import BaseHTTPMiddleware

from .by_hand import (
    our_sse_starlette_app,
    plain_asgi_app,
    sse_starlette_app,
    streaming_response_app,
)
from .drop_ins import fastapi_app, fastapi_sse_fast_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

MIDDLEWARE = " behind BaseHTTPMiddleware"
"""What the name of an application ends in that has one."""


def behind_middleware(app: FastAPI) -> FastAPI:
    """Add the middleware that most applications write: one that passes on."""

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    return app


APPS: dict[str, Callable[[], ASGIApp]] = {
    "fastapi_sse_fast": fastapi_sse_fast_app,
    "fastapi.sse": fastapi_app,
    "StreamingResponse": streaming_response_app,
    "sse-starlette": sse_starlette_app,
    "fastapi_sse_fast.sse_starlette": our_sse_starlette_app,
    "plain ASGI": plain_asgi_app,
    f"fastapi_sse_fast{MIDDLEWARE}": lambda: behind_middleware(fastapi_sse_fast_app()),
    f"StreamingResponse{MIDDLEWARE}": lambda: behind_middleware(
        streaming_response_app()
    ),
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
