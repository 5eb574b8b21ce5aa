"""Mounted applications."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent, shutdown

from ..support.apps import KINDS, MS, app_of, noted
from ..support.asgi import fetch
from ..support.comparison import Item, stream_of
from ..support.server import Client, get, serve, wait_until


def nested(layout: str, log: list[str]) -> Any:
    """Return an application that has streams below `/sub`."""
    router = APIRouter(dependencies=[noted("router", log)])
    response_class = EventSourceResponse.with_options(
        on_close=lambda summary: log.append(summary.reason),
        farewell=ServerSentEvent(event="bye"),
    )
    options: Any = {
        "response_class": response_class,
        "dependencies": [noted("route", log)],
    }
    parameter = noted("parameter", log)

    @router.get("/async", **options)
    async def items(n: int, _: Any = parameter) -> AsyncIterator[int]:
        try:
            for number in range(n):
                yield number
                await anyio.sleep(MS)
        finally:
            log.append("generator")

    @router.get("/sync", **options)
    def sync_items(n: int, _: Any = parameter) -> Iterator[int]:
        try:
            for number in range(n):
                yield number
                time.sleep(MS)
        finally:
            log.append("generator")

    app = FastAPI(dependencies=[noted("application", log)])
    if layout == "included":
        app.include_router(router, prefix="/sub")
        return app
    app.include_router(router)
    if layout == "in Starlette":
        return Starlette(routes=[Mount("/sub", app)])
    outer = FastAPI(dependencies=[noted("never", log)])
    outer.mount("/sub", app)
    return outer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["in FastAPI", "in Starlette", "included"])
def test_streams_of_nested_applications(layout: str, kind: str) -> None:
    log: list[str] = []
    order = ["generator", "parameter", "route", "router", "application"]
    with serve(nested(layout, log)) as port:
        assert get(port, f"/sub/{kind}?n=2") == b"data: 0\n\ndata: 1\n\n"
        wait_until(lambda: len(log) == 6)
        assert log == [*order, "finished"]

        log.clear()
        with Client(port, f"/sub/{kind}?n=1000000") as client:
            client.read_until(b"data: 1\n\n")
        wait_until(lambda: len(log) == 6)
        assert log == [*order, "disconnected"]

        log.clear()
        with Client(port, f"/sub/{kind}?n=1000000") as client:
            client.read_until(b"data: 1\n\n")
            shutdown()
            assert client.read_to_end().endswith(b"event: bye\n\n")
        wait_until(lambda: len(log) == 6)
        assert log == [*order, "shutdown"]


def test_the_path_of_an_error_names_the_mount() -> None:
    outer = FastAPI()
    app = app_of(stream_of([Item(name="a"), 1], Item, "async"))
    outer.mount("/sub", app)
    reply = fetch(outer, "/sub/")
    assert "GET /sub/" in str(reply.error)
