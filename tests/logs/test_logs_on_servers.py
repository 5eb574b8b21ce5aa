"""Channels and runs on real servers and sockets."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ..support.eventsource import parse
from ..support.logs import moved, offset
from ..support.logs_app import Logs
from ..support.server import (
    COMMANDS,
    HTTP_AND_LOOPS,
    PLAIN,
    Client,
    Server,
    opened,
    serve,
    serve_process,
    wait_until,
)


@contextlib.contextmanager
def serving(logs: Logs, **config: Any) -> Iterator[int]:
    with serve(logs.app, lifespan="on", **config) as port:
        yield port


def publish(port: int, first: int, count: int, size: int = 0) -> list[str]:
    url = f"http://127.0.0.1:{port}/publish?first={first}&count={count}&size={size}"
    ids: list[str] = httpx.get(url, **PLAIN).json()
    return ids


def tasks(port: int) -> int:
    return int(httpx.get(f"http://127.0.0.1:{port}/tasks", **PLAIN).text)


def tasks_at_rest(port: int) -> int:
    """Return the number of tasks, with one that a stream begins after some turns."""
    return max(tasks(port) for _ in range(5))


def end_of(number: int) -> bytes:
    return b"data: %d\n\n" % number


@pytest.mark.parametrize("config", HTTP_AND_LOOPS, ids=str)
def test_200_subscribers_get_everything_in_order(config: dict[str, Any]) -> None:
    logs = Logs()
    with serving(logs, **config) as port, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(port, "/events")) for _ in range(200)]
        for client in clients:
            client.read_until(b"id: ")
        assert logs.channels.stats().subscribers == 200
        ids = publish(port, 1, 50) + publish(port, 51, 50)
        bodies = {client.read_until(end_of(100)) for client in clients}
        [body] = bodies
        events = parse(body).events
        assert [int(event.data) for event in events] == list(range(1, 101))
        assert [event.last_event_id for event in events] == ids
        stack.close()
        wait_until(lambda: logs.channels.stats().subscribers == 0)


@pytest.mark.parametrize("name", ["hypercorn-trio", "gunicorn-uvloop", "granian"])
def test_a_channel_and_a_run_on_other_servers(name: str) -> None:
    with serve_process(name, "tests.support.logs_app:app", "/ready") as server:
        port = server.port
        with Client(port, "/events") as client:
            client.read_until(b"id: ")
            ids = publish(port, 1, 20)
            events = parse(client.read_until(end_of(20))).events
        assert [event.last_event_id for event in events] == ids
        with Client(port, f"/events?last_event_id={ids[9]}") as client:
            events = parse(client.read_until(end_of(20))).events
        assert [event.last_event_id for event in events] == ids[10:]
        post(port, "/run")
        with Client(port, "/run") as client:
            client.read_until(b"begun")
        wait_until(lambda: server.said.count("closed disconnected") == 4)
        assert "run" not in "".join(server.said)
        assert "Traceback" not in "".join(server.log)


def test_a_client_that_does_not_read_costs_nobody_anything() -> None:
    logs = Logs(history=20)
    with (
        serving(logs) as port,
        Client(port, "/events", buffer_size=4096) as slow,
        Client(port, "/events") as quick,
    ):
        for client in (slow, quick):
            client.read_until(b"id: ")
        for first in range(1, 400, 10):  # more than the sockets hold
            publish(port, first, 10, size=20_000)
            quick.read_until(end_of(first + 9))
        assert logs.channels.stats().lag > 100
        everything = parse(without_comments(quick.body)).events
        assert [int(event.data) for event in everything] == list(range(1, 401))

        position = gaps = 0
        for event in parse(without_comments(slow.read_until(end_of(400)))).events:
            now = offset(event.last_event_id)
            if event.type == "gap":
                gaps += 1
                assert f'"missed": {now - position}' in event.data
            else:
                assert (int(event.data), now) == (position + 1, position + 1)
            position = now
        assert (position, gaps) == (400, 1)
        assert logs.channels.stats().gaps == {"overflow": 1}
        publish(port, 401, 1)
        slow.read_until(end_of(401))


def without_comments(body: bytes) -> bytes:
    return re.sub(rb"(?m)^:.*\n", b"", body)


def test_clients_that_vanish_in_the_middle_of_deliveries() -> None:
    logs = Logs()
    with serving(logs) as port, Client(port, "/events") as stays:
        stays.read_until(b"id: ")
        before = tasks_at_rest(port)
        for turn in range(10):
            clients = [Client(port, "/events") for _ in range(10)]
            for client in clients:
                client.read_until(b"id: ")
            publish(port, 20 * turn + 1, 10, size=5000)
            for client in clients:
                reset(client)
            publish(port, 20 * turn + 11, 10, size=5000)
        stays.read_until(end_of(200))
        assert [int(it.data) for it in parse(stays.body).events] == list(range(1, 201))
        wait_until(lambda: logs.channels.stats().subscribers == 1)
        wait_until(lambda: tasks(port) <= before)


def reset(client: Client) -> None:
    """Close a connection so that the server's next write fails."""
    linger = struct.pack("ii", 1, 0)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.socket.close()


def test_a_new_connection_resumes_behind_the_last_event() -> None:
    logs = Logs()
    with serving(logs) as port:
        with Client(port, "/events") as client:
            client.read_until(b"id: ")
            ids = publish(port, 1, 3)
            client.read_until(end_of(3))
        publish(port, 4, 3)
        with opened(port, "/events", **{"Last-Event-ID": ids[2]}) as response:
            body = b""
            for chunk in response.iter_raw():
                body += chunk
                if end_of(6) in body:
                    break
        assert [int(event.data) for event in parse(body).events] == [4, 5, 6]
        with Client(port, f"/events?lastEventId={ids[0]}") as client:
            client.read_until(end_of(6))
        assert parse(client.body).events[0].last_event_id == moved(ids[0], 1)


def test_after_much_coming_and_going_nothing_is_left() -> None:
    logs = Logs()
    with serving(logs) as port:
        before = tasks_at_rest(port)
        for number in range(1, 61):
            with Client(port, "/events") as client:
                if number % 3:
                    client.read_until(b"id: ")
                publish(port, number, 1)
                if number % 2:
                    client.read_until(end_of(number))
            if number % 20 == 0:
                post(port, "/run")
        wait_until(lambda: logs.channels.stats()[:3] == (0, 0, 0))
        wait_until(lambda: logs.runs.stats()[:3] == (1, 0, 0))
        run_and_its_tasks = 4
        wait_until(lambda: tasks(port) <= before + run_and_its_tasks)
    assert logs.runs.stats()[:3] == (0, 0, 0)


def post(port: int, path: str) -> None:
    """Start what is streamed, and do not wait for its end."""
    with httpx.stream("POST", f"http://127.0.0.1:{port}{path}", **PLAIN) as response:
        for chunk in response.iter_raw():
            if b"begun" in chunk:
                return


APP = "tests.support.logs_app:app"
HASTY = "tests.support.logs_app:hasty"
"""It gives runs half a second on server shutdown."""

UVICORN = "uvicorn {app} --fd {fd}"
SHUTTING_DOWN = {
    **COMMANDS,
    "uvicorn": UVICORN,
    "uvicorn, 2 s": f"{UVICORN} --timeout-graceful-shutdown 2",
    "uvicorn, 9 s": f"{UVICORN} --timeout-graceful-shutdown 9",
}
OTHERS = ["hypercorn", "granian", "gunicorn"]


@contextlib.contextmanager
def serving_run(
    name: str, app: str, monkeypatch: pytest.MonkeyPatch, path: str = "/run"
) -> Iterator[Server]:
    """Serve with a run that has begun, and that nobody reads."""
    monkeypatch.setitem(COMMANDS, name, SHUTTING_DOWN[name])
    with serve_process(name, app, "/ready") as server:
        post(server.port, path)
        wait_until(lambda: server.said)
        assert set(server.said) == {"closed disconnected"}
        server.said.clear()
        yield server


def seconds_to_exit(server: Server) -> float:
    started = time.monotonic()
    server.wait()
    return time.monotonic() - started


@pytest.mark.parametrize("name", ["uvicorn-h11", "uvicorn-uvloop", "granian"])
def test_sigterm_ends_subscriptions_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving_run(name, HASTY, monkeypatch) as server,
        contextlib.ExitStack() as stack,
    ):
        paths = ["/events"] * 10 + ["/run"] * 5
        clients = [stack.enter_context(Client(server.port, path)) for path in paths]
        for client in clients:
            client.read_until(b"id: ")
        server.terminate()
        for client in clients:
            client.read_until_broken_off()
        assert seconds_to_exit(server) < 10  # a bound for a busy machine
    assert server.said.count("closed shutdown") == 15
    # The run continues until its grace ends.
    assert server.said[-2:] == ["generator", "run shutdown"]
    assert len(server.said) == 17
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn, 9 s", *OTHERS])
def test_a_run_that_nobody_reads_has_time_to_end_on_sigterm(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_run(name, APP, monkeypatch, "/run?seconds=1.5") as server:
        server.terminate()
        assert seconds_to_exit(server) < 10
    assert server.said == ["generator", "run done"]
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize(("name", "app"), [("uvicorn, 2 s", APP), ("uvicorn", HASTY)])
def test_a_run_that_nobody_reads_ends_before_the_server_loses_patience(
    name: str, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_run(name, app, monkeypatch) as server:
        server.terminate()
        assert seconds_to_exit(server) < 10
    assert server.said == ["generator", "run shutdown"]
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize(
    ("name", "app"),
    [("uvicorn, 2 s", APP), *((name, HASTY) for name in ("uvicorn", *OTHERS))],
)
def test_who_reads_a_run_in_a_post_gets_its_end_on_sigterm(
    name: str, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `EventSource` reconnects, so its stream is aborted. A POST is not repeated."""
    with serving_run(name, app, monkeypatch) as server:
        with (
            Client(server.port, "/run", method="POST") as client,
            Client(server.port, "/run") as browser,
        ):
            for each in (client, browser):
                each.read_until(b"begun")
            server.terminate()
            browser.read_until_broken_off()
            last = parse(client.read_to_end()).events[-1]
        assert seconds_to_exit(server) < 10
    assert (last.type, last.data) == ("error", '{"code": "shutdown"}')
    assert server.said == [
        "closed shutdown",  # the browser
        "generator",
        "run shutdown",
        "closed finished",
    ]
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize("is_read", [False, True])
def test_a_second_sigint_ends_the_time_of_a_run(
    is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving_run("uvicorn", APP, monkeypatch) as server,
        contextlib.ExitStack() as stack,
    ):
        if is_read:
            client = stack.enter_context(Client(server.port, "/run", method="POST"))
            client.read_until(b"begun")
        server.send_signal(signal.SIGINT)
        time.sleep(1)
        assert server.said == []
        server.send_signal(signal.SIGINT)
        assert seconds_to_exit(server) < 10
    assert [line for line in server.said if "closed" not in line] == [
        "generator",
        "run shutdown",
    ]


def test_a_run_is_seen_by_many_connections() -> None:
    logs = Logs()
    with serving(logs) as port:
        post(port, "/run")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(port, "/run")) for _ in range(20)]
            for client in clients:
                client.read_until(b"begun")
        last = parse(clients[0].body).last_event_id
    with serving(logs) as port:  # its store is empty now
        with httpx.Client(**PLAIN) as http:
            reply = http.get(
                f"http://127.0.0.1:{port}/run", headers={"Last-Event-ID": last}
            )
        assert reply.status_code == 204
