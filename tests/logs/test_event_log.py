"""Logs by themselves: what a store does with one while it is read."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from fastapi_sse_fast import EventSourceResponse, Gap, StoreError

from ..support.apps import MS, Summaries
from ..support.internals import new_log, nothing_for_the_collector, subscription_to
from ..support.logs import Subscriber, subscribed

pytestmark = pytest.mark.anyio

EPOCH = "Ab3dE9xZ"
NEXT = "Bc3dE9xZ"


def frame(number: int) -> bytes:
    return b"data: %d\n\n" % number


def append(log: Any, *numbers: int) -> None:
    for number in numbers:
        log.append(frame(number))


def seen_by(client: Subscriber) -> list[tuple[str, Any]]:
    """Return the ids and the data of all events, and of a gap its reason and number."""
    seen: list[tuple[str, Any]] = []
    for event in client.events:
        data = json.loads(event.data)
        if event.type == "gap":
            data = data["reason"], data["requested"], data["missed"]
        seen.append((event.last_event_id, data))
    return seen


# Where readers begin


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ((NEXT, 5), (5, None, None)),
        ((NEXT, 2), (2, None, None)),
        ((NEXT, 1), (2, "trimmed", 1)),
        ((NEXT, 0), (2, "trimmed", 2)),
        ((NEXT, 6), (5, "unknown", None)),
        ((NEXT, 2**64 - 1), (5, "unknown", None)),
        (("other", 3), (2, "reset", None)),
        # The first three events are the same in an epoch before.
        ((EPOCH, 3), (3, None, None)),
        ((EPOCH, 2), (2, None, None)),
        ((EPOCH, 1), (2, "trimmed", 1)),
        ((EPOCH, 4), (3, "reset", None)),
        ((EPOCH, 9), (3, "reset", None)),
        # In another one, the first event is the same, which is not kept any more.
        (("oldest", 1), (2, "trimmed", 1)),
        (("oldest", 2), (2, "reset", None)),
    ],
)
async def test_where_a_reader_continues(
    anyio_backend: str, position: tuple[str, int], expected: Any
) -> None:
    log = new_log(NEXT, most=3, earlier=[(EPOCH, 3), ("oldest", 1)])
    append(log, 1, 2, 3, 4, 5)
    assert log.resume(*position) == expected
    assert log.earlier == [(EPOCH, 3), ("oldest", 1)]


async def test_a_log_may_continue_another_one(anyio_backend: str) -> None:
    log = new_log(top=7)
    assert (log.first, log.top, log.position()) == (8, 7, f"{EPOCH}.7")
    async with subscribed(subscription_to(log, last=f"{EPOCH}.7")) as client:
        append(log, 8)
        await client.has(1)
    assert seen_by(client) == [(f"{EPOCH}.8", 8)]


# Older events


async def test_older_events_are_put_in_front(anyio_backend: str) -> None:
    log = new_log(top=5)
    async with subscribed(subscription_to(log)) as first:
        append(log, 6, 7)
        await first.has(2)
        log.prepend([frame(4), frame(5)])
        assert (log.first, log.top) == (4, 7)
        async with subscribed(subscription_to(log, last=f"{EPOCH}.3")) as second:
            append(log, 8)
            await second.has(5)
            await first.has(3)
    assert [data for _, data in seen_by(first)] == [6, 7, 8]
    assert seen_by(second) == [(f"{EPOCH}.{n}", n) for n in (4, 5, 6, 7, 8)]


async def test_older_events_never_displace_newer_ones(anyio_backend: str) -> None:
    log = new_log(most=3, top=5)
    append(log, 6, 7)
    log.prepend([frame(3), frame(4), frame(5)])
    assert (log.first, log.top) == (5, 7)
    log.prepend([frame(4)])
    assert (log.first, log.top) == (5, 7)


async def test_there_is_nothing_in_front_of_the_first_event(anyio_backend: str) -> None:
    log = new_log(top=1)
    log.prepend([frame(-1), frame(0), frame(1)])
    assert (log.first, log.top) == (1, 1)
    async with subscribed(subscription_to(log, last=f"{EPOCH}.0")) as client:
        await client.has(1)
    assert seen_by(client) == [(f"{EPOCH}.1", 1)]


# Another epoch


async def test_readers_follow_a_log_into_another_epoch(anyio_backend: str) -> None:
    gaps: list[Gap] = []
    log = new_log()
    subscriptions = [
        subscription_to(log, names=("a",), on_gap=gaps.append) for _ in range(2)
    ]
    async with subscribed(*subscriptions) as clients:
        append(log, 1, 2)
        for client in clients:
            await client.has(2)
        log.restart(NEXT, 4)
        append(log, 5)
        for client in clients:
            await client.has(4)
            assert seen_by(client)[2:] == [
                (f"{NEXT}.4", ("reset", f"{EPOCH}.2", None)),
                (f"{NEXT}.5", 5),
            ]
    assert gaps == 2 * [Gap("reset", f"{EPOCH}.2", None, f"{NEXT}.4", ("a",))]
    assert (log.epoch, log.first, log.top) == (NEXT, 5, 5)


async def test_the_same_offset_is_another_event_in_another_epoch(
    anyio_backend: str,
) -> None:
    """What readers at a position have been sent is kept for the next one."""
    log = new_log()
    async with subscribed(subscription_to(log), subscription_to(log)) as clients:
        append(log, 1)
        for client in clients:
            await client.has(1)
        log.restart(NEXT, 0)
        append(log, 10)
        for client in clients:
            await client.has(3)
            assert seen_by(client) == [
                (f"{EPOCH}.1", 1),
                (f"{NEXT}.0", ("reset", f"{EPOCH}.1", None)),
                (f"{NEXT}.1", 10),
            ]


async def test_a_reader_that_has_nothing_to_read_follows_at_once(
    anyio_backend: str,
) -> None:
    log = new_log()
    async with subscribed(subscription_to(log)) as client:
        log.restart(NEXT, 4)
        await client.has(1)
    assert seen_by(client) == [(f"{NEXT}.4", ("reset", f"{EPOCH}.0", None))]


async def test_a_position_that_is_known_in_the_next_epoch_has_no_gap(
    anyio_backend: str,
) -> None:
    log = new_log()
    async with subscribed(subscription_to(log)) as client:
        append(log, 1, 2)
        await client.has(2)
        log.restart(NEXT, 0, earlier=[(EPOCH, 2)])
        append(log, 1, 2, 3)
        await client.has(3)
    assert seen_by(client) == [
        (f"{EPOCH}.1", 1),
        (f"{EPOCH}.2", 2),
        (f"{NEXT}.3", 3),
    ]


async def test_events_that_the_next_epoch_does_not_have_are_a_gap(
    anyio_backend: str,
) -> None:
    log = new_log()
    async with subscribed(subscription_to(log)) as client:
        append(log, 1, 2, 3)
        await client.has(3)
        log.restart(NEXT, 0, earlier=[(EPOCH, 1)])
        append(log, 1, 20)
        await client.has(5)
    # The first event is the same, and does not come twice.
    assert seen_by(client)[3:] == [
        (f"{NEXT}.1", ("reset", f"{EPOCH}.3", None)),
        (f"{NEXT}.2", 20),
    ]


async def test_events_that_are_not_kept_in_the_next_epoch_are_counted(
    anyio_backend: str,
) -> None:
    log = new_log()
    async with subscribed(subscription_to(log)) as client:
        append(log, 1)
        await client.has(1)
        log.restart(NEXT, 4, earlier=[(EPOCH, 3)])
        append(log, 5)
        await client.has(3)
    assert seen_by(client)[1:] == [
        (f"{NEXT}.4", ("overflow", f"{NEXT}.1", 3)),
        (f"{NEXT}.5", 5),
    ]


async def test_a_log_restarts_at_another_offset(anyio_backend: str) -> None:
    log = new_log()
    async with subscribed(subscription_to(log)) as client:
        append(log, 1)
        await client.has(1)
        log.restart(EPOCH, 4)
        append(log, 5)
        await client.has(3)
    assert seen_by(client)[1:] == [
        (f"{EPOCH}.4", ("overflow", f"{EPOCH}.1", 3)),
        (f"{EPOCH}.5", 5),
    ]


async def test_one_of_several_logs_restarts(anyio_backend: str) -> None:
    log, other = new_log(), new_log("other")
    async with subscribed(subscription_to(log, other)) as client:
        append(log, 1)
        append(other, 2)
        await client.has(2)
        log.restart(NEXT, 0)
        append(log, 3)
        append(other, 4)
        await client.has(5)
    ids = [id for id, _ in seen_by(client)]
    assert ids[2] == f"{NEXT}.0~other.1"
    assert ids[-1] == f"{NEXT}.1~other.2"
    assert sorted(data for _, data in seen_by(client)[3:]) == [3, 4]


async def test_a_client_that_did_not_read_gets_nothing_of_the_epoch_before(
    anyio_backend: str,
) -> None:
    log = new_log()
    subscriptions = [subscription_to(log), subscription_to(log)]
    async with subscribed(*subscriptions) as (frozen, quick):
        frozen.freeze()
        append(log, 1)
        await quick.has(1)
        await anyio.sleep(MS)  # this event is being sent
        append(log, 2)
        await quick.has(2)
        log.restart(NEXT, 0)
        append(log, 3)
        await quick.has(4)
        frozen.thaw()
        await frozen.has(3)
    assert seen_by(frozen) == [
        (f"{EPOCH}.1", 1),
        (f"{NEXT}.0", ("reset", f"{EPOCH}.1", None)),
        (f"{NEXT}.1", 3),
    ]


async def test_a_stream_may_end_when_its_log_restarts(anyio_backend: str) -> None:
    log, other = new_log(), new_log("other")
    async with subscribed(subscription_to(log, other, on_gap="close")) as client:
        log.restart(NEXT, 0)
        other.restart("again", 0)
        append(log, 1)
        await client.to_end()
    assert client.complete
    assert seen_by(client) == [
        (f"{NEXT}.0~other.0", ("reset", f"{EPOCH}.0~other.0", None))
    ]


async def test_the_rest_of_an_event_is_not_of_the_next_epoch(
    anyio_backend: str,
) -> None:
    log = new_log()
    log.append(b"data: 1\n")
    log.restart(NEXT, 0)
    append(log, 2)
    async with subscribed(subscription_to(log, last=f"{NEXT}.0")) as client:
        await client.has(1)
    assert seen_by(client) == [(f"{NEXT}.1", 2)]


# A log that fails


def response(log: Any, summaries: Summaries) -> EventSourceResponse:
    return EventSourceResponse(subscription_to(log), on_close=summaries)


async def test_a_log_that_fails_fails_its_streams(anyio_backend: str) -> None:
    log = new_log()
    summaries = Summaries()
    async with subscribed(*(response(log, summaries) for _ in range(3))) as clients:
        clients[1].freeze()
        append(log, 1)
        await clients[0].has(1)
        append(log, 2)
        await clients[0].has(2)
        log.fail(StoreError("the store is gone", 7))
        await clients[0].to_end()
        clients[1].thaw()
        for client in clients:
            await client.to_end()
            assert not client.complete
    assert [client.data for client in clients] == [[1, 2], [1], [1, 2]]
    errors: list[Any] = [client.error for client in clients]
    assert [type(error) for error in errors] == [StoreError] * 3
    assert [error.args for error in errors] == [("the store is gone", 7)] * 3
    # Each has a traceback of its own, and not that of all streams.
    assert len({id(error) for error in errors}) == 3
    assert summaries.reasons == ["error"] * 3


async def test_who_reads_a_log_that_has_failed_gets_the_error(
    anyio_backend: str,
) -> None:
    log = new_log()
    log.fail(StoreError("the store is gone"))
    async with subscribed(subscription_to(log)) as client:
        await client.to_end()
    assert isinstance(client.error, StoreError)


async def test_the_error_of_a_log_is_raised_once(anyio_backend: str) -> None:
    log = new_log()
    events = aiter(subscription_to(log))
    await anext(events)
    log.fail(StoreError("the store is gone"))
    with pytest.raises(StoreError):
        await anext(events)
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert log.readers == 0


@pytest.mark.parametrize("way", ["streamed", "iterated"])
def test_a_log_that_fails_leaves_nothing_to_the_collector(way: str) -> None:
    async def main() -> None:
        await visit()
        with nothing_for_the_collector():
            for _ in range(3):
                await visit()

    async def visit() -> None:
        log = new_log()
        subscription: Any = subscription_to(log)
        if way == "iterated":
            subscription = iterated(subscription)
        subscriber = Subscriber(EventSourceResponse(subscription))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscriber.run)
            append(log, 1)
            await subscriber.until(lambda: subscriber.chunks)
            log.fail(StoreError("the store is gone"))
            await subscriber.to_end()
        assert isinstance(subscriber.error, StoreError)
        subscriber.error = None  # which has the subscriber in its traceback: a cycle

    async def iterated(subscription: Any) -> Any:
        async for event in subscription:
            yield event

    anyio.run(main)
