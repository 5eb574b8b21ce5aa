"""`examples/resumable_chat.py`, which the page on channels shows, over real sockets."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator

import httpx
import pytest

from ..support.demo import EXAMPLES
from ..support.eventsource import Event, parse
from ..support.server import PLAIN, Client, get, serve, wait_until

STREAM = "/chats/1/stream"


@pytest.fixture
def port() -> Iterator[int]:
    names = runpy.run_path(str(EXAMPLES / "resumable_chat.py"), run_name="main")
    with serve(names["app"], lifespan="on") as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", **PLAIN) as client:
        yield client


def ask(client: httpx.Client, count_to: int) -> int:
    return client.post("/chats/1", json={"count_to": count_to}).status_code


def text_of(events: list[Event]) -> str:
    return "".join(
        json.loads(event.data)["text"] for event in events if event.type == "token"
    )


def test_a_client_that_comes_back_gets_the_rest_and_then_nothing(
    port: int, client: httpx.Client
) -> None:
    assert ask(client, 4) == 202
    with Client(port, STREAM) as first:
        first.read_until(b'"2 "')
        first.read_until(b"\n\n")
        before = parse(first.body)
    rest = parse(get(port, f"{STREAM}?last_event_id={before.last_event_id}"))
    assert text_of([*before.events, *rest.events]) == "1 2 3 4 "
    assert rest.events[-1][:2] == ('{"status": "done"}', "end")
    again = client.get(STREAM, headers={"Last-Event-ID": rest.last_event_id})
    assert (again.status_code, again.content) == (204, b"")


def test_all_clients_get_the_same_answer(port: int, client: httpx.Client) -> None:
    ask(client, 3)
    with Client(port, STREAM) as first, Client(port, STREAM) as second:
        assert first.read_to_end() == second.read_to_end() == get(port, STREAM)


def test_an_answer_can_be_stopped_by_another_client(
    port: int, client: httpx.Client
) -> None:
    ask(client, 100)
    with Client(port, STREAM) as stream:
        stream.read_until(b'"2 "')
        assert client.post("/chats/1/stop").json() is True
        events = parse(stream.read_to_end()).events
    assert events[-1][:2] == ('{"status": "cancelled"}', "end")
    assert text_of(events).startswith("1 2 ")
    assert client.post("/chats/1/stop").json() is False
    assert ask(client, 1) == 202


def test_a_second_question_has_to_wait(client: httpx.Client) -> None:
    assert ask(client, 100) == 202
    reply = client.post("/chats/1", json={"count_to": 1})
    assert (reply.status_code, reply.json()["detail"]) == (
        409,
        "The last answer is not complete.",
    )


def test_an_answer_that_nobody_reads_goes_on(port: int, client: httpx.Client) -> None:
    ask(client, 2)
    with Client(port, STREAM) as stream:
        stream.read_until(b"question")
    wait_until(lambda: client.post("/chats/1/stop").json() is False)
