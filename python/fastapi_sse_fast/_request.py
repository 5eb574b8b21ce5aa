"""One request of our routes while it is open.

It begins before the dependencies are opened, so that a server which is told to stop
meanwhile does not wait for the stream that is still to come. FastAPI unwinds the exit
stack when all of the dependencies are closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._shutdown import Opening
from ._stream.client import Client

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from starlette.requests import Request
    from starlette.types import Receive, Scope

_KEY = "fastapi_sse_fast.open_request"


class OpenRequest:
    """What a stream has to know of its request.

    Attributes:
        opening: Whether the server was told to stop since the request began.
        stack: What FastAPI unwinds last.
        client: What the request receives from.
    """

    __slots__ = ("client", "opening", "stack")

    def __init__(self, request: Request, stack: AsyncExitStack) -> None:
        self.opening = Opening()
        self.stack = stack
        self.client = Client(request.receive)
        request._receive = self.client


def open_request(request: Request) -> None:
    """Note that a request is open, until its exit stack is unwound."""
    scope: Any = request.scope
    stack: AsyncExitStack | None = scope.get("fastapi_middleware_astack")
    if stack is not None:
        scope[_KEY] = OpenRequest(request, stack)
        stack.callback(_close_request, scope)


def _close_request(scope: Any) -> None:
    opened: OpenRequest | None = scope.pop(_KEY, None)
    if opened is not None:
        opened.opening.close()


def opened_request(scope: Scope) -> OpenRequest | None:
    """Return the request, while it is open.

    Responses to errors may come later: FastAPI leaves the unwound stack in the scope.
    """
    return scope.get(_KEY)


def client_of(request: OpenRequest | None, receive: Receive) -> Client:
    """Return what the request and its stream receive from, one for both.

    A request whose `receive` was replaced keeps what it was given.
    """
    if request is not None and request.client.receive is receive:
        return request.client
    return Client(receive)
