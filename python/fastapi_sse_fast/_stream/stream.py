"""A stream, from its start to its end: connects the parts and waits for them.

* The *source* (`source.py`) has its own task. It iterates the generator and encodes the
  items into the `EventBuffer`. For an async generator, the `Pump` (`src/pump.rs`) sends
  pending bytes in the same step of that task.
* The *outlet* (`outlet.py`) runs in the request's task. It sends everything else: the
  head, pings, the rest of a send that has to wait, final events and the end.
* The *watch* (`client.py`) waits for the client to disconnect.
* The *ending* (`ending.py`) holds the reason and the deadline of the end.

However a stream ends, its source is closed before `Stream.run` returns, unless that
takes longer than `close_timeout`. A stream is `finished` only if the outlet has sent
the last message of the response.

`asyncio_.py` and `trio_.py` contain what differs between the two event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import time
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from .._core import EventBuffer
from .._shutdown import ShutdownRegistration, server_shutdown_timeout
from ..content import LogContent
from ..event_stream import SCOPE_KEY, EventStream
from . import frames
from .asyncio_ import AsyncioBackend
from .cancellation import as_exception, is_cancelled
from .ending import Ending
from .hooks import log_errors, logger, maybe_await, warn_once
from .outlet import Outlet, StopSending
from .source import AsyncSource, Phase, Source, ThreadSource

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from starlette.types import Scope, Send

    from .._core import ItemEncoder, LogReader
    from .._shutdown import PendingStream
    from ..options import StreamOptions
    from ..summary import Reason, StreamSummary
    from .asyncio_ import AsyncioSleep
    from .client import Client
    from .limits import Limits
    from .outlet import Head
    from .trio_ import TrioBackend, TrioSleep


class Stream:
    """One stream.

    Args:
        content: The iterable of items.
        encoder: The encoder of the items.
        head: The head of the response.
        options: The options of the stream.
        limits: The time limits that are not options.
        pending: The registration of the request, which knows about a shutdown that has
            begun since the request arrived. `None` if it was not registered.
        scope: The ASGI scope of the request.

    Attributes:
        is_shutting_down: Whether the server is shutting down.
    """

    __slots__ = (
        "_backend",
        "_buffer",
        "_client",
        "_content",
        "_encoder",
        "_ending",
        "_handle",
        "_head",
        "_limits",
        "_options",
        "_outlet",
        "_over_at",
        "_pending",
        "_scope",
        "_source",
        "_started_at",
        "is_shutting_down",
    )

    _backend: AsyncioBackend | TrioBackend
    _buffer: EventBuffer | LogReader
    _client: Client
    _ending: Ending
    _outlet: Outlet
    _over_at: float | None
    _source: Source
    _started_at: float

    def __init__(
        self,
        content: AsyncIterable[Any] | Iterable[Any],
        encoder: ItemEncoder,
        head: Head,
        options: StreamOptions,
        limits: Limits,
        pending: PendingStream | None,
        scope: Scope,
    ) -> None:
        self._content = content
        self._encoder = encoder
        self._head = head
        self._options = options
        self._limits = limits
        self._pending = pending
        self._over_at = None
        self._scope = scope
        self._handle: EventStream | None = None
        self.is_shutting_down = False

    @property
    def handle(self) -> EventStream:
        """The handle of the stream for hooks and generators."""
        if self._handle is None:
            is_open = self._over_at is None
            self._handle = EventStream(self if is_open else None, self._scope)
        return self._handle

    async def run(self, client: Client, send: Send) -> None:
        """Stream until the content ends or fails, or the stream is ended.

        Raises:
            Exception: The content, or encoding an item, raised it. All earlier items
                have been sent, and the response is not complete.
        """
        self._open(client, send)
        source = self._source
        try:
            with ShutdownRegistration(self, self._pending):
                on_open = self._options.on_open
                if on_open is not None:
                    with log_errors("on_open", self._options.close_timeout):
                        await maybe_await(on_open(self.handle))
                await self._backend.run(self)
        except BaseException:
            self._ending.reason = "cancelled"
            # If all tasks are cancelled, the source is cancelled too. That is no error.
            if source.error is not None and not is_cancelled(source.error.__cause__):
                source.log_unraised(source.error)
            raise
        finally:
            self._over_at = time.perf_counter()
            self._close()
            error, source.error = source.error, None
        try:
            if error is not None:
                self._ending.reason = "error"
                raise error
        finally:
            del error  # Its traceback refers to this frame: a reference cycle.
        if self._outlet.aborted and client.is_behind_base_http_middleware:
            # On server shutdown this concerns every open stream, so warn only once.
            warn_once(
                "BaseHTTPMiddleware",
                "a stream was ended before its generator and aborted the response, but "
                "Starlette's BaseHTTPMiddleware completes every response, so the "
                "client cannot notice: set the option `farewell`, or use a pure ASGI "
                "middleware",
            )

    @property
    def reason(self) -> Reason:
        """Why the stream ended. Only valid when it is closed."""
        return self._ending.reason or "error"

    def summary(self, error: Exception | None) -> StreamSummary:
        """Return the summary of the stream. Only valid when it is closed.

        Args:
            error: The exception that `run` raised, or `None`.
        """
        from ..summary import StreamSummary  # only `on_close` needs it

        assert self._over_at is not None
        return StreamSummary(
            stream=self.handle,
            reason=self.reason,
            error=error,
            status=self._head.status if self._outlet.has_begun else None,
            events=self._buffer.sent_events,
            bytes=self._buffer.sent_bytes + self._outlet.extra_bytes,
            seconds_to_first_event=self._buffer.seconds_to_first_event,
            seconds_open=self._over_at - self._started_at,
            seconds_waiting=self._outlet.seconds_waiting,
        )

    def shut_down(self) -> None:
        """End the stream after `shutdown_grace`. May be called from any thread."""
        self._unless_over(self._shut_down)

    def _shut_down(self) -> None:
        grace = self._options.shutdown_grace
        if grace is None:
            # Only an `EventSource` is sure to repeat its request, and it uses GET.
            if self._scope.get("method", "GET") == "GET":
                grace = 0.0
            else:
                grace = server_shutdown_timeout(self._options.close_timeout)
        self._outlet.shut_down(grace)
        if not self.is_shutting_down:
            self.is_shutting_down = True
            self._call_on_shutdown()

    def _call_on_shutdown(self) -> None:
        hook = self._options.on_shutdown
        if hook is not None:
            try:
                hook(self.handle)
            except Exception:
                logger.exception("on_shutdown failed")

    def end(self) -> None:
        """End the stream before its source. May be called from any thread."""
        self._unless_over(self._outlet.end)

    def _unless_over(self, function: Callable[[], object]) -> None:
        """Call a function in the event loop, unless the stream is closed by then."""

        def call() -> None:
            if self._over_at is None:
                function()

        with contextlib.suppress(RuntimeError):  # The event loop is closed.
            self._backend.run_in_loop(call)

    def _open(self, client: Client, send: Send) -> None:
        backend = AsyncioBackend() if _in_asyncio_task() else _trio_backend()
        options, limits = self._options, self._limits
        self._backend = backend
        self._client = client
        # The clock of uvloop has only a resolution of milliseconds.
        self._started_at = time.perf_counter()
        self._ending = Ending(
            backend.clock(), seconds_to_live=options.seconds_to_live(), limits=limits
        )
        work = backend.sleep()
        self._source, self._buffer = self._read(backend, work)
        self._outlet = Outlet(
            send,
            self._head,
            options,
            work=work,
            buffer=self._buffer,
            source=self._source,
            ending=self._ending,
            backend=backend,
            limits=limits,
        )
        self._source.attach(self._outlet)
        self._scope[SCOPE_KEY] = self

    def _read(
        self,
        backend: AsyncioBackend | TrioBackend,
        work: AsyncioSleep | TrioSleep,
    ) -> tuple[Source, EventBuffer | LogReader]:
        """Return what reads the content, and what its events wait in."""
        options, limits = self._options, self._limits
        # Rust needs a machine-size integer. A larger limit would never be reached.
        max_pending = min(options.max_pending, sys.maxsize)
        opening = frames.opening_line(options)
        if isinstance(self._content, LogContent):
            from .log_source import LogSource  # only channels and runs need it

            reader = self._content.reader(max_pending, opening)
            return LogSource(self._content, reader, backend), reader
        is_async = isinstance(self._content, AsyncIterable)
        buffer = EventBuffer(
            self._encoder,
            source=self._content,
            max_pending=max_pending,
            time_slice=limits.loop_slice if is_async else limits.thread_slice,
            opening=opening,
            wake=None
            if is_async
            else functools.partial(backend.run_in_loop, work.wake),
        )
        source = AsyncSource if is_async else ThreadSource
        return source(self._content, buffer, backend, options.close_timeout), buffer

    def _close(self) -> None:
        """Break reference cycles, so that nothing is left to the garbage collector."""
        self._backend.close()
        self._source.forget()
        self._outlet.forget()
        self._scope.pop(SCOPE_KEY, None)
        if self._handle is not None:
            self._handle._close()

    # Called by the backend

    async def respond(self) -> None:
        """Send the response, until it is complete or aborted."""
        try:
            await self._outlet.run()
        except StopSending:
            pass
        except OSError as error:
            if self._ending.reason is None and not _means_disconnect(error):
                self._source.fail(error)
            else:
                logger.debug("send failed: %r", error)
                self._ending.note("disconnected")
        except Exception as error:
            await self._fail_to_send(error)

    async def _fail_to_send(self, error: Exception) -> None:
        """Make the stream raise what `send` raised."""
        self._source.fail(error)

    @property
    def has_source_task(self) -> bool:
        """Whether `run_source` is to run in a task."""
        return self._source.has_task

    def run_source(self) -> Coroutine[Any, Any, None]:
        """Iterate the content, then close it."""
        return self._source.run()

    def source_is_done(self, task: asyncio.Task[None]) -> None:
        """Note that the source's task has ended, or was cancelled before it began."""
        source = self._source
        if source.phase is Phase.RUNNING:
            # The task was cancelled before its first step. The response must not look
            # complete.
            message = f"{source.name} was cancelled before it began"
            source.fail(as_exception(asyncio.CancelledError(), message))
        source.end()

    @property
    def has_failed(self) -> bool:
        """Whether the stream has an error."""
        return self._source.error is not None

    @property
    def source_is_abandoned(self) -> bool:
        """Whether the source did not close within `close_timeout`."""
        return self._source.phase is Phase.ABANDONED

    async def close_source(self) -> None:
        """Close the source and wait until it is closed or abandoned."""
        await self._outlet.close_source()

    def start_watch_with(self, start: Callable[[], object] | None) -> None:
        """Set the function that starts the watch if the request receives early."""
        self._client.start_watch_with(start)

    def watch(self) -> Coroutine[Any, Any, None]:
        """Wait for the client to disconnect."""
        return self._client.watch(self._backend.turn, self._outlet.client_disconnected)

    def check_deadlines(self) -> float:
        """Act on deadlines that have passed, and return the next one."""
        return self._outlet.check_deadlines()


def _means_disconnect(error: OSError) -> bool:
    """Return whether an `OSError` of `send` means that the client has disconnected.

    ASGI servers raise an `OSError` then. But a middleware may also raise one, because
    its own file or socket fails.
    """
    return (
        isinstance(error, ConnectionError)
        or type(error) is OSError
        or "disconnect" in type(error).__name__.lower()
    )


def _trio_backend() -> TrioBackend:
    from .trio_ import TrioBackend  # most applications run on asyncio

    return TrioBackend()


def _in_asyncio_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
