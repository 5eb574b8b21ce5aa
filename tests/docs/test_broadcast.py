"""`examples/broadcast.py` as its subscribers see it."""

from __future__ import annotations

import contextlib
import runpy
from collections.abc import Iterator

import httpx
import pytest

from ..support.demo import EXAMPLES, at
from ..support.eventsource import parse
from ..support.server import PLAIN, Client, opened, serve

SUBSCRIBERS = 50


@pytest.fixture
def broadcast() -> Iterator[int]:
    """Run the example on a new server, and yield its port."""
    module = runpy.run_path(str(EXAMPLES / "broadcast.py"), run_name="broadcast")
    with serve(module["app"], lifespan="on") as port:
        yield port


def subscriber(port: int, path: str = "/events") -> Client:
    """Return a client that has been subscribed."""
    client = Client(port, path)
    client.read_until(b"id: ")
    return client


def publish(port: int, *numbers: int) -> list[str]:
    """Publish events, and return their ids."""
    with httpx.Client(**PLAIN) as client:
        return [
            client.post(at(port, "events"), json={"number": number}).json()
            for number in numbers
        ]


def data(number: int) -> bytes:
    return b'data: {"number": %d}\n\n' % number


def test_every_subscriber_gets_every_event(broadcast: int) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(subscriber(broadcast)) for _ in range(SUBSCRIBERS)
        ]
        ids = publish(broadcast, *range(1, 21))
        for client in clients:
            events = parse(client.read_until(data(20))).events
            assert [event.last_event_id for event in events] == ids
            assert [event.data for event in events] == [
                f'{{"number": {number}}}' for number in range(1, 21)
            ]


def test_a_subscriber_that_comes_late_starts_with_the_next_event(
    broadcast: int,
) -> None:
    publish(broadcast, 1, 2)
    with subscriber(broadcast) as client:
        publish(broadcast, 3)
        assert client.read_until(data(3)).count(b"data: ") == 1


@pytest.mark.parametrize("seen", [1, 2, 3])
def test_a_subscriber_that_comes_back_gets_what_it_missed(
    broadcast: int, seen: int
) -> None:
    ids = publish(broadcast, 1, 2, 3)
    with opened(broadcast, "/events", **{"Last-Event-ID": ids[seen - 1]}) as response:
        ids += publish(broadcast, 4)
        body = b""
        for received in response.iter_raw():
            body += received
            if body.endswith(data(4)):
                break
    assert [event.last_event_id for event in parse(body).events] == ids[seen:]


def test_a_subscriber_of_before_a_restart_is_told_so(broadcast: int) -> None:
    publish(broadcast, 1)
    with subscriber(broadcast, "/events?last_event_id=Ab3dE9xZ.7") as client:
        events = parse(client.read_until(data(1))).events
    assert [event.type for event in events] == ["gap", "message"]
    assert '"reason": "reset"' in events[0].data


def test_a_subscriber_that_does_not_read_holds_nobody_up(broadcast: int) -> None:
    filling = "x" * 200_000
    with (
        Client(broadcast, "/events", buffer_size=4096) as frozen,
        subscriber(broadcast) as quick,
        httpx.Client(**PLAIN) as client,
    ):
        for _ in range(30):
            id = client.post(at(broadcast, "events"), json=filling).json()
            quick.read_until(f"id: {id}\ndata: ".encode())
        publish(broadcast, 1)
        assert frozen.read_until(data(1)) == quick.read_until(data(1))
