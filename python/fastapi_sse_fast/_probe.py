"""Whether the seam fits the FastAPI that is here: throwaway routes, run in memory.

Neither what a release may rename nor what an application may have wrapped has to be
known by name: what a request would run into, the probe runs into before.
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
    """FastAPI has done something else than what is relied on."""


class Item(BaseModel):
    """What a route of the probe yields."""

    n: int
    absent: int | None = None


async def _yields() -> AsyncIterator[Item]:
    yield Item(n=1)


async def _returns(request: Request) -> Any:
    opened = opened_request(request.scope)
    if opened is None or request.receive is not opened.client:
        raise DoesNotFitError("a request does not receive from where it should")
    return [1]


for _endpoint in (_yields, _returns):
    # FastAPI looks for the source of every endpoint, which takes long the first time.
    _endpoint.__code__ = _endpoint.__code__.replace(co_filename="<probe>")


class Probe:
    """A route whose endpoint yields, and one whose endpoint returns its stream.

    Args:
        response_class: Of the routes.
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
        """Call the routes as a server does, up to the code of the responses.

        Raises:
            Exception: What a request of a real route would raise.
        """
        for index in range(self.number_of_routes):
            # Telemetry, say, may be open for the request that the first route is for.
            Context().run(self._call, f"/{index}")
        typed, plain = self._responses
        frames = bytes(encode_event({"n": 1}, json="compact"))
        if _encoded(typed, Item(n=1), {"n": 1}) != frames * 2:
            raise DoesNotFitError("an item of a type is encoded in another way")
        if _encoded(plain, [1]) != bytes(encode_event([1])):
            raise DoesNotFitError("an item is encoded in another way")
        try:
            _encoded(typed, {"n": "not a number"})
        except ResponseValidationError:
            return
        raise DoesNotFitError("an item is not validated")

    def _call(self, path: str) -> None:
        """Run all of a request in one step, as there may be no event loop."""
        request = self._request(path)
        try:
            request.send(None)
        except StopIteration:
            return
        request.close()
        raise DoesNotFitError("a request has to wait")

    async def _request(self, path: str) -> None:
        async def unused(*_: Any) -> Any:
            raise DoesNotFitError("a request receives or sends by itself")

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
