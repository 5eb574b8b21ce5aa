"""What the pump must survive: it drives generators by hand, and sends in their steps.

Nobody is to see that: not the generator, not what stands around `send`, not the tools
that look at tasks, frames and calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import itertools
import logging
import sys
import time
import traceback
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import KINDS, MS, Summaries, app_of, numbers
from ..support.asgi import Application, Reply, call, fetch
from ..support.middlewares import around_send, with_pause

PAUSES = [None, 0.0, 2 * MS]
"""Of a client: it takes a message at once, after a turn of the loop, after a while."""

HAS_TIMEOUT = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio.timeout is new in 3.11"
)
HAS_EAGER_TASKS = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="eager tasks are new in 3.12"
)


def asyncio_timeout(seconds: float) -> Any:
    return asyncio.timeout(seconds)  # type: ignore[attr-defined, unused-ignore]


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what anybody has logged; a slow step, in debug mode, is no problem."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and " took " not in record.getMessage()
    ]


# Scopes over a `yield`


@contextlib.asynccontextmanager
async def moving_on(seconds: float) -> AsyncIterator[None]:
    with anyio.move_on_after(seconds):
        yield


@contextlib.asynccontextmanager
async def timing_out(seconds: float) -> AsyncIterator[None]:
    with contextlib.suppress(TimeoutError):
        async with asyncio_timeout(seconds):
            yield


SCOPES = [moving_on, pytest.param(timing_out, marks=HAS_TIMEOUT)]


@pytest.mark.parametrize("open_scope", SCOPES)
@pytest.mark.parametrize("pause", PAUSES)
def test_a_scope_over_a_yield_ends_while_the_generator_stands_there(
    open_scope: Callable[[float], Any], pause: float | None
) -> None:
    yielded: list[int] = []
    stood = []

    def next_number() -> int:
        yielded.append(len(yielded))
        return yielded[-1]

    async def items() -> AsyncIterator[int]:
        for _ in range(3):  # what one left behind would spoil the next
            async with open_scope(5 * MS):
                try:
                    while True:
                        yield next_number()
                        # Longer than its share: so it stands at the next `yield`.
                        time.sleep(2 * MS)  # noqa: ASYNC251
                except asyncio.CancelledError:
                    stood.append(True)
                    raise
            yield next_number()
            await asyncio.sleep(MS)
            yield next_number()

    reply = fetch(with_pause(app_of(items), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == yielded
    assert stood == [True] * 3


@pytest.mark.parametrize("open_scope", SCOPES)
@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("wait", [0.0, MS, 3600])
def test_a_scope_over_a_yield_ends_while_the_generator_awaits(
    open_scope: Callable[[float], Any], pause: float | None, wait: float
) -> None:
    yielded: list[int] = []

    def next_number() -> int:
        yielded.append(len(yielded))
        return yielded[-1]

    async def items() -> AsyncIterator[int]:
        for _ in range(3):
            async with open_scope(5 * MS):
                while True:
                    yield next_number()
                    yield next_number()
                    await asyncio.sleep(wait)
            yield next_number()
            await asyncio.sleep(MS)
            yield next_number()

    reply = fetch(with_pause(app_of(items), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == yielded


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("awaits", [True, False])
def test_nothing_is_lost_where_a_scope_is_cancelled_before_its_events_are_sent(
    pause: float | None, awaits: bool
) -> None:
    """Behind a middleware whose streams look whether their task is cancelled."""

    class OwnResponse(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    app = FastAPI(middleware=[Middleware(OwnResponse), Middleware(OwnResponse)])
    yielded: list[int] = []

    def next_number() -> int:
        yielded.append(len(yielded))
        return yielded[-1]

    @app.get("/", response_class=EventSourceResponse)
    async def items() -> AsyncIterator[int]:
        for _ in range(30):
            with anyio.CancelScope() as scope:
                yield next_number()
                scope.cancel()
                yield next_number()
                if awaits:
                    await anyio.sleep(3600)
                else:
                    time.sleep(1.5 * MS)  # noqa: ASYNC251 - it has to give way
                    yield next_number()
            yield next_number()
            await asyncio.sleep(0)

    reply = fetch(with_pause(app, pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == yielded


# What stands around `send`


def in_a_scope() -> Any:
    @contextlib.asynccontextmanager
    async def guard() -> AsyncIterator[None]:
        with anyio.CancelScope(), anyio.fail_after(20):
            yield

    return guard


def in_a_timeout() -> Any:
    return lambda: asyncio_timeout(20)


def in_a_lock_of_anyio() -> Any:
    lock = anyio.Lock()
    return lambda: lock


def in_a_lock_of_asyncio() -> Any:
    lock = asyncio.Lock()
    return lambda: lock


def in_a_limiter() -> Any:
    limiter = anyio.CapacityLimiter(1)
    return lambda: limiter


def in_a_task_group() -> Any:
    return anyio.create_task_group


GUARDS = [
    in_a_scope,
    pytest.param(in_a_timeout, marks=HAS_TIMEOUT),
    in_a_lock_of_anyio,
    in_a_lock_of_asyncio,
    in_a_limiter,
    in_a_task_group,
]


async def with_pings() -> AsyncIterator[int]:
    """Yield bursts, single events and nothing for a while."""
    for number in range(12):
        yield number
        if number % 3 == 0:
            # Once for so long that a pause of the machine does not count.
            await asyncio.sleep((80 if number == 6 else 12) * MS)
        elif number % 3 == 1:
            await asyncio.sleep(0)


@pytest.mark.parametrize("make_guard", GUARDS)
@pytest.mark.parametrize("pause", [0.0, 2 * MS])
def test_what_a_middleware_opens_around_a_send_it_can_close(
    make_guard: Callable[[], Any], pause: float
) -> None:
    async def main() -> Reply:
        guard = make_guard()

        async def guarded(send: Any, message: Any) -> None:
            async with guard():
                await send(message)

        # The client is behind the guard: so the send waits inside of it.
        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def send_late(message: Any) -> None:
                await asyncio.sleep(pause)
                await send(message)

            await around_send(inner, guarded)(scope, receive, send_late)

        inner = app_of(with_pings, ping_interval=4 * MS)
        return await call(app)

    reply = asyncio.run(main())
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == list(range(12))
    assert b": ping\n\n" in reply.body


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_message_is_sent_by_the_task_of_the_request(
    kind: str, pause: float | None
) -> None:
    tasks: list[Any] = []

    def sync_items() -> Iterator[int]:
        for number in range(12):
            yield number
            if number % 3 == 0:
                time.sleep((80 if number == 6 else 12) * MS)

    async def noting(send: Any, message: Any) -> None:
        tasks.append((message["type"], asyncio.current_task()))
        await send(message)
        tasks.append((message["type"], asyncio.current_task()))

    async def main() -> tuple[Reply, Any]:
        endpoint = with_pings if kind == "async" else sync_items
        app = app_of(endpoint, ping_interval=4 * MS)

        async def late(scope: Any, receive: Any, send: Any) -> None:
            async def send_late(message: Any) -> None:
                if pause is not None:
                    await asyncio.sleep(pause)
                await send(message)

            await around_send(app, noting)(scope, receive, send_late)

        return await call(late), asyncio.current_task()

    reply, request = asyncio.run(main())
    assert reply.complete
    assert numbers(reply.body) == list(range(12))
    assert b": ping\n\n" in reply.body
    assert {kind for kind, _ in tasks} == {"http.response.start", "http.response.body"}
    assert {task for _, task in tasks} == {request}


def test_the_generator_runs_in_one_task_whatever_is_sent_in_between() -> None:
    tasks: list[Any] = []

    async def items() -> AsyncIterator[int]:
        async for number in with_pings():
            tasks.append(asyncio.current_task())
            yield number
        tasks.append(asyncio.current_task())

    reply = fetch(with_pause(app_of(items, ping_interval=4 * MS), 0.0))
    assert reply.complete
    assert len(tasks) == 13
    assert len(set(tasks)) == 1


VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("variable")


@pytest.mark.parametrize("pause", PAUSES)
def test_a_context_variable_can_be_set_and_reset_around_a_send(
    pause: float | None,
) -> None:
    async def items() -> AsyncIterator[int]:
        async for number in with_pings():
            yield number

    reply = fetch(in_spans(app_of(items, ping_interval=4 * MS), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == list(range(12))
    assert b": ping\n\n" in reply.body


@pytest.mark.parametrize("pause", PAUSES)
def test_a_generator_does_not_see_what_is_set_around_a_send(
    pause: float | None,
) -> None:
    """Or the spans of a tracer that it opens meanwhile would get a wrong parent."""
    found: list[int] = []

    async def items() -> AsyncIterator[int]:
        async for number in with_pings():
            found.append(VARIABLE.get(0))
            yield number

    assert fetch(in_spans(app_of(items), pause)).complete
    assert found == [0] * 12


@pytest.mark.parametrize("pause", PAUSES)
def test_what_a_generator_sets_stays_whatever_is_reset_around_a_send(
    pause: float | None,
) -> None:
    found: list[int] = []

    async def items() -> AsyncIterator[int]:
        async for number in with_pings():
            found.append(VARIABLE.get(0))
            VARIABLE.set(1000 + number)
            yield number

    assert fetch(in_spans(app_of(items), pause)).complete
    assert found == [0, *range(1000, 1011)]


def in_spans(app: Application, pause: float | None) -> Application:
    """Return the application behind a middleware with a span around every send.

    That of OpenTelemetry does so: the current span is a context variable.
    """
    spans = itertools.count(1)

    async def send_in_a_span(send: Any, message: Any) -> None:
        span = next(spans)
        token = VARIABLE.set(span)
        try:
            if pause is not None:
                await asyncio.sleep(pause)
            await send(message)
            assert VARIABLE.get() == span
        finally:
            VARIABLE.reset(token)

    return around_send(app, send_in_a_span)


# Clients that stop reading


@pytest.mark.parametrize("takes", [1, 2, 3])
@pytest.mark.parametrize("pace", ["paced", "busy", "idle"])
def test_a_client_that_stops_reading_is_dropped_wherever_that_is(
    pace: str, takes: int, anyio_backend: str
) -> None:
    """In a send that a step of the generator has begun, or in that of a ping."""
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
                if pace == "paced":
                    await anyio.sleep(MS)
                if pace == "idle":
                    await anyio.sleep(3600)
        finally:
            closed.append(True)

    summaries = Summaries()
    app = app_of(
        items,
        send_timeout=30 * MS,
        ping_interval=5 * MS,
        max_pending=1000,
        on_close=summaries,
    )
    reply = fetch(app, backend=anyio_backend, freeze_after=takes)
    assert reply.error is None
    assert not reply.complete
    assert len(reply.chunks) == takes
    assert numbers(reply.body) == list(range(len(numbers(reply.body))))
    assert closed == [True]
    assert summaries.reasons == ["send_timeout"]
    assert summaries[0].seconds_open < 5


# Any `__anext__`


class Counting:
    """Counts to five, in one of many ways.

    Attributes:
        closed: How often it was.
    """

    def __init__(self) -> None:
        self._number = 0
        self.closed = 0

    def __aiter__(self) -> Any:
        return self

    def count(self) -> int:
        """Return the next number.

        Raises:
            StopAsyncIteration: That was the last one.
        """
        if self._number == 5:
            raise StopAsyncIteration
        self._number += 1
        return self._number - 1

    async def aclose(self) -> None:
        self.closed += 1


class Coroutine(Counting):
    async def __anext__(self) -> int:
        await asyncio.sleep(MS)
        return self.count()


class CoroutineThatNeverWaits(Counting):
    async def __anext__(self) -> int:
        return self.count()


class OnlyAwaitable:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __await__(self) -> Any:
        return self._make()


class WithAwait(Counting):
    def __anext__(self) -> Any:
        def steps() -> Generator[Any, Any, int]:
            yield from asyncio.sleep(MS).__await__()
            yield
            return self.count()

        return OnlyAwaitable(steps)


class WithAwaitThatRaisesAtOnce(Counting):
    """`StopAsyncIteration` comes from the call, not from what is awaited."""

    def __anext__(self) -> Any:
        number = self.count()

        async def value() -> int:
            await asyncio.sleep(0)
            return number

        return OnlyAwaitable(value().__await__)


class Futures(Counting):
    def __anext__(self) -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def answer() -> None:
            try:
                future.set_result(self.count())
            except StopAsyncIteration as end:
                future.set_exception(end)

        loop.call_later(MS, answer)
        return future


class FuturesThatAreDone(Counting):
    def __anext__(self) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(self.count())
        return future


class Tasks(Counting):
    def __anext__(self) -> Any:
        number = self.count()
        return asyncio.get_running_loop().create_task(asyncio.sleep(MS, number))


class GeneratorsOfTypesCoroutine(Counting):
    @types.coroutine
    def __anext__(self) -> Any:
        yield
        yield from asyncio.sleep(MS).__await__()
        return self.count()


class Plain:
    """An iterator with nothing but `__next__`."""

    def __init__(self, steps: Iterator[Any]) -> None:
        self._steps = steps

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._steps)


class WithoutSendAndThrow(Counting):
    def __anext__(self) -> Any:
        number = self.count()
        return OnlyAwaitable(lambda: Plain(asyncio.sleep(MS, number).__await__()))


@pytest.mark.parametrize(
    "make",
    [
        Coroutine,
        CoroutineThatNeverWaits,
        WithAwait,
        WithAwaitThatRaisesAtOnce,
        Futures,
        FuturesThatAreDone,
        Tasks,
        GeneratorsOfTypesCoroutine,
        WithoutSendAndThrow,
    ],
)
@pytest.mark.parametrize("pause", PAUSES)
def test_whatever_can_be_awaited_can_come_from_anext(
    make: type[Counting], pause: float | None
) -> None:
    reply = fetch(with_pause(EventSourceResponse(make()), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == list(range(5))


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_an_iterator_written_in_c_can_be_awaited(turns: int) -> None:
    """That of a list makes its task wait for so many turns; its value is `None`."""

    class Turns(Counting):
        def __anext__(self) -> Any:
            self.count()
            return OnlyAwaitable(lambda: iter([None] * turns))

    reply = fetch(EventSourceResponse(Turns()))
    assert reply.error is None
    assert reply.body == b"data: null\n\n" * 5
    assert reply.complete


def plain_generator() -> Any:
    yield


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: 1,
        object,
        lambda: OnlyAwaitable(lambda: 1),
        lambda: OnlyAwaitable(lambda: None),
        lambda: iter([]),
        lambda: iter([None]),
        plain_generator,
    ],
    ids=[
        "none",
        "number",
        "object",
        "awaits a number",
        "awaits none",
        "empty iterator",
        "iterator",
        "plain generator",
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_what_cannot_be_awaited_is_an_error(
    make: Callable[[], Any], before: int
) -> None:
    """As it is in an `async for`."""

    class Items(Counting):
        def __anext__(self) -> Any:
            if self.count() < before:
                return asyncio.sleep(0, "an item")
            return make()

    async def iterated() -> None:
        async for _ in Items():
            pass

    with pytest.raises(TypeError):
        asyncio.run(iterated())
    reply = fetch(EventSourceResponse(Items()))
    assert isinstance(reply.error, TypeError)
    assert reply.body == b"an item" * before
    assert not reply.complete


@pytest.mark.parametrize("make", [Coroutine, WithAwait, Futures, WithoutSendAndThrow])
@pytest.mark.parametrize("leaves_after", [1, 3])
def test_a_client_that_leaves_interrupts_any_anext(
    make: type[Counting], leaves_after: int
) -> None:
    class Slow(make):  # type: ignore[misc, valid-type]
        def __anext__(self) -> Any:
            if self._number < leaves_after:
                return super().__anext__()
            return self.never()

        def never(self) -> Any:
            if make is Coroutine:
                return asyncio.sleep(3600)
            if make is Futures:
                return asyncio.get_running_loop().create_future()
            steps = asyncio.get_running_loop().create_future().__await__()
            if make is WithoutSendAndThrow:
                return OnlyAwaitable(lambda: Plain(steps))
            return OnlyAwaitable(lambda: steps)

    summaries = Summaries()
    items = Slow()
    response = EventSourceResponse(items, on_close=summaries)
    reply = fetch(response, disconnect_after=leaves_after)
    assert reply.error is None
    assert numbers(reply.body) == list(range(leaves_after))
    assert summaries.reasons == ["disconnected"]
    assert summaries[0].seconds_open < 5


# Closing


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_client_that_leaves_interrupts_what_the_generator_awaits(
    pause: float | None, depth: int
) -> None:
    """However deep that is; and its clean-up can await."""
    log: list[str] = []

    async def waiting(levels: int) -> None:
        try:
            await (waiting(levels - 1) if levels else asyncio.sleep(3600))
        except asyncio.CancelledError:
            log.append("interrupted")
            raise
        finally:
            await asyncio.sleep(MS)
            log.append("cleaned up")

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await waiting(depth)
        finally:
            await asyncio.sleep(MS)
            log.append("closed")

    app = with_pause(app_of(items), pause)
    reply = fetch(app, disconnect_after=1)
    assert reply.error is None
    assert reply.body == b"data: 1\n\n"
    assert log == ["interrupted", "cleaned up"] * (depth + 1) + ["closed"]


@pytest.mark.parametrize("open_scope", SCOPES)
@pytest.mark.parametrize("pause", PAUSES)
def test_a_generator_can_await_and_yield_while_it_handles_its_interruption(
    open_scope: Callable[[float], Any], pause: float | None
) -> None:
    yielded: list[int] = []

    def next_number() -> int:
        yielded.append(len(yielded))
        return yielded[-1]

    async def items() -> AsyncIterator[int]:
        async with open_scope(5 * MS):
            try:
                while True:
                    yield next_number()
                    time.sleep(2 * MS)  # noqa: ASYNC251 - it stands at the `yield`
            except asyncio.CancelledError:
                with anyio.CancelScope(shield=True):
                    await asyncio.sleep(MS)
                    yield next_number()
                    await asyncio.sleep(MS)
                    yield next_number()
                    time.sleep(2 * MS)  # noqa: ASYNC251
                    yield next_number()
                raise
            finally:
                yield next_number()
        yield next_number()

    reply = fetch(with_pause(app_of(items), pause))
    assert reply.error is None
    assert reply.complete
    assert numbers(reply.body) == yielded


# Other tasks, other loops


def run_with(
    factory: Any, app: Application, *, debug: bool = False, **more: Any
) -> Reply:
    """One request, in a loop that makes its tasks in another way."""

    async def main() -> Reply:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        # The request is a task of that kind too.
        reply = await loop.create_task(call(app, **more))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return reply

    return asyncio.run(main(), debug=debug)


def eager(*args: Any, **kwargs: Any) -> Any:
    return asyncio.eager_task_factory(*args, **kwargs)  # type: ignore[attr-defined, unused-ignore]


def wrapping(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
    """Make tasks as Sentry does: around a coroutine of its own."""

    async def wrapped() -> Any:
        return await coroutine

    return asyncio.Task(wrapped(), loop=loop, **kwargs)


class OtherTask(asyncio.Task):  # type: ignore[type-arg]
    """A class of tasks of somebody's own."""


def subclassing(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
    return OtherTask(coroutine, loop=loop, **kwargs)


FACTORIES = [pytest.param(eager, marks=HAS_EAGER_TASKS), wrapping, subclassing]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("end", ["finished", "disconnected", "max_duration", "error"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("waits", [True, False])
def test_streams_of_other_tasks_end_as_all_do(
    factory: Any, end: str, kind: str, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    began = []
    closed = []
    endless = end in ("disconnected", "max_duration")

    async def items() -> AsyncIterator[int]:
        began.append(True)
        try:
            number = 0
            while endless or number < 5:
                yield number
                number += 1
                if waits:
                    await asyncio.sleep(MS)
            if end == "error":
                raise LookupError
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        began.append(True)
        try:
            number = 0
            while endless or number < 5:
                yield number
                number += 1
                if waits:
                    time.sleep(MS)
            if end == "error":
                raise LookupError
        finally:
            closed.append(True)

    summaries = Summaries()
    app = app_of(
        items if kind == "async" else sync_items,
        on_close=summaries,
        max_duration=10 * MS if end == "max_duration" else None,
    )
    leaves = 2 if end == "disconnected" else None
    reply = run_with(factory, app, disconnect_after=leaves)
    assert isinstance(reply.error, LookupError) == (end == "error")
    assert reply.complete == (end in ("finished", "max_duration"))
    found = numbers(reply.body)
    assert found == list(range(len(found)))
    assert endless or len(found) == 5
    # A thread may begin only after such a short stream is over.
    assert closed == began
    assert began or end == "max_duration"
    assert summaries.reasons == [end]
    assert problems(caplog) == []


@HAS_EAGER_TASKS
@pytest.mark.parametrize("kind", KINDS)
def test_a_max_duration_that_is_over_at_once_with_eager_tasks(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    endpoint = items if kind == "async" else sync_items
    for duration in (1e-9, 1e-6, 1e-4, 1e-3):
        summaries = Summaries()
        app = app_of(endpoint, max_duration=duration, on_close=summaries)
        closed.clear()
        reply = run_with(eager, app)
        assert reply.complete
        assert summaries.reasons == ["max_duration"]
        # A thread that was not there in time has nothing to close.
        assert closed == [True] or (kind == "sync" and closed == [])
    assert problems(caplog) == []


@pytest.mark.parametrize("end", ["finished", "disconnected", "max_duration", "error"])
@pytest.mark.parametrize("pause", PAUSES)
def test_streams_in_a_loop_in_debug_mode(
    end: str, pause: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            for number in range(5):
                yield number
                await asyncio.sleep(MS)
            if end == "error":
                raise LookupError
            if end != "finished":
                await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    summaries = Summaries()
    limit = 50 * MS if end == "max_duration" else None
    app = app_of(items, on_close=summaries, max_duration=limit)
    leaves = 2 if end == "disconnected" else None
    reply = run_with(None, with_pause(app, pause), debug=True, disconnect_after=leaves)
    found = numbers(reply.body)
    assert found == list(range(len(found)))
    assert isinstance(reply.error, LookupError) == (end == "error")
    assert summaries.reasons == [end]
    assert closed == [True]
    assert problems(caplog) == []


# Tools that look


def look_at_all_tasks() -> str:
    """What a debugger, a monitor or a handler of a signal does."""
    text = io.StringIO()
    for task in asyncio.all_tasks():
        text.write(repr(task))
        task.get_stack()
        task.print_stack(file=text)
        awaited: Any = task.get_coro()
        while awaited is not None:  # down to what it waits for
            text.write(repr(awaited))
            awaited = next(
                (
                    getattr(awaited, name)
                    for name in ("cr_await", "gi_yieldfrom", "ag_await")
                    if hasattr(awaited, name)
                ),
                None,
            )
    return text.getvalue()


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("debug", [True, False])
def test_all_tasks_can_be_looked_at_while_a_stream_is_open(
    pause: float | None, debug: bool
) -> None:
    texts: list[str] = []

    async def looking(send: Any, message: Any) -> None:
        texts.append(look_at_all_tasks())
        await send(message)

    async def items() -> AsyncIterator[int]:
        async for number in with_pings():
            texts.append(look_at_all_tasks())
            yield number

    async def main() -> Reply:
        async def look_again_and_again() -> None:
            while True:
                texts.append(look_at_all_tasks())
                await asyncio.sleep(0)

        observer = asyncio.create_task(look_again_and_again())
        app = app_of(items, ping_interval=4 * MS)
        reply = await call(around_send(with_pause(app, pause), looking))
        observer.cancel()
        return reply

    reply = asyncio.run(main(), debug=debug)
    assert reply.complete
    assert numbers(reply.body) == list(range(12))
    assert all("in run" in text or "call(" in text for text in texts)


@contextlib.contextmanager
def profiled() -> Iterator[list[str]]:
    seen: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: seen.append(event))
    try:
        yield seen
    finally:
        sys.setprofile(before)


@contextlib.contextmanager
def traced() -> Iterator[list[str]]:
    seen: list[str] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        seen.append(event)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def monitored() -> Iterator[list[str]]:
    monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - not in every Python
    names = ["START", "RESUME", "YIELD", "RETURN", "UNWIND", "THROW"]
    events = {name: getattr(monitoring.events, f"PY_{name}") for name in names}
    events |= {"call": monitoring.events.CALL, "raise": monitoring.events.RAISE}
    tool = monitoring.PROFILER_ID
    seen: list[str] = []
    monitoring.use_tool_id(tool, "a test")
    try:
        for name, event in events.items():
            monitoring.register_callback(
                tool, event, lambda *arguments, name=name: seen.append(name)
            )
        monitoring.set_events(tool, sum(events.values()))
        yield seen
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)


TOOLS = [
    profiled,
    traced,
    pytest.param(
        monitored,
        marks=pytest.mark.skipif(
            sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12"
        ),
    ),
]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("end", ["finished", "disconnected", "error"])
@pytest.mark.parametrize("pause", [None, 0.0])
def test_streams_under_tools_that_see_every_call(
    tool: Callable[[], Any], end: str, pause: float | None
) -> None:
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            async for number in with_pings():
                yield number
            if end == "error":
                raise LookupError
            if end == "disconnected":
                await asyncio.sleep(3600)
        finally:
            closed.append(True)

    app = with_pause(app_of(items, ping_interval=4 * MS), pause)
    leave = 3 if end == "disconnected" else None
    with tool() as seen:
        reply = fetch(app, disconnect_after=leave)
    assert "call" in seen
    found = numbers(reply.body)
    assert found == list(range(len(found)))
    assert end == "disconnected" or len(found) == 12
    assert isinstance(reply.error, LookupError) == (end == "error")
    assert reply.complete == (end == "finished")
    assert closed == [True]


# Tracebacks


async def fails_at_once() -> AsyncIterator[int]:
    raise LookupError
    yield 1


async def fails_after_an_event() -> AsyncIterator[int]:
    yield 1
    raise LookupError


async def fails_after_waiting() -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(2 * MS)
    raise LookupError


async def fails_deeper() -> AsyncIterator[int]:
    async def helper() -> None:
        await asyncio.sleep(MS)
        raise LookupError

    yield 1
    await helper()


async def fails_while_it_closes() -> AsyncIterator[int]:
    try:
        yield 1
        await asyncio.sleep(3600)
    finally:
        raise LookupError


async def fails_at_a_yield_that_was_interrupted() -> AsyncIterator[int]:
    try:
        with anyio.move_on_after(3 * MS):
            while True:
                yield 1
                time.sleep(2 * MS)  # noqa: ASYNC251 - it stands at the `yield`
    except asyncio.CancelledError:
        raise LookupError from None
    raise LookupError


@pytest.mark.parametrize(
    ("endpoint", "line"),
    [
        (fails_at_once, "fails_at_once"),
        (fails_after_an_event, "fails_after_an_event"),
        (fails_after_waiting, "fails_after_waiting"),
        (fails_deeper, "helper"),
        (fails_while_it_closes, "fails_while_it_closes"),
        (
            fails_at_a_yield_that_was_interrupted,
            "fails_at_a_yield_that_was_interrupted",
        ),
    ],
)
@pytest.mark.parametrize("pause", PAUSES)
def test_the_traceback_of_an_error_ends_where_it_was_raised(
    endpoint: Any, line: str, pause: float | None
) -> None:
    leave = 1 if endpoint is fails_while_it_closes else None
    reply = fetch(with_pause(app_of(endpoint), pause), disconnect_after=leave)
    assert isinstance(reply.error, LookupError)
    frames = traceback.extract_tb(reply.error.__traceback__)
    assert frames[-1].name == line
    assert frames[-1].filename == __file__
    # The way there is told once.
    assert len([frame for frame in frames if frame.name == line]) == 1
    formatted = "".join(traceback.format_exception(reply.error))
    assert "raise LookupError" in formatted


def test_the_traceback_of_an_error_of_a_middleware_ends_in_it() -> None:
    async def failing(send: Any, message: Any) -> None:
        if message.get("body"):
            raise LookupError
        await send(message)

    async def items() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(3600)

    reply = fetch(around_send(app_of(items), failing))
    assert isinstance(reply.error, LookupError)
    assert traceback.extract_tb(reply.error.__traceback__)[-1].name == "failing"
