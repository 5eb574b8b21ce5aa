"""`examples/notifications_workers.py`: two workers, which share a Redis."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.demo import EXAMPLES
from ..support.eventsource import parse
from ..support.workers import Worker, worker

EXAMPLE = EXAMPLES / "notifications_workers.py"

Start = Callable[[], contextlib.AbstractContextManager[Worker]]


@pytest.fixture
def start(tmp_path: Path, redis_url: str) -> Start:
    return lambda: worker(tmp_path, EXAMPLE.read_text(), REDIS_URL=redis_url)


@pytest.fixture
def workers(start: Start) -> Iterator[tuple[Worker, Worker]]:
    with start() as one, start() as other:
        yield one, other


def send(one: Worker, text: str, to: str | None = None) -> int:
    reply = one.ask("POST", "/notifications", json={"text": text, "to": to})
    assert reply.status_code == 200
    number: int = reply.json()["id"]
    return number


def inbox(one: Worker) -> dict[str, Any]:
    found: dict[str, Any] = one.ask("GET", "/inbox").json()
    return found


def texts(body: str) -> list[str]:
    return re.findall(r'"text":"([^"]*)"', body)


def test_what_is_posted_to_a_worker_arrives_at_the_other(
    workers: tuple[Worker, Worker],
) -> None:
    one, other = workers
    assert send(one, "before") == 1
    found = inbox(other)
    assert [each["text"] for each in found["notifications"]] == ["before"]
    assert send(one, "between", to="ada") == 2
    path = f"/inbox/events?last_event_id={found['position']}"
    with one.stream(path) as at_one, other.stream(path) as at_other:
        for read_until in (at_one, at_other):
            read_until("between")
        send(one, "from one")
        send(one, "to bob", to="bob")
        send(other, "from the other", to="ada")
        # Events of two channels have no common order.
        for read_until in (at_one, at_other):
            read_until("from one")
            body = read_until("from the other")
            assert sorted(texts(body)) == ["between", "from one", "from the other"]


def test_a_client_of_a_worker_that_is_restarted_continues_at_the_other(
    start: Start,
) -> None:
    with start() as other:
        with start() as one:
            with one.stream("/inbox/events") as read_until:
                read_until("id: ")
                send(other, "1")
                send(other, "2")
                body = read_until('"text":"2","to":null}\n\n')
                last = parse(body.encode()).last_event_id
            one.terminate()
        send(other, "3")
        with start() as one:
            send(one, "4")
            # A browser sends the id of the last event to whichever worker it gets.
            for each in (other, one):
                with each.stream("/inbox/events", last) as read_until:
                    body = read_until('"4"')
                assert texts(body) == ["3", "4"]
                assert "event: gap" not in body


def test_the_page_is_that_of_the_example_for_one_worker() -> None:
    page = (EXAMPLES / "notifications.py").read_text().partition("PAGE = ")[2]
    assert EXAMPLE.read_text().partition("PAGE = ")[2] == page
