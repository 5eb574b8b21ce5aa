"""FastAPI's telemetry reports the same for a route as with `fastapi.sse`."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Callable, Iterable
from types import ModuleType
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response

import fastapi_sse_fast

from ..support.asgi import fetch
from ..support.comparison import MODULES

pytest.importorskip("fastapi.telemetry", reason="this FastAPI has none")

from ..support.telemetry import Record, Spans


async def items(n: int, request: Request) -> AsyncIterable[int]:
    yield n


def sync_items(n: int, response: Response) -> Iterable[int]:
    yield n


async def with_task(n: int, tasks: BackgroundTasks) -> AsyncIterable[int]:
    tasks.add_task(int, n)
    yield n


async def failing(n: int) -> AsyncIterable[int]:
    yield n
    raise LookupError


def number(n: int) -> int:
    return n


async def depending(n: int = Depends(number)) -> AsyncIterable[int]:
    yield n


@functools.wraps(items)
def decorated(*args: Any, **kwargs: Any) -> Any:
    return items(*args, **kwargs)


class View:
    async def __call__(self, n: int) -> AsyncIterable[int]:
        yield n

    async def method(self, n: int) -> AsyncIterable[int]:
        yield n


async def returning(n: int) -> Any:
    return [n]


def sync_returning(n: int, response: Response) -> Any:
    return [n]


def spans_of(
    endpoint: Callable[..., Any], module: ModuleType, path: str
) -> list[Record]:
    spans = Spans()
    app = FastAPI(telemetry={"tracer_provider": spans})
    app.get("/{n}", response_class=module.EventSourceResponse)(endpoint)
    fetch(app, path)
    return spans.records


STREAMS = [
    items,
    sync_items,
    with_task,
    depending,
    decorated,
    functools.partial(items),
    View(),
    View().method,
]


@pytest.mark.parametrize("path", ["/1", "/x"])
@pytest.mark.parametrize("endpoint", STREAMS)
def test_spans_are_those_of_fastapi(endpoint: Callable[..., Any], path: str) -> None:
    theirs, ours = (spans_of(endpoint, module, path) for module in MODULES)
    assert ours == theirs
    assert ours[0].name == "GET /{n}"


def test_the_span_of_a_stream_that_fails_has_its_error() -> None:
    ours = spans_of(failing, fastapi_sse_fast, "/1")[0]
    assert ours.attributes["error.type"] == "LookupError"


@pytest.mark.parametrize("endpoint", [returning, sync_returning])
def test_arguments_are_the_endpoints_own(endpoint: Callable[..., Any]) -> None:
    records = spans_of(endpoint, fastapi_sse_fast, "/1")
    arguments = set().union(*(record.arguments for record in records))
    assert arguments == {"n", "response"} & {*endpoint.__annotations__}
