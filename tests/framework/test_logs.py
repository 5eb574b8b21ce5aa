"""What a server logs about streams."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI, HTTPException

import fastapi_sse_fast
from fastapi_sse_fast import EventSourceResponse, ServerSentEvent

from ..support.apps import KINDS, MS, app_of, endless
from ..support.asgi import fetch
from ..support.outcomes import ENDS_WELL, FAILS, streams
from ..support.server import BROKEN_OFF, opened, serve

LOG_CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"uvicorn": {"propagate": True}},
}


def complaints(
    app: Any, paths: list[str], caplog: pytest.LogCaptureFixture
) -> list[tuple[str, Any]]:
    """Return the loggers that log errors for requests to uvicorn, and the errors.

    The client disconnects from the stream of `/left`.
    """
    with serve(app, log_level="info", log_config=LOG_CONFIG) as port:
        for path in paths:
            with contextlib.suppress(*BROKEN_OFF), opened(port, path) as response:
                for _ in response.iter_text():
                    if path == "/left":
                        break
    gc.collect()
    return [
        (record.name, record.exc_info and record.exc_info[0])
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize("path", FAILS)
def test_a_failure_is_logged_once_by_the_server(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    records = complaints(streams(fastapi_sse_fast), [path], caplog)
    assert records == [("uvicorn.error", FAILS[path].error)]
    assert FAILS[path].words in caplog.text


def test_an_http_exception_in_mid_stream_is_logged_with_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise HTTPException(403)

    app = app_of(items)
    assert complaints(app, ["/"], caplog) == [("uvicorn.error", RuntimeError)]
    assert "HTTPException: 403" in caplog.text


def test_an_error_after_a_disconnect_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            raise LookupError("in finally")

    app = FastAPI()
    app.get("/left", response_class=EventSourceResponse)(items)
    assert complaints(app, ["/left"], caplog) == [("uvicorn.error", LookupError)]


def test_what_is_no_failure_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def forbidden() -> AsyncIterator[int]:
        raise HTTPException(403)
        yield 1

    app = streams(fastapi_sse_fast)
    limited = EventSourceResponse.with_options(
        max_duration=10 * MS, farewell=ServerSentEvent(comment="later")
    )
    app.get("/forbidden", response_class=EventSourceResponse)(forbidden)
    app.get("/limited", response_class=limited)(endless)
    app.get("/left", response_class=EventSourceResponse)(endless)
    paths = [*ENDS_WELL, "/forbidden", "/limited", "/left"]
    assert complaints(app, paths, caplog) == []


@pytest.mark.parametrize(
    ("parts", "is_told"),
    [
        (["the", "quick"], True),
        (['{"a": 1}', "data: 1\n\n"], True),
        (["hello\n\n"], True),
        (["da", "ta: torn\n\n"], False),
        ([": comment\n\n", "the"], False),
        ([b"the", "quick"], False),
        ([{"a": 1}, 5], False),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_text_that_is_no_event_is_told_of_once_for_each_route(
    parts: list[Any], is_told: bool, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """sse-starlette sends text as data, and this package as a part of the body."""

    async def items() -> AsyncIterator[Any]:
        for part in parts:
            yield part

    def endpoint() -> EventSourceResponse:
        return EventSourceResponse(items() if kind == "async" else parts)

    endpoint.__qualname__ = f"endpoint {kind} {parts}"
    app = FastAPI()
    app.get("/")(endpoint)
    with caplog.at_level("WARNING"):
        bodies = {fetch(app).body for _ in range(2)}
    if "the" in parts and "quick" in parts:
        assert bodies == {b"thequick"}
    told = [message for message in caplog.messages if "no event begins" in message]
    assert len(told) == is_told
    if is_told:
        assert repr(parts[0]) in told[0]
        assert endpoint.__qualname__ in told[0]
