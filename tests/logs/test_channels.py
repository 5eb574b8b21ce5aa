"""Channels: what their subscribers are sent, in which order, and from where on."""

from __future__ import annotations

import contextvars
import gc
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import anyio
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
    Gap,
    LastEventID,
    Runs,
    ServerSentEvent,
    StreamOptions,
    Subscription,
    encode_event,
)
from fastapi_sse_fast.stores import MemoryStore, Store

from ..support.apps import MS, Summaries
from ..support.asgi import call
from ..support.eventsource import Event, parse
from ..support.internals import nothing_for_the_collector
from ..support.logs import (
    TIMEOUT,
    Id,
    Subscriber,
    cursors,
    moved,
    offset,
    subscribed,
    until,
)
from ..support.stores import StoreKind, each_store

pytestmark = pytest.mark.anyio


async def publish(channels: Channels, name: str, *items: Any) -> list[str]:
    """Publish items, and return their ids."""
    return [await channels.publish(name, item) for item in items]


def several(*items: Any) -> EncodedEvent:
    """Return events that are published at once, so that no reader runs in between."""
    return EncodedEvent.from_bytes(b"".join(bytes(encode_event(it)) for it in items))


# Order and positions


@pytest.mark.parametrize("waits", [False, True], ids=["sends at once", "sends wait"])
async def test_events_arrive_in_the_order_of_publishing(
    store: Store, waits: bool
) -> None:
    channels = Channels(store)
    published: list[tuple[str, int]] = []

    async def publish_from(first: int) -> None:
        for number in range(first, first + 20):
            published.append((await channels.publish("a", number), number))
            await anyio.lowlevel.checkpoint()

    async with subscribed(*(channels.subscribe("a") for _ in range(3))) as clients:
        clients[1].waits = waits
        async with anyio.create_task_group() as tasks:
            for first in (0, 100, 200):
                tasks.start_soon(publish_from, first)
        for client in clients:
            events = await client.has(60)
            assert [(it.last_event_id, int(it.data)) for it in events] == published
    ids = [Id.of(id) for id, _ in published]
    assert [id.offset for id in ids] == list(range(1, 61))
    assert len({id.epoch for id in ids}) == 1


async def test_so_many_subscribers_that_they_are_served_in_several_turns(
    store: Store,
) -> None:
    channels = Channels(store)
    subscriptions = [channels.subscribe("a") for _ in range(300)]
    async with subscribed(*subscriptions) as clients:
        for number in range(3):
            await publish(channels, "a", number)
        for client in clients:
            await client.has(3)
            assert client.data == [0, 1, 2]


async def test_a_frame_is_its_id_and_what_was_published(store: Store) -> None:
    class Mention(BaseModel):
        by: str

    channels = Channels(store)
    position = await channels.position("a")
    async with subscribed(channels.subscribe("a", position)) as client:
        await publish(
            channels,
            "a",
            {"n": 1},
            Mention(by="Ä"),
            ServerSentEvent(event="mention", data=[1], retry=5, comment="c"),
            EncodedEvent(raw_data="two\nlines"),
        )
        await client.has(4)
    frames = [
        "",
        'data: {"n": 1}\n',
        'data: {"by": "\\u00c4"}\n',
        ": c\nevent: mention\ndata: [1]\nretry: 5\n",
        "data: two\ndata: lines\n",
    ]
    assert client.body.decode() == "".join(
        f"id: {moved(position, by)}\n{frame}\n" for by, frame in enumerate(frames)
    )


async def test_json_is_spelled_as_the_channels_say(store: Store) -> None:
    channels = Channels(store, json="compact")
    async with subscribed(channels.subscribe("a")) as client:
        await publish(channels, "a", {"n": [1, 2]})
        [event] = await client.has(1)
    assert event.data == '{"n":[1,2]}'


async def test_a_subscription_begins_with_its_position(store: Store) -> None:
    channels = Channels(store)
    await publish(channels, "a", 1, 2)
    position = await channels.position("a")
    async with subscribed(channels.subscribe("a")) as client:
        assert client.body == f"id: {position}\n\n".encode()
        assert client.events == []
        assert client.last_event_id == position


async def test_a_subscriber_begins_with_the_next_event(store: Store) -> None:
    channels = Channels(store)
    await publish(channels, "a", 1, 2)
    async with subscribed(channels.subscribe("a")) as client:
        await publish(channels, "a", 3)
        await client.has(1)
    assert client.data == [3]


async def test_a_line_that_drops_before_the_first_event_resumes(
    store: Store,
) -> None:
    channels = Channels(store)
    await publish(channels, "a", 1)
    async with subscribed(channels.subscribe("a")) as client:
        pass
    await publish(channels, "a", 2)
    async with subscribed(channels.subscribe("a", client.last_event_id)) as client:
        await client.has(1)
    assert client.data == [2]


@pytest.mark.parametrize("seen", range(6))
async def test_a_subscriber_resumes_behind_its_last_event(
    store: Store, seen: int
) -> None:
    channels = Channels(store)
    ids = await publish(channels, "a", 1, 2, 3, 4, 5)
    last = moved(ids[0], seen - 1)
    async with subscribed(channels.subscribe("a", last)) as client:
        await publish(channels, "a", 6)
        await client.has(6 - seen)
    assert client.body.startswith(f"id: {last}\n\n".encode())
    assert client.data == list(range(seen + 1, 7))
    assert client.gaps == []


async def test_a_subscription_from_the_position_of_a_page_misses_nothing(
    store: Store,
) -> None:
    channels = Channels(store)
    position = await channels.position("a")
    assert offset(position) == 0
    ids = await publish(channels, "a", 1, 2)
    assert ids == [moved(position, 1), moved(position, 2)]
    assert await channels.position("a") == ids[1]
    async with subscribed(channels.subscribe("a", position)) as client:
        await client.has(2)
    assert client.data == [1, 2]


async def test_channels_do_not_hear_of_each_other(store: Store) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("a"), channels.subscribe("b")) as clients:
        await publish(channels, "a", 1)
        await publish(channels, "b", 2)
        for client in clients:
            await client.has(1)
    assert [client.data for client in clients] == [[1], [2]]
    assert len({Id.of(client.last_event_id).epoch for client in clients}) == 2


async def test_several_channels_on_one_store_share_the_names(
    store: Store,
) -> None:
    async with subscribed(Channels(store).subscribe("a")) as client:
        await publish(Channels(store), "a", 1)
        await client.has(1)
    assert client.data == [1]


# Several channels in one stream


def parts(id: str) -> list[Id]:
    return [Id.of(part) for part in id.split("~")]


async def test_a_stream_of_several_channels_has_ids_of_all(store: Store) -> None:
    channels = Channels(store)
    epochs = [Id.of(await channels.position(name)).epoch for name in "abc"]
    async with subscribed(channels.subscribe(["c", "a", "b"])) as client:
        assert [part.epoch for part in parts(client.last_event_id)] == epochs
        for name in "abcabcaab":
            await publish(channels, name, name)
        events = await client.has(9)
    # The parts are those of the sorted names. Each event moves one of them by one.
    previous = [0, 0, 0]
    for event in events:
        offsets = [part.offset for part in parts(event.last_event_id)]
        moves = [now - before for now, before in zip(offsets, previous, strict=True)]
        assert sorted(moves) == [0, 0, 1]
        assert "abc"[moves.index(1)] == json.loads(event.data)
        previous = offsets
    assert previous == [4, 3, 2]


async def test_a_stream_of_several_channels_resumes_anywhere(
    store: Store,
) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("ab")) as client:
        start = client.last_event_id
    async with subscribed(channels.subscribe(["a", "b"])) as client:
        start = client.last_event_id
        for number in range(20):
            await publish(channels, "ab"[number % 3 == 0], number)
        await client.has(20)
    of_a = [number for number in range(20) if number % 3]
    of_b = [number for number in range(20) if number % 3 == 0]

    for seen, last in enumerate([start, *client.ids]):
        again = channels.subscribe(["b", "a"], last)
        async with subscribed(again) as other:
            await other.has(20 - seen)
        data = client.data[:seen] + other.data
        assert [number for number in data if number % 3] == of_a
        assert [number for number in data if number % 3 == 0] == of_b
        assert other.gaps == []


async def test_a_busy_channel_does_not_keep_another_one_waiting(
    store: Store,
) -> None:
    channels = Channels(store)
    a, b = await channels.position("a"), await channels.position("b")
    await publish(channels, "a", *range(1000))
    await publish(channels, "b", "b")
    subscription = channels.subscribe(["a", "b"], f"{a}~{b}")
    response = EventSourceResponse(subscription, max_pending=100)
    async with subscribed(response) as client:
        await client.has(1001)
    assert client.data.index("b") < 100


async def test_up_to_eight_channels_are_one_stream(store: Store) -> None:
    channels = Channels(store)
    names = [str(number) for number in range(8)]
    async with subscribed(channels.subscribe(names)) as client:
        for name in names:
            await publish(channels, name, name)
        await client.has(8)
    assert client.data == names
    with pytest.raises(ValueError, match="1 to 8 different channels"):
        channels.subscribe([*names, "8"])


# Publishing


async def test_a_retry_with_the_same_key_publishes_nothing(store: Store) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("a")) as client:
        first = await channels.publish("a", 1, dedupe="k")
        second = await channels.publish("a", 2, dedupe="l")
        assert await channels.publish("a", 1, dedupe="k") == first
        assert await channels.publish("a", "another", dedupe="k") == first
        assert await channels.publish("a", 1) == moved(second, 1)
        await client.has(3)
    assert client.data == [1, 2, 1]


async def test_keys_are_those_of_a_channel(store: Store) -> None:
    channels = Channels(store)
    for name in "ab":
        await channels.position(name)
    ids = [await channels.publish(name, 1, dedupe="k") for name in "ab"]
    assert Id.of(ids[0]).epoch != Id.of(ids[1]).epoch
    assert [offset(id) for id in ids] == [1, 1]


async def test_as_many_keys_as_events_are_known(store: Store) -> None:
    channels = Channels(store, history=3)
    ids = [await channels.publish("a", n, dedupe=str(n)) for n in range(4)]
    for number in (3, 2, 1):
        assert await channels.publish("a", 0, dedupe=str(number)) == ids[number]
    assert await channels.publish("a", 0, dedupe="0") == moved(ids[3], 1)


async def test_a_key_of_what_cannot_be_published_is_free(store: Store) -> None:
    channels = Channels(store)
    with pytest.raises(ValueError, match="id"):
        await channels.publish("a", ServerSentEvent(data=1, id="1"), dedupe="k")
    assert offset(await channels.publish("a", 1, dedupe="k")) == 1


WITH_ID: dict[str, Callable[[], Any]] = {
    "ServerSentEvent": lambda: ServerSentEvent(data=1, id="7"),
    "empty": lambda: ServerSentEvent(data=1, id=""),
    "EncodedEvent": lambda: EncodedEvent(data=1, id="7"),
    "only an id": lambda: EncodedEvent(id="7"),
    **{
        f"bytes {frames!r}": lambda frames=frames: EncodedEvent.from_bytes(frames)  # type: ignore[misc]
        for frames in (
            b"id: 7\ndata: 1\n\n",
            b"id\n\n",
            b"data: 1\nid:7\n\n",
            b"data: 1\r\nid: 7\r\n\r\n",
            b"data: 1\rid: 7\r\r",
            b"data: 1\r\n\r\nid: 7\r\n\r\n",
            b"data: 1\n\n\n\r\r\nid\r\n\r\n",
            b": 1\rid\r\r",
        )
    },
}


@pytest.mark.parametrize("make", WITH_ID.values(), ids=WITH_ID.keys())
async def test_an_event_that_has_an_id_is_refused(
    store: Store, make: Callable[[], Any]
) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("a")) as client:
        before = await channels.position("a")
        with pytest.raises(ValueError, match="must not have an id"):
            await channels.publish("a", make())
        assert await channels.position("a") == before
        await publish(channels, "a", 1)
        await client.has(1)
    assert (
        client.body == f"id: {before}\n\nid: {moved(before, 1)}\ndata: 1\n\n".encode()
    )


@pytest.mark.parametrize(
    "frame",
    [b"idle: 7\n\n", b"data: id: 7\n\n", b": id\n\n", b" id: 7\n\n", b"ID: 7\n\n"],
)
async def test_what_is_no_id_is_published(store: Store, frame: bytes) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("a")) as client:
        await publish(channels, "a", EncodedEvent.from_bytes(frame))
        await client.until(lambda: client.body.endswith(frame))


def circle() -> Any:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    "item", [object(), [1, object()], circle()], ids=["object", "list", "circle"]
)
async def test_what_cannot_be_encoded_is_not_published(store: Store, item: Any) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("a")) as client:
        before = await channels.position("a")
        with pytest.raises((ValueError, TypeError, RecursionError)):
            await channels.publish("a", item)
        assert await channels.position("a") == before
        await publish(channels, "a", 1)
        await client.has(1)
    assert client.data == [1]


@pytest.mark.parametrize("name", [None, 7, b"a", ("a",)])
async def test_the_name_of_a_channel_is_a_str(store: Store, name: Any) -> None:
    channels = Channels(store)
    with pytest.raises(TypeError, match="must be a str"):
        await channels.publish(name, 1)


@pytest.mark.parametrize("names", [None, 7, [7], ["a", 7], [None, "a"]])
async def test_the_names_of_a_subscription_are_strs(store: Store, names: Any) -> None:
    channels = Channels(store)
    with pytest.raises(TypeError, match="must be a str"):
        channels.subscribe(names)
    with pytest.raises(TypeError, match="must be a str"):
        await channels.position(names)


@pytest.mark.parametrize("names", [[], ["a", "a"], ["b", "a", "b"]])
async def test_a_subscription_is_of_different_channels(
    store: Store, names: Any
) -> None:
    with pytest.raises(ValueError, match="different channels"):
        Channels(store).subscribe(names)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "ä", "a" * 10_000, "{}", "a~b.1"])
async def test_any_text_is_a_name(store: Store, name: str) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe(name)) as client:
        await publish(channels, name, 1)
        [event] = await client.has(1)
    Id.of(event.last_event_id)


async def test_each_of_several_events_at_once_has_its_position(
    store: Store,
) -> None:
    channels = Channels(store)
    start = await channels.position("a")
    several = EncodedEvent.from_bytes(
        b"data: 1\n\ndata: 2\r\ndata: 2\r\n\r\n\n\n: 3\n\nevent: x\rdata: 4\r\r"
    )
    [last] = await publish(channels, "a", several)
    assert last == moved(start, 4)
    ids = [moved(start, by) for by in range(5)]
    async with subscribed(channels.subscribe("a", start)) as client:
        events = await client.has(3)
    assert events == [
        Event("1", "message", ids[1]),
        Event("2\n2", "message", ids[2]),
        Event("4", "x", ids[4]),
    ]
    # The comment has one too: a browser keeps it, and dispatches nothing.
    for seen, expected in [(1, 2), (2, 1), (3, 1), (4, 0)]:
        async with subscribed(channels.subscribe("a", ids[seen])) as client:
            await client.has(expected)
        assert len(client.events) == expected


@pytest.mark.parametrize("names", ["a", ["a", "b"]])
async def test_large_events_arrive_whole(store: Store, names: Any) -> None:
    channels = Channels(store)
    items = ["x" * 400_000, "small", "ä" * 230_000]
    async with subscribed(channels.subscribe(names)) as client:
        await publish(channels, "a", *items)
        await client.has(len(items))
    assert client.data == items
    assert max(map(len, client.chunks)) <= 400_000


async def test_a_publisher_does_not_wait_for_a_subscriber(store: Store) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("a"), channels.subscribe("a")) as clients:
        frozen, quick = clients
        frozen.freeze()
        for number in range(100):
            with anyio.fail_after(TIMEOUT):
                await channels.publish("a", [number, "x" * 100])
            await quick.has(number + 1)
        assert len(frozen.events) == 0
        frozen.thaw()
        await frozen.has(100)
    assert frozen.events == quick.events


# Gaps


def gap_of(client: Subscriber) -> dict[str, Any]:
    [gap] = client.gaps
    return gap


async def test_a_cursor_that_the_history_does_not_reach(store: Store) -> None:
    channels = Channels(store, history=3)
    ids = await publish(channels, "a", 1, 2, 3, 4, 5)
    async with subscribed(channels.subscribe("a", ids[0])) as client:
        await client.has(4)
    assert client.body.startswith(b"event: gap\n")
    assert gap_of(client) == {
        "reason": "trimmed",
        "requested": ids[0],
        "missed": 1,
        "id": ids[1],
    }
    assert client.data == [3, 4, 5]
    # It is the last one that is not kept: from the one before, nothing is missing.
    async with subscribed(channels.subscribe("a", ids[1])) as client:
        await client.has(3)
    assert client.gaps == []


async def test_a_cursor_of_another_life_of_the_channel(store: Store) -> None:
    channels = Channels(store)
    ids = await publish(channels, "a", 1, 2)
    async with subscribed(channels.subscribe("a", "Ab3dE9xZ.1")) as client:
        await client.has(3)
    assert gap_of(client) == {
        "reason": "reset",
        "requested": "Ab3dE9xZ.1",
        "missed": None,
        "id": moved(ids[0], -1),
    }
    assert client.data == [1, 2]


@pytest.mark.parametrize(
    "text",
    ["7", "", "a.01", "a.-1", "a.1.2", "a.1~a.1", "a" * 33 + ".1", "ä.1", "{}.99"],
)
async def test_a_cursor_that_is_none_of_the_channel(store: Store, text: str) -> None:
    channels = Channels(store)
    ids = await publish(channels, "a", 1, 2)
    last = text.format(Id.of(ids[0]).epoch)
    async with subscribed(channels.subscribe("a", last)) as client:
        await publish(channels, "a", 3)
        await client.has(2)
    assert gap_of(client) == {
        "reason": "unknown",
        "requested": last,
        "missed": None,
        "id": ids[1],
    }
    assert client.data == [3]


async def test_a_client_that_does_not_read_is_told_what_it_has_missed(
    store: Store,
) -> None:
    channels = Channels(store, history=3)
    ids: list[str] = []
    async with subscribed(channels.subscribe("a")) as client:
        ids += await publish(channels, "a", 1)
        await client.has(1)
        client.freeze()
        ids += await publish(channels, "a", 2)
        await until(lambda: client.is_blocked)  # this one is being sent
        ids += await publish(channels, "a", 3, 4, 5, 6, 7, 8)
        await until(lambda: channels.stats().lag == 6)
        client.thaw()
        await client.has(6)
    assert gap_of(client) == {
        "reason": "overflow",
        "requested": ids[1],
        "missed": 3,
        "id": ids[4],
    }
    assert client.ids == [*ids[:2], *ids[4:]]
    assert client.data == [1, 2, 6, 7, 8]
    assert channels.stats().gaps == {"overflow": 1}


async def test_a_gap_in_one_of_several_channels(store: Store) -> None:
    channels = Channels(store, history=3)
    [a] = await publish(channels, "a", "a")
    ids = await publish(channels, "b", 1, 2, 3, 4, 5)
    last = f"{moved(a, -1)}~{ids[0]}"
    async with subscribed(channels.subscribe(["a", "b"], last)) as client:
        await client.has(5)
    assert gap_of(client) == {
        "reason": "trimmed",
        "requested": last,
        "missed": 1,
        "id": f"{moved(a, -1)}~{ids[1]}",
    }
    assert sorted(map(str, client.data)) == ["3", "4", "5", "a"]


async def test_a_gap_says_in_which_channels_it_may_be(store: Store) -> None:
    gaps: list[Gap] = []
    channels = Channels(store, history=3, on_gap=gaps.append)
    async with subscribed(channels.subscribe(["b", "c", "a"], "7")) as client:
        await publish(channels, "b", several(*range(5)))
        await client.until(lambda: len(client.gaps) == 2)
    assert [gap.reason for gap in gaps] == ["unknown", "overflow"]
    assert [gap.names for gap in gaps] == 2 * [("a", "b", "c")]
    # The positions before and after it show where it is.
    before, after = parts(gaps[1].requested), parts(gaps[1].position)
    assert [
        now.offset - then.offset for then, now in zip(before, after, strict=True)
    ] == [
        0,
        2,
        0,
    ]


async def test_an_overflow_of_one_of_several_channels(
    store: Store, store_kind: StoreKind
) -> None:
    store_kind.needs_to_be_local("events arrive later than they are published")
    channels = Channels(store, history=3)
    async with subscribed(channels.subscribe(["a", "b"])) as client:
        a, b = client.last_event_id.split("~")
        client.freeze()
        await publish(channels, "a", "a")
        await until(lambda: client.is_blocked)
        await publish(channels, "b", *range(1, 8))
        client.thaw()
        await client.has(5)
    assert gap_of(client) == {
        "reason": "overflow",
        "requested": f"{moved(a, 1)}~{b}",
        "missed": 4,
        "id": f"{moved(a, 1)}~{moved(b, 4)}",
    }
    assert client.data == ["a", 5, 6, 7]


async def test_a_cursor_of_another_number_of_channels(store: Store) -> None:
    channels = Channels(store)
    [a] = await publish(channels, "a", 1)
    [b] = await publish(channels, "b", 2)
    for names, last in [("a", f"{a}~{b}"), (["a", "b"], a)]:
        async with subscribed(channels.subscribe(names, last)) as client:
            await client.has(1)
        gap = gap_of(client)
        assert (gap["reason"], gap["missed"]) == ("unknown", None)
        assert client.data == []


async def test_of_two_gaps_the_sum_is_told_if_it_is_known(store: Store) -> None:
    channels = Channels(store, history=2)
    a = await publish(channels, "a", *range(5))
    b = await publish(channels, "b", *range(9))
    async with subscribed(
        channels.subscribe(["a", "b"], f"{a[0]}~{b[0]}"),
        channels.subscribe(["a", "b"], f"{a[0]}~Ab3dE9xZ.1"),
    ) as clients:
        gaps = []
        for client in clients:
            await client.has(5)
            gaps.append(gap_of(client))
    assert [(gap["reason"], gap["missed"]) for gap in gaps] == [
        ("trimmed", 2 + 6),
        ("trimmed", None),
    ]


@pytest.mark.parametrize("on_gap", ["resume", "close"])
@pytest.mark.parametrize("last", ["trimmed", "Ab3dE9xZ.1", "7", "ahead"])
async def test_reconnecting_with_the_id_of_a_gap_does_not_loop(
    store: Store, last: str, on_gap: Any
) -> None:
    channels = Channels(store, history=3, on_gap=on_gap)
    ids = await publish(channels, "a", *range(1, 6))
    last = {"trimmed": ids[0], "ahead": moved(ids[0], 99)}.get(last, last)
    async with subscribed(channels.subscribe("a", last)) as client:
        await client.until(lambda: client.gaps)
    gap = gap_of(client)
    seen = client.data
    async with subscribed(channels.subscribe("a", client.last_event_id)) as client:
        await publish(channels, "a", 6)
        await client.until(lambda: 6 in client.data)
    assert seen + client.data == list(range(offset(gap["id"]) + 1, 7))
    assert client.gaps == []


async def test_a_stream_can_be_closed_at_a_gap(store: Store) -> None:
    channels = Channels(store, history=3, on_gap="close")
    ids = await publish(channels, "a", 1, 2, 3, 4, 5)
    async with subscribed(channels.subscribe("a", ids[0])) as client:
        await client.to_end()
    assert client.complete
    assert [event.type for event in client.events] == ["gap"]
    assert client.last_event_id == ids[1]


async def test_a_stream_can_be_closed_at_an_overflow(
    store: Store, store_kind: StoreKind
) -> None:
    store_kind.needs_to_be_local("events arrive later than they are published")
    channels = Channels(store, history=3, on_gap="close")
    async with subscribed(channels.subscribe("a")) as client:
        client.freeze()
        await publish(channels, "a", 1)
        await until(lambda: client.is_blocked)
        ids = await publish(channels, "a", 2, 3, 4, 5, 6)
        client.thaw()
        await client.to_end()
    assert client.complete
    assert client.data == [1]
    assert gap_of(client)["id"] == client.last_event_id == ids[1]


async def test_a_function_makes_a_snapshot_for_who_has_missed_something(
    store: Store,
) -> None:
    gaps: list[Gap] = []

    def snapshot(gap: Gap) -> ServerSentEvent:
        gaps.append(gap)
        return ServerSentEvent(event="snapshot", data={"so": "far"})

    channels = Channels(store, history=3, on_gap=snapshot)
    ids = await publish(channels, "a", 1, 2, 3, 4, 5)
    async with subscribed(channels.subscribe("a", ids[0])) as client:
        await client.has(5)
    assert [event.type for event in client.events] == [
        "gap",
        "snapshot",
        *["message"] * 3,
    ]
    assert client.ids == [ids[1], ids[1], *ids[2:]]
    assert gaps == [Gap("trimmed", ids[0], 1, ids[1], ("a",))]


async def test_a_function_may_have_no_snapshot(store: Store) -> None:
    channels = Channels(store, history=3, on_gap=lambda gap: None)
    ids = await publish(channels, "a", 1, 2, 3, 4, 5)
    async with subscribed(channels.subscribe("a", ids[0])) as client:
        await client.has(4)
    assert client.data == [3, 4, 5]


async def test_a_snapshot_is_spelled_as_the_channels_say(store: Store) -> None:
    channels = Channels(
        store, json="compact", on_gap=lambda gap: ServerSentEvent(data={"so": "far"})
    )
    async with subscribed(channels.subscribe("a", "7")) as client:
        await client.has(2)
    assert client.events[1].data == '{"so":"far"}'


def failing(gap: Gap) -> ServerSentEvent:
    raise LookupError(gap.reason)


@pytest.mark.parametrize(
    ("on_gap", "error"),
    [
        (failing, LookupError),
        (lambda gap: ServerSentEvent(data=1, id="7"), ValueError),
        (lambda gap: EncodedEvent.from_bytes(b"data: 1\r\nid\r\n\r\n"), ValueError),
        (lambda gap: object(), ValueError),
    ],
    ids=["raises", "id", "id in bytes", "not encodable"],
)
async def test_a_snapshot_that_fails_fails_its_stream_alone(
    store: Store, on_gap: Any, error: type[Exception]
) -> None:
    channels = Channels(store, history=3, on_gap=on_gap)
    summaries = Summaries()

    def response(last: str | None = None) -> EventSourceResponse:
        subscription = channels.subscribe("a", last)
        return EventSourceResponse(subscription, on_close=summaries)

    # Before anything is sent, it can still become a response.
    async with subscribed(response("7")) as client:
        await client.to_end()
    assert isinstance(client.error, error)
    assert client.status is None

    async with subscribed(response(), response(), response()) as clients:
        slow = clients[1]
        await publish(channels, "a", 1)
        await slow.has(1)
        slow.freeze()
        await publish(channels, "a", 2)
        await until(lambda: slow.is_blocked)
        for number in range(3, 9):
            await publish(channels, "a", number)
            await clients[0].has(number)
            await clients[2].has(number)
        slow.thaw()
        await slow.to_end()
        assert isinstance(slow.error, error)
        assert not slow.complete
        assert slow.data == [1, 2]
        assert summaries.reasons == ["error"]
        for client in (clients[0], clients[2]):
            await publish(channels, "a", "more")
            await client.until(lambda it=client: "more" in it.data)


async def test_a_snapshot_that_fails_in_a_delivery_fails_its_stream_alone(
    store: Store,
) -> None:
    """Several events at once overtake a subscriber that reads."""
    channels = Channels(store, history=3, on_gap=failing)
    others = Channels(store, history=3)
    async with subscribed(
        others.subscribe("a"), channels.subscribe("a"), others.subscribe("a")
    ) as clients:
        failed = clients.pop(1)
        await publish(channels, "a", several(*range(5)))
        await failed.to_end()
        assert isinstance(failed.error, LookupError)
        assert not failed.complete
        await publish(channels, "a", 5)
        for client in clients:
            await client.until(lambda it=client: 5 in it.data)
            assert client.data == [2, 3, 4, 5]


# A function that is async


async def test_a_snapshot_may_be_awaited_before_the_first_event(store: Store) -> None:
    async def snapshot(gap: Gap) -> ServerSentEvent:
        await anyio.sleep(MS)
        return ServerSentEvent(event="snapshot", data=gap.missed)

    channels = Channels(store, history=3, on_gap=snapshot)
    ids = await publish(channels, "a", 1, 2, 3, 4, 5)
    async with subscribed(channels.subscribe("a", ids[0])) as client:
        await client.has(5)
    assert [event.data for event in client.events[1:]] == ["1", "3", "4", "5"]
    assert client.ids == [ids[1], ids[1], *ids[2:]]


async def test_a_snapshot_may_be_awaited_in_the_middle_of_a_stream(
    store: Store,
) -> None:
    """The reader waits for it, and everything else goes on."""
    gaps: list[Gap] = []
    ready = anyio.Event()

    async def snapshot(gap: Gap) -> ServerSentEvent:
        gaps.append(gap)
        await ready.wait()
        return ServerSentEvent(event="snapshot", data="so far")

    channels = Channels(store, history=3, on_gap=snapshot)
    others = Channels(store, history=3)
    async with subscribed(channels.subscribe("a"), others.subscribe("a")) as clients:
        client, other = clients
        await publish(channels, "a", 0)
        await client.has(1)
        client.freeze()
        ids = await publish(channels, "a", 1)
        await until(lambda: client.is_blocked)
        for number in range(2, 8):
            ids += await publish(channels, "a", number)
            await other.has(number + 1)
        client.thaw()
        await until(lambda: gaps)
        ids += await publish(channels, "a", 8)
        await other.has(9)
        await anyio.sleep(5 * MS)
        assert client.data == [0, 1]
        assert client.gaps == []
        ready.set()
        await client.until(lambda: client.data[-1:] == [8])
    assert [event.type for event in client.events[2:4]] == ["gap", "snapshot"]
    # While it waited, another event was dropped. Each gap has a snapshot.
    assert [(gap.reason, gap.missed) for gap in gaps] == [
        ("overflow", 3),
        ("overflow", 1),
    ]
    assert [(gap["requested"], gap["id"]) for gap in client.gaps] == [
        (ids[0], ids[3]),
        (ids[3], ids[4]),
    ]
    assert client.data == [0, 1, "so far", "so far", 6, 7, 8]
    assert client.empty == 0
    assert gaps[0].names == ("a",)


async def test_an_awaited_snapshot_may_be_none(store: Store) -> None:
    async def nothing(gap: Gap) -> None:
        await anyio.sleep(MS)

    channels = Channels(store, history=3, on_gap=nothing)
    async with subscribed(channels.subscribe("a", "7")) as client:
        await publish(channels, "a", several(*range(5)))
        await client.has(5)
    assert [gap["reason"] for gap in client.gaps] == ["unknown", "overflow"]
    assert client.data == [2, 3, 4]


async def failing_later(gap: Gap) -> ServerSentEvent:
    await anyio.sleep(MS)
    raise LookupError(gap.reason)


async def with_an_id(gap: Gap) -> ServerSentEvent:
    return ServerSentEvent(data=1, id="7")


@pytest.mark.parametrize(
    ("on_gap", "error"), [(failing_later, LookupError), (with_an_id, ValueError)]
)
async def test_an_awaited_snapshot_that_fails_fails_its_stream_alone(
    store: Store, on_gap: Any, error: type[Exception]
) -> None:
    channels = Channels(store, history=3, on_gap=on_gap)
    others = Channels(store, history=3)
    async with subscribed(channels.subscribe("a", "7")) as client:
        await client.to_end()
    assert isinstance(client.error, error)
    assert client.status is None  # it could still have been an error response
    async with subscribed(channels.subscribe("a"), others.subscribe("a")) as clients:
        failed, other = clients
        await publish(channels, "a", several(*range(5)))
        await failed.to_end()
        assert isinstance(failed.error, error)
        assert not failed.complete
        await publish(channels, "a", 5)
        await other.until(lambda: 5 in other.data)
    assert channels.stats().subscribers == 0


async def test_a_stream_that_waits_for_a_snapshot_ends_with_the_store(
    anyio_backend: str, new_store: Callable[[], Store]
) -> None:
    log: list[str] = []

    async def endless(gap: Gap) -> None:
        log.append("begun")
        try:
            await anyio.sleep_forever()
        finally:
            log.append("cancelled")

    store = new_store()
    channels = Channels(store, history=3, on_gap=endless)
    client = Subscriber(EventSourceResponse(channels.subscribe("a")))
    async with anyio.create_task_group() as tasks:
        async with store:
            tasks.start_soon(client.run)
            await until(lambda: client.chunks)
            await publish(channels, "a", several(*range(5)))
            await until(lambda: log)
        await client.to_end()
    assert log == ["begun", "cancelled"]
    assert client.complete
    # The gap is reported to the client when it reconnects.
    assert client.events == []


async def test_a_gap_that_is_met_after_the_store_has_closed(
    anyio_backend: str, new_store: Callable[[], Store]
) -> None:
    async def never(gap: Gap) -> None:
        raise AssertionError

    store = new_store()
    channels = Channels(store, history=3, on_gap=never)
    client = Subscriber(EventSourceResponse(channels.subscribe("a")))
    async with anyio.create_task_group() as tasks:
        async with store:
            tasks.start_soon(client.run)
            await until(lambda: client.chunks)
            client.freeze()
            await publish(channels, "a", 1)
            await anyio.sleep(5 * MS)
            await publish(channels, "a", *range(2, 9))
        client.thaw()
        await client.to_end()
    assert client.data[:1] == [1]
    assert not client.complete or client.data == [1]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_gap_is_reported_in_the_context_of_the_subscriber(
    store: Store, is_async: bool
) -> None:
    user = contextvars.ContextVar("user", default="nobody")

    def snapshot(gap: Gap) -> ServerSentEvent:
        return ServerSentEvent(data=user.get())

    async def async_snapshot(gap: Gap) -> ServerSentEvent:
        await anyio.lowlevel.checkpoint()
        return ServerSentEvent(data=user.get())

    on_gap: Any = async_snapshot if is_async else snapshot
    channels = Channels(store, history=3, on_gap=on_gap)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        user.set("subscriber")
        response = EventSourceResponse(channels.subscribe("a", "7"))
        await response(scope, receive, send)

    async with subscribed(app) as client:
        user.set("publisher")
        await publish(channels, "a", several(*range(5)))
        await client.has(6)
    assert [data for data in client.data if isinstance(data, str)] == 2 * ["subscriber"]


# A publisher that waits for nothing else


@pytest.mark.parametrize("history", [1, 2, 10])
@pytest.mark.parametrize("way", ["streamed", "sends wait", "iterated"])
async def test_a_publisher_does_not_overtake_who_reads(
    store: Store, store_kind: StoreKind, history: int, way: str
) -> None:
    if history == 1:
        store_kind.needs_to_be_local("several events arrive together")
    channels = Channels(store, history=history)
    app: Any = channels.subscribe("a")
    if way == "iterated":
        app = EventSourceResponse(iterated(app))
    async with subscribed(app) as client:
        client.waits = way == "sends wait"
        for number in range(300):
            await channels.publish("a", number)
        await client.until(lambda: client.data[-1:] == [299])
    assert client.gaps == []
    assert client.data == list(range(300))


async def iterated(subscription: Subscription) -> AsyncIterator[EncodedEvent]:
    async for event in subscription:
        yield event


async def test_publishers_at_the_same_time_do_not_keep_each_other_waiting(
    store: Store,
) -> None:
    """Each waits for the readers of what it has published, however much follows."""
    channels = Channels(store, history=2)
    published = 0

    async def publish_for_ever() -> None:
        while True:
            await channels.publish("a", 0)
            await anyio.lowlevel.checkpoint()

    async with subscribed(*(channels.subscribe("a") for _ in range(20))):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(publish_for_ever)
            with anyio.fail_after(TIMEOUT):
                for _ in range(100):
                    await channels.publish("a", 1)
                    published += 1
            tasks.cancel_scope.cancel()
    assert published == 100


async def test_a_gap_repeats_no_more_than_a_little_of_a_cursor(
    store: Store,
) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("a", "x" * 100_000)) as client:
        await client.has(1)
    assert gap_of(client)["requested"] == "x" * 200


# The stream


async def test_a_subscription_has_the_options_of_a_stream(store: Store) -> None:
    channels = Channels(store)
    summaries = Summaries()
    options = StreamOptions(
        retry=3000,
        ping_interval=20 * MS,
        max_duration=300 * MS,
        farewell=ServerSentEvent(event="bye", data=None),
        on_close=summaries,
    )
    response = EventSourceResponse(channels.subscribe("a"), options=options)
    async with subscribed(response) as client:
        await publish(channels, "a", 1, 2)
        await client.to_end()
    assert client.body.startswith(b"retry: 3000\nid: ")
    assert b": ping\n\n" in client.body
    assert client.body.endswith(b"event: bye\n\n")
    assert client.complete
    assert client.data == [1, 2]
    [summary] = summaries
    assert (summary.reason, summary.events) == ("max_duration", 2)
    assert summary.bytes == len(client.body)
    assert summary.seconds_to_first_event is not None


async def test_head_is_answered_without_a_subscription(store: Store) -> None:
    channels = Channels(store)
    reply = await call(EventSourceResponse(channels.subscribe("a")), method="HEAD")
    assert (reply.status, reply.body, reply.complete) == (200, b"", True)
    assert channels.stats() == (0, 0, 0, 0, {})


async def test_a_gap_behind_the_line_of_retry(store: Store) -> None:
    channels = Channels(store)
    response = EventSourceResponse(channels.subscribe("a", "7"), retry=3000)
    async with subscribed(response) as client:
        await client.has(1)
    assert gap_of(client)["reason"] == "unknown"
    assert parse(client.body).reconnection_time == 3000


async def test_a_client_that_takes_nothing_is_dropped_in_the_end(
    store: Store,
) -> None:
    channels = Channels(store)
    summaries = Summaries()
    response = EventSourceResponse(
        channels.subscribe("a"), send_timeout=30 * MS, on_close=summaries
    )
    async with subscribed(response) as client:
        client.freeze()
        await publish(channels, "a", 1)
        await client.to_end()
        assert channels.stats().subscribers == 0
    assert summaries.reasons == ["send_timeout"]


async def test_a_subscription_is_iterated_in_a_generator(store: Store) -> None:
    channels = Channels(store)
    app = FastAPI()

    @app.get("/", response_class=EventSourceResponse)
    async def odd(last: LastEventID) -> AsyncIterator[EncodedEvent]:
        async for event in channels.subscribe("a", last):
            if b"data: 2" not in bytes(event):
                yield event

    async with subscribed(app) as client:
        ids = await publish(channels, "a", 1, 2, 3)
        await client.has(2)
    assert client.data == [1, 3]
    assert client.ids == [ids[0], ids[2]]
    await until(lambda: channels.stats().subscribers == 0)


async def test_what_is_iterated_is_event_by_event(store: Store) -> None:
    channels = Channels(store)
    ids = await publish(channels, "a", 1, 2)
    events = aiter(channels.subscribe("a", moved(ids[0], -1)))
    frames = [bytes(await anext(events)) for _ in range(3)]
    assert frames == [
        f"id: {moved(ids[0], -1)}\n\n".encode(),
        f"id: {ids[0]}\ndata: 1\n\n".encode(),
        f"id: {ids[1]}\ndata: 2\n\n".encode(),
    ]
    await events.aclose()  # type: ignore[attr-defined]
    assert channels.stats().subscribers == 0


async def test_a_large_event_is_iterated_in_one_piece(store: Store) -> None:
    channels = Channels(store)
    start = await channels.position("a")
    item = "x" * 1_000_000
    [id] = await publish(channels, "a", item)
    events = aiter(channels.subscribe("a", start))
    frames = [bytes(await anext(events)) for _ in range(2)]
    assert frames[1] == f'id: {id}\ndata: "{item}"\n\n'.encode()


async def test_what_stops_to_iterate_does_not_read(store: Store) -> None:
    channels = Channels(store)
    async for _ in channels.subscribe("a"):
        assert channels.stats().subscribers == 1
        break
    assert channels.stats().subscribers == 0


async def test_who_iterates_gets_what_a_snapshot_raises(store: Store) -> None:
    channels = Channels(store, history=3, on_gap=failing)
    events = aiter(channels.subscribe("a"))
    await anext(events)
    await publish(channels, "a", *range(5))
    with pytest.raises(LookupError, match="overflow"):
        await anext(events)
    with pytest.raises(StopAsyncIteration):
        await anext(events)
    with pytest.raises(LookupError, match="unknown"):
        await anext(aiter(channels.subscribe("a", "7")))


@pytest.mark.parametrize("last", ["\ud800", "a.1~\udfff", "\0", "\n"])
async def test_text_of_any_kind_is_asked_for(store: Store, last: str) -> None:
    channels = Channels(store)
    async with subscribed(channels.subscribe("a", last)) as client:
        await client.has(1)
    assert gap_of(client)["requested"] == last


@pytest.mark.parametrize("way", ["streamed", "iterated"])
@pytest.mark.parametrize("ending", ["disconnected", "closed", "failed", "max_duration"])
def test_a_subscription_leaves_nothing_to_the_collector(ending: str, way: str) -> None:
    def on_gap(gap: Gap) -> None:
        assert ending != "failed"

    async def main() -> None:
        async with MemoryStore() as store:
            how: Any = "close" if ending == "closed" else on_gap
            channels = Channels(store, history=2, on_gap=how)
            await visit(channels)
            with nothing_for_the_collector():
                for _ in range(3):
                    await visit(channels)

    async def visit(channels: Channels) -> None:
        subscription: Any = channels.subscribe("a")
        if way == "iterated":
            subscription = generator(subscription)
        duration = 20 * MS if ending == "max_duration" else None
        response = EventSourceResponse(subscription, max_duration=duration)
        async with subscribed(response) as client:
            await publish(channels, "a", 1, 2)
            await client.has(2)
            if ending != "disconnected":
                await publish(channels, "a", several(*range(5)))
                await client.to_end()
                client.error = None  # which has the client in its traceback: a cycle
        assert channels.stats().subscribers == 0

    async def generator(subscription: Subscription) -> AsyncIterator[EncodedEvent]:
        async for event in subscription:
            yield event

    anyio.run(main)


async def test_somebody_may_wrap_the_body_of_a_subscription(
    store: Store,
) -> None:
    channels = Channels(store)

    async def shouted(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in body:
            yield chunk.upper()

    response = EventSourceResponse(channels.subscribe("a"))
    response.body_iterator = shouted(response.body_iterator)  # type: ignore[arg-type]
    async with subscribed(response) as client:
        await publish(channels, "a", "x")
        await client.until(lambda: client.body.endswith(b'DATA: "X"\n\n'))
    await until(lambda: channels.stats().subscribers == 0)


async def test_stats(store: Store) -> None:
    channels = Channels(store, history=3)
    assert channels.stats() == (0, 0, 0, 0, {})
    ids = await publish(channels, "a", *range(5))
    async with subscribed(
        channels.subscribe("a"),
        channels.subscribe(["a", "b"]),
        channels.subscribe("a", ids[0]),
        channels.subscribe("a", ids[4]),
        channels.subscribe("b", "7"),
    ) as clients:
        await clients[2].has(4)
        stats = channels.stats()
        assert (stats.channels, stats.subscribers) == (2, 6)
        assert (stats.lag, stats.reconnects) == (0, 3)
        assert stats.gaps == {"trimmed": 1, "unknown": 1}
        await publish(channels, "c", 1)  # nobody reads it
        assert channels.stats().channels == 2
    assert channels.stats() == (0, 0, 0, 3, {"trimmed": 1, "unknown": 1})


# Stores


async def test_a_channel_without_readers_expires(
    store: Store, store_kind: StoreKind
) -> None:
    store_kind.needs_to_be_local("it notes its readers every few seconds")
    channels = Channels(store, ttl=200 * MS)
    [first] = await publish(channels, "a", 1)
    async with subscribed(channels.subscribe("a")) as client:
        await anyio.sleep(250 * MS)
    # It has its time from then on.
    [second] = await publish(channels, "a", 2)
    assert second == moved(first, 1)
    await anyio.sleep(250 * MS)
    async with subscribed(channels.subscribe("a", second)) as client:
        await client.has(1)
    gap = gap_of(client)
    assert (gap["reason"], offset(gap["id"])) == ("reset", 0)


async def test_an_expired_channel_starts_again_with_another_epoch(
    store: Store,
) -> None:
    channels = Channels(store, ttl=20 * MS)
    [first] = await publish(channels, "a", 1)
    await anyio.sleep(40 * MS)
    [second] = await publish(channels, "a", 1)
    assert Id.of(first).epoch != Id.of(second).epoch
    assert offset(second) == 1


def test_memory_is_freed_when_channels_and_runs_expire() -> None:
    async def one(number: int) -> AsyncIterator[int]:
        yield number

    async def main() -> None:
        async with MemoryStore() as store:
            channels, runs = Channels(store, ttl=100 * MS), Runs(store, ttl=100 * MS)
            for _ in range(2):  # the second time, it has been empty before
                for number in range(50):
                    await channels.publish(str(number), number, dedupe="k")
                    await runs.start(
                        str(number % 10), one, number, if_running="replace"
                    )
                assert logs()
                # Nobody asks for them any more.
                with anyio.fail_after(TIMEOUT):
                    while logs():
                        await anyio.sleep(10 * MS)

    def logs() -> int:
        return sum(map(is_new_log, gc.get_objects()))

    def is_new_log(found: object) -> bool:
        return type(found).__name__ == "EventLog" and found not in others

    gc.collect()
    # The traceback of another test that has failed may refer to some.
    others: list[object] = []
    others += filter(is_new_log, gc.get_objects())
    anyio.run(main)


@pytest.mark.parametrize("last", [None, "Ab3dE9xZ.1"])
async def test_a_store_has_to_be_open(
    anyio_backend: str, new_store: Callable[[], Store], last: str | None
) -> None:
    store = new_store()
    channels = Channels(store)
    for opened in (False, True):
        with pytest.raises(RuntimeError, match=r"lifespan=store\.lifespan"):
            await channels.publish("a", 1)
        with pytest.raises(RuntimeError, match="not open"):
            await channels.position("a")
        reply = await call(EventSourceResponse(channels.subscribe("a", last)))
        assert isinstance(reply.error, RuntimeError)
        assert reply.status is None
        if not opened:
            async with store:
                await channels.publish("a", 1)


async def test_a_store_is_opened_once_at_a_time(store: Store) -> None:
    with pytest.raises(RuntimeError, match="open already"):
        async with store:
            pass
    assert await Channels(store).publish("a", 1)


async def test_a_memory_that_is_opened_again_is_empty(anyio_backend: str) -> None:
    store = MemoryStore()
    channels = Channels(store)
    async with store:
        [first] = await publish(channels, "a", 1)
    async with store:
        async with subscribed(channels.subscribe("a", first)) as client:
            await publish(channels, "a", 2)
            await client.has(2)
    assert gap_of(client)["reason"] == "reset"
    assert client.data == [2]


async def test_a_store_that_closes_completes_its_streams(
    anyio_backend: str, new_store: Callable[[], Store], store_kind: StoreKind
) -> None:
    store = new_store()
    channels = Channels(store)
    client = Subscriber(EventSourceResponse(channels.subscribe("a")))
    async with anyio.create_task_group() as tasks:
        async with store:
            tasks.start_soon(client.run)
            await until(lambda: client.chunks)
            await publish(channels, "a", 1)
            if not store_kind.is_local:
                await client.has(1)
    assert client.complete
    assert client.data == [1]


async def test_the_lifespan_of_an_application_opens_the_store(
    anyio_backend: str, new_store: Callable[[], Store]
) -> None:
    store = new_store()
    channels = Channels(store)
    app = FastAPI(lifespan=store.lifespan)
    async with app.router.lifespan_context(app):
        assert await channels.publish("a", 1)
    with pytest.raises(RuntimeError, match="not open"):
        await channels.publish("a", 1)


@pytest.mark.parametrize(
    "options",
    [
        {"history": 0},
        {"history": -1},
        {"history": 1.5},
        {"ttl": 0},
        {"ttl": -1.0},
        {"ttl": float("nan")},
        {"on_gap": "stop"},
        {"on_gap": None},
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Channels(MemoryStore(), **options)


# `LastEventID`


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        (None, "", None),
        ("a.1", "", "a.1"),
        (None, "last_event_id=a.2", "a.2"),
        (None, "lastEventId=a.3", "a.3"),
        ("a.1", "last_event_id=a.2&lastEventId=a.3", "a.1"),
        (None, "last_event_id=a.2&lastEventId=a.3", "a.2"),
        ("", "last_event_id=&lastEventId=a.3", "a.3"),
        ("", "last_event_id=&lastEventId=", None),
    ],
)
async def test_the_last_event_id_of_a_request(
    anyio_backend: str, header: str | None, query: str, expected: str | None
) -> None:
    app = FastAPI()

    @app.get("/")
    async def last(last: LastEventID) -> str | None:
        return last

    headers = [] if header is None else [(b"last-event-id", header.encode())]
    reply = await call(app, f"/?{query}", headers=headers)
    assert json.loads(reply.body) == expected


def test_the_last_event_id_is_in_the_schema() -> None:
    app = FastAPI()

    @app.get("/")
    async def last(last: LastEventID) -> str | None:
        return last

    parameters = app.openapi()["paths"]["/"]["get"]["parameters"]
    assert {each["name"]: each["in"] for each in parameters} == {
        "last-event-id": "header",
        "last_event_id": "query",
    }
    assert not any(each["required"] for each in parameters)


@each_store
@given(data=st.data())
def test_any_last_event_id_is_answered_with_a_stream(
    store_kind: StoreKind, backend: str, data: st.DataObject
) -> None:
    async def main() -> None:
        async with store_kind.new() as store:
            await ask(Channels(store, history=3))

    async def ask(channels: Channels) -> None:
        ids = await publish(channels, "own", *["own"] * 5)
        others = await publish(channels, "other", *["other"] * 9)
        app = FastAPI()

        @app.get("/")
        async def one(last: LastEventID) -> EventSourceResponse:
            return EventSourceResponse(channels.subscribe("own", last))

        last = data.draw(cursors(ids[0], others[0]))
        if data.draw(st.booleans()):
            sent: dict[str, Any] = {"headers": [(b"last-event-id", last)]}
        else:
            sent = {"query_string": f"last_event_id={quote(last)}".encode()}

        async def asked(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, **sent}, receive, send)

        async with subscribed(asked) as client:
            await publish(channels, "own", "new")
            await client.until(lambda: "new" in client.data)
        assert client.status == 200
        assert client.error is None
        assert set(client.data) <= {"own", "new"}
        assert len(client.gaps) <= 1
        offsets = [offset(id) for id in client.ids]
        items = offsets[len(client.gaps) :]
        assert items == list(range(items[0], 7))
        if client.gaps:
            assert items[0] == offsets[0] + 1

    anyio.run(main, backend=backend)
