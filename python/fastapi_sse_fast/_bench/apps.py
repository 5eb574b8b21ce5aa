"""The applications of the contestants, with the same streams under the same paths.

`serving.py` runs `python -m fastapi_sse_fast._bench.apps NAME`. The process serves one
application and prints its port. It does not import the other contestants, except for
this package, which contains the module. That makes no difference: FastAPI's own
handlers serve routes of other response classes.

Each application follows the documentation of its library. If a library accepts pydantic
models, it gets models. If it accepts text or bytes, the application encodes the models,
as its users have to, unless the name of the row says that they are pre-encoded.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn
from starlette.middleware.base import BaseHTTPMiddleware

from .drop_ins import fastapi_app, fastapi_sse_fast_app
from .hand_written import (
    our_sse_starlette_app,
    plain_asgi_app,
    sse_starlette_app,
    streaming_response_app,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

MIDDLEWARE = " behind BaseHTTPMiddleware"
"""The suffix of the name of an application with a middleware."""


def behind_middleware(app: FastAPI) -> FastAPI:
    """Add a middleware that only passes requests on, of the most common kind."""

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
        log_level="critical",  # With fastapi.sse, every disconnect logs an error.
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=exit_with_parent, daemon=True).start()
        uvicorn.Server(config).run(sockets=[listener])


def exit_with_parent() -> None:
    """End the process when its standard input is closed, whatever it is doing."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
