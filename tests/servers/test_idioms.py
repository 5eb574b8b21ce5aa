"""Streams as users of sse-starlette write them, on every server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ..support.apps import numbers
from ..support.eventsource import parse
from ..support.idioms import ROUNDS, WELCOME
from ..support.server import PLAIN, Client, Server, get, serve_process, wait_until

APP = "tests.support.idioms:app"
READY = "/numbers?n=1"
SERVERS = ["uvicorn-httptools", "hypercorn", "granian", "gunicorn", "daphne"]

ENDLESS = ["/loop", "/rows", "/producers", "/thread", "/task"]
SUBSCRIPTIONS = ["/subscribe", "/subscribe-object"]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Run a server for all tests of this file. Each test clears its output."""
    with serve_process(request.param, APP, READY) as server:
        yield server
    log = "".join(server.log)
    assert "Traceback" not in log
    assert "never retrieved" not in log
    assert "was destroyed" not in log


def left(server: Server) -> dict[str, Any]:
    """Return what streams have left behind on the server."""
    url = f"http://127.0.0.1:{server.port}/left"
    found: dict[str, Any] = httpx.get(url, **PLAIN).json()
    return found


def publish(server: Server, published: list[int | None]) -> int:
    url = f"http://127.0.0.1:{server.port}/publish"
    return int(httpx.post(url, json=published, **PLAIN).text)


NOTHING = {"queues": 0, "sessions": 0, "tasks": []}


def closed(server: Server) -> int:
    return len(reasons(server))


def reasons(server: Server) -> list[str]:
    return [said for said in server.said if said.startswith("closed ")]


@pytest.mark.parametrize("path", [path for path in ENDLESS if path != "/producers"])
def test_events_arrive_in_order(server: Server, path: str) -> None:
    del server.said[:]
    body = get(server.port, f"{path}?count={ROUNDS}")
    assert numbers(body) == list(range(ROUNDS))
    wait_until(lambda: closed(server) == 1)
    assert server.said == ["finally", "closed finished"]


def test_events_of_several_producers_arrive_in_the_order_of_each(
    server: Server,
) -> None:
    del server.said[:]
    body = get(server.port, f"/producers?count={ROUNDS}")
    items = [json.loads(event.data) for event in parse(body).events]
    for name in "abc":
        assert [number for of, number in items if of == name] == list(range(ROUNDS))
    assert len(items) == 3 * ROUNDS
    wait_until(lambda: closed(server) == 1)
    assert server.said == ["finally", "closed finished"]


@pytest.mark.parametrize("path", ENDLESS)
def test_clients_that_vanish_end_their_generators(server: Server, path: str) -> None:
    del server.said[:]
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(Client(server.port, path))
            client.read_until(b"29")
    wait_until(lambda: closed(server) == 5)
    assert server.said.count("finally") == 5
    assert left(server) == NOTHING
    # A generator that checks for a disconnect can notice it before the stream.
    assert {*reasons(server)} <= {"closed disconnected", "closed finished"}


def subscribe(
    server: Server, path: str, count: int, stack: contextlib.ExitStack
) -> list[Client]:
    """Return clients that have subscribed, as their first event confirms."""
    clients = [stack.enter_context(Client(server.port, path)) for _ in range(count)]
    for client in clients:
        client.read_until(b"data: %d\n\n" % WELCOME)
    return clients


@pytest.mark.parametrize("path", SUBSCRIPTIONS)
def test_subscribers_get_what_is_published_until_they_leave(
    server: Server, path: str
) -> None:
    del server.said[:]
    with contextlib.ExitStack() as stack:
        vanishing = stack.enter_context(contextlib.ExitStack())
        subscribe(server, path, 2, vanishing)
        staying = subscribe(server, path, 3, stack)
        assert publish(server, [*range(ROUNDS)]) == 5
        vanishing.close()
        wait_until(lambda: closed(server) == 2)
        assert left(server)["queues"] == 3
        publish(server, [*range(ROUNDS, 2 * ROUNDS), None])
        for client in staying:
            assert numbers(client.read_to_end()) == [WELCOME, *range(2 * ROUNDS)]
        wait_until(lambda: closed(server) == 5)
    assert server.said.count("finally") == 5
    assert left(server) == NOTHING
    assert reasons(server) == ["closed disconnected"] * 2 + ["closed finished"] * 3


@pytest.mark.parametrize("name", SERVERS)
def test_the_server_stops_beside_all_of_them(name: str) -> None:
    with serve_process(name, APP, READY) as server:
        with contextlib.ExitStack() as stack:
            for path in (*ENDLESS, *SUBSCRIPTIONS):
                client = stack.enter_context(Client(server.port, path))
                client.read_until(b"data: ")
            del server.said[:]
            server.terminate()
            # The clients must not disconnect earlier.
            server.wait()
    count = len(ENDLESS) + len(SUBSCRIPTIONS)
    if name == "daphne":
        # daphne cancels all streams and waits only for the first to close.
        assert 1 <= server.said.count("finally") <= count
        assert {*reasons(server)} <= {"closed cancelled"}
    else:
        assert server.said.count("finally") == count
        assert reasons(server) == ["closed shutdown"] * count
