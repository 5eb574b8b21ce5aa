"""The same behaviour on every server, each in another process."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Iterator

import pytest

from ..support import releases
from ..support.apps import MS
from ..support.server import (
    COMMANDS,
    TIMEOUT,
    Client,
    Server,
    get,
    serve_process,
    wait_until,
)

APP = "tests.support.streams:app"
READY = "/numbers?n=1"


@pytest.fixture(scope="module", params=list(COMMANDS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Run a server for all tests of this file. Each test clears its output."""
    with serve_process(request.param, APP, READY) as server:
        yield server
    assert "never retrieved" not in "".join(server.log)


def test_streams_errors_and_disconnects(
    server: Server, request: pytest.FixtureRequest
) -> None:
    if server.name == "gunicorn" and releases.LOSES_SOCKETS:
        # It happens only if a generator sends after the disconnect.
        reason = "gunicorn writes by writelines, and the next client gets no answer"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=False))
    port = server.port
    del server.log[:]

    burst = b"".join(b"data: %d\n\n" % number for number in range(20_000))
    assert get(port, "/numbers?n=20000") == burst

    with Client(port, "/forbidden") as client:
        assert client.status == 403
    with Client(port, "/late") as client:
        assert client.status == 200
        assert client.read_to_end() == b'data: "\\"late\\""\n\n'

    # daphne sends a second response for an error, which fails. The first one stays
    # open, for any application, and later errors are not logged.
    breaks_off = server.name != "daphne"
    ends = (EOFError, ConnectionResetError) if breaks_off else TimeoutError
    for path, last in [("/broken", b"data: 2\n\n"), ("/invalid", b'{"n":2}\n\n')]:
        del server.said[:]
        # daphne looks for errors once a second.
        with Client(port, path, timeout=TIMEOUT if breaks_off else 1.5) as client:
            client.read_until(last)
            with pytest.raises(ends):
                client.read_chunk()
        wait_until(lambda: "closed error" in server.said)

    for path in ("/idle", "/paced", "/busy", "/sync", "/sync-busy"):
        del server.said[:]
        with Client(port, path, buffer_size=8192) as client:
            client.read_until(b"data: ")
        wait_until(lambda: "closed disconnected" in server.said)
        expected = ["generator", "dependency", "closed disconnected"]
        assert server.said == expected, server.log

    # The log comes through the same pipe, so it is complete by now.
    log = "".join(server.log)
    errors = ["LookupError: mid-stream", "ResponseValidationError: 1 validation error"]
    for error in errors if breaks_off else errors[:1]:
        assert len(re.findall(rf"^[ |]*[\w.]*{error}", log, re.MULTILINE)) == 1, log


def test_the_head_does_not_wait_for_an_event(server: Server) -> None:
    """gunicorn holds the head of any response until there is a body."""
    del server.said[:]
    if "gunicorn" in server.name:
        with pytest.raises(TimeoutError):
            Client(server.port, "/silent", timeout=0.5)
    else:
        with Client(server.port, "/silent") as client:
            assert client.status == 200
    wait_until(lambda: len(server.said) == 3)
    assert server.said == ["generator", "dependency", "closed disconnected"]


def test_a_generator_waits_for_a_client_that_does_not_read(server: Server) -> None:
    """With daphne it does not: daphne keeps any response in memory."""
    if server.name == "hypercorn-trio":
        pytest.skip("it shields what it sends: its client is not dropped")
    del server.said[:]
    with Client(server.port, "/much", buffer_size=8192) as client:
        client.read_until(b"data: ")
        wait_until(lambda: server.said)
    reason = "finished" if server.name == "daphne" else "send_timeout"
    assert server.said == [f"closed {reason}"]


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
    # A few milliseconds are usual. The median ignores pauses of the machine.
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
