"""The demo as its user runs it: a process, a socket, a client."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import httpx
import pytest

from .eventsource import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the demo is stopped with SIGINT"
)

EXAMPLES = Path(__file__).parent.parent / "examples"
REPLY = (EXAMPLES / "reply.txt").read_text(encoding="utf-8").strip()
EVENT_STREAM = "text/event-stream; charset=utf-8"
DEADLINE = 20.0
"""Seconds after which a demo that does not start or stop is killed."""


class Demo(NamedTuple):
    process: subprocess.Popen[str]
    stdout: IO[str]
    announcement: str
    url: str

    def stop(self) -> tuple[int, str, str]:
        """Presses Ctrl-C. Returns the exit code and the rest of what it printed."""
        self.process.send_signal(signal.SIGINT)
        stdout, stderr = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, stdout, stderr


@contextlib.contextmanager
def running_demo() -> Iterator[Demo]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "demo.py")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # Killed, it closes its end of the pipe: then `readline` returns.
        watchdog = threading.Timer(DEADLINE, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            announcement = process.stdout.readline()
            watchdog.cancel()
            url = re.search(r"http://127\.0\.0\.1:\d+", announcement)
            if url is None:
                process.kill()
                pytest.fail(f"no URL: {announcement!r}, {process.communicate()[1]}")
            yield Demo(process, process.stdout, announcement, url[0])
        finally:
            watchdog.cancel()
            process.kill()


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo() as demo:
        yield demo
        # No request of these tests made it print a traceback.
        assert demo.stop() == (0, "", "")


def client_of(demo: Demo) -> httpx.Client:
    return httpx.Client(base_url=demo.url, timeout=DEADLINE, trust_env=False)


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
        ("/items/stream", TYPED),
        ("/items/stream-sync", TYPED),
        (
            "/items/stream-untyped",
            b'data: {"item": {"name": "pencil", "price": 0.5}, "in_stock": true}\n\n'
            b'data: {"item": {"name": "notebook", "price": 2.75}, "in_stock": true}\n\n'
            b'data: {"item": {"name": "stapler", "price": 8.0}, "in_stock": false}\n\n',
        ),
        (
            "/items/stream-sync-untyped",
            b'data: ["pencil", 0.5]\n\n'
            b'data: ["notebook", 2.75]\n\n'
            b'data: ["stapler", 8.0]\n\n',
        ),
        (
            "/items/stream-events",
            b": prices of today\nretry: 3000\n\n"
            b'event: price\ndata: {"name":"pencil","price":0.5}\nid: 1\n\n'
            b'event: price\ndata: {"name":"notebook","price":2.75}\nid: 2\n\n'
            b'event: price\ndata: {"name":"stapler","price":8.0}\nid: 3\n\n'
            b": that was all\nevent: end\ndata: 3\n\n",
        ),
        (
            "/logs/stream",
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
    response = client.get("/items/resume", headers=headers)
    assert response.headers["content-type"] == EVENT_STREAM
    assert response.content == b"".join(NUMBERED[seen or 0 :])


def test_a_last_event_id_of_another_stream_is_refused(client: httpx.Client) -> None:
    response = client.get("/items/resume", headers={"Last-Event-ID": "a"})
    assert response.status_code == 422


def content_of(chunk: str) -> str:
    content = json.loads(chunk)["choices"][0]["delta"]["content"]
    assert isinstance(content, str)
    return content


def finish_reason_of(chunk: str) -> str | None:
    reason = json.loads(chunk)["choices"][0]["finish_reason"]
    assert reason is None or isinstance(reason, str)
    return reason


def test_the_tokens_of_the_chat_make_the_reply(client: httpx.Client) -> None:
    response = client.get("/chat", params={"prompt": "Hi", "delay": 0})
    assert response.headers["content-type"] == EVENT_STREAM
    chunks = [event.data for event in parse(response.content).events]
    assert "".join(map(content_of, chunks)) == REPLY
    # The page hangs up at the one that is not None.
    reasons = [finish_reason_of(chunk) for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]


def test_the_chat_is_a_post_too(client: httpx.Client) -> None:
    params = {"delay": 0}
    response = client.post("/chat", params=params, json={"prompt": "Hi"})
    assert response.headers["content-type"] == EVENT_STREAM
    *chunks, last = [event.data for event in parse(response.content).events]
    assert "".join(map(content_of, chunks)) == REPLY
    assert finish_reason_of(chunks[-1]) == "stop"
    assert last == "[DONE]"


@pytest.mark.parametrize("delay", ["-0.1", "1.1", "inf", "nan", "a"])
def test_the_pause_between_tokens_is_bounded(client: httpx.Client, delay: str) -> None:
    response = client.get("/chat", params={"prompt": "Hi", "delay": delay})
    assert response.status_code == 422


def test_a_chat_needs_a_prompt(client: httpx.Client) -> None:
    assert client.get("/chat").status_code == 422
    assert client.post("/chat", json={}).status_code == 422


def test_the_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    response = client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.text == (EXAMPLES / "index.html").read_text(encoding="utf-8")
    assert "new EventSource(" in response.text
    assert "//" not in re.sub(r"^\s*// .*$", "", response.text, flags=re.MULTILINE)


def test_the_page_knows_every_route(client: httpx.Client) -> None:
    page = client.get("/").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert f'"{path}' in page


def test_where_the_port_is_taken_the_demo_takes_another_and_says_so() -> None:
    with contextlib.ExitStack() as taken:
        # Else by the demo of the other tests, or by another program.
        with contextlib.suppress(OSError):
            taken.enter_context(socket.create_server(("127.0.0.1", 8000)))
        second = taken.enter_context(running_demo())
        port = second.url.rpartition(":")[2]
        assert port != "8000"
        assert second.announcement == (
            f"Port 8000 is taken. Serving {second.url} (Ctrl-C stops it)\n"
        )
        with client_of(second) as client:
            assert client.get("/items/stream").content == TYPED


def test_ctrl_c_stops_a_demo_with_an_idle_client() -> None:
    with running_demo() as demo, client_of(demo) as client:
        client.get("/")  # leaves its connection open
        assert demo.stop() == (0, "", "")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ctrl_c_does_not_wait_for_an_open_stream(method: str) -> None:
    # A second per token: the stream would last longer than the demo may take to stop.
    assert len(REPLY.split()) > DEADLINE
    with (
        running_demo() as demo,
        client_of(demo) as client,
        client.stream(
            method,
            "/chat",
            params={"prompt": "Hi", "delay": 1},
            json={"prompt": "Hi"} if method == "POST" else None,
        ) as response,
    ):
        received = response.iter_raw()
        first = parse(next(received)).events[0]
        assert REPLY.startswith(content_of(first.data))
        assert demo.stop() == (0, "", "")
        list(received)  # the stream was ended, not broken off
