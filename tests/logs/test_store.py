"""What every store has to do, whatever is asked of it and in whichever order."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fastapi_sse_fast import (
    Channels,
    EncodedEvent,
    EventSourceResponse,
    Run,
    RunExists,
    RunResult,
    Runs,
    StoreError,
    Subscription,
)
from fastapi_sse_fast.stores import History, Store
from fastapi_sse_fast.stores.store import START, LastEvent, Position, RunTerms

from ..support.apps import MS
from ..support.eventsource import parse
from ..support.interleavings import Gates, walk
from ..support.internals import subscription_to
from ..support.logs import ID, TIMEOUT, Id, Subscriber, Work, offset, until
from ..support.stores import GatedStore, GatedWriter, StoreKind, each_store

pytestmark = pytest.mark.anyio

HISTORY = History(3, 60.0)
"""Of the logs in these tests."""

LAST = LastEvent(b"event: end\n\n", b"data: end\n\n")

TERMS = RunTerms(History(2**31, 60.0), 15.0, LastEvent(b"event: error\n\n", b""))
"""Of the runs in these tests."""


def frame(number: int) -> bytes:
    return b"data: %d\n\n" % number


async def append(store: Store, name: str, *numbers: int) -> list[Position]:
    """Append an event for each number, and return their positions."""
    return [
        await store.append(name, frame(number), HISTORY, None) for number in numbers
    ]


async def read(log: Any, after: Position, count: int, **options: Any) -> list[bytes]:
    """Return so many frames of a log after a position, which need not be there yet."""
    subscription = subscription_to(log, last=text(after), **options)
    events: Any = aiter(subscription)
    with anyio.fail_after(TIMEOUT):
        frames = [bytes(await anext(events)) for _ in range(count)]
    await events.aclose()
    return frames


def text(position: Position) -> str:
    return f"{position.epoch}.{position.offset}"


def with_id(epoch: str, offset: int, event: bytes | None = None) -> bytes:
    """Return an event as readers get it, by default that of the same number."""
    line = f"id: {epoch}.{offset}\n".encode()
    return line + (frame(offset) if event is None else event)


# Logs


async def test_a_log_is_made_by_who_asks_for_it_first(store: Store) -> None:
    position = await store.position("a", HISTORY)
    assert position.offset == 0
    assert Id.of(text(position)).epoch == position.epoch
    log = await store.log("a", HISTORY)
    assert (log.epoch, log.first, log.top, log.is_over) == (position.epoch, 1, 0, False)
    assert await append(store, "a", 1) == [Position(log.epoch, 1)]
    [made] = await append(store, "b", 1)
    assert (await store.log("b", HISTORY)).epoch == made.epoch
    assert await store.position("b", HISTORY) == made


async def test_logs_have_epochs_of_their_own(store: Store) -> None:
    epochs = {(await store.position(str(n), HISTORY)).epoch for n in range(100)}
    assert len(epochs) == 100


async def test_offsets_count_from_one_without_holes(store: Store) -> None:
    positions = await append(store, "a", *range(10))
    assert [position.offset for position in positions] == list(range(1, 11))
    assert len({position.epoch for position in positions}) == 1
    assert await store.position("a", HISTORY) == positions[-1]


@pytest.mark.parametrize("seen", range(7, 11))
async def test_a_log_reaches_back_to_any_position_of_its_history(
    store: Store, seen: int
) -> None:
    epoch = (await append(store, "a", *range(1, 11)))[0].epoch
    after = Position(epoch, seen)
    log = await store.log("a", HISTORY, after)
    frames = await read(log, after, 11 - seen)
    assert frames == [
        f"id: {epoch}.{seen}\n\n".encode(),
        *(with_id(epoch, number) for number in range(seen + 1, 11)),
    ]


@pytest.mark.parametrize(
    ("epoch", "offset", "reason", "missed"),
    [("", 6, "trimmed", 1), ("", 0, "trimmed", 7), ("Ab3dE9xZ", 9, "reset", None)],
)
async def test_a_log_reaches_back_as_far_as_there_are_events(
    store: Store, epoch: str, offset: int, reason: str, missed: int | None
) -> None:
    own = (await append(store, "a", *range(1, 11)))[0].epoch
    after = Position(epoch or own, offset)
    log = await store.log("a", HISTORY, after)
    assert log.resume(*after) == (7, reason, missed)
    gap, *frames = await read(log, after, 4)
    assert [(it.type, it.last_event_id) for it in parse(gap).events] == [
        ("gap", f"{own}.7")
    ]
    assert frames == [with_id(own, number) for number in (8, 9, 10)]


async def test_a_log_that_is_open_reaches_further_back_later(store: Store) -> None:
    channel = await store.log("a", HISTORY)
    positions = await append(store, "a", 1, 2, 3)
    for seen in (3, 2, 1, 0):
        after = Position(channel.epoch, seen)
        log = await store.log("a", HISTORY, after)
        frames = await read(log, after, 4 - seen)
        assert frames[1:] == [
            with_id(channel.epoch, number) for number in range(seen + 1, 4)
        ]
    assert positions[-1] == await store.position("a", HISTORY)


async def test_who_reads_gets_what_is_appended_later(store: Store) -> None:
    start = await store.position("a", HISTORY)
    log = await store.log("a", HISTORY, start)
    frames: list[bytes] = []

    async def reader() -> None:
        frames.extend(await read(log, start, 21))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        await anyio.lowlevel.checkpoint()
        for number in range(1, 21):
            await append(store, "a", number)
            await anyio.sleep(MS)
    assert frames[1:] == [with_id(start.epoch, number) for number in range(1, 21)]


async def test_a_position_that_was_just_returned_is_known(store: Store) -> None:
    """A client may come back with it before readers here have the event."""
    await store.log("a", HISTORY)
    for number in range(1, 20):
        [position] = await append(store, "a", number)
        log = await store.log("a", HISTORY, position)
        assert log.resume(*position) == (number, None, None)


async def test_several_frames_are_several_events(store: Store) -> None:
    frames = frame(1) + frame(2) + frame(3)
    position = await store.append("a", frames, HISTORY, None)
    assert position.offset == 3
    assert (await store.append("a", frame(4), HISTORY, None)).offset == 4
    log = await store.log("a", HISTORY, position._replace(offset=1))
    read_again = await read(log, position._replace(offset=1), 4)
    assert read_again[1:] == [with_id(position.epoch, n) for n in (2, 3, 4)]


async def test_frames_with_an_id_are_refused_as_a_whole(store: Store) -> None:
    with pytest.raises(ValueError, match="must not have an id"):
        await store.append("a", frame(1) + b"id: 7\n\n", HISTORY, "k")
    assert (await store.append("a", frame(2), HISTORY, "k")).offset == 1


async def test_frames_of_a_known_key_are_not_appended_again(store: Store) -> None:
    await store.position("b", HISTORY)
    first = await store.append("a", frame(1) + frame(2), HISTORY, "k")
    assert first.offset == 2
    assert await store.append("a", frame(1) + frame(2), HISTORY, "k") == first
    assert (await store.append("b", frame(1), HISTORY, "k")).offset == 1
    assert (await store.append("a", frame(3), HISTORY, "l")).offset == 3


async def test_publishers_at_the_same_time_have_positions_of_their_own(
    store: Store,
) -> None:
    positions: list[Position] = []

    async def publish(number: int) -> None:
        positions.extend(await append(store, "a", *[number] * 10))

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(publish, number)
    assert sorted(it.offset for it in positions) == list(range(1, 101))


# Runs


async def start(store: Store, name: str = "a", if_running: Any = "reject") -> Any:
    return await store.start_run(name, TERMS, if_running)


async def found(store: Store, name: str = "a") -> Any:
    info = await store.run(name)
    assert info is not None
    return info


async def run_log(store: Store, info: Any, after: Position = START) -> Any:
    log = await store.run_log("a", info.id, TERMS.history, after)
    assert log is not None
    return log


async def test_a_run_is_running_until_it_ends(store: Store) -> None:
    assert await store.run("a") is None
    assert await store.cancel_run("a") is False
    info = await start(store)
    assert (info.status, info.position.offset, info.writer.events) == ("running", 0, 0)
    running = await found(store)
    assert running == (info.id, info.position, "running", None)
    info.writer.append(frame(1))
    info.writer.append(frame(2) + frame(3))
    assert info.writer.events == 3
    assert await info.writer.end("done", LAST) == "done"
    ended = await found(store)
    assert ended == (info.id, info.position._replace(offset=4), "done", None)
    assert await store.cancel_run("a") is False


@pytest.mark.parametrize("seen", range(4))
async def test_the_events_of_a_run_can_be_read_while_it_runs_and_later(
    store: Store, seen: int
) -> None:
    info = await start(store)
    epoch = info.position.epoch
    after = Position(epoch, seen)
    info.writer.append(frame(1) + frame(2) + frame(3))
    all_frames = [with_id(epoch, number) for number in (1, 2, 3)]
    await until_position(store, Position(epoch, 3))
    log = await run_log(store, info, after)
    assert (await read(log, after, 4 - seen))[1:] == all_frames[seen:]
    await info.writer.end("done", LAST)
    all_frames.append(with_id(epoch, 4, LAST.frame))
    for _ in range(2):
        log = await run_log(store, info, after)
        assert (await read(log, after, 5 - seen))[1:] == all_frames[seen:]
        await until(lambda log=log: log.is_over)  # type: ignore[misc]


async def until_position(store: Store, position: Position) -> None:
    with anyio.fail_after(TIMEOUT):
        while (await found(store)).position != position:
            await anyio.sleep(MS)


async def test_an_event_of_a_run_may_be_appended_in_parts(store: Store) -> None:
    info = await start(store)
    for part in (b"data: 1\n\ndata: ", b"x" * 100_000, b"\ndata: y\n", b"\n"):
        info.writer.append(part)
    assert info.writer.events == 2
    info.writer.append(b"data: never")
    await info.writer.end("done", LAST)
    log = await run_log(store, info)
    epoch = info.position.epoch
    assert (await read(log, Position(epoch, 0), 4))[1:] == [
        with_id(epoch, 1),
        with_id(epoch, 2, b"data: " + b"x" * 100_000 + b"\ndata: y\n\n"),
        with_id(epoch, 3, LAST.frame),
    ]


async def test_readers_without_positions_get_another_last_event(store: Store) -> None:
    info = await start(store)
    info.writer.append(frame(1))
    await info.writer.end("done", LAST)
    log = await run_log(store, info)
    start_of_run = info.position
    frames = await read(log, start_of_run, 2, with_ids=False)
    assert frames == [frame(1), LAST.without_id]


async def test_a_run_ends_once(store: Store) -> None:
    info = await start(store)
    assert await info.writer.end("done", LAST) == "done"
    with contextlib.suppress(ValueError, StoreError):
        info.writer.append(frame(1))
    with contextlib.suppress(StoreError):
        assert await info.writer.end("failed", LAST) == "done"
    ended = await found(store)
    assert (ended.position.offset, ended.status) == (1, "done")


async def test_a_running_run_is_not_started_again(store: Store) -> None:
    info = await start(store)
    with pytest.raises(RunExists):
        await start(store)
    attached = await start(store, if_running="attach")
    assert attached == (info.id, info.position, "running", None)
    await info.writer.end("done", LAST)
    ids = {info.id}
    for if_running in ("reject", "attach", "replace"):
        again = await start(store, if_running=if_running)
        assert again.writer is not None
        assert again.position.offset == 0
        ids |= {again.id, again.position.epoch}
        await again.writer.end("done", LAST)
    assert len(ids) >= 4


async def test_who_replaces_a_run_waits_for_its_end(store: Store) -> None:
    info = await start(store)
    log: list[str] = []
    info.writer.on_end(log.append)

    async def replace() -> None:
        again = await start(store, if_running="replace")
        assert again.writer is not None
        log.append("replaced")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(replace)
        await until(lambda: log)
        await anyio.sleep(20 * MS)
        assert log == ["cancelled"]
        await info.writer.end("cancelled", LAST)
    assert log == ["cancelled", "replaced"]


async def test_a_run_that_was_replaced_can_still_be_read(store: Store) -> None:
    infos = []
    for number in range(3):
        infos.append(await start(store))
        infos[-1].writer.append(frame(number))
        await infos[-1].writer.end("done", LAST)
    for number, info in enumerate(infos):
        log = await run_log(store, info)
        frames = await read(log, info.position, 3)
        assert frames[1:] == [
            with_id(info.position.epoch, 1, frame(number)),
            with_id(info.position.epoch, 2, LAST.frame),
        ]
    assert (await found(store)).id == infos[-1].id
    # No name leads to it.
    assert await store.run(f"a\0{infos[0].id}") is None


async def test_there_is_no_log_of_an_unknown_run(store: Store) -> None:
    info = await start(store)
    for name, id in [("a", "Ab3dE9xZ"), ("b", info.id), (f"a\0{info.id}", info.id)]:
        assert await store.run_log(name, id, TERMS.history, START) is None
        assert await store.run_log(name, id, TERMS.history, info.position) is None
    assert await store.run("b") is None


async def test_a_run_is_cancelled_before_anybody_has_asked(store: Store) -> None:
    info = await start(store)
    assert await store.cancel_run("a") is True
    assert await store.cancel_run("a") is True
    asked: list[str] = []
    info.writer.on_end(asked.append)
    await until(lambda: asked)
    assert asked == ["cancelled"]
    assert await info.writer.end("cancelled", LAST) == "cancelled"


async def test_a_run_is_cancelled_once(store: Store) -> None:
    info = await start(store)
    asked: list[str] = []
    info.writer.on_end(asked.append)
    assert await store.cancel_run("a") is True
    await until(lambda: asked)
    assert asked == ["cancelled"]


async def test_a_writer_is_that_of_one_run(store: Store) -> None:
    first = await start(store)
    asked_first: list[str] = []
    first.writer.on_end(asked_first.append)
    await first.writer.end("done", LAST)
    second = await start(store)
    asked: list[str] = []
    second.writer.on_end(asked.append)
    assert await store.cancel_run("a") is True
    await until(lambda: asked)
    with contextlib.suppress(ValueError, StoreError):
        first.writer.append(frame(1))
    with contextlib.suppress(StoreError):
        await first.writer.end("failed", LAST)
    assert await found(store) == (second.id, second.position, "running", None)
    assert "cancelled" not in asked_first  # it is another run


async def test_tasks_end_with_the_store(
    anyio_backend: str, new_store: Callable[[], Store]
) -> None:
    log: list[str] = []

    async def task(name: str) -> None:
        log.append(name)
        try:
            await anyio.sleep_forever()
        finally:
            log.append("closed")

    async with new_store() as store:
        store.start_task(task, "begun")
        await until(lambda: log)
        assert log == ["begun"]
    assert log == ["begun", "closed"]
    with pytest.raises(RuntimeError, match="not open"):
        store.start_task(task, "again")


class SlowRun:
    """A run that takes a moment to end."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._end = anyio.Event()

    async def run(self) -> None:
        self.log.append("begun")
        await self._end.wait()
        await anyio.sleep(20 * MS)
        self.log.append("ended")

    def shut_down(self) -> None:
        self.log.append("shut down")
        self._end.set()


async def test_a_store_that_closes_waits_for_its_runs(
    anyio_backend: str, new_store: Callable[[], Store]
) -> None:
    runs = [SlowRun(), SlowRun()]
    async with new_store() as store:
        for run in runs:
            store.start_run_task(run)
        await until(lambda: all(run.log for run in runs))
    for run in runs:
        assert run.log == ["begun", "shut down", "ended"]
    with pytest.raises(RuntimeError, match="not open"):
        store.start_run_task(run)


async def test_the_error_of_a_task_is_raised_by_the_store(
    anyio_backend: str, new_store: Callable[[], Store]
) -> None:
    async def task() -> None:
        raise LookupError("in a task")

    async def main() -> None:
        async with new_store() as store:
            store.start_task(task)
            await anyio.sleep(1)

    with pytest.raises(Exception, match=r"TaskGroup|nursery") as raised:
        await main()
    [error] = getattr(raised.value, "exceptions", [])
    assert isinstance(error, LookupError)


class FailingWriter(GatedWriter):
    async def end(self, *args: Any) -> Any:
        raise OSError("the store is gone")


class FailingStore(GatedStore):
    """A store that cannot end runs."""

    def writer(self, writer: Any) -> Any:
        return FailingWriter(self, writer)


async def test_a_run_whose_end_is_not_stored_ends_no_other_run(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    async def nothing() -> None:
        pass

    other = Runs(store)
    await other.start("b", endless)
    runs = Runs(FailingStore(store, nothing))
    await runs.start("a", items)
    with anyio.fail_after(TIMEOUT):
        while runs.stats().running:
            await anyio.sleep(MS)
    assert "the end of the run 'a' was not stored" in caplog.text
    assert await other.status("b") == "running"


async def endless() -> AsyncIterator[int]:
    yield 1
    await anyio.sleep_forever()


async def test_nothing_depends_on_the_time_of_day(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may jump, in any direction."""
    jumps = itertools.cycle([0.0, 1e6, -1e6, 5.0, 1e9])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    channels, runs = Channels(store, history=9), Runs(store)
    start = await channels.position("a")
    ids = [await channels.publish("a", n, dedupe=f"k{n}") for n in range(9)]
    assert [offset(id) for id in ids] == list(range(1, 10))
    assert [await channels.publish("a", n, dedupe=f"k{n}") for n in range(9)] == ids
    run = await runs.start("a", three)
    with anyio.fail_after(TIMEOUT):
        while await runs.status("a") == "running":
            await anyio.sleep(MS)
    for subscription, count in [
        (channels.subscribe("a", start), 9),
        (run.subscribe(), 4),
    ]:
        events: Any = aiter(subscription)
        frames = [bytes(await anext(events)) for _ in range(count + 1)]
        offsets = [offset(parse(it).last_event_id) for it in frames]
        assert offsets == list(range(count + 1))
        await events.aclose()


async def three() -> AsyncIterator[int]:
    for number in range(3):
        yield number


# Any sequence of calls, compared with lists


class Model:
    """A log in plain Python.

    Attributes:
        epoch: As the store has chosen it.
        events: The type and the data of each event.
        keys: Positions by the key that they were published with.
        status: Of a run.
    """

    def __init__(self, epoch: str, history: int) -> None:
        self.epoch = epoch
        self.events: list[tuple[str, Any]] = []
        self.keys: dict[str, str] = {}
        self.status = ""
        self._history = history

    @property
    def top(self) -> int:
        return len(self.events)

    @property
    def oldest(self) -> int:
        """The offset before the first event that is kept."""
        return max(0, len(self.events) - self._history)

    def id(self, offset: int) -> str:
        return f"{self.epoch}.{offset}"

    def append(self, *data: Any, event: str = "message") -> str:
        self.events += [(event, each) for each in data]
        return self.id(self.top)

    def end(self, event: str, data: dict[str, str], status: str) -> None:
        self.append(data, event=event)
        self.status = status


POSITION = re.compile(r"([0-9A-Za-z]{1,32})\.(0|[1-9][0-9]*)")


def positions(text: str) -> list[tuple[str, int]] | None:
    """Return the epochs and offsets of a cursor, if it is one."""
    matches = [POSITION.fullmatch(part) for part in text.split("~")]
    found = [(match[1], int(match[2])) for match in matches if match is not None]
    return found if len(found) == len(matches) else None


def gap_at_the_beginning(
    models: list[Model],
    last: str | None,
    cursors: list[int],
    *,
    is_run: bool,
    is_local: bool,
) -> dict[str, Any] | None:
    """Return the gap that a subscription begins with, by where it begins.

    A store that is elsewhere may know of newer and older events than what has just been
    published suggests. It may then begin earlier, but never later.
    """
    newest = [0 if is_run else model.top for model in models]
    if last is None:
        check_all(cursors, newest, is_local=is_local)
        return None
    asked = positions(last)
    if asked is None or len(asked) != len(models):
        check_all(cursors, newest, is_local=is_local)
        return {"reason": "unknown", "requested": last, "missed": None}
    reasons: list[str] = []
    missed: list[int | None] = []
    for model, cursor, (epoch, has) in zip(models, cursors, asked, strict=True):
        if epoch != model.epoch:
            check_all([cursor], [model.oldest], is_local=is_local)
            reasons.append("reset")
            missed.append(None)
        elif has > model.top:
            newest_of_it = model.oldest if is_run else model.top
            check_all([cursor], [newest_of_it], is_local=is_local)
            reasons.append("unknown")
            missed.append(None)
        elif cursor != has or (is_local and has < model.oldest):
            check_all([cursor], [model.oldest], is_local=is_local)
            assert cursor > has
            reasons.append("trimmed")
            missed.append(cursor - has)
    if not reasons:
        return None
    known = [count for count in missed if count is not None]
    in_all = sum(known) if len(known) == len(missed) else None
    return {"reason": reasons[0], "requested": last, "missed": in_all}


def check_all(cursors: list[int], expected: list[int], *, is_local: bool) -> None:
    if is_local:
        assert cursors == expected
    else:
        assert all(a <= b for a, b in zip(cursors, expected, strict=True))


@dataclasses.dataclass
class Reader:
    """A subscription that is read event by event, and what it has of each log."""

    models: list[Model]
    subscribe: Callable[[str | None], Subscription]
    is_run: bool
    events: Any = None
    cursors: list[int] = dataclasses.field(default_factory=list)

    @property
    def last_event_id(self) -> str:
        return "~".join(map(Model.id, self.models, self.cursors))

    @property
    def behind(self) -> list[int]:
        """The indices of the logs that have something for it."""
        pairs = zip(self.models, self.cursors, strict=True)
        return [at for at, (model, has) in enumerate(pairs) if has < model.top]


NAMES = ["a", "b", "c"]


class Logs(RuleBasedStateMachine):
    """Channels and runs do what lists would."""

    kind: StoreKind
    backend: str

    readers: Bundle[Reader] = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self._exits = contextlib.ExitStack()
        portal = start_blocking_portal(self.backend)
        self.portal: BlockingPortal = self._exits.enter_context(portal)
        store = self.portal.wrap_async_context_manager(self.kind.new())
        self.store: Store = self._exits.enter_context(store)
        self.channels = Channels(self.store, history=5)
        self.runs = Runs(self.store)
        self.models = {name: self.model_of_channel(name) for name in NAMES}
        assert len({model.epoch for model in self.models.values()}) == len(NAMES)
        self.run_models: dict[str, Model] = {}
        self.runs_of: dict[str, Run] = {}
        self.work: dict[str, Work] = {}
        self.count = itertools.count()

    def teardown(self) -> None:
        self._exits.close()

    def call(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        async def called() -> Any:
            with anyio.fail_after(TIMEOUT):
                return await function(*args)

        return self.portal.call(called)

    # Channels

    def model_of_channel(self, name: str) -> Model:
        position = Id.of(self.call(self.channels.position, name))
        assert position.offset == 0
        return Model(position.epoch, 5)

    @rule(name=st.sampled_from(NAMES))
    def publish(self, name: str) -> None:
        data = next(self.count)
        id = self.call(self.channels.publish, name, data)
        assert id == self.models[name].append(data)

    @rule(name=st.sampled_from(NAMES), size=st.integers(2, 8))
    def publish_several(self, name: str, size: int) -> None:
        data = [next(self.count) for _ in range(size)]
        event = EncodedEvent.from_bytes(b"".join(map(frame, data)))
        id = self.call(self.channels.publish, name, event)
        assert id == self.models[name].append(*data)

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from("xyz"))
    def publish_with_a_key(self, name: str, key: str) -> None:
        model, data = self.models[name], next(self.count)

        async def publish() -> str:
            return await self.channels.publish(name, data, dedupe=key)

        id = self.call(publish)
        if key not in model.keys:
            model.keys[key] = model.append(data)
        assert id == model.keys[key]

    @rule(name=st.sampled_from(NAMES))
    def publish_what_has_an_id(self, name: str) -> None:
        event = EncodedEvent.from_bytes(frame(0) + b"id: 7\n\n")
        with pytest.raises(ValueError, match="must not have an id"):
            self.call(self.channels.publish, name, event)

    @rule(
        target=readers,
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
        data=st.data(),
    )
    def subscribe(self, names: list[str], data: st.DataObject) -> Reader:
        models = [self.models[name] for name in sorted(names)]
        # Now and then the epoch of another channel, and an offset that is to come.
        epochs = [st.sampled_from([it.epoch] * 5 + [models[0].epoch]) for it in models]
        offsets = [st.integers(0, model.top + 2) for model in models]
        each = [
            st.builds("{}.{}".format, epoch, offset)
            for epoch, offset in zip(epochs, offsets, strict=True)
        ]
        odd = st.sampled_from(["7", "a.1", "a.1~b.2", "~", ""])
        last = data.draw(st.one_of(st.none(), st.tuples(*each).map("~".join), odd))
        subscribe = functools.partial(self.channels.subscribe, names)
        return self.begin(Reader(models, subscribe, is_run=False), last)

    def begin(self, reader: Reader, last: str | None) -> Reader:
        """Read what a subscription begins with."""
        reader.events = aiter(reader.subscribe(last))
        parsed = parse(bytes(self.call(anext, reader.events)))
        ids = [Id.of(part) for part in parsed.last_event_id.split("~")]
        assert [id.epoch for id in ids] == [model.epoch for model in reader.models]
        reader.cursors = [id.offset for id in ids]
        gap = gap_at_the_beginning(
            reader.models,
            last,
            reader.cursors,
            is_run=reader.is_run,
            is_local=self.kind.is_local,
        )
        told = [(event.type, json.loads(event.data)) for event in parsed.events]
        assert told == ([] if gap is None else [("gap", gap)])
        return reader

    @rule(reader=readers, most=st.integers(1, 9))
    def read(self, reader: Reader, most: int) -> None:
        for _ in range(most):
            if reader.behind:
                self.read_one(reader)
        if not reader.behind and reader.models[0].status not in ("", "running"):
            with pytest.raises(StopAsyncIteration):
                self.call(self.next_of_a_run, reader)

    async def next_of_a_run(self, reader: Reader) -> Any:
        try:
            return await anext(reader.events)
        except StopAsyncIteration:
            reader.events = aiter(reader.subscribe(reader.last_event_id))
            await anext(reader.events)
            return await anext(reader.events)

    def read_one(self, reader: Reader) -> None:
        behind, models, before = reader.behind, reader.models, reader.last_event_id
        [event] = parse(bytes(self.call(anext, reader.events))).events
        ids = [Id.of(part) for part in event.last_event_id.split("~")]
        # One of those that are behind has moved. The others stand still.
        [index] = (at for at in behind if ids[at].offset != reader.cursors[at])
        model, has = models[index], reader.cursors[index]
        reader.cursors[index] = now = ids[index].offset
        if event.type == "gap":
            check_all([now], [model.oldest], is_local=self.kind.is_local)
            assert now > has
            assert json.loads(event.data) == {
                "reason": "overflow",
                "requested": before,
                "missed": now - has,
            }
        else:
            assert now == has + 1
            assert (event.type, json.loads(event.data)) == model.events[has]
        assert event.last_event_id == reader.last_event_id

    @rule(target=readers, reader=consumes(readers))
    def reconnect(self, reader: Reader) -> Reader:
        self.call(reader.events.aclose)
        return self.begin(reader, reader.last_event_id)

    @rule(reader=consumes(readers))
    def disconnect(self, reader: Reader) -> None:
        self.call(reader.events.aclose)

    # Runs

    @rule(
        name=st.sampled_from(NAMES),
        if_running=st.sampled_from(["reject", "attach", "replace"]),
    )
    def start(self, name: str, if_running: Any) -> None:
        work = Work()

        async def start() -> Run:
            return await self.runs.start(name, work, if_running=if_running)

        if self.is_running(name) and if_running == "reject":
            with pytest.raises(RunExists):
                self.call(start)
            return
        run = self.call(start)
        if self.is_running(name) and if_running == "attach":
            assert not run.is_new
            return
        if self.is_running(name):
            self.run_models[name].end("end", {"status": "cancelled"}, "cancelled")
        assert run.is_new
        found = self.call(self.store.run, f"run:{name}")
        self.run_models[name] = model = Model(found.position.epoch, 1 << 31)
        model.status = "running"
        self.runs_of[name], self.work[name] = run, work

    def is_running(self, name: str) -> bool:
        model = self.run_models.get(name)
        return model is not None and model.status == "running"

    @rule(name=st.sampled_from(NAMES), size=st.integers(1, 5))
    def yield_items(self, name: str, size: int) -> None:
        if self.is_running(name):
            data = [next(self.count) for _ in range(size)]
            self.portal.call(self.work[name].step, *data)
            self.run_models[name].append(*data)
            self.wait_for_run(name)

    @rule(name=st.sampled_from(NAMES))
    def finish(self, name: str) -> None:
        if self.is_running(name):
            self.portal.call(self.work[name].finish)
            self.run_models[name].end("end", {"status": "done"}, "done")
            self.wait_for_run(name)

    @rule(name=st.sampled_from(NAMES))
    def fail(self, name: str) -> None:
        if self.is_running(name):
            self.portal.call(self.work[name].fail, LookupError("in a run"))
            self.run_models[name].end("error", {"code": "failed"}, "failed")
            self.wait_for_run(name)

    @rule(name=st.sampled_from(NAMES))
    def cancel(self, name: str) -> None:
        assert self.call(self.runs.cancel, name) is self.is_running(name)
        if self.is_running(name):
            self.run_models[name].end("end", {"status": "cancelled"}, "cancelled")
            self.wait_for_run(name)

    def wait_for_run(self, name: str) -> None:
        """Wait until a run is as its model."""
        model = self.run_models[name]

        async def wait() -> None:
            while True:
                found = await self.store.run(f"run:{name}")
                assert found is not None
                if (found.position.offset, found.status) == (model.top, model.status):
                    return
                assert found.position.offset <= model.top
                await anyio.sleep(0.0001)

        self.call(wait)

    @precondition(lambda self: self.run_models)
    @rule(target=readers, data=st.data())
    def subscribe_to_a_run(self, data: st.DataObject) -> Reader:
        name = data.draw(st.sampled_from(sorted(self.run_models)))
        model = self.run_models[name]
        odd = st.sampled_from(["7", "a.1", self.models["a"].id(1)])
        known = st.integers(0, model.top + 2).map(model.id)
        last = data.draw(st.one_of(st.none(), known, odd))
        return self.begin(Reader([model], self.runs_of[name].subscribe, True), last)

    @invariant()
    def logs_are_as_the_lists(self) -> None:
        async def look() -> tuple[dict[str, str], dict[str, str | None]]:
            ids = {name: await self.channels.position(name) for name in NAMES}
            return ids, {name: await self.runs.status(name) for name in NAMES}

        ids, statuses = self.call(look)
        assert ids == {name: it.id(it.top) for name, it in self.models.items()}
        models = self.run_models
        assert statuses == {
            name: models[name].status if name in models else None for name in NAMES
        }


@each_store
def test_channels_and_runs_do_what_lists_would(
    store_kind: StoreKind, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "fastapi_sse_fast")  # it keeps what is logged
    machine: Any = type("Logs", (Logs,), {"backend": backend, "kind": store_kind})
    default: Any = settings.default
    examples = max(1, default.max_examples // 4)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=30)
    )


# Any order of what happens at the same time


class Seen:
    """What clients of one log have seen: the same event at a position, for all."""

    def __init__(self) -> None:
        self.frames: dict[str, tuple[str, str]] = {}

    def check(self, client: Subscriber) -> list[int]:
        """Check what a client has seen, and return the offsets of its events.

        It begins with the position of its first frame.
        """
        if not client.chunks:
            return []
        first = ID.search(client.chunks[0].decode())
        assert first is not None
        at = Id(first[1], int(first[2]))
        if client.gaps and client.events[0].type == "gap":
            at = Id.of(client.gaps[0]["id"])
        offsets: list[int] = []
        for event in client.events:
            epoch, offset = Id.of(event.last_event_id)
            assert epoch == at.epoch
            if event.type == "gap":
                gap = json.loads(event.data)
                if gap["reason"] == "overflow":
                    assert gap["missed"] == offset - at.offset
            else:
                assert offset == at.offset + 1
                offsets.append(offset)
                frame = event.type, event.data
                assert self.frames.setdefault(event.last_event_id, frame) == frame
            at = Id(epoch, offset)
        return offsets


Scenario = Callable[[GatedStore, Gates], Awaitable[None]]


def walk_store(scenario: Scenario, kind: StoreKind, backend: str) -> int:
    """Walk the orders of a scenario, each with a new store."""

    async def with_store(gates: Gates) -> None:
        async with GatedStore(kind.new(), gates) as store:
            gates.is_busy = lambda: store.calls
            try:
                await scenario(store, gates)
            finally:
                gates.open()

    most = 80 if kind.is_local else 25
    return walk(with_store, backend=backend, most=most, is_local=kind.is_local)


async def read_all(subscription: Subscription, client: list[Subscriber]) -> None:
    subscriber = Subscriber(EventSourceResponse(subscription))
    client.append(subscriber)
    await subscriber.run()


@each_store
def test_who_subscribes_while_events_are_published_misses_none(
    store_kind: StoreKind, backend: str
) -> None:
    async def scenario(store: GatedStore, gates: Gates) -> None:
        channels = Channels(store, history=9)
        clients: list[Subscriber] = []
        ids: dict[str, int] = {}
        begun = await settled(gates, channels.position, "a")

        async def publish(*numbers: int) -> None:
            for number in numbers:
                ids[await channels.publish("a", number)] = number

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish, 1, 2)
            tasks.start_soon(publish, 11)
            tasks.start_soon(read_all, channels.subscribe("a", begun), clients)
            tasks.start_soon(read_all, channels.subscribe("a"), clients)
            await gates.work()
            await until(lambda: all(offset(it.last_event_id) == 3 for it in clients))
            leave(*clients)
        assert sorted(ids.values()) == [1, 2, 11]
        seen = Seen()
        by_cursor, from_now = sorted(map(seen.check, clients), key=len)[::-1]
        assert by_cursor == [1, 2, 3]
        assert from_now == by_cursor[len(by_cursor) - len(from_now) :]
        # What publishers are told is what subscribers see.
        assert {id: int(data) for id, (_, data) in seen.frames.items()} == ids
        assert ids_of(ids, 1) < ids_of(ids, 2)
        assert channels.stats().subscribers == 0

    assert walk_store(scenario, store_kind, backend) > 20


def ids_of(ids: dict[str, int], number: int) -> int:
    return next(offset(id) for id, each in ids.items() if each == number)


def leave(*clients: Subscriber) -> None:
    for client in clients:
        client.leave()


@each_store
def test_a_retry_is_one_event_whatever_happens_meanwhile(
    store_kind: StoreKind, backend: str
) -> None:
    async def scenario(store: GatedStore, gates: Gates) -> None:
        channels = Channels(store)
        ids: list[str] = []
        start = await settled(gates, channels.position, "a")
        clients: list[Subscriber] = []

        async def publish(key: str | None) -> None:
            id = await channels.publish("a", key, dedupe=key)
            if key is not None:
                ids.append(id)

        async with anyio.create_task_group() as tasks:
            for key in ("k", "k", None, "k"):
                tasks.start_soon(publish, key)
            await gates.work()
            tasks.start_soon(read_all, channels.subscribe("a", start), clients)
            await gates.work()
            await clients[0].has(2)
            leave(*clients)
        assert len(ids) == 3
        assert len({*ids}) == 1
        assert sorted(clients[0].data, key=str) == [None, "k"]

    assert walk_store(scenario, store_kind, backend) > 20


@each_store
def test_who_comes_back_too_late_is_told_what_is_missing(
    store_kind: StoreKind, backend: str
) -> None:
    async def scenario(store: GatedStore, gates: Gates) -> None:
        channels = Channels(store, history=2)
        start = await settled(gates, channels.position, "a")
        clients: list[Subscriber] = []

        async def publish() -> None:
            for number in range(1, 5):
                await channels.publish("a", number)

        async def come_back() -> None:
            last = start
            for _ in range(3):
                mine: list[Subscriber] = []
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read_all, channels.subscribe("a", last), mine)
                    await gates()
                    leave(*mine)
                clients.append(mine[0])
                last = mine[0].last_event_id or last

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish)
            tasks.start_soon(come_back)
            await gates.work()
        seen = Seen()
        at = 0
        for client in clients:
            events = client.events
            offsets = seen.check(client)
            if events and events[0].type == "gap":
                gap = client.gaps[0]
                assert (gap["reason"], offset(gap["requested"])) == ("trimmed", at)
                assert gap["missed"] == offset(gap["id"]) - at > 0
            elif offsets:
                assert offsets[0] == at + 1
            at = offset(client.last_event_id) if client.last_event_id else at
        assert {id: int(data) for id, (_, data) in seen.frames.items()} == {
            id: offset(id) for id in seen.frames
        }

    assert walk_store(scenario, store_kind, backend) > 20


@each_store
@pytest.mark.parametrize("if_running", ["reject", "attach", "replace"])
def test_runs_that_are_started_and_cancelled_at_the_same_time_end_once(
    store_kind: StoreKind, backend: str, if_running: Any
) -> None:
    async def scenario(store: GatedStore, gates: Gates) -> None:
        results: list[RunResult] = []
        runs = Runs(store, on_end=results.append)
        started: list[Run] = []
        rejected: list[RunExists] = []
        clients: list[Subscriber] = []

        async def items() -> AsyncIterator[int]:
            yield 1
            await gates()
            yield 2

        async def start() -> None:
            try:
                run = await runs.start("a", items, if_running=if_running)
            except RunExists as error:
                rejected.append(error)
                return
            started.append(run)
            await read_all(run.subscribe(), clients)

        async def cancel() -> None:
            was_running = await runs.cancel("a")
            cancels.append(was_running)

        cancels: list[bool] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            tasks.start_soon(start)
            tasks.start_soon(cancel)
            await gates.work()
        # All readers have come to an end, each run to one, and all see the same.
        assert len(started) + len(rejected) == 2
        assert len(clients) == len(started)
        new = [run for run in started if run.is_new]
        assert len(results) == len(new)
        assert {result.status for result in results} <= {"done", "cancelled"}
        if if_running != "replace" and not any(cancels):
            assert {result.status for result in results} == {"done"}
        seen = Seen()
        ends: set[str] = set()
        for client in clients:
            assert client.complete
            offsets = seen.check(client)
            assert offsets == list(range(1, len(offsets) + 1))
            types = [event.type for event in client.events]
            assert types.count("end") == 1
            assert types[-1] == "end"
            ends.add(client.last_event_id)
        assert len(ends) == len(new)
        assert runs.stats() == (0, 0, 0, 0, {})
        # The store agrees with the log.
        status = await settled(gates, runs.status, "a")
        assert status in {json.loads(c.events[-1].data)["status"] for c in clients}

    assert walk_store(scenario, store_kind, backend) > 20


async def settled(gates: Gates, ask: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Return what is answered while nothing else happens."""
    found: list[Any] = []

    async def task() -> None:
        found.append(await ask(*args))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task)
        await gates.work()
    return found[0]
