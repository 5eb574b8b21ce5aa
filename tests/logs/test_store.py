"""What every store has to do, whatever is asked of it and in whichever order."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

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
    Runs,
    Subscription,
)
from fastapi_sse_fast.runs import RunResult
from fastapi_sse_fast.stores import History, Store

from ..support.apps import MS
from ..support.eventsource import parse
from ..support.interleavings import Gates, walk
from ..support.logs import ID, TIMEOUT, Id, Subscriber, Work, offset
from ..support.stores import STORES, GatedStore

pytestmark = pytest.mark.anyio

HISTORY = History(3, 60.0)
"""Of the logs in these tests."""


def frame(number: int) -> bytes:
    return b"data: %d\n\n" % number


async def append(store: Store, name: str, *numbers: int) -> list[Id]:
    """Append an event for each number, and return their positions."""
    return [
        Id.of(await store.append(name, frame(number), HISTORY, None))
        for number in numbers
    ]


# Logs


async def test_a_log_is_made_by_who_asks_for_it_first(store: Store) -> None:
    log = await store.log("a", HISTORY)
    assert (log.first, log.top, log.is_over) == (1, 0, False)
    assert log.position() == f"{log.epoch}.0"
    assert await append(store, "a", 1) == [Id(log.epoch, 1)]
    [made] = await append(store, "b", 1)
    assert (await store.log("b", HISTORY)).epoch == made.epoch


async def test_logs_have_epochs_of_their_own(store: Store) -> None:
    epochs = {(await store.log(str(n), HISTORY)).epoch for n in range(100)}
    assert len(epochs) == 100
    assert all(Id.of(f"{epoch}.0").epoch == epoch for epoch in epochs)


async def test_offsets_count_from_one_without_holes(store: Store) -> None:
    ids = await append(store, "a", *range(10))
    assert [id.offset for id in ids] == list(range(1, 11))
    assert len({id.epoch for id in ids}) == 1
    log = await store.log("a", HISTORY)
    assert (log.first, log.top) == (8, 10)


async def test_several_frames_are_several_events(store: Store) -> None:
    frames = frame(1) + frame(2) + frame(3)
    assert offset(await store.append("a", frames, HISTORY, None)) == 3
    assert offset(await store.append("a", frame(4), HISTORY, None)) == 4


async def test_frames_with_an_id_are_refused_as_a_whole(store: Store) -> None:
    with pytest.raises(ValueError, match="must not have an id"):
        await store.append("a", frame(1) + b"id: 7\n\n", HISTORY, "k")
    assert offset(await store.append("a", frame(2), HISTORY, "k")) == 1


async def test_frames_of_a_known_key_are_not_appended_again(store: Store) -> None:
    await store.log("b", HISTORY)
    first = await store.append("a", frame(1) + frame(2), HISTORY, "k")
    assert offset(first) == 2
    assert await store.append("a", frame(1) + frame(2), HISTORY, "k") == first
    assert offset(await store.append("b", frame(1), HISTORY, "k")) == 1
    assert offset(await store.append("a", frame(3), HISTORY, "l")) == 3


# Runs


async def start(store: Store, name: str = "a", if_running: Any = "reject") -> Any:
    return await store.start_run(name, HISTORY, if_running)


async def end(store: Store, info: Any, status: str = "done", name: str = "a") -> None:
    await store.end_run(name, info, status, b"event: end\n\n", b"")


async def test_a_run_is_running_until_it_ends(store: Store) -> None:
    assert await store.run("a") is None
    assert await store.cancel_run("a") is False
    info = await start(store)
    assert (info.status, info.is_new, info.log.top) == ("running", True, 0)
    found = await store.run("a")
    assert found is not None
    assert (found.log, found.status, found.is_new) == (info.log, "running", False)
    await end(store, info)
    ended = await store.run("a")
    assert ended is not None
    assert (ended.log, ended.status, ended.is_new) == (info.log, "done", False)
    assert (ended.log.top, ended.log.is_over) == (1, True)
    assert await store.cancel_run("a") is False


async def test_a_run_ends_once(store: Store) -> None:
    info = await start(store)
    await end(store, info)
    with contextlib.suppress(ValueError):
        info.log.append(frame(1))
    with contextlib.suppress(ValueError):
        await end(store, info, "failed")
    assert info.log.top == 1
    found = await store.run("a")
    assert found is not None
    assert found.status == "done"


async def test_a_running_run_is_not_started_again(store: Store) -> None:
    info = await start(store)
    with pytest.raises(RunExists):
        await start(store)
    attached = await start(store, if_running="attach")
    assert (attached.log, attached.status, attached.is_new) == (
        info.log,
        "running",
        False,
    )
    await end(store, info)
    for if_running in ("reject", "attach", "replace"):
        again = await start(store, if_running=if_running)
        assert again.is_new
        assert again.log.epoch != info.log.epoch
        await end(store, again)


async def test_who_replaces_a_run_waits_for_its_end(store: Store) -> None:
    info = await start(store)
    log: list[str] = []
    store.own_run("a", info, lambda: log.append("cancel"))

    async def replace() -> None:
        again = await start(store, if_running="replace")
        assert again.is_new
        log.append("replaced")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(replace)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert log == ["cancel"]
        await end(store, info, "cancelled")
    assert log == ["cancel", "replaced"]


async def test_a_run_is_cancelled_before_anybody_owns_it(store: Store) -> None:
    info = await start(store)
    assert await store.cancel_run("a") is True
    cancelled: list[bool] = []
    store.own_run("a", info, lambda: cancelled.append(True))
    assert cancelled == [True]


async def test_who_has_lost_a_run_does_not_own_the_next_one(store: Store) -> None:
    first = await start(store)
    await end(store, first)
    second = await start(store)
    store.own_run("a", first, lambda: pytest.fail("it is another run"))
    assert await store.cancel_run("a") is True
    with contextlib.suppress(ValueError):
        await end(store, first, "failed")
    found = await store.run("a")
    assert found is not None
    assert (found.log, found.status) == (second.log, "running")


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
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        assert log == ["begun"]
    assert log == ["begun", "closed"]
    with pytest.raises(RuntimeError, match="not open"):
        store.start_task(task, "again")


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


class FailingStore(GatedStore):
    """A store that cannot end runs."""

    async def end_run(self, *args: Any) -> Any:
        raise OSError("the store is gone")


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


class Beginning(NamedTuple):
    """Where a subscription begins, and the gap before it."""

    cursors: list[int]
    gap: dict[str, Any] | None


def beginning(models: list[Model], last: str | None, *, is_run: bool) -> Beginning:
    start = [0 if is_run else model.top for model in models]
    if last is None:
        return Beginning(start, None)
    asked = positions(last)
    if asked is None or len(asked) != len(models):
        return Beginning(
            start, {"reason": "unknown", "requested": last, "missed": None}
        )
    cursors: list[int] = []
    reasons: list[str] = []
    missed: list[int | None] = []
    for model, (epoch, has) in zip(models, asked, strict=True):
        if epoch != model.epoch:
            cursors.append(model.oldest)
            reasons.append("reset")
            missed.append(None)
        elif has > model.top:
            cursors.append(model.oldest if is_run else model.top)
            reasons.append("unknown")
            missed.append(None)
        elif has < model.oldest:
            cursors.append(model.oldest)
            reasons.append("trimmed")
            missed.append(model.oldest - has)
        else:
            cursors.append(has)
    if not reasons:
        return Beginning(cursors, None)
    known = [count for count in missed if count is not None]
    in_all = sum(known) if len(known) == len(missed) else None
    gap = {"reason": reasons[0], "requested": last, "missed": in_all}
    return Beginning(cursors, gap)


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

    make_store: Callable[[], Store]
    backend: str

    readers: Bundle[Reader] = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self._exits = contextlib.ExitStack()
        portal = start_blocking_portal(self.backend)
        self.portal: BlockingPortal = self._exits.enter_context(portal)
        store = self.portal.wrap_async_context_manager(self.make_store())
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
        expected = beginning(reader.models, last, is_run=reader.is_run)
        reader.cursors = expected.cursors
        reader.events = aiter(reader.subscribe(last))
        body = bytes(self.call(anext, reader.events))
        if expected.gap is None:
            assert body == f"id: {reader.last_event_id}\n\n".encode()
        else:
            [event] = parse(body).events
            assert (event.type, event.last_event_id) == ("gap", reader.last_event_id)
            assert json.loads(event.data) == expected.gap
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
        if event.type == "gap":
            assert has < model.oldest
            reader.cursors[index] = model.oldest
            assert json.loads(event.data) == {
                "reason": "overflow",
                "requested": before,
                "missed": model.oldest - has,
            }
        else:
            reader.cursors[index] += 1
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
        log = self.call(self.store.run, f"run:{name}").log
        self.run_models[name] = model = Model(log.epoch, 1 << 31)
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
                if (found.log.top, found.status) == (model.top, model.status):
                    return
                assert found.log.top <= model.top
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


@pytest.mark.parametrize("make_store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_channels_and_runs_do_what_lists_would(
    backend: str, make_store: Callable[[], Store], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "fastapi_sse_fast")  # it keeps what is logged
    attributes = {"backend": backend, "make_store": staticmethod(make_store)}
    machine: Any = type("Logs", (Logs,), attributes)
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


def walk_store(
    scenario: Scenario, make_store: Callable[[], Store], backend: str, most: int = 80
) -> int:
    """Walk the orders of a scenario, each with a new store."""

    async def with_store(gates: Gates) -> None:
        async with GatedStore(make_store(), gates) as store:
            try:
                await scenario(store, gates)
            finally:
                gates.open()

    return walk(with_store, backend=backend, most=most)


async def read_all(subscription: Subscription, client: list[Subscriber]) -> None:
    subscriber = Subscriber(EventSourceResponse(subscription))
    client.append(subscriber)
    await subscriber.run()


def each_store(test: Any) -> Any:
    test = pytest.mark.parametrize("backend", ["asyncio", "trio"])(test)
    return pytest.mark.parametrize("make_store", STORES.values(), ids=STORES)(test)


@each_store
def test_who_subscribes_while_events_are_published_misses_none(
    make_store: Callable[[], Store], backend: str
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

    assert walk_store(scenario, make_store, backend) > 20


def ids_of(ids: dict[str, int], number: int) -> int:
    return next(offset(id) for id, each in ids.items() if each == number)


def leave(*clients: Subscriber) -> None:
    for client in clients:
        client.leave()


@each_store
def test_a_retry_is_one_event_whatever_happens_meanwhile(
    make_store: Callable[[], Store], backend: str
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
            leave(*clients)
        assert len(ids) == 3
        assert len({*ids}) == 1
        assert sorted(clients[0].data, key=str) == [None, "k"]

    assert walk_store(scenario, make_store, backend) > 20


@each_store
def test_who_comes_back_too_late_is_told_what_is_missing(
    make_store: Callable[[], Store], backend: str
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

    assert walk_store(scenario, make_store, backend) > 20


@each_store
@pytest.mark.parametrize("if_running", ["reject", "attach", "replace"])
def test_runs_that_are_started_and_cancelled_at_the_same_time_end_once(
    make_store: Callable[[], Store], backend: str, if_running: Any
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

    assert walk_store(scenario, make_store, backend) > 20


async def settled(gates: Gates, ask: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Return what is answered while nothing else happens."""
    found: list[Any] = []

    async def task() -> None:
        found.append(await ask(*args))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task)
        await gates.work()
    return found[0]
