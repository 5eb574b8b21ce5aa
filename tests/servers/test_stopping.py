"""Servers in another process that are shut down or reloaded."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import time
from pathlib import Path

import pytest

from ..support.apps import MS
from ..support.server import (
    COMMANDS,
    GUNICORN,
    Client,
    get,
    serve_process,
    wait_until,
)

APP = "tests.support.streams:app"
READY = "/numbers?n=1"


# Only few streams fill all buffers, because on a busy machine their clients have to
# read everything in the 0.5 s that the server gives them.
SHUTDOWN_PATHS = ["/busy", "/sync-busy", *["/idle", "/paced", *["/sync"] * 5] * 4]


# hypercorn's trio worker has no handler for SIGTERM, and daphne's handler cancels all
# requests. Separate tests below cover both.
STOPPABLE = [name for name in COMMANDS if name not in ("hypercorn-trio", "daphne")]


def stopped(name: str, streams: int) -> tuple[int, float]:
    """Shut a server down while streams are open.

    Return its exit code and the seconds that it took.
    """

    def opened(number: int) -> Client:
        client = Client(server.port, SHUTDOWN_PATHS[number % len(SHUTDOWN_PATHS)])
        client.read_until(b"data: ")
        return client

    def last_bytes(client: Client) -> bytes:
        with client:
            return client.read_to_end()[-30:]

    with (
        serve_process(name, APP, READY) as server,
        # All clients read at once: the server drops a client that reads nothing
        # for 0.5 s.
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
    assert "Traceback" not in "".join(server.log)
    return code, elapsed


@pytest.mark.parametrize("name", STOPPABLE)
def test_sigterm_ends_open_streams_and_the_server(name: str) -> None:
    """There are twice as many sync streams as threads, among other streams."""
    code_without, _ = stopped(name, 0)
    code, elapsed = stopped(name, 120)
    assert code == code_without
    if name.startswith("uvicorn"):
        assert code == -signal.SIGTERM  # It raises the signal again at the end.
    assert elapsed < 10  # 1 s is usual. gunicorn would wait for 30 s.


def said_when_stopped_while_opening(name: str, path: str) -> list[str]:
    """Shut a server down before a stream begins, and return its output.

    The stream would keep the server running for ever.
    """
    with (
        serve_process(name, APP, READY) as server,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        opened = pool.submit(Client, server.port, path)
        wait_until(lambda: "opening" in server.said)
        del server.said[:]
        server.terminate()
        with opened.result() as client:
            assert client.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
        server.wait()
    return server.said


@pytest.mark.parametrize("name", STOPPABLE)
def test_sigterm_while_a_dependency_is_opened(name: str) -> None:
    said = said_when_stopped_while_opening(name, "/opening")
    assert said.count("closed shutdown") == 1
    assert said.count("dependency") == 1


@pytest.mark.parametrize("name", [name for name in STOPPABLE if "uvicorn" in name])
def test_a_stream_that_begins_after_sigterm_ends_too(name: str) -> None:
    """No stream was open, so only the server's own handler was called."""
    said = said_when_stopped_while_opening(name, "/returned")
    assert said[-2:] == ["generator", "closed shutdown"]


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
    assert 0.3 <= elapsed < 10  # 0.8 s are usual.
    assert server.said[-2:] == ["generator", "closed shutdown"]


def test_sigterm_ends_two_servers_in_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second restores our handler at its end and passes the signal on to it."""
    monkeypatch.setitem(COMMANDS, "two", "tests.support.two_servers {fd}")
    with (
        serve_process("two", APP, READY) as server,
        Client(server.port, "/graceful") as first,
    ):
        first.read_until(b"data: 1\n\n")
        port = int(get(server.port, "/second").removeprefix(b"data: "))
        with Client(port, "/idle") as second:
            second.read_until(b"data: 1\n\n")
            server.terminate()
            for client in (second, first):
                assert client.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
        server.wait()
    assert server.said.count("closed shutdown") == 2


WITH_WORKERS = {
    "uvicorn": ("uvicorn {app} --fd {fd} --workers 2", "Application startup complete"),
    "granian": (
        "granian {app} --interface asgi --port {port} --workers 2",
        "Started worker",
    ),
    "gunicorn": (f"{GUNICORN} --workers 2", "ASGI server listening"),
}


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_sigterm_ends_the_streams_of_all_workers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, started = WITH_WORKERS[name]
    monkeypatch.setitem(COMMANDS, "workers", command)
    with (
        serve_process("workers", APP, READY) as server,
        contextlib.ExitStack() as stack,
    ):
        # granian does not stop a worker that is still starting.
        wait_until(lambda: sum(started in line for line in server.log) == 2)
        clients = [stack.enter_context(Client(server.port, "/idle")) for _ in range(20)]
        for client in clients:
            client.read_until(b"data: 1\n\n")
        server.terminate()
        for client in clients:
            assert client.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
        server.wait()
    assert server.said.count("closed shutdown") == 20


@pytest.mark.parametrize("path", ["/idle", "/paced", "/busy", "/sync"])
def test_sigterm_cancels_the_streams_of_daphne(path: str) -> None:
    """daphne cancels them at once, and waits until their generators have closed."""
    with serve_process("daphne", APP, READY) as server:
        with Client(server.port, path) as client:
            client.read_until(b"data: ")
            server.terminate()
            with pytest.raises((EOFError, ConnectionResetError)):
                client.read_to_end()
        assert server.wait() == 0
    assert server.said[-2:] == ["generator", "closed cancelled"]


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT])
def test_gunicorn_that_stops_quickly_ends_its_streams(number: signal.Signals) -> None:
    """The main process sends SIGQUIT to its workers for both signals."""
    with serve_process("gunicorn", APP, READY) as server:
        with Client(server.port, "/idle") as client:
            client.read_until(b"data: 1\n\n")
            server.send_signal(number)
            assert client.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
        server.wait()
    assert server.said[-3:] == ["generator", "dependency", "closed shutdown"]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_hypercorn_end_their_streams(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag tells them. The main process kills all workers but the first."""
    command = f"hypercorn {{app}} --bind fd://{{fd}} --workers {workers}"
    monkeypatch.setitem(COMMANDS, "workers", command)
    with serve_process("workers", APP, READY) as server:
        with Client(server.port, "/idle") as client:
            client.read_until(b"data: 1\n\n")
            server.terminate()
            assert client.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
        server.wait()
    assert server.said[-3:] == ["generator", "dependency", "closed shutdown"]


WITH_MAX_REQUESTS = {
    "uvicorn": "uvicorn {app} --fd {fd} --limit-max-requests 5",
    "gunicorn": f"{GUNICORN} --max-requests 5",
    "hypercorn": "hypercorn {app} --bind fd://{fd} --workers 0 --max-requests 5",
}


@pytest.mark.parametrize("name", WITH_MAX_REQUESTS)
def test_a_worker_that_has_had_its_requests_ends_its_streams(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker gets no signal. It would wait, and then abort open streams."""
    monkeypatch.setitem(COMMANDS, "limited", WITH_MAX_REQUESTS[name])
    with serve_process("limited", APP, READY) as server:
        with Client(server.port, "/idle") as client:
            client.read_until(b"data: 1\n\n")
            for _ in range(4):
                # The server may refuse the last requests.
                with contextlib.suppress(OSError, EOFError):
                    with Client(server.port, READY, timeout=0.5) as another:
                        another.read_to_end()
            assert client.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
        wait_until(lambda: len(server.said) == 3)
    assert server.said == ["generator", "dependency", "closed shutdown"]


HYPERCORN_ON_TRIO = "hypercorn {app} --bind fd://{fd} --workers 0 -k trio"


def test_hypercorn_on_trio_is_stopped_by_sigint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(COMMANDS, "trio", HYPERCORN_ON_TRIO)
    with serve_process("trio", APP, READY) as server:
        with Client(server.port, "/idle") as client:
            client.read_until(b"data: 1\n\n")
            # If the server is busy, trio raises KeyboardInterrupt in the code that
            # runs, such as this send, and hypercorn treats it as an error of ours.
            time.sleep(300 * MS)
            server.send_signal(signal.SIGINT)
            assert client.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
        server.wait()
    assert server.said[-3:] == ["generator", "dependency", "closed shutdown"]


def test_sigterm_cuts_the_streams_of_hypercorn_on_trio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no handler for SIGTERM, so the signal must still kill it."""
    monkeypatch.setitem(COMMANDS, "trio", HYPERCORN_ON_TRIO)
    with serve_process("trio", APP, READY) as server:
        with Client(server.port, "/idle") as client:
            client.read_until(b"data: 1\n\n")
            server.terminate()
            with pytest.raises((EOFError, ConnectionResetError)):
                client.read_to_end()
        assert server.wait() == -signal.SIGTERM


def test_a_changed_file_restarts_the_server_beside_an_open_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "reloaded.py"
    module.write_text("from tests.support.streams import app\n")
    command = (
        "uvicorn {app} --fd {fd} --app-dir %s"
        " --reload --reload-dir %s --reload-delay 0.05"
    )
    monkeypatch.setitem(COMMANDS, "reload", command % (tmp_path, tmp_path))
    with serve_process("reload", "reloaded:app", "/numbers?n=1") as process:
        with Client(process.port, "/idle") as client:
            client.read_until(b"data: 1\n\n")
            del process.said[:]
            module.write_text("from tests.support.streams import app  # changed\n")
            body = client.read_to_end()
        assert body.endswith(b"event: bye\nretry: 3000\n\n")
        wait_until(lambda: len(process.said) == 3)
        assert process.said == ["generator", "dependency", "closed shutdown"]
        assert get(process.port, "/numbers?n=2") == b"data: 0\n\ndata: 1\n\n"
