"""The probe: tries the seam on throwaway routes, in memory.

A release of FastAPI may have renamed something, or an application may have wrapped it.
The probe does not have to know what: it gets the same errors as a request would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003 -- FastAPI resolves it
from contextlib import AsyncExitStack
from contextvars import Context
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel

from ._core import EventBuffer, encode_event
from ._request import opened_request

if TYPE_CHECKING:
    from .response import EventSourceResponse


class DoesNotFitError(Exception):
    """FastAPI does not behave in the way that the seam relies on."""


class Item(BaseModel):
    """An item that a route of the probe yields."""

    n: int
    absent: int | None = None


async def _yields() -> AsyncIterator[Item]:
    yield Item(n=1)


async def _returns(request: Request) -> Any:
    opened = opened_request(request.scope)
    if opened is None or request.receive is not opened.client:
        raise DoesNotFitError("the request does not use the shared receive")
    return [1]


for _endpoint in (_yields, _returns):
    # FastAPI reads the source of every endpoint, which is slow the first time.
    _endpoint.__code__ = _endpoint.__code__.replace(co_filename="<probe>")


class Probe:
    """A route whose endpoint yields items, and one whose endpoint returns them.

    Args:
        response_class: The response class of the routes.
    """

    def __init__(self, response_class: type[EventSourceResponse]) -> None:
        self._responses: list[EventSourceResponse] = []

        async def respond(response: EventSourceResponse, *_: object) -> None:
            self._responses.append(response)

        class_: Any = type("Probed", (response_class,), {"__call__": respond})
        self._router = APIRouter(default_response_class=class_)
        self._router.get("/0", response_model_exclude_none=True)(_yields)
        self._router.get("/1")(_returns)

    @property
    def number_of_routes(self) -> int:
        """How many routes there are."""
        return len(self._router.routes)

    def run(self) -> None:
        """Call the routes as a server does, until they call their responses.

        Raises:
            Exception: A request to a real route would raise it, too.
        """
        for index in range(self.number_of_routes):
            # The context of the current request must not be seen, for example by
            # telemetry.
            Context().run(self._call, f"/{index}")
        typed, plain = self._responses
        frames = bytes(encode_event({"n": 1}, json="compact"))
        if _encoded(typed, Item(n=1), {"n": 1}) != frames * 2:
            raise DoesNotFitError("a typed item is encoded differently")
        if _encoded(plain, [1]) != bytes(encode_event([1])):
            raise DoesNotFitError("an item is encoded differently")
        try:
            _encoded(typed, {"n": "not a number"})
        except ResponseValidationError:
            return
        raise DoesNotFitError("an item is not validated")

    def _call(self, path: str) -> None:
        """Run a request without an event loop: it must not have to wait."""
        request = self._request(path)
        try:
            request.send(None)
        except StopIteration:
            return
        request.close()
        raise DoesNotFitError("the request has to wait")

    async def _request(self, path: str) -> None:
        async def unused(*_: Any) -> Any:
            raise DoesNotFitError("the request receives or sends a message")

        async with AsyncExitStack() as stack:
            scope = {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": path,
                "root_path": "",
                "query_string": b"",
                "headers": [],
                "fastapi_middleware_astack": stack,
            }
            await self._router(scope, unused, unused)


def _encoded(response: EventSourceResponse, *items: Any) -> bytes:
    encoder = response._body.encoder_for({"method": "GET"}, "fastapi")
    buffer = EventBuffer(encoder, source=items, max_pending=1, time_slice=1.0)
    for item in items:
        buffer.push(item)
    return buffer.take()
