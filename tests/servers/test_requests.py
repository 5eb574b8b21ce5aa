"""Generators that read from their request, on every server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import httpx
import pytest

from ..support.apps import numbers
from ..support.eventsource import parse
from ..support.request_streams import PAUSES
from ..support.server import (
    COMMANDS,
    PLAIN,
    Client,
    Server,
    get,
    serve_process,
    wait_until,
)

APP = "tests.support.request_streams:app"
READY = "/numbers?n=1"
SERVERS = [name for name in COMMANDS if "uvloop" not in name]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Run a server for all tests of this file. Each test clears its output."""
    with serve_process(request.param, APP, READY) as server:
        yield server
    assert "never retrieved" not in "".join(server.log)


@pytest.mark.parametrize("size", [3, 200_000])
@pytest.mark.parametrize("when", PAUSES)
@pytest.mark.parametrize("way", ["body", "json", "stream"])
def test_a_generator_reads_the_body_of_its_request(
    server: Server, way: str, when: str, size: int
) -> None:
    body = json.dumps("x" * (size - 2)).encode()
    expected = [hashlib.sha256(body).hexdigest(), False]
    if when != "at-first":
        expected.insert(0, "begun")
    del server.said[:], server.log[:]
    url = f"http://127.0.0.1:{server.port}/{way}/{when}"
    reply = httpx.post(url, content=body, **PLAIN)
    assert reply.status_code == 200
    events = parse(reply.content).events
    assert [json.loads(event.data) for event in events] == expected, server.log
    wait_until(lambda: "closed finished" in server.said)
    assert server.said == ["dependency", "closed finished"]


def test_a_generator_that_asks_whether_its_client_is_there_goes_on(
    server: Server,
) -> None:
    del server.said[:]
    assert numbers(get(server.port, "/asks/1000")) == list(range(1000))
    wait_until(lambda: server.said)
    assert server.said == ["closed finished"]


def test_a_generator_that_asks_whether_its_client_is_there_ends(server: Server) -> None:
    for _ in range(5):
        del server.said[:]
        with Client(server.port, "/asks") as client:
            client.read_until(b"data: 3\n\n")
        wait_until(lambda: len(server.said) == 3)
        # Either the stream or its generator can notice the disconnect first.
        assert server.said[:2] == ["generator", "dependency"], server.log
        assert server.said[2] in ("closed disconnected", "closed finished")


def test_a_dependency_asks_whether_the_client_is_there(server: Server) -> None:
    """The dependency cancels a `receive` before a stream shares it."""
    del server.said[:]
    with Client(server.port, "/asked") as client:
        try:
            events = numbers(client.read_to_end())
        except EOFError:
            events = []
    wait_until(lambda: len(server.said) == 2)
    if server.name in ("granian", "gunicorn") and server.said[1] != "closed finished":
        pytest.xfail("it treats a cancelled `receive` as a disconnect")
    assert server.said == ["gone: False False False", "closed finished"]
    assert events == [0, 1, 2]
