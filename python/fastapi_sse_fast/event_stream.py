"""An open stream, as hooks and generators see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import Scope

SCOPE_KEY: Final = "fastapi_sse_fast.stream"
"""Where the scope of a request has its stream."""


class _Stream(Protocol):
    """What runs an `EventStream`."""

    @property
    def handle(self) -> EventStream: ...

    @property
    def is_shutting_down(self) -> bool: ...

    def end(self) -> None: ...


class EventStream:
    """One event stream.

    Hooks are given it: `on_open`, `on_shutdown`, and `on_close` in its summary. A
    generator gets its own with `EventStream.of(request)`. It can be kept, compared
    and put into a set.

    Attributes:
        scope: The ASGI scope of the request.
    """

    __slots__ = ("_stream", "scope")

    def __init__(self, stream: _Stream | None, scope: Scope) -> None:
        self._stream = stream
        self.scope = scope

    @classmethod
    def of(cls, request: HTTPConnection) -> EventStream:
        """Return the stream that answers a request.

        Args:
            request: Of the endpoint whose generator asks.

        Raises:
            LookupError: None does, or not yet: endpoints and dependencies run before
                the stream is opened, a generator while it is open.

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
                "no stream is open for this request: ask in the generator, not before "
                "it runs"
            )
        return stream.handle

    @property
    def route(self) -> str | None:
        """The path of its route, as `"/items/{item_id}/events"`, if it has one."""
        route: Any = self.scope.get("route")
        # Since 0.137 only this knows the prefix of a router that was included.
        included = self.scope.get("fastapi", {}).get("effective_route_context")
        if included is not None and included.original_route is route:
            route = included
        path = getattr(route, "path", None)
        return path if isinstance(path, str) else None

    @property
    def is_open(self) -> bool:
        """Whether the stream is not over yet."""
        return self._stream is not None

    @property
    def is_shutting_down(self) -> bool:
        """Whether the server stops, so that `shutdown_grace` is what it has left."""
        stream = self._stream
        return stream is not None and stream.is_shutting_down

    def end(self) -> None:
        """End the stream before its generator, in the next turn of the event loop.

        The generator is closed, and the response complete with a `farewell`; without
        one it breaks off. May be called from any thread, and does nothing to a stream
        that is over.
        """
        stream = self._stream
        if stream is not None:
            stream.end()

    def _close(self) -> None:
        self._stream = None

    def __copy__(self) -> EventStream:
        """Return itself: there is only one of each stream."""
        return self

    def __deepcopy__(self, _: object) -> EventStream:
        """Return itself, as for `dataclasses.asdict(summary)`."""
        return self

    def __repr__(self) -> str:
        """Show where it is."""
        state = "open" if self.is_open else "closed"
        return f"<EventStream {self.route or self.scope.get('path')!r}, {state}>"
