"""`examples/broadcast.py` as its subscribers see it."""

from __future__ import annotations

import contextlib
import json
import runpy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ..support.demo import EXAMPLES, at
from ..support.eventsource import Event, parse
from ..support.server import PLAIN, Client, opened, serve

SUBSCRIBERS = 50


@pytest.fixture
def broadcast() -> Iterator[int]:
    """Run the example on a new server, and yield its port."""
    names = runpy.run_path(str(EXAMPLES / "broadcast.py"), run_name="broadcast")
    with serve(names["app"], lifespan="on") as port:
        yield port


def publish(port: int, *items: Any) -> list[str]:
    """Publish some items, and return their ids."""
    with httpx.Client(**PLAIN) as client:
        return [client.post(at(port, "events"), json=item).json() for item in items]


def received(client: Client, last: str) -> list[Event]:
    """Return the events that a client has received when it has the last one."""
    client.read_until(f"id: {last}\n".encode())
    while not client.body.endswith(b"\n\n"):
        client.read_chunk()
    return parse(client.body).events


def numbers(events: list[Event]) -> list[int]:
    return [json.loads(event.data)["number"] for event in events]


def items(*numbers: int) -> list[dict[str, int]]:
    return [{"number": number} for number in numbers]


def test_every_subscriber_gets_every_event(broadcast: int) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(broadcast, "/events"))
            for _ in range(SUBSCRIBERS)
        ]
        for client in clients:
            client.read_until(b"\n\n")  # the position: it has subscribed
        ids = publish(broadcast, *items(*range(1, 21)))
        for client in clients:
            events = received(client, ids[-1])
            assert [event.last_event_id for event in events] == ids
            assert numbers(events) == list(range(1, 21))


def test_a_subscriber_that_comes_late_starts_with_the_next_event(
    broadcast: int,
) -> None:
    publish(broadcast, *items(1, 2))
    with Client(broadcast, "/events") as client:
        client.read_until(b"\n\n")
        [last] = publish(broadcast, *items(3))
        assert numbers(received(client, last)) == [3]


@pytest.mark.parametrize(("seen", "missed"), [(1, [2, 3]), (3, [])])
def test_a_subscriber_that_comes_back_gets_what_it_missed(
    broadcast: int, seen: int, missed: list[int]
) -> None:
    ids = publish(broadcast, *items(1, 2, 3))
    body = b""
    headers = {"Last-Event-ID": ids[seen - 1]}
    with opened(broadcast, "/events", **headers) as response:
        [last] = publish(broadcast, *items(4))
        for part in response.iter_raw():
            body += part
            if parse(body).last_event_id == last:
                break
    assert numbers(parse(body).events) == [*missed, 4]


@pytest.mark.parametrize("seen", ["99", "elsewhere.7", "a.1~b.2"])
def test_a_subscriber_with_an_unknown_position_is_told(
    broadcast: int, seen: str
) -> None:
    publish(broadcast, *items(1, 2, 3))
    with Client(broadcast, f"/events?last_event_id={seen}") as client:
        client.read_until(b"\n\n")
        [last] = publish(broadcast, *items(4))
        gap, *events = received(client, last)
    assert gap.type == "gap"
    assert json.loads(gap.data)["requested"] == seen
    assert numbers(events)[-1] == 4


def test_a_subscriber_that_does_not_read_holds_nobody_up(broadcast: int) -> None:
    filling = "x" * 200_000
    with (
        Client(broadcast, "/events", buffer_size=4096) as frozen,
        Client(broadcast, "/events") as quick,
    ):
        for client in (frozen, quick):
            client.read_until(b"\n\n")
        for _ in range(30):
            [last] = publish(broadcast, filling)
            quick.read_until(end := f"id: {last}\n".encode())
        assert frozen.read_until(end).count(b"x") >= 29 * len(filling)
