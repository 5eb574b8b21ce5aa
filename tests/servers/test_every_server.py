"""The same behaviour on every server, each in a process of its own."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Iterator

import pytest

from ..support.apps import MS
from ..support.server import COMMANDS, Client, Server, get, serve_process, wait_until

APP = "tests.support.streams:app"
READY = "/numbers?n=1"


@pytest.fixture(scope="module", params=list(COMMANDS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One process for all tests of this file; what it has said is theirs to clear."""
    with serve_process(request.param, APP, READY) as server:
        yield server
    assert "never retrieved" not in "".join(server.log)


def test_streams_errors_and_disconnects(server: Server) -> None:
    port = server.port
    del server.log[:]

    burst = b"".join(b"data: %d\n\n" % number for number in range(20_000))
    assert get(port, "/numbers?n=20000") == burst

    with Client(port, "/forbidden") as client:
        assert client.status == 403
    with Client(port, "/late") as client:
        assert client.status == 200
        assert client.read_to_end() == b'data: "\\"late\\""\n\n'

    for path, last in [("/broken", b"data: 2\n\n"), ("/invalid", b'{"n":2}\n\n')]:
        del server.said[:]
        with Client(port, path) as client:
            client.read_until(last)
            with pytest.raises((EOFError, ConnectionResetError)):
                client.read_chunk()
        wait_until(lambda: "closed error" in server.said)

    for path in ("/idle", "/paced", "/busy", "/sync", "/sync-busy"):
        del server.said[:]
        with Client(port, path, buffer_size=8192) as client:
            client.read_until(b"data: ")
        wait_until(lambda: "closed disconnected" in server.said)
        expected = ["generator", "dependency", "closed disconnected"]
        assert server.said == expected, server.log

    # What is logged comes through the same pipe: it was before the last "closed".
    log = "".join(server.log)
    for error in (
        "LookupError: mid-stream",
        "ResponseValidationError: 1 validation error",
    ):
        assert len(re.findall(rf"^[ |]*[\w.]*{error}", log, re.MULTILINE)) == 1, log


def test_a_client_that_leaves_an_idle_stream_is_noticed_at_once(server: Server) -> None:
    times = []
    del server.said[:]
    for _ in range(15):
        with Client(server.port, "/idle") as client:
            client.read_until(b"data: ")
            left = time.perf_counter()
        wait_until(lambda: server.said)
        times.append(time.perf_counter() - left)
        wait_until(lambda: len(server.said) == 3)
        del server.said[:]
    # Of most, so that a pause of the machine does not count; a few ms are usual.
    assert statistics.median(times) < 0.1, times


@pytest.mark.parametrize(
    "server", ["uvicorn-h11", "uvicorn-uvloop", "granian"], indirect=True
)
@pytest.mark.parametrize("path", ["/busy", "/sync-busy"])
def test_the_loop_stays_responsive_beside_a_generator_that_never_awaits(
    server: Server, path: str
) -> None:
    done = threading.Event()

    def read(client: Client) -> None:
        while not done.is_set():
            client.socket.recv(1 << 16)

    del server.said[:]
    with Client(server.port, path) as client:
        reader = threading.Thread(target=read, args=[client])
        reader.start()
        latencies = []
        for _ in range(20):
            started = time.perf_counter()
            with Client(server.port, "/numbers?n=1"):
                latencies.append(time.perf_counter() - started)
        done.set()
        reader.join()
    wait_until(lambda: len(server.said) == 3)
    assert sorted(latencies)[10] < 50 * MS
