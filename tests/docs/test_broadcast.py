"""`examples/broadcast.py` as its subscribers see it."""

from __future__ import annotations

import asyncio
import contextlib
import runpy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ..support.demo import DEADLINE, EXAMPLES, at
from ..support.server import Client, serve, wait_until

SUBSCRIBERS = 50


@pytest.fixture
def broadcast_module() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "broadcast.py"), run_name="broadcast")


@pytest.fixture
def broadcast(broadcast_module: dict[str, Any]) -> Iterator[int]:
    """Run the example on a new server, and yield its port."""
    with serve(broadcast_module["app"]) as port:
        yield port


def subscribers(port: int) -> int:
    response = httpx.get(at(port, "subscribers"), timeout=DEADLINE, trust_env=False)
    number: int = response.json()
    return number


def publish(port: int, *numbers: int) -> None:
    with httpx.Client(timeout=DEADLINE, trust_env=False) as client:
        for number in numbers:
            sent = client.post(at(port, "events"), json={"number": number})
            assert sent.json() == number


def frame(number: int) -> bytes:
    return b'data: {"number": %d}\nid: %d\n\n' % (number, number)


def test_every_subscriber_gets_every_event(broadcast: int) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(broadcast, "/events"))
            for _ in range(SUBSCRIBERS)
        ]
        assert subscribers(broadcast) == SUBSCRIBERS
        publish(broadcast, *range(1, 21))
        sent = b"".join(map(frame, range(1, 21)))
        assert [client.read_until(frame(20)) for client in clients] == [
            sent
        ] * SUBSCRIBERS
    wait_until(lambda: subscribers(broadcast) == 0)


def test_a_subscriber_that_comes_late_starts_with_the_next_event(
    broadcast: int,
) -> None:
    publish(broadcast, 1, 2)
    with Client(broadcast, "/events") as client:
        publish(broadcast, 3)
        assert client.read_until(frame(3)) == frame(3)


@pytest.mark.parametrize(("seen", "missed"), [("1", [2, 3]), ("3", []), ("99", [])])
def test_a_subscriber_that_comes_back_gets_what_it_missed(
    broadcast: int, seen: str, missed: list[int]
) -> None:
    publish(broadcast, 1, 2, 3)
    headers = {"Last-Event-ID": seen}
    with (
        httpx.Client(timeout=DEADLINE, trust_env=False) as client,
        client.stream("GET", at(broadcast, "events"), headers=headers) as response,
    ):
        publish(broadcast, 4)
        body = b""
        for received in response.iter_raw():
            body += received
            if body.endswith(frame(4)):
                break
    assert body == b"".join(map(frame, [*missed, 4]))


def test_a_subscriber_that_does_not_read_holds_nobody_up(broadcast: int) -> None:
    filling = "x" * 200_000
    with (
        Client(broadcast, "/events", buffer_size=4096) as frozen,
        Client(broadcast, "/events") as quick,
        httpx.Client(timeout=DEADLINE, trust_env=False) as client,
    ):
        for number in range(1, 31):
            client.post(at(broadcast, "events"), json=filling)
            quick.read_until(b"id: %d\n\n" % number)
        assert frozen.read_until(b"id: 30\n\n") == quick.body


def test_a_slow_subscriber_skips_what_is_kept_no_more(broadcast_module: Any) -> None:
    async def main() -> list[bytes]:
        channel = broadcast_module["Channel"](keep=3)
        events = channel.subscribe(None)
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        for number in range(1, 3):
            channel.publish({"number": number})
        received = [bytes(await first)]
        for number in range(3, 11):
            channel.publish({"number": number})
        received += [bytes(await anext(events)) for _ in range(3)]
        await events.aclose()
        return received

    assert asyncio.run(main()) == list(map(frame, [1, 8, 9, 10]))
