"""Runs: what goes on without a client, how it ends, and who is told."""

from __future__ import annotations

import contextvars
import json
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fastapi_sse_fast import (
    Channels,
    EncodedEvent,
    EventSourceResponse,
    LastEventID,
    RunExists,
    RunResult,
    Runs,
    ServerSentEvent,
    shutdown,
)
from fastapi_sse_fast.stores import MemoryStore, Store

from ..support.apps import KINDS, MS, OddError, logged
from ..support.asgi import call
from ..support.internals import nothing_for_the_collector, shutdown_grace_of
from ..support.logs import (
    TIMEOUT,
    Id,
    Subscriber,
    Work,
    cursors,
    moved,
    offset,
    subscribed,
    until,
)
from ..support.stores import StoreKind, each_store

pytestmark = pytest.mark.anyio

DONE = ("end", {"status": "done"})
CANCELLED = ("end", {"status": "cancelled"})


def end_of(client: Subscriber) -> tuple[str, Any]:
    """Return the last event of a run that has ended: there is nothing behind it."""
    assert client.complete
    ends = [it for it in client.events if it.type in ("end", "error")]
    assert ends == [client.events[-1]]
    return ends[0].type, json.loads(ends[0].data)


@pytest.fixture
def work(anyio_backend: str) -> Work:
    return Work()


async def count(most: int) -> AsyncIterator[int]:
    for number in range(most):
        yield number
        await anyio.lowlevel.checkpoint()


async def forever() -> AsyncIterator[int]:
    yield 1
    await anyio.sleep_forever()


async def ended(runs: Runs, name: str) -> str:
    """Wait for the end of a run, and return how it has ended."""
    with anyio.fail_after(TIMEOUT):
        while (status := await runs.status(name)) == "running":
            await anyio.sleep(MS)
    assert status is not None
    return status


# What its readers get


async def test_a_run_is_read_from_its_first_event_to_its_end(
    store: Store,
) -> None:
    class Token(BaseModel):
        text: str

    async def answer(prompt: str, *, times: int) -> AsyncIterator[Any]:
        for number in range(times):
            yield Token(text=f"{prompt}{number}")
        yield ServerSentEvent(event="usage", data={"tokens": times})

    runs = Runs(store)
    run = await runs.start("a", answer, "x", times=2)
    assert (run.name, run.is_new) == ("a", True)
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    epoch = Id.of(client.last_event_id).epoch
    frames = [
        "",
        'data: {"text": "x0"}\n',
        'data: {"text": "x1"}\n',
        'event: usage\ndata: {"tokens": 2}\n',
        'event: end\ndata: {"status": "done"}\n',
    ]
    assert client.body.decode() == "".join(
        f"id: {epoch}.{number}\n{frame}\n" for number, frame in enumerate(frames)
    )
    assert client.complete


async def test_json_is_spelled_as_the_runs_say(store: Store) -> None:
    async def items() -> AsyncIterator[Any]:
        yield {"n": [1, 2]}

    run = await Runs(store, json="compact").start("a", items)
    async with subscribed(run.subscribe()) as client:
        events = await client.to_end()
    assert [event.data for event in events] == ['{"n":[1,2]}', '{"status":"done"}']


async def test_a_run_goes_on_without_its_client(store: Store, work: Work) -> None:
    runs = Runs(store)
    run = await runs.start("a", work)
    async with subscribed(run.subscribe()) as client:
        work.step(1)
        await client.has(1)
    work.step(2, 3)
    work.finish()
    assert await ended(runs, "a") == "done"
    async with subscribed(await runs.response("a", client.last_event_id)) as later:
        await later.to_end()
    assert client.data + later.data == [1, 2, 3]
    assert end_of(later) == DONE
    assert later.gaps == []


async def test_a_run_needs_no_client(store: Store) -> None:
    runs = Runs(store)
    await runs.start("a", count, 1000)
    assert await ended(runs, "a") == "done"
    async with subscribed(await runs.response("a")) as client:
        await client.to_end()
    assert client.data == list(range(1000))


async def test_all_clients_get_the_same_bytes(store: Store, work: Work) -> None:
    runs = Runs(store)
    run = await runs.start("a", work)
    async with subscribed(run.subscribe(), run.subscribe()) as first:
        work.step(1, 2)
        await first[0].has(2)
        async with subscribed(await runs.response("a")) as late:
            work.step(3)
            work.finish()
            for client in (*first, late):
                await client.to_end()
    async with subscribed(run.subscribe()) as last:
        await last.to_end()
    assert {client.body for client in first} == {late.body} == {last.body}
    assert end_of(last) == DONE


async def test_a_run_is_resumed_anywhere(store: Store, work: Work) -> None:
    runs = Runs(store)
    run = await runs.start("a", work)
    work.step(*range(10))
    async with subscribed(run.subscribe()) as client:
        await client.has(10)
        running = [await runs.response("a", id) for id in client.ids]
        async with subscribed(*running) as resumed:
            work.finish()
            for each in (client, *resumed):
                await each.to_end()
    for seen, each in enumerate(resumed):
        assert each.events == client.events[seen + 1 :]
    for seen, id in enumerate(client.ids[:-1]):
        async with subscribed(await runs.response("a", id)) as each:
            await each.to_end()
        assert each.events == client.events[seen + 1 :]


async def test_who_has_all_of_a_run_is_told_to_stop(store: Store) -> None:
    runs = Runs(store)
    assert (await runs.response("a")).status_code == 204
    assert (await runs.response("a", "Ab3dE9xZ.1")).status_code == 204
    run = await runs.start("a", forever)
    async with subscribed(run.subscribe()) as client:
        await client.has(1)
        # It has everything so far, but more will come.
        assert (await runs.response("a", client.last_event_id)).status_code == 200
        await runs.cancel("a")
        await client.to_end()
    reply = await call(await runs.response("a", client.last_event_id))
    assert (reply.status, reply.body, reply.complete) == (204, b"", True)


@pytest.mark.parametrize(
    ("last", "reason"),
    [("Ab3dE9xZ.1", "reset"), ("7", "unknown"), ("ahead", "unknown")],
)
async def test_a_cursor_that_is_none_of_the_run_gets_all_of_it(
    store: Store, last: str, reason: str
) -> None:
    runs = Runs(store)
    run = await runs.start("a", count, 3)
    await ended(runs, "a")
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    last = {"ahead": moved(client.last_event_id, 1)}.get(last, last)
    async with subscribed(await runs.response("a", last)) as again:
        await again.to_end()
    [gap] = again.gaps
    assert (gap["reason"], gap["missed"], offset(gap["id"])) == (reason, None, 0)
    assert again.events[1:] == client.events


@each_store
@given(data=st.data())
def test_any_last_event_id_is_answered_with_the_run_alone(
    store_kind: StoreKind, backend: str, data: st.DataObject
) -> None:
    async def main() -> None:
        async with store_kind.new() as store:
            await ask(Runs(store))

    async def ask(runs: Runs) -> None:
        ids = []
        for name in ("own", "other"):
            run = await runs.start(name, repeat, name, 3)
            async with subscribed(run.subscribe()) as client:
                await client.to_end()
            ids.append(client.last_event_id)
        last = data.draw(cursors(*ids)).decode("latin-1")
        response = await runs.response("own", last)
        if response.status_code == 204:
            assert last == ids[0]
            return
        async with subscribed(response) as client:
            await client.to_end()
        assert (client.status, client.error) == (200, None)
        assert end_of(client) == DONE
        assert set(client.data) <= {"own"}
        assert len(client.gaps) <= 1
        offsets = [offset(id) for id in client.ids[len(client.gaps) :]]
        assert offsets == list(range(offsets[0], 5))
        if client.gaps:
            assert offset(client.gaps[0]["id"]) == 0
            assert offsets[0] == 1

    anyio.run(main, backend=backend)


async def repeat(item: str, times: int) -> AsyncIterator[str]:
    for _ in range(times):
        yield item


async def test_the_next_run_of_a_name_is_another_one(store: Store) -> None:
    runs = Runs(store)
    first = await runs.start("a", count, 1)
    async with subscribed(first.subscribe()) as client:
        await client.to_end()
    second = await runs.start("a", count, 2)
    assert second.is_new
    async with subscribed(second.subscribe(client.last_event_id)) as other:
        await other.to_end()
    assert other.gaps[0]["reason"] == "reset"
    assert other.data == [0, 1]
    async with subscribed(first.subscribe()) as again:
        await again.to_end()
    assert again.body == client.body


async def test_a_run_of_large_events(store: Store) -> None:
    items = ["x" * 400_000, "small", "ä" * 230_000]

    async def large() -> AsyncIterator[str]:
        for item in items:
            yield item

    run = await Runs(store).start("a", large)
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert client.data == items
    assert [offset(id) for id in client.ids] == [1, 2, 3, 4]


async def test_a_stream_that_is_over_at_once_does_not_read(store: Store) -> None:
    runs = Runs(store)
    await runs.start("a", count, 1)
    await ended(runs, "a")
    reply = await call(await runs.response("a"))
    assert reply.complete
    assert runs.stats().subscribers == 0


async def test_the_response_of_a_run_is_of_any_class(store: Store) -> None:
    runs = Runs(store)
    await runs.start("a", count, 1)
    quick = EventSourceResponse.with_options(retry=7)
    response = await runs.response("a", response_class=quick)
    async with subscribed(response) as client:
        await client.to_end()
    assert client.body.startswith(b"retry: 7\n")


async def test_a_chat_of_three_routes(store: Store, work: Work) -> None:
    app = FastAPI()
    runs = Runs(store)

    @app.post("/")
    async def ask() -> EventSourceResponse:
        run = await runs.start("chat", work)
        return EventSourceResponse(run.subscribe())

    @app.get("/")
    async def resume(last: LastEventID) -> Any:
        return await runs.response("chat", last)

    @app.delete("/")
    async def stop() -> bool:
        return await runs.cancel("chat")

    def asked_again(last: str) -> Any:
        async def asked(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"last-event-id", last.encode())]
            await app({**scope, "headers": headers}, receive, send)

        return asked

    assert (await call(app)).status == 204
    async with subscribed(app, method="POST") as client:
        work.step("a")
        await client.has(1)
    async with subscribed(asked_again(client.last_event_id)) as again:
        work.step("b")
        await again.has(1)
        assert (await call(app, method="DELETE")).body == b"true"
        await again.to_end()
    assert client.data + again.data == ["a", "b"]
    assert end_of(again) == CANCELLED
    assert (await call(app, method="DELETE")).body == b"false"
    assert (await call(asked_again(again.last_event_id))).status == 204


# OpenAI's wire


async def test_openais_clients_see_no_ids_and_no_end(store: Store) -> None:
    runs = Runs(store)
    run = await runs.start("a", count, 2)
    async with subscribed(run.subscribe(wire="openai")) as client:
        await client.to_end()
    assert client.body == b"data: 0\n\ndata: 1\n\n"
    assert client.complete
    async with subscribed(await runs.response("a", wire="openai")) as again:
        await again.to_end()
    assert again.body == client.body


async def test_openais_clients_see_no_end_of_a_run_that_is_cancelled(
    store: Store,
) -> None:
    runs = Runs(store)
    run = await runs.start("a", forever)
    async with subscribed(run.subscribe(wire="openai"), run.subscribe()) as clients:
        await clients[0].has(1)
        await runs.cancel("a")
        for client in clients:
            await client.to_end()
    assert clients[0].body == b"data: 1\n\n"
    assert clients[0].complete
    assert end_of(clients[1]) == CANCELLED


async def test_openais_clients_see_errors_as_data(store: Store, work: Work) -> None:
    runs = Runs(store, on_error=lambda error: f"sorry: {error}")
    run = await runs.start("a", work)
    work.step("x")
    work.fail(LookupError("no"))
    async with subscribed(run.subscribe(wire="openai"), run.subscribe()) as clients:
        for client in clients:
            await client.to_end()
    openai, browser = clients
    error = {"message": "sorry: no", "code": "failed"}
    assert openai.body.startswith(b'data: "x"\n\ndata: {"error": ')
    assert json.loads(openai.events[1].data) == {"error": error}
    assert len(openai.events) == 2
    assert end_of(browser) == ("error", error)


async def test_openais_clients_see_an_error_without_a_message_too(
    store: Store, work: Work
) -> None:
    run = await Runs(store).start("a", work)
    work.fail(LookupError("secret"))
    async with subscribed(run.subscribe(wire="openai")) as client:
        [event] = await client.to_end()
    assert json.loads(event.data) == {"error": {"message": "failed", "code": "failed"}}


async def test_a_cursor_of_openais_clients_is_no_gap(store: Store) -> None:
    runs = Runs(store)
    run = await runs.start("a", count, 2)
    async with subscribed(run.subscribe("7", wire="openai")) as client:
        await client.to_end()
    assert client.body == b"data: 0\n\ndata: 1\n\n"


async def test_an_unknown_wire(store: Store) -> None:
    runs = Runs(store)
    run = await runs.start("a", forever)
    with pytest.raises(ValueError, match="wire must be"):
        run.subscribe(wire="anthropic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="wire must be"):
        await runs.response("a", wire="anthropic")  # type: ignore[arg-type]


# Cancelling


async def test_a_run_is_cancelled(store: Store, work: Work) -> None:
    runs = Runs(store)
    run = await runs.start("a", work)
    async with subscribed(run.subscribe(), run.subscribe()) as clients:
        work.step(1)
        await clients[0].has(1)
        assert await runs.status("a") == "running"
        assert await runs.cancel("a") is True
        for client in clients:
            await client.to_end()
            assert end_of(client) == CANCELLED
            assert client.data == [1]
    assert work.log == ["begun", "closed"]
    assert await runs.status("a") == "cancelled"
    assert await runs.cancel("a") is False
    assert await runs.cancel("b") is False
    assert await runs.status("a") == "cancelled"


async def test_a_run_may_take_its_time_to_be_cancelled(store: Store) -> None:
    closing, close = anyio.Event(), anyio.Event()

    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            closing.set()
            with anyio.CancelScope(shield=True):
                await close.wait()

    runs = Runs(store)
    run = await runs.start("a", slow)
    async with subscribed(run.subscribe()) as client:
        await client.has(1)
        assert await runs.cancel("a")
        await closing.wait()
        assert await runs.status("a") == "running"
        assert await runs.cancel("a")
        with pytest.raises(RunExists):
            await runs.start("a", slow)
        close.set()
        await client.to_end()
    assert end_of(client) == CANCELLED


async def test_a_run_is_cancelled_before_it_has_begun(store: Store) -> None:
    runs = Runs(store)
    run = await runs.start("a", forever)
    assert await runs.cancel("a") is True
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert end_of(client) == CANCELLED


async def test_a_run_that_goes_on_when_cancelled_is_given_up(
    store: Store, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    given_up = anyio.Event()

    async def stubborn() -> AsyncIterator[int]:
        yield 1
        with anyio.CancelScope(shield=True):
            await given_up.wait()

    runs = Runs(store, close_timeout=20 * MS)
    run = await runs.start("a", stubborn)
    async with subscribed(run.subscribe()) as client:
        await client.has(1)
        await runs.cancel("a")
        await until(lambda: logged(caplog))
        if anyio_backend == "trio":  # a nursery waits for its tasks
            given_up.set()
        await client.to_end()
    given_up.set()
    assert end_of(client) == CANCELLED
    assert "did not close within 0.02 seconds" in logged(caplog)[0][0]


# A run of the same name


async def test_a_run_exists_already(store: Store) -> None:
    runs = Runs(store)
    await runs.start("a", forever)
    with pytest.raises(RunExists, match="the run 'a' is running already") as raised:
        await runs.start("a", forever)
    assert raised.value.name == "a"
    await runs.start("b", forever)
    await runs.cancel("a")
    await ended(runs, "a")
    assert (await runs.start("a", forever)).is_new


async def test_who_attaches_gets_the_run_that_is_running(
    store: Store, work: Work
) -> None:
    runs = Runs(store)
    first = await runs.start("a", work, if_running="attach")
    second = await runs.start("a", forever, if_running="attach")
    assert (first.is_new, second.is_new) == (True, False)
    async with subscribed(first.subscribe(), second.subscribe()) as clients:
        work.step("x")
        work.finish()
        for client in clients:
            await client.to_end()
            assert client.data == ["x"]
    assert (await runs.start("a", count, 1, if_running="attach")).is_new


async def test_a_run_that_is_replaced_is_cancelled_first(
    store: Store, work: Work
) -> None:
    runs = Runs(store)
    first = await runs.start("a", work, if_running="replace")
    log: list[list[str]] = []

    async def second() -> AsyncIterator[str]:
        log.append(work.log[:])
        yield "second"

    async with subscribed(first.subscribe()) as client:
        work.step("first")
        await client.has(1)
        run = await runs.start("a", second, if_running="replace")
        assert run.is_new
        await client.to_end()
    assert end_of(client) == CANCELLED
    async with subscribed(run.subscribe()) as other:
        await other.to_end()
    assert other.data == ["second"]
    assert Id.of(other.last_event_id).epoch != Id.of(client.last_event_id).epoch
    assert log == [["begun", "closed"]]


async def test_a_run_is_replaced_before_it_has_begun(store: Store) -> None:
    runs = Runs(store)
    first = await runs.start("a", forever)
    with anyio.fail_after(TIMEOUT):
        second = await runs.start("a", count, 1, if_running="replace")
    async with subscribed(first.subscribe(), second.subscribe()) as clients:
        for client in clients:
            await client.to_end()
    assert [end_of(client) for client in clients] == [CANCELLED, DONE]


async def test_of_many_replacements_one_is_left(store: Store) -> None:
    runs = Runs(store)
    made: list[Any] = []

    async def replace() -> None:
        made.append(await runs.start("a", forever, if_running="replace"))

    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(replace)
    assert runs.stats().running == 1
    async with subscribed(*(run.subscribe() for run in made)) as clients:
        await runs.cancel("a")
        for client in clients:
            await client.to_end()
            assert end_of(client) == CANCELLED
    assert len({Id.of(client.last_event_id).epoch for client in clients}) == 10


async def test_a_run_is_rejected_attached_or_replaced(store: Store) -> None:
    with pytest.raises(ValueError, match="if_running must be"):
        await Runs(store).start("a", forever, if_running="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [None, 7, b"a"])
async def test_the_name_of_a_run_is_a_str(store: Store, name: Any) -> None:
    with pytest.raises(TypeError, match="must be a str"):
        await Runs(store).start(name, forever)


# How it ends


async def test_a_run_has_its_time(store: Store, work: Work) -> None:
    runs = Runs(store, timeout=100 * MS)
    run = await runs.start("a", work)
    async with subscribed(run.subscribe()) as client:
        work.step(1)
        await client.to_end()
    assert client.data == [1]
    assert end_of(client) == ("error", {"code": "timeout"})
    assert work.log == ["begun", "closed"]
    assert await runs.status("a") == "timeout"


async def test_a_run_that_ends_in_time(store: Store) -> None:
    runs = Runs(store, timeout=60)
    run = await runs.start("a", count, 3)
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert end_of(client) == DONE


async def test_what_ends_a_run_first_is_how_it_ends(store: Store) -> None:
    """Cancelled in its time, it takes longer to close."""

    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(250 * MS)

    runs = Runs(store, timeout=200 * MS)
    run = await runs.start("a", slow)
    async with subscribed(run.subscribe()) as client:
        await client.has(1)
        await runs.cancel("a")
        await client.to_end()
    assert end_of(client) == CANCELLED


@pytest.mark.parametrize("error", [LookupError("secret"), OddError("secret")], ids=type)
async def test_a_run_that_fails_says_no_more_to_clients(
    store: Store,
    work: Work,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    runs = Runs(store)
    run = await runs.start("a", work)
    async with subscribed(run.subscribe()) as client:
        work.step(1)
        work.fail(error)
        await client.to_end()
    assert client.data == [1]
    assert end_of(client) == ("error", {"code": "failed"})
    assert await runs.status("a") == "failed"
    [(message, kind)] = logged(caplog)
    assert message == "the run 'a' failed"
    raised = RuntimeError if isinstance(error, OddError) else LookupError
    assert kind is raised
    # The log shows where it was raised.
    assert "raise item" in caplog.text
    assert "secret" in caplog.text


async def test_what_cannot_be_encoded_fails_a_run(
    store: Store, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    run = await Runs(store).start("a", work)
    work.step(1, object())
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert client.data == [1]
    assert end_of(client) == ("error", {"code": "failed"})
    assert work.log == ["begun", "closed"]
    assert len(logged(caplog)) == 1


@pytest.mark.parametrize(
    "event",
    [
        ServerSentEvent(data=2, id="7"),
        EncodedEvent.from_bytes(b"data: 1\r\nid: 7\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_event_that_has_an_id_fails_a_run(
    store: Store, caplog: pytest.LogCaptureFixture, kind: str, event: Any
) -> None:
    async def items() -> AsyncIterator[Any]:
        yield 1
        await anyio.sleep(MS)
        yield event
        await anyio.sleep_forever()

    def sync_items() -> Iterator[Any]:
        yield 1
        time.sleep(10 * MS)
        yield event
        time.sleep(10 * MS)

    run = await Runs(store).start("a", items if kind == "async" else sync_items)
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert client.data == [1]
    assert end_of(client) == ("error", {"code": "failed"})
    assert "must not have an id" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
async def test_events_before_one_that_has_an_id_are_kept(
    store: Store, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """They are encoded in the same step, and are not refused with it."""
    events = [1, {"n": 2}, "x" * 20_000, 4, ServerSentEvent(data=5, id="7"), 6]

    async def items() -> AsyncIterator[Any]:
        for event in events:
            yield event

    def sync_items() -> Iterator[Any]:
        yield from events

    runs = Runs(store)
    run = await runs.start("a", items if kind == "async" else sync_items)
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert client.data == events[:4]
    assert end_of(client) == ("error", {"code": "failed"})
    assert "must not have an id" in caplog.text


@pytest.mark.parametrize(
    "event",
    [
        ServerSentEvent(data="x" * 20_000, id="7"),
        EncodedEvent(data="x" * 20_000, id="7"),
        EncodedEvent.from_bytes(b"data: 1\n\n" * 2000 + b"id\n\n"),
    ],
    ids=["ServerSentEvent", "EncodedEvent", "bytes"],
)
async def test_a_large_event_that_has_an_id_is_refused_as_a_whole(
    store: Store, event: Any
) -> None:
    async def items() -> AsyncIterator[Any]:
        yield 1
        yield event

    run = await Runs(store).start("a", items)
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert client.data == [1]
    assert end_of(client) == ("error", {"code": "failed"})


async def test_the_application_chooses_what_clients_are_told_of_an_error(
    store: Store, work: Work
) -> None:
    runs = Runs(store, on_error=lambda error: f"sorry: {error}")
    run = await runs.start("a", work)
    work.fail(LookupError("no"))
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert end_of(client) == ("error", {"code": "failed", "message": "sorry: no"})


def failing(error: Exception) -> str:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("on_error", "logs"),
    [(lambda error: None, 1), (failing, 2), (lambda error: object(), 2)],
    ids=["None", "fails", "not encodable"],
)
async def test_without_a_message_clients_are_told_the_code(
    store: Store,
    work: Work,
    caplog: pytest.LogCaptureFixture,
    on_error: Any,
    logs: int,
) -> None:
    runs = Runs(store, on_error=on_error)
    other = await runs.start("b", forever)
    run = await runs.start("a", work)
    work.fail(LookupError("no"))
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert end_of(client) == ("error", {"code": "failed"})
    assert len(logged(caplog)) == logs
    # It is nothing to the other runs of the store.
    assert await runs.status(other.name) == "running"


async def test_an_error_while_it_is_cancelled_fails_a_run(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            raise LookupError("while closing")

    runs = Runs(store)
    run = await runs.start("a", items)
    async with subscribed(run.subscribe()) as client:
        await client.has(1)
        await runs.cancel("a")
        await client.to_end()
    assert end_of(client) == ("error", {"code": "failed"})
    assert "while closing" in caplog.text


@pytest.mark.parametrize("kind", ["async hook", "hook"])
async def test_the_application_is_told_of_every_end(
    store: Store, work: Work, kind: str
) -> None:
    results: list[RunResult] = []

    async def async_hook(result: RunResult) -> None:
        await anyio.lowlevel.checkpoint()
        results.append(result)

    runs = Runs(store, on_end=results.append if kind == "hook" else async_hook)
    error = LookupError("no")
    await runs.start("failed", work)
    work.step(1, 2)
    work.fail(error)
    await ended(runs, "failed")
    await runs.start("done", count, 3)
    await ended(runs, "done")
    run = await runs.start("cancelled", forever)
    async with subscribed(run.subscribe()) as client:
        await client.has(1)
        await runs.cancel("cancelled")
        await client.to_end()
    await until(lambda: len(results) == 3)
    assert results == [
        RunResult("failed", "failed", error, 2),
        RunResult("done", "done", None, 3),
        RunResult("cancelled", "cancelled", None, 1),
    ]


async def test_a_hook_that_fails_is_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(result: RunResult) -> None:
        raise ZeroDivisionError

    runs = Runs(store, on_end=hook)
    await runs.start("a", count, 1)
    await until(lambda: caplog.records)
    assert logged(caplog) == [("on_end failed", ZeroDivisionError)]
    assert await ended(runs, "a") == "done"
    assert (await runs.start("a", forever)).is_new


# Shutdown


@pytest.mark.parametrize("kind", KINDS)
async def test_shutdown_ends_a_run_after_its_grace(store: Store, kind: str) -> None:
    closed: list[bool] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            closed.append(True)

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(MS)
        finally:
            closed.append(True)

    runs = Runs(store, shutdown_grace=0.0)
    run = await runs.start("a", items if kind == "async" else sync_items)
    # A POST may go on for as long as the server waits: it sees the end of the run.
    async with subscribed(
        EventSourceResponse(run.subscribe()), method="POST"
    ) as client:
        await client.has(1)
        shutdown()
        await client.to_end()
    assert end_of(client) == ("error", {"code": "shutdown"})
    assert await runs.status("a") == "shutdown"
    assert closed == [True]


async def test_a_run_can_end_within_its_grace(store: Store, work: Work) -> None:
    runs = Runs(store, shutdown_grace=5.0)
    run = await runs.start("a", work)
    async with (
        subscribed(run.subscribe()) as browser,
        subscribed(run.subscribe(), method="POST") as client,
    ):
        work.step(1)
        await client.has(1)
        await browser.has(1)
        await anyio.sleep(0.1)  # for so long no stream is ended
        shutdown()
        await browser.to_end()  # it asks again, elsewhere
        work.step(2)
        work.finish()
        await client.to_end()
    assert browser.data == [1]
    assert not browser.complete
    assert client.data == [1, 2]
    assert end_of(client) == DONE


async def test_a_run_goes_on_for_as_long_as_the_server_waits(
    store: Store, work: Work
) -> None:
    runs = Runs(store)
    run = await runs.start("a", work)
    async with subscribed(run.subscribe(), method="POST") as client:
        work.step(1)
        await client.has(1)
        shutdown()
        await anyio.sleep(0.12)
        work.step(2)
        work.finish()
        await client.to_end()
    assert end_of(client) == DONE


@pytest.mark.parametrize("ends_in_time", [False, True])
async def test_a_store_that_closes_after_a_shutdown_leaves_a_run_its_grace(
    anyio_backend: str, new_store: Callable[[], Store], work: Work, ends_in_time: bool
) -> None:
    """That is the order of a server: it closes the store when nobody reads any more."""
    results: list[RunResult] = []
    grace = 60.0 if ends_in_time else 200 * MS

    async def finish() -> None:
        await anyio.sleep(100 * MS)
        work.step(2)
        work.finish()

    async with anyio.create_task_group() as tasks:
        async with new_store() as store:
            runs = Runs(store, shutdown_grace=grace, on_end=results.append)
            run = await runs.start("a", work)
            client = Subscriber(EventSourceResponse(run.subscribe()), method="POST")
            tasks.start_soon(client.run)
            work.step(1)
            await client.has(1)
            await anyio.sleep(100 * MS)  # for so long no stream is ended
            shutdown()
            await anyio.sleep(MS)
            started = time.monotonic()
            if ends_in_time:
                tasks.start_soon(finish)
        elapsed = time.monotonic() - started
        await client.to_end()
    [result] = results
    if ends_in_time:
        assert result.status == "done"
        assert end_of(client) == DONE
        assert client.data == [1, 2]
        assert elapsed < TIMEOUT
    else:
        assert result.status == "shutdown"
        assert end_of(client) == ("error", {"code": "shutdown"})
        assert elapsed >= 150 * MS


@pytest.mark.parametrize(
    ("seconds", "grace"),
    [(None, 27.0), (60, 27.0), (20, 16.2), (10, 8.1), (1, 0.81), (0, 0.0)],
)
async def test_a_run_ends_a_little_before_its_server_loses_patience(
    anyio_backend: str, seconds: float | None, grace: float
) -> None:
    class Config:
        timeout_graceful_shutdown = seconds

    class Server:
        should_exit = False
        config = Config

        def handle_exit(self, number: int, frame: object) -> None: ...

    original = signal.signal(signal.SIGTERM, Server().handle_exit)
    try:
        store = MemoryStore()
        assert shutdown_grace_of(Runs(store)) == pytest.approx(grace)
        assert shutdown_grace_of(Runs(store, shutdown_grace=3.0)) == 3.0
    finally:
        signal.signal(signal.SIGTERM, original)
    # Of another server, nothing is known.
    assert shutdown_grace_of(Runs(store)) == 27.0


async def test_a_run_that_is_started_while_the_store_closes_ends(
    anyio_backend: str, new_store: Callable[[], Store]
) -> None:
    log: list[str] = []

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    async def start_again(result: RunResult) -> None:
        log.append(f"{result.name} {result.status}")
        if len(log) < 3:
            await runs.start(f"run {len(log)}", items)

    store = new_store()
    runs = Runs(store, on_end=start_again)
    with anyio.fail_after(TIMEOUT):
        async with store:
            run = await runs.start("run 0", items)
            async with subscribed(run.subscribe()) as client:
                await client.has(1)
    assert log == ["run 0 shutdown", "run 1 shutdown", "run 2 shutdown"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_store_that_closes_ends_its_runs(
    anyio_backend: str, new_store: Callable[[], Store], kind: str
) -> None:
    log: list[Any] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            log.append("closing")
            with anyio.CancelScope(shield=True):  # for trio
                await anyio.sleep(MS)
            log.append("closed")

    def sync_items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(MS)
        finally:
            log.extend(["closing", "closed"])

    store = new_store()

    async def on_end(result: RunResult) -> None:
        await anyio.lowlevel.checkpoint()
        log.append(result)

    runs = Runs(store, on_end=on_end)
    async with anyio.create_task_group() as tasks:
        async with store:
            run = await runs.start("a", items if kind == "async" else sync_items)
            client = Subscriber(EventSourceResponse(run.subscribe()))
            tasks.start_soon(client.run)
            await until(lambda: client.events)
        assert runs.stats().running == 0
        *closing, result = log
        assert closing == ["closing", "closed"]
        assert (result.name, result.status, result.error) == ("a", "shutdown", None)
    assert end_of(client) == ("error", {"code": "shutdown"})


async def test_a_run_that_has_just_been_started_when_the_store_closes(
    anyio_backend: str, new_store: Callable[[], Store]
) -> None:
    results: list[RunResult] = []
    store = new_store()
    runs = Runs(store, on_end=results.append)
    async with store:
        run = await runs.start("a", forever)
    assert [(result.name, result.status) for result in results] == [("a", "shutdown")]
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert isinstance(client.error, RuntimeError)
    assert client.status is None


async def test_runs_need_an_open_store(
    anyio_backend: str, new_store: Callable[[], Store]
) -> None:
    runs = Runs(new_store())
    for ask in (
        lambda: runs.start("a", forever),
        lambda: runs.response("a"),
        lambda: runs.cancel("a"),
        lambda: runs.status("a"),
    ):
        with pytest.raises(RuntimeError, match=r"lifespan=store\.lifespan"):
            await ask()
    assert runs.stats().running == 0


# What is run


async def test_a_sync_generator_runs_in_threads(store: Store) -> None:
    threads: set[int] = set()

    def items(most: int) -> Iterator[int]:
        try:
            for number in range(most):
                threads.add(threading.get_ident())
                time.sleep(MS)
                yield number
        finally:
            threads.add(threading.get_ident())

    run = await Runs(store).start("a", items, 10)
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert client.data == list(range(10))
    assert end_of(client) == DONE
    assert threading.get_ident() not in threads


async def test_a_sync_generator_is_cancelled(store: Store) -> None:
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(MS)
        finally:
            closed.append(True)

    runs = Runs(store)
    run = await runs.start("a", items)
    async with subscribed(run.subscribe()) as client:
        await client.has(3)
        await runs.cancel("a")
        await client.to_end()
    assert end_of(client) == CANCELLED
    assert closed == [True]


async def test_a_method_and_a_bound_function_are_run(store: Store) -> None:
    class Model:
        async def answer(self, text: str, *, suffix: str = "") -> AsyncIterator[str]:
            yield text + suffix

    run = await Runs(store).start("a", Model().answer, "x", suffix="y")
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert client.data == ["xy"]


async def plain_coroutine() -> int:
    return 1


async def returns_a_generator() -> AsyncIterator[int]:
    return forever()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plain_coroutine, r"plain_coroutine\(\) must be a generator function"),
        (
            lambda: returns_a_generator,
            r"returns_a_generator\(\) must be .* but it returned 'coroutine'",
        ),
        (lambda: lambda: None, r"must be a generator function.*returned 'NoneType'"),
        (lambda: lambda: "text", "must be a generator function.*returned 'str'"),
        (lambda: lambda: b"bytes", "must be a generator function.*returned 'bytes'"),
        (lambda: lambda: {"a": 1}, "must be a generator function.*returned 'dict'"),
        (
            lambda: forever(),
            "needs a generator function, not 'async_generator': pass the function",
        ),
        (lambda: (n for n in [1]), "not 'generator': pass the function and its arg"),
        (lambda: None, "not 'NoneType'"),
        (lambda: [1], "not 'list'"),
    ],
)
async def test_what_is_no_generator_function(
    store: Store, make: Callable[[], Any], message: str
) -> None:
    runs = Runs(store)
    with pytest.raises(TypeError, match=message):
        await runs.start("a", make())
    assert await runs.status("a") is None
    assert (await runs.start("a", forever)).is_new


async def test_wrong_arguments_start_nothing(store: Store) -> None:
    runs = Runs(store)
    with pytest.raises(TypeError, match="count"):
        await runs.start("a", count)
    assert await runs.status("a") is None


async def test_a_run_has_the_context_of_who_has_started_it(
    store: Store,
) -> None:
    user = contextvars.ContextVar("user", default="nobody")

    async def items() -> AsyncIterator[str]:
        yield user.get()
        user.set("changed")
        yield user.get()

    def sync_items() -> Iterator[str]:
        yield user.get()

    runs = Runs(store)
    user.set("me")
    run = await runs.start("a", items)
    sync = await runs.start("b", sync_items)
    user.set("another")
    async with subscribed(run.subscribe(), sync.subscribe()) as clients:
        for client in clients:
            await client.to_end()
    assert [client.data for client in clients] == [["me", "changed"], ["me"]]
    assert user.get() == "another"


async def test_a_run_may_start_another_one_and_publish(store: Store) -> None:
    runs = Runs(store)

    async def outer() -> AsyncIterator[Any]:
        run = await runs.start("inner", count, 3)
        async for event in run.subscribe(wire="openai"):
            yield event

    run = await runs.start("outer", outer)
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert client.data == [0, 1, 2]
    assert end_of(client) == DONE


async def test_the_events_of_another_log_have_ids_that_are_refused(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs(store)

    async def outer() -> AsyncIterator[Any]:
        run = await runs.start("inner", count, 3)
        async for event in run.subscribe():
            yield event

    run = await runs.start("outer", outer)
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert end_of(client) == ("error", {"code": "failed"})
    assert "must not have an id" in caplog.text


# What is kept


async def test_a_run_expires_after_its_end(store: Store, work: Work) -> None:
    runs = Runs(store, ttl=200 * MS)
    run = await runs.start("a", work)
    await anyio.sleep(250 * MS)
    assert await runs.status("a") == "running"
    work.finish()
    async with subscribed(run.subscribe()) as client:
        await client.to_end()
    assert await runs.status("a") == "done"
    assert (await runs.response("a")).status_code == 200
    await anyio.sleep(250 * MS)
    assert await runs.status("a") is None
    assert (await runs.response("a", client.last_event_id)).status_code == 204
    assert await runs.cancel("a") is False


async def test_a_run_that_is_being_read_does_not_expire(
    store: Store, store_kind: StoreKind
) -> None:
    store_kind.needs_to_be_local("it notes its readers every few seconds")
    runs = Runs(store, ttl=200 * MS)
    run = await runs.start("a", forever)
    async with subscribed(run.subscribe(), run.subscribe()) as clients:
        clients[0].freeze()
        await runs.cancel("a")
        await clients[1].to_end()
        await anyio.sleep(250 * MS)
        assert await runs.status("a") == "cancelled"
    # It has its time from then on.
    assert await runs.status("a") == "cancelled"
    await anyio.sleep(250 * MS)
    assert await runs.status("a") is None


async def test_a_run_that_was_replaced_is_kept_as_long_as_another_one(
    store: Store, store_kind: StoreKind
) -> None:
    store_kind.needs_to_be_local("what a process has read, it keeps for some seconds")
    runs = Runs(store, ttl=400 * MS)
    first = await runs.start("a", forever)
    second = await runs.start("a", count, 1, if_running="replace")
    async with subscribed(first.subscribe(), second.subscribe()) as clients:
        for client in clients:
            await client.to_end()
    assert [end_of(client) for client in clients] == [CANCELLED, DONE]
    await anyio.sleep(700 * MS)
    async with subscribed(first.subscribe(), second.subscribe()) as clients:
        for client in clients:
            await client.to_end()
            assert client.complete
            assert client.data == []


async def test_runs_and_channels_of_a_name_are_different(store: Store) -> None:
    runs = Runs(store)
    await runs.start("a", forever)
    assert offset(await Channels(store).position("a")) == 0


async def test_stats_of_runs(store: Store, work: Work) -> None:
    runs = Runs(store)
    assert runs.stats() == (0, 0, 0, 0, {})
    first = await runs.start("a", work)
    second = await runs.start("b", forever)
    assert runs.stats() == (2, 0, 0, 0, {})
    async with subscribed(first.subscribe(), second.subscribe(), second.subscribe("7")):
        await until(lambda: runs.stats() == (2, 3, 0, 1, {"unknown": 1}))
        async with subscribed(await runs.response("a")):
            assert runs.stats().subscribers == 4
        assert runs.stats().subscribers == 3
    work.finish()
    await runs.cancel("b")
    await ended(runs, "a")
    await ended(runs, "b")
    assert runs.stats() == (0, 0, 0, 1, {"unknown": 1})


@pytest.mark.parametrize(
    "options",
    [
        *({name: 0} for name in ("ttl", "lease", "timeout")),
        *({name: -1.0} for name in ("ttl", "lease", "timeout", "shutdown_grace")),
        {"ttl": float("nan")},
        {"close_timeout": -1.0},
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ValueError, match=name):
        Runs(MemoryStore(), **options)


@pytest.mark.parametrize("ending", ["done", "failed", "cancelled", "timeout"])
def test_a_run_leaves_nothing_to_the_collector(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "fastapi_sse_fast")  # it keeps what is logged

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(MS)
        if ending == "failed":
            raise LookupError
        if ending != "done":
            await anyio.sleep_forever()

    async def main() -> None:
        async with MemoryStore() as store:
            timeout = 5 * MS if ending == "timeout" else None
            runs = Runs(store, ttl=5 * MS, timeout=timeout)
            await visit(runs)
            with nothing_for_the_collector():
                for _ in range(3):
                    await visit(runs)

    async def visit(runs: Runs) -> None:
        run = await runs.start("a", items)
        async with subscribed(run.subscribe()) as client:
            await client.has(1)
            if ending == "cancelled":
                await runs.cancel("a")
            await client.to_end()
        assert end_of(client)[1].popitem()[1] == ending
        with anyio.fail_after(TIMEOUT):
            while await runs.status("a") is not None:
                await anyio.sleep(MS)
        assert runs.stats().subscribers == 0

    anyio.run(main)
