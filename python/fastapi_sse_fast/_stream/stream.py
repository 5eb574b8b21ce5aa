"""A stream from its start to its end: opens its parts, waits for them, reports.

* The *source* (`source.py`) runs in a task of its own. It iterates the generator, and
  what is yielded is encoded into the `EventBuffer`. Of an async generator, the `Pump`
  (`src/pump.rs`) sends what is pending in the same step of that task.
* The *outlet* (`outlet.py`) runs in the task of the request. It sends everything else:
  the head, pings, the rest of a send that has to wait, last words, the end.
* The *watch* (`client.py`) waits for the client to leave.
* The *ending* (`ending.py`) knows why the stream is over, and by when it has to be.

However a stream ends, its source is closed before `Stream.run` returns, unless that
takes longer than `close_timeout`. A stream is finished only if the outlet came to its
last line.

`asyncio_.py` and `trio_.py` have what differs between the two event loops.
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
from .._shutdown import EndedAtShutdown, server_patience
from ..event_stream import SCOPE_KEY, EventStream
from ..summary import StreamSummary
from . import frames
from .asyncio_ import AsyncioBackend
from .cancellation import as_exception, is_cancelled
from .ending import Ending
from .hooks import awaited, logged, logger, warn_once
from .outlet import Outlet, StopSending
from .source import AsyncSource, Phase, Source, ThreadSource
from .trio_ import TrioBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from starlette.types import Scope, Send

    from .._core import ItemEncoder
    from .._shutdown import Opening
    from ..options import StreamOptions
    from ..summary import Reason
    from .client import Client
    from .limits import Limits
    from .outlet import Head


class Stream:
    """One response body on its way.

    Args:
        content: What yields the items.
        encoder: What makes frames of them.
        head: Start of the response.
        options: How the stream behaves.
        limits: Its times that are no options.
        opening: Of the request, if that could be told of the server's shutdown.
        scope: Of the request.

    Attributes:
        is_shutting_down: Whether the server has been told to stop.
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
        "_opening",
        "_options",
        "_outlet",
        "_over_at",
        "_scope",
        "_source",
        "_started_at",
        "is_shutting_down",
    )

    _backend: AsyncioBackend | TrioBackend
    _buffer: EventBuffer
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
        opening: Opening | None,
        scope: Scope,
    ) -> None:
        self._content = content
        self._encoder = encoder
        self._head = head
        self._options = options
        self._limits = limits
        self._opening = opening
        self._over_at = None
        self._scope = scope
        self._handle: EventStream | None = None
        self.is_shutting_down = False

    @property
    def handle(self) -> EventStream:
        """The stream as hooks and generators see it."""
        if self._handle is None:
            is_open = self._over_at is None
            self._handle = EventStream(self if is_open else None, self._scope)
        return self._handle

    async def run(self, client: Client, send: Send) -> None:
        """Stream until the content ends, fails or the client is gone.

        Raises:
            Exception: What the content or the encoding of an item raised. All that was
                yielded before it has been sent, and the response has not been ended.
        """
        self._open(client, send)
        source = self._source
        try:
            with EndedAtShutdown(self, self._opening):
                on_open = self._options.on_open
                if on_open is not None:
                    with logged("on_open", self._options.close_timeout):
                        await awaited(on_open(self.handle))
                await self._backend.run(self)
        except BaseException:
            self._ending.reason = "cancelled"
            # What cancels all tasks of a loop cancels the source too.
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
            del error  # which has this frame in its traceback: a cycle
        if self._outlet.broke_off and client.is_behind_base_http_middleware:
            # Once: at a stop it concerns all streams.
            warn_once(
                "BaseHTTPMiddleware",
                "a stream was ended before its generator, and broken off; but "
                "Starlette's BaseHTTPMiddleware completes every response, so its "
                "client takes it for finished: set `farewell`, or use a pure ASGI "
                "middleware",
            )

    @property
    def reason(self) -> Reason:
        """Why the stream is over, once it is."""
        return self._ending.reason or "error"

    def summary(self, error: Exception | None) -> StreamSummary:
        """Return what became of the stream, once it is over.

        Args:
            error: What `run` has raised.
        """
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
        """End the stream after `shutdown_grace`; called from any thread."""
        self._unless_over(self._shut_down)

    def _shut_down(self) -> None:
        grace = self._options.shutdown_grace
        if grace is None:
            # An `EventSource`, which is all that is sure to ask again, asks by GET.
            asks_again = self._scope.get("method", "GET") == "GET"
            grace = 0.0 if asks_again else server_patience()
        self._outlet.shut_down(grace)
        if not self.is_shutting_down:
            self.is_shutting_down = True
            self._tell_of_shutdown()

    def _tell_of_shutdown(self) -> None:
        hook = self._options.on_shutdown
        if hook is not None:
            try:
                hook(self.handle)
            except Exception:
                logger.exception("on_shutdown failed")

    def end(self) -> None:
        """End the stream before its source; called from any thread."""
        self._unless_over(self._outlet.end)

    def _unless_over(self, function: Callable[[], object]) -> None:
        """Call a function in the loop, unless the stream is over by then."""

        def call() -> None:
            if self._over_at is None:
                function()

        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._backend.run_in_loop(call)

    def _open(self, client: Client, send: Send) -> None:
        backend = AsyncioBackend() if _in_asyncio_task() else TrioBackend()
        options, limits = self._options, self._limits
        self._backend = backend
        self._client = client
        # Not the loop's clock: uvloop's has whole milliseconds.
        self._started_at = time.perf_counter()
        self._ending = Ending(
            backend.clock(), seconds_to_live=options.seconds_to_live(), limits=limits
        )
        work = backend.sleep()
        is_async = isinstance(self._content, AsyncIterable)
        self._buffer = EventBuffer(
            self._encoder,
            source=self._content,
            # More than any process has is as good as no limit.
            max_pending=min(options.max_pending, sys.maxsize),
            time_slice=limits.loop_slice if is_async else limits.thread_slice,
            opening=frames.opening_line(options),
            wake=None
            if is_async
            else functools.partial(backend.run_in_loop, work.wake),
        )
        source = AsyncSource if is_async else ThreadSource
        self._source = source(
            self._content, self._buffer, backend, options.close_timeout
        )
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
        self._source.feed(self._outlet)
        self._scope[SCOPE_KEY] = self

    def _close(self) -> None:
        """Leave nothing to the garbage collector: the parts know each other."""
        self._backend.close()
        self._source.forget()
        self._outlet.forget()
        self._scope.pop(SCOPE_KEY, None)
        if self._handle is not None:
            self._handle._close()

    # What the backend runs

    async def respond(self) -> None:
        """Send the response, as far as it comes."""
        try:
            await self._outlet.run()
        except StopSending:
            pass
        except OSError as error:
            if self._ending.reason is None and not _tells_of_the_client(error):
                self._source.fail(error)
            else:
                logger.debug("send failed: %r", error)
                self._ending.note("disconnected")
        except Exception as error:
            await self._fail_to_send(error)

    async def _fail_to_send(self, error: Exception) -> None:
        """Have the stream raise what `send` has raised."""
        self._source.fail(error)

    def run_source(self) -> Coroutine[Any, Any, None]:
        """Iterate the content and close it."""
        return self._source.run()

    def source_is_done(self, task: asyncio.Task[None]) -> None:
        """Note that the task of the source is over, which may never have begun."""
        source = self._source
        if source.phase is Phase.RUNNING:
            # It was cancelled before its first step: that is not to look finished.
            message = f"{source.name} was cancelled before it began"
            source.fail(as_exception(asyncio.CancelledError(), message))
        source.end()

    @property
    def has_failed(self) -> bool:
        """Whether anything went wrong."""
        return self._source.error is not None

    @property
    def source_is_abandoned(self) -> bool:
        """Whether nobody waits for the task of the source any more."""
        return self._source.phase is Phase.ABANDONED

    async def close_source(self) -> None:
        """Close the source and wait for that."""
        await self._outlet.close_source()

    def watch_with(self, start: Callable[[], object] | None) -> None:
        """Have the watch begin at the latest when the request receives something."""
        self._client.watch_with(start)

    def watch(self) -> Coroutine[Any, Any, None]:
        """Wait for the client to leave."""
        return self._client.watch(self._backend.turn, self._outlet.client_left)

    def look(self) -> float:
        """Do what is due at a deadline; called by the alarm."""
        return self._outlet.look()


def _tells_of_the_client(error: OSError) -> bool:
    """Return whether `send` raised that the client is gone: ASGI's word is `OSError`.

    So is that of a middleware whose own file or socket fails.
    """
    return (
        isinstance(error, ConnectionError)
        or type(error) is OSError
        or "disconnect" in type(error).__name__.lower()
    )


def _in_asyncio_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
