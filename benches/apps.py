"""The contestants: one application each, with the same streams under the same paths.

Run as `python benches/apps.py NAME FD` by `serving.py`: serves one of them on an
inherited socket, in a process that imports none of the others.

Each is written as its documentation says. Those that take pydantic models are given
models; those that take text or bytes make them of the models, as their users have to,
unless a row says that they were made beforehand.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from by_hand import plain_asgi_app, sse_starlette_app, streaming_response_app
from drop_ins import fastapi_app, fastapi_sse_fast_app

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


def main(name: str, fd: str) -> None:
    config = uvicorn.Config(
        APPS[name](),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="critical",  # fastapi.sse logs an error when a client leaves
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(fd))])


if __name__ == "__main__":
    main(*sys.argv[1:])
