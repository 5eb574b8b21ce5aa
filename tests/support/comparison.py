"""Compare a route with FastAPI's response class to the same route with ours."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

import fastapi.routing
import fastapi.sse
from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel

import fastapi_sse_fast

from .apps import app_of
from .asgi import Reply, fetch

MODULES = [fastapi.sse, fastapi_sse_fast]


class Item(BaseModel):
    name: str
    price: float = 1.5


def both(
    endpoint: Callable[..., Any], path: str = "/", **options: Any
) -> tuple[Reply, Reply]:
    request = {
        name: options.pop(name) for name in ("headers", "body") if name in options
    }
    method = options.get("method", "GET")
    theirs, ours = (
        fetch(
            app_of(endpoint, module=module, **options), path, method=method, **request
        )
        for module in MODULES
    )
    return theirs, ours


def assert_equal(
    endpoint: Callable[..., Any], path: str = "/", **options: Any
) -> Reply:
    theirs, ours = both(endpoint, path, **options)
    assert ours.body == theirs.body
    assert ours.status == theirs.status
    assert ours.headers == theirs.headers
    assert_same_error(theirs.error, ours.error)
    return ours


def assert_same_error(theirs: BaseException | None, ours: BaseException | None) -> None:
    # FastAPI raises the error in the group of its task group.
    while type(theirs).__name__ == "ExceptionGroup":
        (theirs,) = theirs.exceptions  # type: ignore[union-attr]
    if {type(ours), type(theirs)} == {TypeError, ValueError}:
        # If several values are wrong, either may be found first. See `test_json.py`.
        return
    assert type(ours) is type(theirs)
    if isinstance(theirs, ResponseValidationError):
        assert isinstance(ours, ResponseValidationError)
        assert repr(ours.errors()) == repr(theirs.errors())
        assert ours.body is theirs.body
        assert str(ours) == str(theirs)


def stream_of(items: Iterable[Any], item_type: Any, kind: str) -> Callable[..., Any]:
    async def async_items():  # type: ignore[no-untyped-def]
        for item in items:
            yield item

    def sync_items():  # type: ignore[no-untyped-def]
        yield from items

    function: Any = async_items if kind == "async" else sync_items
    container: Any = AsyncIterable if kind == "async" else Iterable
    function.__annotations__ = {"return": container[item_type]}
    return function  # type: ignore[no-any-return]
