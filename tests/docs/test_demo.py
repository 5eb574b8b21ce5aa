"""The demo as a process, with a client over a socket."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from ..support.demo import DEADLINE, PAGE, REPLY, Demo, client_of, running_demo
from ..support.eventsource import EventSource, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the demo is stopped with SIGINT"
)
EVENT_STREAM = "text/event-stream; charset=utf-8"


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo() as demo:
        yield demo
        # It has not printed a traceback for any request.
        assert demo.stop() == (0, "", "")


@pytest.fixture
def client(demo: Demo) -> Iterator[httpx.Client]:
    with client_of(demo) as client:
        yield client


TYPED = (
    b'data: {"name":"pencil","price":0.5}\n\n'
    b'data: {"name":"notebook","price":2.75}\n\n'
    b'data: {"name":"stapler","price":8.0}\n\n'
)
NUMBERED = [
    b'data: {"name":"pencil","price":0.5}\nid: 1\n\n',
    b'data: {"name":"notebook","price":2.75}\nid: 2\n\n',
    b'data: {"name":"stapler","price":8.0}\nid: 3\n\n',
]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tutorial/items/stream", TYPED),
        ("/tutorial/items/stream-sync", TYPED),
        (
            "/tutorial/items/stream-untyped",
            b'data: {"item": {"name": "pencil", "price": 0.5}, "in_stock": true}\n\n'
            b'data: {"item": {"name": "notebook", "price": 2.75}, "in_stock": true}\n\n'
            b'data: {"item": {"name": "stapler", "price": 8.0}, "in_stock": false}\n\n',
        ),
        (
            "/tutorial/items/stream-sync-untyped",
            b'data: ["pencil", 0.5]\n\n'
            b'data: ["notebook", 2.75]\n\n'
            b'data: ["stapler", 8.0]\n\n',
        ),
        (
            "/tutorial/items/stream-events",
            b": prices of today\nretry: 3000\n\n"
            b'event: price\ndata: {"name":"pencil","price":0.5}\nid: 1\n\n'
            b'event: price\ndata: {"name":"notebook","price":2.75}\nid: 2\n\n'
            b'event: price\ndata: {"name":"stapler","price":8.0}\nid: 3\n\n'
            b": that was all\nevent: end\ndata: 3\n\n",
        ),
        (
            "/tutorial/logs/stream",
            b"data: 12:00:01 INFO  the server has started\n\n"
            b"data: 12:00:02 WARN  the disk is nearly full\n"
            b"data:          91 % of it is in use\n\n"
            b"data: 12:00:05 INFO  the disk has room again\n\n",
        ),
    ],
)
def test_a_route_sends_its_frames(client: httpx.Client, path: str, body: bytes) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == EVENT_STREAM
    assert response.headers["cache-control"] == "no-cache"
    assert response.content == body


@pytest.mark.parametrize("seen", [None, 0, 1, 2, 3])
def test_a_stream_resumes_after_the_last_event_id(
    client: httpx.Client, seen: int | None
) -> None:
    headers = {} if seen is None else {"Last-Event-ID": str(seen)}
    response = client.get("/tutorial/items/resume", headers=headers)
    assert response.headers["content-type"] == EVENT_STREAM
    assert response.content == b"".join(NUMBERED[seen or 0 :])


def test_a_last_event_id_of_another_stream_is_refused(client: httpx.Client) -> None:
    response = client.get("/tutorial/items/resume", headers={"Last-Event-ID": "a"})
    assert response.status_code == 422


def test_a_stream_answers_a_post(client: httpx.Client) -> None:
    response = client.post("/tutorial/chat", json={"text": "word by word"})
    assert response.content == (
        b'event: token\ndata: "word"\n\n'
        b'event: token\ndata: "by"\n\n'
        b'event: token\ndata: "word"\n\n'
        b"event: done\ndata: [DONE]\n\n"
    )


# The page


def test_the_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    assert client.get("/").text == (PAGE / "index.html").read_text(encoding="utf-8")
    for path in PAGE.iterdir():
        text = client.get(f"/{path.name}").text
        assert text == path.read_text(encoding="utf-8")
        # The namespace of SVG is not a request.
        assert {*re.findall(r"\w+://([^/]*)", text)} <= {"www.w3.org"}


def test_the_page_knows_every_route_of_the_tutorial(client: httpx.Client) -> None:
    script = client.get("/tutorial.js").text
    for path in client.get("/tutorial/openapi.json").json()["paths"]:
        assert f'"{path}"' in script


def test_the_chat_of_the_page(client: httpx.Client) -> None:
    response = client.post(
        "/openai/v1/chat/completions",
        params={"rate": 10_000},
        json={
            "model": "replay",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
        },
    )
    *chunks, done = [event.data for event in parse(response.content).events]
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == REPLY
    assert done == "[DONE]"


def test_a_connection_that_is_cut_loses_no_event(client: httpx.Client) -> None:
    source = EventSource()
    for cut_after in (2, 5):
        headers = {"Last-Event-ID": source.last_event_id or "0"}
        headers["X-Forwarded-For"] = "203.0.113.1"  # A proxy adds it.
        with client.stream("GET", "/count", headers=headers) as response:
            received = response.iter_raw()
            while len(source.events) < cut_after:
                source.feed(next(received))
            port = response.headers["x-connection"]
            assert client.delete(f"/connections/{port}").status_code == 204
            with pytest.raises(httpx.RemoteProtocolError):
                list(received)
    ids = [event.last_event_id for event in source.events]
    assert ids == [str(number) for number in range(1, len(ids) + 1)]
    assert source.reconnection_time == 500


# The race


def test_a_race_needs_no_port_but_that_of_the_demo(client: httpx.Client) -> None:
    asked = {"streams": 3, "number": 10}
    events = parse(client.get("/race", params=asked).content).events
    for package in ("fastapi_sse_fast", "fastapi.sse"):
        said = [json.loads(one.data) for one in events if one.type == package]
        assert said[0]["usage"]["cpu"] > 0
        assert max(line.get("received", 0) for line in said) == 30


def test_all_that_a_demo_has_started_ends_with_it_even_if_it_is_killed() -> None:
    with running_demo() as demo, client_of(demo) as client:
        asked = {"streams": 3, "number": 1000, "pause": 1}
        with client.stream("GET", "/race", params=asked) as response:
            assert next(response.iter_raw())
            demo.process.kill()
            # They have inherited standard error, which closes when the last one ends.
            demo.process.communicate(timeout=DEADLINE)


# Starting and stopping


def test_where_the_port_is_taken_the_demo_takes_another_and_says_so() -> None:
    with contextlib.ExitStack() as taken:
        # If this fails, the other tests' demo or another program has the port.
        with contextlib.suppress(OSError):
            taken.enter_context(socket.create_server(("127.0.0.1", 8000)))
        second = taken.enter_context(running_demo())
        port = second.url.rpartition(":")[2]
        assert port != "8000"
        assert second.announcement == (
            f"Port 8000 is taken. Serving {second.url} (Ctrl-C stops it)\n"
        )
        with client_of(second) as client:
            assert client.get("/tutorial/items/stream").content == TYPED


def test_ctrl_c_stops_a_demo_with_an_idle_client() -> None:
    with running_demo() as demo, client_of(demo) as client:
        client.get("/")  # The connection stays open.
        assert demo.stop() == (0, "", "")


def test_ctrl_c_does_not_wait_for_open_streams() -> None:
    with running_demo() as demo, client_of(demo) as client:
        question = {"model": "replay", "messages": [{"role": "user", "content": "Hi"}]}
        requests = [
            client.build_request(
                "POST",
                "/openai/v1/chat/completions?rate=1",
                json={**question, "stream": True},
            ),
            client.build_request("GET", "/count"),
            client.build_request("GET", "/race?streams=3&number=1000&pause=1"),
        ]
        with contextlib.ExitStack() as stack:
            for request in requests:
                response = client.send(request, stream=True)
                stack.callback(response.close)
                assert next(response.iter_raw())
            assert demo.stop() == (0, "", "")
