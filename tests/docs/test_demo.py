"""The demo as a process, with a client over a socket."""

from __future__ import annotations

import contextlib
import html
import json
import re
import socket
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from ..support.demo import (
    DEADLINE,
    DEMO,
    PACKAGES,
    PAGE,
    REPLY,
    Demo,
    client_of,
    running_demo,
)
from ..support.eventsource import EventSource, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the demo is stopped with SIGINT"
)


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


# The page


def test_the_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    assert client.get("/").text == (PAGE / "index.html").read_text(encoding="utf-8")
    for path in PAGE.iterdir():
        text = client.get(f"/{path.name}").text
        assert text == path.read_text(encoding="utf-8")
        # The namespace of SVG is not a request.
        assert {*re.findall(r"\w+://([^/]*)", text)} <= {"www.w3.org"}


def test_the_code_that_the_page_shows_is_what_runs(client: httpx.Client) -> None:
    pattern = r'<pre class="code".*? data-source="(.*?)">(.*?)</pre>'
    shown = re.findall(pattern, client.get("/").text, re.DOTALL)
    assert len(shown) == 7
    for name, markup in shown:
        source = (DEMO / name).read_text(encoding="utf-8")
        # The line of `fastapi.sse` is not in the file: the contestant replaces it.
        for theirs, ours in re.findall("<del>(.*)</del>\n<ins>(.*)</ins>", markup):
            assert theirs == ours.replace("fastapi_sse_fast", "fastapi.sse")
        markup = re.sub("<del>.*</del>", "", markup)
        lines = html.unescape(re.sub("<.*?>", "", markup)).split("\n")
        following = iter(source.split("\n"))
        for line in lines:
            assert line in following, f"{name} has no such line there: {line}"


QUESTION = {
    "model": "replay",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
}


def test_the_chat_of_the_page(client: httpx.Client) -> None:
    response = client.post("/openai/chats/1?rate=10000", json=QUESTION)
    assert response.status_code == 202
    response = client.get("/openai/chats/1/stream")
    *events, end = parse(response.content).events
    assert end[:2] == ('{"status": "done"}', "end")
    *chunks, done = [event.data for event in events]
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


# The race and the scenes


def test_a_race_needs_no_port_but_that_of_the_demo(client: httpx.Client) -> None:
    asked = {"streams": 3, "rate": 20, "seconds": 0.3}
    events = parse(client.get("/race", params=asked).content).events
    assert [*dict.fromkeys(event.type for event in events)] == ["workload", *PACKAGES]
    for package in PACKAGES:
        last = [json.loads(one.data) for one in events if one.type == package][-1]
        assert last["received"] > 0


@pytest.mark.parametrize("asked", ["streams=0", "streams=501", "rate=-1", "seconds=31"])
def test_a_race_is_not_endless(client: httpx.Client, asked: str) -> None:
    assert client.get(f"/race?{asked}").status_code == 422


def test_a_scene_needs_no_port_but_that_of_the_demo(client: httpx.Client) -> None:
    events = parse(client.get("/scenes/fail").content).events
    results = [json.loads(one.data) for one in events if one.type == "result"]
    assert {one["package"] for one in results} == {*PACKAGES}
    assert client.get("/scenes/none").status_code == 422


def test_all_that_a_demo_has_started_ends_with_it_even_if_it_is_killed() -> None:
    with running_demo() as demo, client_of(demo) as client:
        asked = {"streams": 3, "seconds": 30}
        with client.stream("GET", "/race", params=asked) as response:
            received = response.iter_raw()
            while b"received" not in next(received):
                pass
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
            assert "fastapi_sse_fast" in client.get("/machine").json()


def test_ctrl_c_stops_a_demo_with_an_idle_client() -> None:
    with running_demo() as demo, client_of(demo) as client:
        client.get("/")  # The connection stays open.
        assert demo.stop() == (0, "", "")


def test_ctrl_c_does_not_wait_for_open_streams() -> None:
    with running_demo() as demo, client_of(demo) as client:
        client.post("/openai/chats/1?rate=1", json=QUESTION)
        requests = [
            client.build_request(
                "POST", "/openai/v1/chat/completions?rate=1", json=QUESTION
            ),
            client.build_request("GET", "/openai/chats/1/stream"),
            client.build_request("GET", "/count"),
            client.build_request("GET", "/race?streams=3&seconds=30"),
            client.build_request("GET", "/scenes/restart"),
        ]
        with contextlib.ExitStack() as stack:
            for request in requests:
                response = client.send(request, stream=True)
                stack.callback(response.close)
                assert next(response.iter_raw())
            assert demo.stop() == (0, "", "")
