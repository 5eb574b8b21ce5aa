"""Streams on every server: the same behaviour, and an end when the server stops."""

from __future__ import annotations

import concurrent.futures
import time

import pytest

from .server import COMMANDS, Client, get, serve_process, wait_until

APP = "tests.streams:app"
READY = "/numbers?n=1"
MS = 0.001


@pytest.fixture(params=list(COMMANDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_streams_errors_and_disconnects(name: str) -> None:
    with serve_process(name, APP, READY) as server:
        port = server.port

        burst = b"".join(b"data: %d\n\n" % number for number in range(20_000))
        assert get(port, "/numbers?n=20000") == burst

        with Client(port, "/forbidden") as client:
            assert client.status == 403
        with Client(port, "/late") as client:
            assert client.status == 200
            assert client.read_to_end() == b'data: "\\"late\\""\n\n'

        with Client(port, "/broken") as client:
            client.read_until(b"data: 2\n\n")
            with pytest.raises((EOFError, ConnectionResetError)):
                client.read_chunk()
        wait_until(lambda: "closed error" in server.said)

        for path in ("/idle", "/paced", "/busy", "/sync", "/sync-busy"):
            del server.said[:]
            with Client(port, path, buffer_size=8192) as client:
                client.read_until(b"data: ")
            started = time.perf_counter()
            wait_until(lambda: "closed disconnected" in server.said)
            noticed = time.perf_counter() - started
            expected = ["generator", "dependency", "closed disconnected"]
            assert server.said == expected, server.log
            assert noticed < 2  # a bound for a busy machine; a few ms are usual


SHUTDOWN_PATHS = ["/idle", "/paced", "/busy", "/sync", "/sync-busy"]


# hypercorn's trio worker has no handler for SIGTERM. (Workers that hypercorn starts
# beside its own process get no signal; their requests are cancelled after 3 seconds.)
STOPPABLE = [name for name in COMMANDS if name != "hypercorn-trio"]


def stopped(name: str, streams: int) -> tuple[int, float]:
    """A server is told to stop beside open streams.

    Returns its exit code and the seconds that it took.
    """

    def opened(number: int) -> Client:
        client = Client(server.port, SHUTDOWN_PATHS[number % 5])
        client.read_until(b"data: ")
        return client

    def last_bytes(client: Client) -> bytes:
        with client:
            return client.read_to_end()[-30:]

    with (
        serve_process(name, APP, READY) as server,
        # All read at the same time: the server drops who takes nothing for 0.5 s.
        concurrent.futures.ThreadPoolExecutor(streams or 1) as pool,
    ):
        clients = list(pool.map(opened, range(streams)))
        del server.said[:]
        started = time.perf_counter()
        server.terminate()
        for end in pool.map(last_bytes, clients):
            assert end.endswith(b"event: bye\nretry: 3000\n\n")
        code = server.wait()
        elapsed = time.perf_counter() - started
    for line in ("generator", "closed shutdown", "dependency"):
        assert server.said.count(line) == streams
    assert not [line for line in server.log if "Traceback" in line]
    return code, elapsed


@pytest.mark.parametrize("name", STOPPABLE)
def test_sigterm_ends_open_streams_and_the_server(name: str) -> None:
    """Twice as many sync streams as there are threads for them, among others."""
    code_without, _ = stopped(name, 0)
    code, elapsed = stopped(name, 200)
    assert code == code_without
    assert elapsed < 3  # a bound for a busy machine; 1 s is usual


@pytest.mark.parametrize("name", STOPPABLE)
def test_sigterm_while_a_dependency_is_opened(name: str) -> None:
    """The stream that begins after it would keep the server for ever."""
    with (
        serve_process(name, APP, READY) as server,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        opened = pool.submit(Client, server.port, "/opening")
        wait_until(lambda: "opening" in server.said)
        del server.said[:]
        server.terminate()
        with opened.result() as client:
            assert client.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
        server.wait()
    assert server.said.count("closed shutdown") == 1
    assert server.said.count("dependency") == 1


@pytest.mark.parametrize("name", STOPPABLE)
def test_sigterm_lets_a_stream_go_on_for_its_grace(name: str) -> None:
    with serve_process(name, APP, READY) as server:
        with Client(server.port, "/graceful") as client:
            client.read_until(b"data: 1\n\n")
            started = time.perf_counter()
            server.terminate()
            assert client.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
        server.wait()
        elapsed = time.perf_counter() - started
    assert 0.3 <= elapsed < 3  # a bound for a busy machine; 0.3 + 0.5 s are usual
    assert server.said[-2:] == ["generator", "closed shutdown"]
