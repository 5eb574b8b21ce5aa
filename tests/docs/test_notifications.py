"""`examples/notifications.py`, which the page on channels shows, over real sockets."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ..support.demo import EXAMPLES
from ..support.eventsource import parse
from ..support.server import PLAIN, Client, serve


@pytest.fixture
def port() -> Iterator[int]:
    names = runpy.run_path(str(EXAMPLES / "notifications.py"), run_name="main")
    with serve(names["app"], lifespan="on") as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", **PLAIN) as client:
        yield client


def send(client: httpx.Client, text: str, to: str | None = None) -> None:
    reply = client.post("/notifications", json={"text": text, "to": to})
    assert reply.status_code == 200


def inbox(client: httpx.Client, user: str) -> dict[str, Any]:
    reply = client.get("/inbox", headers={"Cookie": f"user={user}"})
    found: dict[str, Any] = reply.json()
    return found


def texts(found: dict[str, Any]) -> list[str]:
    return [one["text"] for one in found["notifications"]]


def test_what_is_sent_after_the_inbox_was_read_is_in_the_stream(
    port: int, client: httpx.Client
) -> None:
    send(client, "before")
    found = inbox(client, "ada")
    assert texts(found) == ["before"]
    send(client, "to everybody")
    send(client, "to another", to="bob")
    send(client, "to ada", to="ada")
    path = f"/inbox/events?last_event_id={found['position']}"
    with Client(port, path) as stream:
        stream.read_until(b'"text":"to ada"')
        send(client, "last")
        body = stream.read_until(b'"text":"last"')
    assert body.count(b"event: notification") == 3
    assert b"before" not in body
    assert b"to another" not in body
    assert texts(inbox(client, "bob")) == [
        "before",
        "to everybody",
        "to another",
        "last",
    ]


def test_a_position_of_another_user_shows_nothing_of_theirs(
    port: int, client: httpx.Client
) -> None:
    position = inbox(client, "bob")["position"]
    send(client, "to bob", to="bob")
    with Client(port, f"/inbox/events?last_event_id={position}") as stream:
        stream.read_until(b"event: gap")
        send(client, "last")
        body = stream.read_until(b'"text":"last"')
    assert b"to bob" not in body
    assert [event.type for event in parse(body + b"\n\n").events] == [
        "gap",
        "notification",
    ]
