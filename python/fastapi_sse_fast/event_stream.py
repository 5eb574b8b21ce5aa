"""The handle of a stream that hooks and generators get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import Scope

SCOPE_KEY: Final = "fastapi_sse_fast.stream"
"""The key of the ASGI scope under which an open stream is stored."""


class _Stream(Protocol):
    """The part of `Stream` that a handle uses."""

    @property
    def handle(self) -> EventStream: ...

    @property
    def is_shutting_down(self) -> bool: ...

    def end(self) -> None: ...


class EventStream:
    """The handle of a stream.

    `on_open` and `on_shutdown` are called with it, and `on_close` finds it in its
    summary. A generator gets its own with `EventStream.of(request)`. All of them get
    the same object. You can keep it, compare it and put it into a set.

    Attributes:
        scope: The ASGI scope of the request.
    """

    __slots__ = ("_stream", "scope")

    def __init__(self, stream: _Stream | None, scope: Scope) -> None:
        self._stream = stream
        self.scope = scope

    @classmethod
    def of(cls, request: HTTPConnection) -> EventStream:
        """Return the stream that responds to a request.

        Args:
            request: The request, as injected into the path operation function.

        Raises:
            LookupError: No stream is open for the request. A generator runs while its
                stream is open. Dependencies, and functions that return a response, run
                before it is opened.

        Examples:
            >>> async def ticks(request: Request) -> AsyncIterable[int]:
            ...     stream = EventStream.of(request)
            ...     while not stream.is_shutting_down:
            ...         yield 1
            ...         await anyio.sleep(1)
        """
        stream: _Stream | None = request.scope.get(SCOPE_KEY)
        if stream is None:
            raise LookupError(
                "no stream is open for this request: call EventStream.of() in the "
                "generator, not in a dependency or before the response is returned"
            )
        return stream.handle

    @property
    def route(self) -> str | None:
        """The path of the route, such as `"/items/{item_id}/events"`, or `None`."""
        route: Any = self.scope.get("route")
        # Since FastAPI 0.137, only this has the prefix of an included router.
        included = self.scope.get("fastapi", {}).get("effective_route_context")
        if included is not None and included.original_route is route:
            route = included
        path = getattr(route, "path", None)
        return path if isinstance(path, str) else None

    @property
    def is_open(self) -> bool:
        """Whether the stream is still open."""
        return self._stream is not None

    @property
    def is_shutting_down(self) -> bool:
        """Whether the server is shutting down, so that `shutdown_grace` has begun."""
        stream = self._stream
        return stream is not None and stream.is_shutting_down

    def end(self) -> None:
        """End the stream before its generator, in the next iteration of the event loop.

        The generator is closed. A `farewell` completes the response; without one, the
        response is aborted. This may be called from any thread. It does nothing if the
        stream is closed.
        """
        stream = self._stream
        if stream is not None:
            stream.end()

    def _close(self) -> None:
        self._stream = None

    def __copy__(self) -> EventStream:
        """Return the handle itself: a stream has only one."""
        return self

    def __deepcopy__(self, _: object) -> EventStream:
        """Return the handle itself, for example in `dataclasses.asdict(summary)`."""
        return self

    def __repr__(self) -> str:
        """Show the route, or the path, and whether the stream is open."""
        state = "open" if self.is_open else "closed"
        return f"<EventStream {self.route or self.scope.get('path')!r}, {state}>"
