"""Runs: generators that outlive the request that started them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio
import anyio.lowlevel
from starlette.responses import Response

from ._core import EncodedEvent, ItemEncoder, parse_last_event_id
from ._stream import Head, Limits, Stream
from ._stream.client import Client
from ._stream.hooks import log_errors, logger, maybe_await
from .errors import RunExists
from .options import StreamOptions
from .response import EventSourceResponse
from .stores.store import History
from .subscription import Readings, Subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.types import Message, Scope

    from ._core import EventLog
    from .options import Json
    from .stores.store import IfRunning, RunInfo, Store
    from .subscription import GapReason

Wire = Literal["events", "openai"]
RunStatus = Literal[
    "running", "done", "cancelled", "failed", "lost", "timeout", "shutdown"
]

MOST_EVENTS = 2**31
"""A run keeps all its events, so that every client can have all of it."""

_ENDS: Mapping[str, str] = {"finished": "done", "ended": "cancelled"}
"""How a run has ended, by why its stream has; otherwise it is the same word."""


class RunResult(NamedTuple):
    """How a run ended, as `on_end` of `Runs` receives it.

    Attributes:
        name: Name of the run.
        status: `"done"`, `"cancelled"`, `"failed"`, `"timeout"` or `"shutdown"`.
        error: The exception that the generator raised.
        events: Number of events, without the last one, which says how the run ended.
    """

    name: str
    status: RunStatus
    error: Exception | None
    events: int


class RunStats(NamedTuple):
    """The runs of this process, as `Runs.stats` returns them.

    Attributes:
        running: Number of runs that this process has started and that have not ended.
        subscribers: Number of streams that read a run.
        lag: Number of events that the slowest subscriber is behind.
        reconnects: Number of subscriptions so far that began at a given position.
        gaps: Number of gaps so far, by reason.
    """

    running: int
    subscribers: int
    lag: int
    reconnects: int
    gaps: Mapping[GapReason, int]


class Run:
    """A run, as `Runs.start` returns it.

    Attributes:
        name: Name of the run.
        is_new: Whether `start` has started the run. `False` if it was running already.
    """

    __slots__ = ("_info", "_runs", "is_new", "name")

    def __init__(self, runs: Runs, name: str, info: RunInfo) -> None:
        self.name = name
        self.is_new = info.is_new
        self._info = info
        self._runs = runs

    def subscribe(
        self, last: str | None = None, *, wire: Wire = "events"
    ) -> Subscription:
        """Subscribe to the run.

        Args:
            last: Position to continue from, such as a `LastEventID`. Without one, the
                subscription begins with the first event.
            wire: `"openai"` sends what OpenAI's clients expect: no ids, no events named
                `gap` and `end`, and a failure as `data: {"error": {...}}`.
        """
        return self._runs._subscription(self.name, self._info.log, last, wire)


class Runs:
    """Generators that keep running when their client disconnects.

    Start a run with a generator function and its arguments:

        store = MemoryStore()
        runs = Runs(store)
        app = FastAPI(lifespan=store.lifespan)

        @app.post("/chats/{id}")
        async def ask(id: int, body: Ask) -> EventSourceResponse:
            run = await runs.start(f"chat:{id}", answer, id, body.prompt)
            return EventSourceResponse(run.subscribe())

        @app.get("/chats/{id}/stream")
        async def resume(id: int, last: LastEventID) -> Response:
            return await runs.response(f"chat:{id}", last)

    All events of a run are kept. Any client can read them, from the first one or from
    where it stopped reading. The last event says how the run ended, and is the same for
    every client: `event: end` with `{"status": "done"}` or `"cancelled"`, or
    `event: error` with `{"code": "failed"}`, `"timeout"`, `"lost"` or `"shutdown"`.

    Args:
        store: The store that keeps the events.
        ttl: Seconds to keep a run after its end.
        lease: Seconds after which a run is lost if its process has died. For stores
            that several processes share.
        timeout: Seconds that a run may take. `None` sets no limit.
        shutdown_grace: Seconds that a run may continue when the server shuts down. By
            default, it is as long as the server waits.
        close_timeout: Seconds that a generator has to close.
        on_error: Called with the exception of a run that failed. Returns a text for the
            client, the `message` of the last event, or `None`.
        on_end: Called with a `RunResult` when a run of this process has ended. May be
            async.
        on_lost: Called with the name of a run that is lost. May be async. For stores
            that several processes share.
        json: Format of JSON that no model writes, as in `StreamOptions`.
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl: float = 3600.0,
        lease: float = 15.0,
        timeout: float | None = None,
        shutdown_grace: float | None = None,
        close_timeout: float = 10.0,
        on_error: Callable[[Exception], str | None] | None = None,
        on_end: Callable[[RunResult], Awaitable[object] | object] | None = None,
        on_lost: Callable[[str], Awaitable[object] | object] | None = None,
        json: Json = "fastapi",
    ) -> None:
        for name, seconds in (("ttl", ttl), ("lease", lease), ("timeout", timeout)):
            if seconds is not None and not seconds > 0:
                raise ValueError(
                    f"{name} must be a positive number of seconds, not {seconds!r}"
                )
        self._store = store
        self._history = History(MOST_EVENTS, ttl)
        self.lease = lease
        self._timeout = timeout
        self._options = StreamOptions(
            ping_interval=None,
            send_timeout=None,
            error_window=0.0,
            shutdown_grace=shutdown_grace,
            close_timeout=close_timeout,
            json=json,
        )
        self._on_error = on_error
        self._on_end = on_end
        self._on_lost = on_lost
        self._running: dict[str, EventLog] = {}
        self._logs: set[EventLog] = set()
        self._readings = Readings()

    async def start(
        self,
        name: str,
        function: Callable[..., AsyncIterable[Any] | Iterable[Any]],
        *args: Any,
        if_running: IfRunning = "reject",
        **kwargs: Any,
    ) -> Run:
        """Call a generator function in the background, and keep what it yields.

        The generator runs in a task of the store. It has the context variables of the
        caller. Do not pass it a dependency with `yield`, which FastAPI closes when the
        request is over: let the generator open what it needs.

        Args:
            name: Name of the run. Only one run of a name can be running.
            function: A generator function, `async def` or `def`.
            *args: Arguments of the function.
            if_running: What to do if a run of this name is running: `"reject"` raises
                `RunExists`, `"attach"` returns that run, and `"replace"` cancels it
                and starts a new one.
            **kwargs: Keyword arguments of the function.

        Raises:
            RunExists: A run of this name is running.
            TypeError: The function does not return an iterable of items.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a run must be a str, not {name!r}")
        if if_running not in ("reject", "attach", "replace"):
            raise ValueError(
                "if_running must be 'reject', 'attach' or 'replace', not "
                f"{if_running!r}"
            )
        items = _called(function, args, kwargs)
        key = _key_of(name)
        try:
            info = await self._store.start_run(key, self._history, if_running)
        except RunExists:
            raise RunExists(name) from None  # the store knows it by its key
        if info.is_new:
            self._running[name] = info.log
            running = _Running(self, self._store, key, name, info, items)
            # Before its task starts, because the run can be cancelled from now on.
            self._store.own_run(key, info, running.cancel)
            self._store.start_task(running.run)
        return Run(self, name, info)

    async def response(
        self,
        name: str,
        last: str | None = None,
        *,
        wire: Wire = "events",
        response_class: type[EventSourceResponse] = EventSourceResponse,
    ) -> Response:
        """Return a response with the events of a run that a client does not have yet.

        If there is no such run, or if it has ended and the client has all of it, the
        response is an empty 204, after which an `EventSource` does not reconnect.

        Args:
            name: Name of the run.
            last: Position to continue from, such as a `LastEventID`. Without one, the
                response begins with the first event.
            wire: As in `Run.subscribe`.
            response_class: Class of the response, with its options.
        """
        info = await self._store.run(_key_of(name))
        if info is None or _has_all(info.log, last):
            return Response(status_code=204)
        return response_class(self._subscription(name, info.log, last, wire))

    async def cancel(self, name: str) -> bool:
        """Cancel a run, and return whether it was running.

        The generator is closed in the same way as that of a client that disconnects.
        This does not wait until it has closed.
        """
        return await self._store.cancel_run(_key_of(name))

    async def status(self, name: str) -> RunStatus | None:
        """Return the status of a run, or `None` if there is no such run.

        It is `"running"`, or how the run ended: `"done"`, `"cancelled"`, `"failed"`,
        `"timeout"`, `"lost"` or `"shutdown"`.
        """
        info = await self._store.run(_key_of(name))
        return None if info is None else info.status  # type: ignore[return-value]

    def stats(self) -> RunStats:
        """Return the numbers of runs, subscribers and reconnects in this process."""
        self._forget_logs()
        return RunStats(
            running=len(self._running),
            subscribers=sum(log.readers for log in self._logs),
            lag=max((log.lag for log in self._logs), default=0),
            reconnects=self._readings.reconnects,
            gaps=dict(self._readings.gaps),
        )

    def _subscription(
        self, name: str, log: EventLog, last: str | None, wire: Wire
    ) -> Subscription:
        if wire not in ("events", "openai"):
            raise ValueError(f"wire must be 'events' or 'openai', not {wire!r}")
        return Subscription(
            functools.partial(self._open, log),
            last,
            name=f"subscription to {name}",
            readings=self._readings,
            from_start=True,
            with_ids=wire == "events",
        )

    async def _open(self, log: EventLog) -> list[EventLog]:
        self._forget_logs()
        self._logs.add(log)
        return [log]

    def _forget_logs(self) -> None:
        self._logs = {log for log in self._logs if log.readers}


class _Running:
    """A run that this process has started: a stream whose client is a log."""

    def __init__(
        self,
        runs: Runs,
        store: Store,
        key: str,
        name: str,
        info: RunInfo,
        items: AsyncIterable[Any] | Iterable[Any],
    ) -> None:
        self._runs = runs
        self._store = store
        self._key = key
        self._name = name
        self._info = info
        self._items = items
        # Set only while the stream is open, because the stream refers to `_send`.
        self._stream: Stream | None = None
        # How the run ends if something ends it before its generator returns.
        self._ends_for: RunStatus | None = None

    async def run(self) -> None:
        """Run the generator, and end the log in one of its ways."""
        runs = self._runs
        # A POST is not asked for again, so it has as long as the server waits.
        scope: Scope = {"type": "http", "method": "POST", "path": self._name}
        stream = Stream(
            self._items,
            ItemEncoder(json=runs._options.json),
            Head.of(scope, 200, []),
            runs._options,
            Limits(),
            None,
            scope,
        )
        error: Exception | None = None
        status: RunStatus = "shutdown"  # unless the stream comes to its end
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, stream)
                try:
                    await stream.run(Client(_never), self._send)
                    status = self._status(stream)
                except Exception as raised:
                    error = raised
                    status = "failed"
                    logger.exception("the run %r failed", self._name)
                tasks.cancel_scope.cancel()
        finally:
            self._stream = None
            try:
                # The store may have cancelled this task.
                with anyio.CancelScope(shield=True):
                    await self._end(status, error)
            finally:
                del error  # which has this frame in its traceback: a cycle

    def cancel(self) -> None:
        """End the run now, or as soon as its stream is open."""
        self._end_for("cancelled")

    def _end_for(self, status: RunStatus) -> None:
        self._ends_for = self._ends_for or status
        if self._stream is not None:
            self._stream.end()

    async def _watch(self, stream: Stream) -> None:
        await anyio.lowlevel.checkpoint()  # the stream opens in the meantime
        self._stream = stream
        if self._ends_for is not None:
            stream.end()
        if self._runs._timeout is not None:
            await anyio.sleep(self._runs._timeout)
            self._end_for("timeout")

    def _status(self, stream: Stream) -> RunStatus:
        if stream.reason == "ended" and self._ends_for is not None:
            return self._ends_for
        return _ENDS.get(stream.reason, stream.reason)  # type: ignore[return-value]

    async def _send(self, message: Message) -> None:
        if body := message.get("body"):
            self._info.log.append(body)

    async def _end(self, status: RunStatus, error: Exception | None) -> None:
        """Append the last event, and tell the application."""
        runs = self._runs
        events = self._info.log.top
        frame, without_id = self._last_frames(status, error)
        try:
            await self._store.end_run(self._key, self._info, status, frame, without_id)
        except Exception:  # must not end the other runs of the store
            logger.exception("the end of the run %r was not stored", self._name)
        if runs._running.get(self._name) is self._info.log:
            del runs._running[self._name]
        if runs._on_end is not None:
            with log_errors("on_end", runs._options.close_timeout):
                await maybe_await(
                    runs._on_end(RunResult(self._name, status, error, events))
                )

    def _last_frames(
        self, status: RunStatus, error: Exception | None
    ) -> tuple[bytes, bytes]:
        """Return the last event, and what readers without ids get instead of it."""
        json, on_error = self._runs._options.json, self._runs._on_error
        if status in ("done", "cancelled"):
            end = EncodedEvent(event="end", data={"status": status}, json=json)
            return bytes(end), b""

        def frames(data: Mapping[str, Any]) -> tuple[bytes, bytes]:
            without_id = {"error": {"message": status, **data}}
            return (
                bytes(EncodedEvent(event="error", data=data, json=json)),
                bytes(EncodedEvent(data=without_id, json=json)),
            )

        if error is not None and on_error is not None:
            with log_errors("on_error", self._runs._options.close_timeout):
                message = on_error(error)
                if message is not None:
                    return frames({"code": status, "message": message})
        return frames({"code": status})


async def _never() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


def _called(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> AsyncIterable[Any] | Iterable[Any]:
    """Call a generator function.

    Raises:
        TypeError: It is none.
    """
    if not callable(function):
        raise TypeError(
            f"a run needs a generator function, not {type(function).__name__!r}: pass "
            "the function and its arguments, and do not call it"
        )
    items: Any = function(*args, **kwargs)
    if isinstance(items, (AsyncIterable, Iterable)) and not isinstance(
        items, (str, bytes, dict)
    ):
        return items
    if inspect.iscoroutine(items):
        items.close()
    name = getattr(function, "__qualname__", repr(function))
    raise TypeError(
        f"{name}() must be a generator function, which yields events, but it returned "
        f"{type(items).__name__!r}"
    )


def _has_all(log: EventLog, last: str | None) -> bool:
    """Return whether a client has all of a run that has ended."""
    positions = parse_last_event_id(last) if log.is_over and last else None
    return positions == [(log.epoch, log.top)]


def _key_of(name: str) -> str:
    return f"run:{name}"
