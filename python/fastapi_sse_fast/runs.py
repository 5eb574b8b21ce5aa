"""Runs: generators that outlive the request which has started them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio
from starlette.responses import Response

from ._core import EncodedEvent, ItemEncoder, encode_event, parse_last_event_id
from ._stream import Head, Limits, Stream
from ._stream.client import Client
from ._stream.hooks import log_errors, logger, maybe_await
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
    """How a run has ended.

    Attributes:
        name: The run.
        status: `"done"`, `"cancelled"`, `"failed"`, `"timeout"` or `"shutdown"`.
        error: The exception that it has raised.
        events: How many events it has sent, without the last one, which says how it
            ended.
    """

    name: str
    status: RunStatus
    error: Exception | None
    events: int


class RunStats(NamedTuple):
    """What happens in the runs of this process.

    Attributes:
        running: Runs that this process has started and that have not ended.
        subscribers: Streams that read a run.
        lag: How many events the slowest subscriber is behind.
        reconnects: Subscriptions that have continued from a position.
        gaps: Gaps that subscribers were told of, by reason.
    """

    running: int
    subscribers: int
    lag: int
    reconnects: int
    gaps: Mapping[GapReason, int]


class Run:
    """A run, as `Runs.start` returns it.

    Attributes:
        name: Its name.
        is_new: Whether `start` has started it, rather than found it running.
    """

    __slots__ = ("_info", "_readings", "is_new", "name")

    def __init__(self, name: str, info: RunInfo, readings: Readings) -> None:
        self.name = name
        self.is_new = info.is_new
        self._info = info
        self._readings = readings

    def subscribe(
        self, last: str | None = None, *, wire: Wire = "events"
    ) -> Subscription:
        """Return the events of the run, from the first one on.

        Args:
            last: Where to continue; see `LastEventID`.
            wire: `"openai"` sends what OpenAI's clients expect: no positions, no events
                about gaps and the end, and errors as `data: {"error": {...}}`.
        """
        return _subscription(self.name, self._info.log, last, wire, self._readings)


class Runs:
    """Runs generators that go on when their client disconnects.

    The events of a run are kept: a client that reconnects, or another one, gets them
    from the first or from the one behind the last that it has. Every run ends with one
    event that says how, the same for all: `event: end` with `{"status": "done"}` or
    `"cancelled"`, or `event: error` with `{"code": "failed"}`, `"timeout"`, `"lost"` or
    `"shutdown"`.

    Args:
        store: Where the events are kept.
        ttl: Seconds to keep a run after its end.
        lease: Seconds after which a run whose process is gone counts as lost, in a
            store that several processes share.
        timeout: Seconds that a run may take.
        shutdown_grace: Seconds that a run may go on for at server shutdown; by default
            as long as the server waits.
        close_timeout: Seconds that its generator may take to close.
        on_error: Called with the exception of a run that fails; what it returns is the
            `message` of the event that says so. Without it, clients are not told.
        on_end: Called with a `RunResult` when a run of this process has ended.
        on_lost: Called with the name of a run whose process is gone, in one process.
        json: How data is spelled; see `StreamOptions`.

    Examples:
        @app.post("/chats/{id}")
        async def ask(id: int, body: Ask) -> EventSourceResponse:
            run = await runs.start(f"chat:{id}", answer, id, body.prompt)
            return EventSourceResponse(run.subscribe())

        @app.get("/chats/{id}/stream")
        async def resume(id: int, last: LastEventID) -> Response:
            return await runs.response(f"chat:{id}", last)
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
        """Start a run: call a generator function, and keep what it yields.

        The generator runs in a task of the store's. It has the context variables of the
        caller, but none of its dependencies: they are closed when the request ends.

        Args:
            name: The name of the run. One run of a name is running at a time.
            function: A generator function, async or not.
            *args: Arguments of the function.
            if_running: What to do if the run is running already: `"reject"` raises
                `RunExists`, `"attach"` returns the one that is running, `"replace"`
                cancels it first.
            **kwargs: Keyword arguments of the function.

        Raises:
            RunExists: The run is running already.
            TypeError: The function returns no iterable of items.
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
        info = await self._store.start_run(key, self._history, if_running)
        run = Run(name, info, self._readings)
        self._logs = {log for log in self._logs if log.readers} | {info.log}
        if info.is_new:
            self._running[name] = info.log
            task = _Running(self, self._store, key, name, info, items)
            self._store.start_task(task.run)
        return run

    async def response(
        self,
        name: str,
        last: str | None = None,
        *,
        wire: Wire = "events",
        response_class: type[EventSourceResponse] = EventSourceResponse,
    ) -> Response:
        """Return a response with what a client does not have yet of a run.

        It is an empty response with status 204 if there is nothing and nothing will
        come: there is no such run, or it has ended and the client has all of it. A 204
        stops an `EventSource` for good.

        Args:
            name: The run.
            last: Where to continue; see `LastEventID`.
            wire: As for `Run.subscribe`.
            response_class: The class of the response, with its options.
        """
        info = await self._store.run(_key_of(name))
        if info is None or _has_all(info.log, last):
            return Response(status_code=204)
        self._logs.add(info.log)
        subscription = _subscription(name, info.log, last, wire, self._readings)
        return response_class(subscription)

    async def cancel(self, name: str) -> bool:
        """Cancel a run, from any process. Return whether it was running."""
        return await self._store.cancel_run(_key_of(name))

    async def status(self, name: str) -> RunStatus | None:
        """Return whether a run is running or how it has ended, or `None`."""
        info = await self._store.run(_key_of(name))
        return None if info is None else info.status  # type: ignore[return-value]

    def stats(self) -> RunStats:
        """Return what happens in the runs of this process."""
        self._logs = {log for log in self._logs if log.readers}
        return RunStats(
            running=len(self._running),
            subscribers=sum(log.readers for log in self._logs),
            lag=max((log.lag for log in self._logs), default=0),
            reconnects=self._readings.reconnects,
            gaps=dict(self._readings.gaps),
        )


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
        self._is_late = False
        # A POST is not asked for again, so it has as long as the server waits.
        scope: Scope = {"type": "http", "method": "POST", "path": name}
        self._stream = Stream(
            items,
            ItemEncoder(json=runs._options.json),
            Head.of(scope, 200, []),
            runs._options,
            Limits(),
            None,
            scope,
        )

    async def run(self) -> None:
        """Run the generator, and end the log in one of its ways."""
        runs, stream = self._runs, self._stream
        self._store.own_run(self._key, self._info, stream.end)
        error: Exception | None = None
        status: RunStatus = "shutdown"  # unless the stream comes to its end
        try:
            async with anyio.create_task_group() as tasks:
                if runs._timeout is not None:
                    tasks.start_soon(self._time_out, runs._timeout)
                try:
                    await stream.run(Client(_never), self._send)
                    status = self._status()
                except Exception as raised:
                    error = raised
                    status = "failed"
                    logger.exception("the run %r failed", self._name)
                tasks.cancel_scope.cancel()
        finally:
            events = self._info.log.top
            with anyio.CancelScope(shield=True):
                await self._end(status, error)
            runs._running.pop(self._name, None)
        if runs._on_end is not None:
            with log_errors("on_end", runs._options.close_timeout):
                await maybe_await(
                    runs._on_end(RunResult(self._name, status, error, events))
                )

    def _status(self) -> RunStatus:
        if self._is_late and self._stream.reason == "ended":
            return "timeout"
        reason = self._stream.reason
        return _ENDS.get(reason, reason)  # type: ignore[return-value]

    async def _time_out(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._is_late = True
        self._stream.end()

    async def _send(self, message: Message) -> None:
        if body := message.get("body"):
            self._info.log.append(body)

    async def _end(self, status: RunStatus, error: Exception | None) -> None:
        if status in ("done", "cancelled"):
            frame = EncodedEvent(event="end", data={"status": status})
            without_id = b""
        else:
            data: dict[str, str] = {"code": status}
            on_error = self._runs._on_error
            if error is not None and on_error is not None:
                with log_errors("on_error", self._runs._options.close_timeout):
                    message = on_error(error)
                    if message is not None:
                        data["message"] = message
            frame = EncodedEvent(event="error", data=data)
            without_id = bytes(encode_event({"error": {"message": status, **data}}))
        await self._store.end_run(
            self._key, self._info, status, bytes(frame), without_id
        )


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


def _subscription(
    name: str, log: EventLog, last: str | None, wire: Wire, readings: Readings
) -> Subscription:
    if wire not in ("events", "openai"):
        raise ValueError(f"wire must be 'events' or 'openai', not {wire!r}")
    return Subscription(
        functools.partial(_opened, log),
        last,
        name=f"subscription to {name}",
        readings=readings,
        from_start=True,
        with_ids=wire == "events",
    )


async def _opened(log: EventLog) -> list[EventLog]:
    return [log]


def _has_all(log: EventLog, last: str | None) -> bool:
    """Return whether a client has all of a run that has ended."""
    positions = parse_last_event_id(last) if log.is_over and last else None
    return positions == [(log.epoch, log.top)]


def _key_of(name: str) -> str:
    return f"run:{name}"
