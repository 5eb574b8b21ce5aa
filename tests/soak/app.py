"""The application of the soak test: streams with every ending, and what they leave.

The query of a request says how the stream behaves and ends. A record of what happens is
kept until the client asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
import logging
import os
import sys
import threading
import time
import tracemalloc
import types
import warnings
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

import anyio
from anyio._backends._asyncio import WorkerThread
from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    ServerSentEvent,
    StreamSummary,
    shutdown,
)


@contextlib.asynccontextmanager
async def quiet(_: FastAPI) -> AsyncIterator[None]:
    """Keep planned errors out of the server's log: any error in it is a fault."""
    for server in ("uvicorn.error", "hypercorn.error", "_granian"):
        logger = logging.getLogger(server)
        for filtered in (logger, *logger.handlers):  # For child loggers too.
            filtered.addFilter(is_unplanned)
    logging.getLogger("uvicorn.access").disabled = True
    if "hypercorn" in sys.modules:  # It sends after a disconnect.
        logging.getLogger("asyncio").disabled = True
    warnings.simplefilter("always", ResourceWarning)
    yield


app = FastAPI(lifespan=quiet)

Records = dict[int, list[str]]

records: Records = {}
"""What happened to each stream, in order."""

requests: dict[int, asyncio.Task[Any]] = {}
"""The task of each stream. A context variable would make a reference cycle."""

current: contextvars.ContextVar[list[str]] = contextvars.ContextVar("record")


class PlannedError(Exception):
    """The error of a stream that fails on purpose."""


class Plan(BaseModel):
    """How a stream behaves and ends.

    Attributes:
        stream: Number of the stream, which every event contains.
        events: Number of events.
        pause: Seconds between two events. With 0 the generator never waits.
        padding: Number of filler characters in every event.
        then: What the generator does after the events.
    """

    stream: int
    events: int = sys.maxsize
    pause: float = 0.0
    padding: int = 0
    then: Literal[
        "end",
        "fail",
        "refuse",
        "yield what is invalid",
        "wait",
        "cancel",
        "be cancelled",
    ] = "end"


class Item(BaseModel):
    stream: int
    number: int
    padding: str


def event(plan: Plan, number: int) -> Any:
    """Return the event with a number. The kinds of events take turns."""
    item = Item(stream=plan.stream, number=number, padding="x" * plan.padding)
    match number % 4:
        case 0:
            return item
        case 1:
            return item.model_dump()
        case 2:
            return ServerSentEvent(data=item, event="item", id=str(number))
        case _:
            return EncodedEvent(raw_data=item.model_dump_json(indent=1))


# Generators


@contextlib.asynccontextmanager
async def recorded(plan: Plan) -> AsyncIterator[None]:
    record = records[plan.stream]
    record.append("begun")
    interrupted = False
    try:
        yield
    except BaseException as error:
        interrupted = not isinstance(error, Exception)
        raise
    finally:
        if interrupted:
            await asyncio.sleep(0.01)  # Nothing may interrupt this.
        record.append("ended")


async def events(plan: Annotated[Plan, Query()]) -> AsyncGenerator[Any, None]:
    async with recorded(plan):
        for number in range(plan.events):
            yield event(plan, number)
            if plan.pause:
                await anyio.sleep(plan.pause)
        interrupt(plan)
        if plan.then == "yield what is invalid":
            yield {}
        if plan.then != "end":
            await anyio.sleep_forever()


async def typed_events(plan: Annotated[Plan, Query()]) -> AsyncIterator[Item]:
    """Yield the events of `events`, with an item type."""
    async with contextlib.aclosing(events(plan)) as items:
        async for item in items:
            yield item


def typed_sync_events(plan: Annotated[Plan, Query()]) -> Iterator[Item]:
    yield from sync_events(plan)


async def grouped_events(plan: Annotated[Plan, Query()]) -> AsyncIterator[Any]:
    """Yield events while a task group is open."""
    async with recorded(plan), anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        for number in range(plan.events):
            yield event(plan, number)
            await anyio.sleep(plan.pause)
        interrupt(plan)
        if plan.then != "end":
            await anyio.sleep_forever()
        tasks.cancel_scope.cancel()


def sync_events(plan: Annotated[Plan, Query()]) -> Iterator[Any]:
    record = records[plan.stream]
    record.append("begun")
    try:
        for number in range(plan.events):
            yield event(plan, number)
            if plan.pause:
                time.sleep(plan.pause)
        interrupt(plan)
        if plan.then == "yield what is invalid":
            yield {}
        while plan.then != "end":
            time.sleep(0.2)  # A thread cannot be interrupted.
            yield ServerSentEvent(comment="still waiting")
    finally:
        record.append("ended")


def interrupt(plan: Plan) -> None:
    """Do what `plan.then` says, except ending and waiting."""
    if plan.then == "refuse":
        raise HTTPException(403)
    if plan.then == "fail":
        raise PlannedError
    if plan.then == "cancel":
        current_task().cancel()
    if plan.then == "be cancelled":
        task = requests[plan.stream]
        task.get_loop().call_soon_threadsafe(task.cancel)


def current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


GENERATORS: dict[str, Callable[..., Any]] = {
    "async": events,
    "typed": typed_events,
    "grouped": grouped_events,
    "sync": sync_events,
    "typed-sync": typed_sync_events,
}


# Routes


async def dependency(plan: Annotated[Plan, Query()]) -> AsyncIterator[None]:
    record = records[plan.stream] = ["opened"]
    current.set(record)
    requests[plan.stream] = current_task()
    try:
        yield
    finally:
        del requests[plan.stream]
        record.append("released")


planted: list[Callable[[], None]] = []


def record_reason(summary: StreamSummary) -> None:
    current.get().append(summary.reason)
    for leave_something in planted:
        leave_something()


def is_over(record: list[str]) -> bool:
    """Return whether the dependency has closed and `on_close` was called."""
    return len(record) > 2 and "released" in record[-2:]


Response = EventSourceResponse.with_options(
    ping_interval=1.0,
    error_window=30.0,  # The machine may be busy.
    on_close=record_reason,
    on_error=lambda error: ServerSentEvent(event="failed", data=repr(error)),
    farewell=ServerSentEvent(event="farewell", data="stopping"),
)
LIMITS = {
    "unlimited": Response,
    "max_duration": Response.with_options(max_duration=0.1),
    "send_timeout": Response.with_options(send_timeout=0.3),
}


def returning(
    generate: Callable[[Plan], Any], response_class: type[EventSourceResponse]
) -> Callable[..., EventSourceResponse]:
    def endpoint(plan: Annotated[Plan, Query()]) -> EventSourceResponse:
        return response_class(generate(plan))

    return endpoint


for limit, response_class in LIMITS.items():
    for kind, generate in GENERATORS.items():
        app.get(
            f"/{kind}/{limit}",
            response_class=response_class,
            dependencies=[Depends(dependency)],
        )(generate)
    for kind in ("async", "sync"):
        app.get(f"/returned-{kind}/{limit}", dependencies=[Depends(dependency)])(
            returning(GENERATORS[kind], response_class)
        )


@app.get("/ready")
def ready() -> EventSourceResponse:
    return EventSourceResponse([1])


@app.get("/over")
async def over(stream: int) -> bool:
    return stream not in records or is_over(records[stream])


@app.get("/records")
async def take_records() -> Records:
    """Return the records of streams that have ended, and forget them."""
    taken = {number: record for number, record in records.items() if is_over(record)}
    for number in taken:
        del records[number]
    return taken


@app.get("/shutdown")
async def shut_down() -> None:
    shutdown()


# What is left


class Counts(BaseModel):
    """Resources of the process that streams use.

    Attributes:
        open: Open streams.
        tasks: Tasks of asyncio.
        threads: Python threads.
        descriptors: Open files and sockets.
        traced_bytes: Memory that Python has allocated since tracing began.
        native_bytes: All other memory from malloc.
        resident_bytes: Resident memory of the process.
    """

    open: int
    tasks: int
    threads: int
    descriptors: int
    traced_bytes: int
    native_bytes: int
    resident_bytes: int


class State(BaseModel):
    """The number of tracked objects by type, before and after a garbage collection."""

    before: dict[str, int]
    after: dict[str, int]
    counts: Counts


class Mallinfo2(ctypes.Structure):
    """See mallinfo(3)."""

    _fields_ = (("values", ctypes.c_size_t * 10),)


libc = ctypes.CDLL(None)  # It has to be glibc.
libc.mallinfo2.restype = Mallinfo2


def native_bytes() -> int:
    values = libc.mallinfo2().values
    mapped, used = values[4], values[7]
    return int(mapped + used - tracemalloc.get_tracemalloc_memory())


def resident_bytes() -> int:
    libc.malloc_trim(0)  # Return free memory to the system.
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def is_of_python(thread: threading.Thread) -> bool:
    """Return whether Python has started a thread. granian's appear when they log."""
    return not isinstance(thread, threading._DummyThread)


@app.get("/counts")
async def counts() -> Counts:
    return Counts(
        open=sum(not is_over(record) for record in records.values()),
        tasks=len(asyncio.all_tasks()),
        threads=sum(map(is_of_python, threading.enumerate())),
        descriptors=len(os.listdir("/proc/self/fd")),
        traced_bytes=tracemalloc.get_traced_memory()[0],
        native_bytes=native_bytes(),
        resident_bytes=resident_bytes(),
    )


@app.get("/state")
async def state() -> State:
    before = objects()
    gc.collect()
    return State(before=before, after=objects(), counts=await counts())


def objects() -> Counter[str]:
    """Return the number of objects by type, and of generators also by function."""
    things = gc.get_objects()
    counts: Counter[str] = Counter()
    for kind, number in Counter(map(type, things)).items():
        counts[f"{kind.__module__}.{kind.__qualname__}"] += number
    generators = types.GeneratorType, types.AsyncGeneratorType
    counts.update(f" {g.__qualname__}" for g in things if isinstance(g, generators))
    return counts


@app.get("/start-threads")
async def start_threads() -> None:
    """Start all of AnyIO's worker threads, so that their number is constant."""
    WorkerThread.MAX_IDLE_TIME = 3600
    together = threading.Barrier(int(current_default_thread_limiter().total_tokens))

    async def occupy_one() -> None:
        await anyio.to_thread.run_sync(together.wait)

    async with anyio.create_task_group() as tasks:
        for _ in range(together.parties):
            tasks.start_soon(occupy_one)


@app.get("/stop-collecting")
async def stop_collecting() -> None:
    """Run the garbage collector only for `/state` from now on."""
    gc.disable()


@app.get("/trace")
async def trace() -> None:
    tracemalloc.start()


@app.get("/lines")
async def lines() -> dict[str, int]:
    """Return the traced bytes by the line that has allocated them."""
    gc.collect()
    statistics = tracemalloc.take_snapshot().statistics("lineno")
    return {str(line.traceback): line.size for line in statistics}


# Leaks to check the test with

kept: list[Any] = []


def leak_object() -> None:
    kept.append(events(Plan(stream=0)))


def leak_cycle() -> None:
    cycle: list[Any] = [events(Plan(stream=0))]
    cycle.append(cycle)


def leak_future() -> None:
    kept.append(asyncio.get_running_loop().create_future())


def leak_task() -> None:
    kept.append(asyncio.create_task(asyncio.sleep(3600)))


def leak_thread() -> None:
    if len(threading.enumerate()) < 100:
        threading.Thread(target=time.sleep, args=[3600], daemon=True).start()


def leak_file() -> None:
    kept.append(os.dup(0))


def leak_bytes() -> None:
    kept.append(bytes(1000))


def leak_native() -> None:
    libc.malloc(1000)


LEAKS: dict[str, Callable[[], None]] = {
    "object": leak_object,
    "cycle": leak_cycle,
    "future": leak_future,
    "task": leak_task,
    "thread": leak_thread,
    "file": leak_file,
    "bytes": leak_bytes,
    "native": leak_native,
}


@app.get("/leak")
async def leak(kind: str) -> None:
    """Let every stream leak something from now on."""
    planted.append(LEAKS[kind])


# Planned errors, which must not be in the log


def is_unplanned(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[1] is not None:
        return not is_planned(record.exc_info[1])
    message = record.getMessage()
    if "Traceback" in message:  # granian logs text, without nested errors.
        names = ["ExceptionGroup", *(kind.__name__ for kind in PLANNED)]
        return not any(name in message for name in names)
    # uvicorn logs this about a dropped client.
    return "without completing response" not in message


PLANNED = (
    PlannedError,
    ResponseValidationError,
    HTTPException,  # At server shutdown it can come too late.
    asyncio.CancelledError,
)


def is_planned(error: BaseException) -> bool:
    causes = [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return isinstance(error, PLANNED) or any(
        is_planned(cause) for cause in causes if cause is not None
    )
