"""Runs: generators that outlive the request that started them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio
import anyio.lowlevel
from starlette.responses import Response

from ._core import EncodedEvent, EventLog, ItemEncoder, parse_last_event_id
from ._shutdown import DEFAULT_SHUTDOWN_TIMEOUT, server_shutdown_timeout
from ._stream import Head, Limits, Stream
from ._stream.client import Client
from ._stream.hooks import log_errors, logger, maybe_await
from .errors import RunExists
from .options import StreamOptions
from .response import EventSourceResponse
from .stores.store import START, History, LastEvent, Position, RunTerms
from .subscription import Readings, Subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.types import Message, Scope

    from .options import Json
    from .stores.store import IfRunning, RunInfo, RunStatus, RunWriter, Store
    from .subscription import GapReason

Wire = Literal["events", "openai"]

MOST_EVENTS = 2**31
"""A run keeps all its events, so that every client can have all of it."""

_ENDS: Mapping[str, RunStatus] = {"finished": "done", "ended": "cancelled"}
"""How a run has ended, by why its stream has; otherwise it is the same word."""


class RunResult(NamedTuple):
    """How a run ended, as `on_end` of `Runs` receives it.

    Attributes:
        name: Name of the run.
        status: `"done"`, `"cancelled"`, `"failed"`, `"timeout"`, `"shutdown"`, or
            `"lost"`.
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
        self.is_new = info.writer is not None
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
        return self._runs._subscription(self.name, self._info.id, last, wire)


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
        ttl: Seconds to keep a run after its end, unless somebody reads it.
        lease: Seconds after which a run is lost if its process has died. For stores
            that several processes share.
        timeout: Seconds that a run may take. `None` sets no limit.
        shutdown_grace: Seconds that a run may continue when the server shuts down. By
            default, a little less than the server waits, and at most 27.
        close_timeout: Seconds that a generator may take to close.
        on_error: Called with the exception of a run that failed. Returns a text for the
            client, the `message` of the last event, or `None`.
        on_end: Called with a `RunResult` when a run of this process has ended. May be
            async.
        on_lost: Called with the name of a run that is lost. May be async. For stores
            that several processes share.
        json: Format of data that is not a pydantic model, as in `StreamOptions`.
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
        self._terms = RunTerms(
            History(MOST_EVENTS, ttl), lease, _error_event("lost", None, json)
        )
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
        if on_lost is not None:
            store.on_lost(functools.partial(_tell_lost, on_lost, close_timeout))
        self._running = 0
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
            StoreError: The store is not available, or refuses the operation.
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
            info = await self._store.start_run(key, self._terms, if_running)
        except RunExists:
            raise RunExists(name) from None  # the store knows it by its key
        if info.writer is not None:
            self._store.start_run_task(_Running(self, name, info.writer, items))
            self._running += 1
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

        Raises:
            StoreError: The store is not available, or refuses the operation.
        """
        info = await self._store.run(_key_of(name))
        if info is None or _has_all(info, last):
            return Response(status_code=204)
        return response_class(self._subscription(name, info.id, last, wire))

    async def cancel(self, name: str) -> bool:
        """Cancel a run, and return whether it was running.

        The generator is closed in the same way as that of a client that disconnects.
        This does not wait until it has closed.

        Raises:
            StoreError: The store is not available, or refuses the operation.
        """
        return await self._store.cancel_run(_key_of(name))

    async def status(self, name: str) -> RunStatus | None:
        """Return the status of a run, or `None` if there is no such run.

        It is `"running"`, or how the run ended: `"done"`, `"cancelled"`, `"failed"`,
        `"timeout"`, `"lost"` or `"shutdown"`.

        Raises:
            StoreError: The store is not available, or refuses the operation.
        """
        info = await self._store.run(_key_of(name))
        return None if info is None else info.status

    def stats(self) -> RunStats:
        """Return the numbers of runs, subscribers and reconnects in this process."""
        self._forget_logs()
        return RunStats(
            running=self._running,
            subscribers=sum(log.readers for log in self._logs),
            lag=max((log.lag for log in self._logs), default=0),
            reconnects=self._readings.reconnects,
            gaps=dict(self._readings.gaps),
        )

    def _subscription(
        self, name: str, id: str, last: str | None, wire: Wire
    ) -> Subscription:
        if wire not in ("events", "openai"):
            raise ValueError(f"wire must be 'events' or 'openai', not {wire!r}")
        return Subscription(
            functools.partial(self._open, _key_of(name), id),
            last,
            name=f"subscription to {name}",
            readings=self._readings,
            start_task=self._store.start_task,
            from_start=True,
            with_ids=wire == "events",
        )

    async def _open(
        self, key: str, id: str, last: Sequence[Position] | None
    ) -> Sequence[EventLog]:
        after = last[0] if last is not None and len(last) == 1 else START
        log = await self._store.run_log(key, id, self._terms.history, after)
        self._forget_logs()
        if log is None:  # expired meanwhile
            log = EventLog("0", most=1, call_soon=_call_nothing)
            log.end()
        self._logs.add(log)
        return [log]

    def _options_now(self) -> StreamOptions:
        """Return the options of a run that starts now."""
        if self._options.shutdown_grace is not None:
            return self._options
        # A tenth less than responses have, so that they can send the last event.
        limit = server_shutdown_timeout(self._options.close_timeout)
        grace = 0.9 * min(limit, DEFAULT_SHUTDOWN_TIMEOUT)
        return replace(self._options, shutdown_grace=grace)

    def _forget_logs(self) -> None:
        self._logs = {log for log in self._logs if log.readers}


class _Running:
    """A run that this process has started: a stream whose client is a log."""

    def __init__(
        self,
        runs: Runs,
        name: str,
        writer: RunWriter,
        items: AsyncIterable[Any] | Iterable[Any],
    ) -> None:
        self._runs = runs
        self._name = name
        self._writer = writer
        self._items = items
        # Set only while the stream is open, because the stream refers to `_send`.
        self._stream: Stream | None = None
        # How the run ends if something ends it before its generator returns.
        self._ends_for: RunStatus | None = None

    async def run(self) -> None:
        """Run the generator, and end the log in one of its ways."""
        runs = self._runs
        self._writer.on_end(self._end_for)
        # A POST is not asked for again, so it has as long as the server waits.
        scope: Scope = {"type": "http", "method": "POST", "path": self._name}
        stream = Stream(
            self._items,
            ItemEncoder(json=runs._options.json, allow_id=False),
            Head.of(scope, 200, []),
            runs._options_now(),
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
            runs._running -= 1
            try:
                # The store may have cancelled this task.
                with anyio.CancelScope(shield=True):
                    await self._end(status, error)
            finally:
                del error  # which has this frame in its traceback: a cycle

    def shut_down(self) -> None:
        """End the run, unless it is in its time after a server shutdown."""
        if self._stream is None or not self._stream.is_shutting_down:
            self._end_for("shutdown")

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
        return _ENDS.get(stream.reason, stream.reason)  # type: ignore[arg-type]

    async def _send(self, message: Message) -> None:
        if body := message.get("body"):
            self._writer.append(body)
            await self._writer.drain()

    async def _end(self, status: RunStatus, error: Exception | None) -> None:
        """Append the last event, and tell the application."""
        runs = self._runs
        events = self._writer.events
        last = self._last_event(status, error)
        try:
            status = await self._writer.end(status, last)
        except Exception:  # must not end the other runs of the store
            logger.exception("the end of the run %r was not stored", self._name)
        if runs._on_end is not None:
            with log_errors("on_end", runs._options.close_timeout):
                await maybe_await(
                    runs._on_end(RunResult(self._name, status, error, events))
                )

    def _last_event(self, status: RunStatus, error: Exception | None) -> LastEvent:
        json, on_error = self._runs._options.json, self._runs._on_error
        if status in ("done", "cancelled"):
            end = EncodedEvent(event="end", data={"status": status}, json=json)
            return LastEvent(bytes(end), b"")
        message = None
        if error is not None and on_error is not None:
            with log_errors("on_error", self._runs._options.close_timeout):
                message = on_error(error)
                return _error_event(status, message, json)
        return _error_event(status, None, json)


def _error_event(code: RunStatus, message: str | None, json: Json) -> LastEvent:
    """Return the last event of a run that has not come to its end."""
    data = {"code": code} if message is None else {"code": code, "message": message}
    without_id = {"error": {"message": code, **data}}
    return LastEvent(
        bytes(EncodedEvent(event="error", data=data, json=json)),
        bytes(EncodedEvent(data=without_id, json=json)),
    )


async def _tell_lost(
    on_lost: Callable[[str], Awaitable[object] | object], seconds: float, key: str
) -> None:
    with log_errors("on_lost", seconds):
        await maybe_await(on_lost(_name_of(key)))


def _call_nothing(function: Callable[[], None]) -> None:
    """Do nothing: a log that has ended has no news for readers."""


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


def _has_all(info: RunInfo, last: str | None) -> bool:
    """Return whether a run has ended and a client has all of its events."""
    if info.status == "running" or not last:
        return False
    return parse_last_event_id(last) == [info.position]


def _key_of(name: str) -> str:
    return f"run:{name}"


def _name_of(key: str) -> str:
    return key.removeprefix("run:")
