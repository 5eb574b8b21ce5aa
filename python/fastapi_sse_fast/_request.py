"""The state of an open request to one of our routes.

It is created before the dependencies are opened. If the server shuts down meanwhile,
the stream is ended as soon as it is opened. FastAPI unwinds the request's exit stack
after it has closed all dependencies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._shutdown import PendingStream
from ._stream.client import Client

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from starlette.requests import Request
    from starlette.types import Receive, Scope

_KEY = "fastapi_sse_fast.open_request"


class OpenRequest:
    """The state of a request that its stream needs.

    Attributes:
        pending: The registration of the stream that is still to be opened.
        stack: The exit stack that FastAPI unwinds last.
        client: The client, whose `receive` the request and the stream share.
    """

    __slots__ = ("client", "pending", "stack")

    def __init__(self, request: Request, stack: AsyncExitStack) -> None:
        self.pending = PendingStream()
        self.stack = stack
        self.client = Client(request.receive)
        request._receive = self.client


def open_request(request: Request) -> None:
    """Create the state of a request. It is closed when the exit stack is unwound."""
    scope: Any = request.scope
    stack: AsyncExitStack | None = scope.get("fastapi_middleware_astack")
    if stack is not None:
        scope[_KEY] = OpenRequest(request, stack)
        stack.callback(_close_request, scope)


def _close_request(scope: Any) -> None:
    opened: OpenRequest | None = scope.pop(_KEY, None)
    if opened is not None:
        opened.pending.close()


def opened_request(scope: Scope) -> OpenRequest | None:
    """Return the state of a request, or `None` if the request is closed or not ours.

    A response of an exception handler may ask when the request is closed already.
    """
    return scope.get(_KEY)


def client_of(request: OpenRequest | None, receive: Receive) -> Client:
    """Return the client that a stream receives from.

    It is shared with the request, unless something has replaced `receive` since.
    """
    if request is not None and request.client.receive is receive:
        return request.client
    return Client(receive)
