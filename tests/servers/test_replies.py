"""Replies to a POST while their server shuts down, next to streams that a GET opens.

A client repeats a GET, so such a stream ends at once. A reply has as long as the server
gives it, and what happens then is up to the server: `docs/deployment.md` has a table.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from ..support.server import (
    COMMANDS,
    GUNICORN,
    Client,
    Server,
    get,
    serve_process,
    wait_until,
)
from .test_stopping import (
    APP,
    READY,
    STOPPABLE,
    WITH_MAX_REQUESTS,
    WITH_WORKERS,
)

LONG = "/reply?seconds=3600"
STUBBORN = "/stubborn?seconds=3600"
"""It goes on as long as it can, whatever the server waits for."""

CUT = (EOFError, ConnectionResetError)
CLEANED_UP = ["generator", "dependency"]

UVICORN_WORKER = GUNICORN.replace("-k asgi", "-k uvicorn.workers.UvicornWorker")

MORE = {
    "gunicorn-uvicorn": UVICORN_WORKER,
    "uvicorn-workers": WITH_WORKERS["uvicorn"][0],
    "granian-workers": WITH_WORKERS["granian"][0],
    "hypercorn-worker": "hypercorn {app} --bind fd://{fd} --workers 1",
}


def opened(server: Server, path: str, method: str = "POST") -> Client:
    client = Client(server.port, path, method=method)
    client.read_until(b'data: "begun"\n\n')
    return client


@pytest.mark.parametrize("name", [*STOPPABLE, *MORE])
def test_sigterm_aborts_a_get_and_lets_a_post_complete(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, name, {**COMMANDS, **MORE}[name])
    with serve_process(name, APP, READY) as server:
        if name in MORE:
            time.sleep(0.5)  # for workers that are still starting
        path = "/reply?seconds=0.8"
        with opened(server, path) as reply, opened(server, path, "GET") as stream:
            del server.said[:]
            server.terminate()
            with pytest.raises(CUT):
                stream.read_to_end()
            wait_until(lambda: len(server.said) >= 3)
            assert server.said == [*CLEANED_UP, "closed shutdown"]
            assert reply.read_to_end().endswith(b'data: "done"\n\n')
        server.wait()
    assert server.said[3:] == [*CLEANED_UP, "closed finished"]


LIMITED = {
    "uvicorn": "uvicorn {app} --fd {fd} --timeout-graceful-shutdown 2",
    "uvicorn-workers": "uvicorn {app} --fd {fd} --workers 2"
    " --timeout-graceful-shutdown 2",
    "gunicorn": f"{GUNICORN} --graceful-timeout 4",
    "gunicorn-uvicorn": f"{UVICORN_WORKER} --graceful-timeout 4",
    "hypercorn": "hypercorn {app} --bind fd://{fd} --workers 0 --graceful-timeout 2",
    "hypercorn-worker": "hypercorn {app} --bind fd://{fd} --graceful-timeout 2",
}
"""Servers that say how long they wait, and then cancel a reply or are killed."""


@pytest.mark.parametrize("name", LIMITED)
def test_a_reply_ends_in_order_before_the_limit_of_its_server(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, name, LIMITED[name])
    with serve_process(name, APP, READY) as server:
        if name in MORE:
            time.sleep(0.5)  # for workers that are still starting
        with opened(server, f"{LONG}&cleanup=0.05") as reply:
            del server.said[:]
            started = time.perf_counter()
            server.terminate()
            with pytest.raises(CUT):
                reply.read_to_end()
            # It does not end much earlier than it has to.
            assert time.perf_counter() - started > 1.7
        server.wait()
    assert server.said == [*CLEANED_UP, "closed shutdown"]


KILLED = {
    "gunicorn": f"{GUNICORN} --graceful-timeout 1",
    "gunicorn-uvicorn": f"{UVICORN_WORKER} --graceful-timeout 1",
    "granian": "granian {app} --interface asgi --port {port} --workers-kill-timeout 1",
    "hypercorn": "hypercorn {app} --bind fd://{fd} --workers 2",
}


@pytest.mark.parametrize("name", KILLED)
def test_a_reply_is_cut_without_cleanup_where_the_server_kills_its_workers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "killing", KILLED[name])
    with serve_process("killing", APP, READY) as server:
        time.sleep(0.5)  # for workers that are still starting
        with opened(server, STUBBORN) as reply:
            del server.said[:]
            server.terminate()
            with pytest.raises(CUT):
                reply.read_to_end()
        server.wait()
    assert server.said == []


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="hypercorn waits without a limit"
)
@pytest.mark.parametrize("workers", [0, 1])
def test_hypercorn_cancels_a_reply_after_its_graceful_timeout(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"hypercorn {{app}} --bind fd://{{fd}} --workers {workers}"
    monkeypatch.setitem(COMMANDS, "patient", f"{command} --graceful-timeout 1")
    with serve_process("patient", APP, READY) as server:
        with opened(server, STUBBORN) as reply:
            del server.said[:]
            server.terminate()
            with pytest.raises(CUT):
                reply.read_to_end()
        server.wait()
    assert server.said == ["generator", "closed cancelled"]


@pytest.mark.parametrize(
    ("name", "number"), [("daphne", signal.SIGTERM), ("gunicorn", signal.SIGINT)]
)
def test_a_reply_is_cancelled_by_a_server_that_stops_quickly(
    name: str, number: signal.Signals
) -> None:
    with serve_process(name, APP, READY) as server:
        with opened(server, LONG) as reply:
            del server.said[:]
            server.send_signal(number)
            with pytest.raises(CUT):
                reply.read_to_end()
        server.wait()
    assert server.said == ["generator", "closed cancelled"]


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_sighup_replaces_the_workers_and_lets_a_reply_complete(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, started = WITH_WORKERS[name]
    if name == "uvicorn":
        # It gives up a restart if the new worker is not ready by then, 5 s by default.
        command += " --timeout-worker-healthcheck 20"
    monkeypatch.setitem(COMMANDS, "restarted", command)
    with serve_process("restarted", APP, READY) as server:
        wait_until(lambda: sum(started in line for line in server.log) == 2)
        with (
            opened(server, "/reply?seconds=6") as reply,
            Client(server.port, "/idle") as stream,
        ):
            stream.read_until(b"data: 1\n\n")
            del server.said[:]
            server.send_signal(signal.SIGHUP)
            assert stream.read_to_end().endswith(b"event: bye\nretry: 3000\n\n")
            assert reply.read_to_end().endswith(b'data: "done"\n\n')
            ends = {"closed shutdown", "closed finished"}
            wait_until(lambda: ends <= set(server.said))
        assert get(server.port, "/numbers?n=2") == b"data: 0\n\ndata: 1\n\n"


def test_a_reply_holds_up_a_reload_of_uvicorn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "reloaded.py"
    module.write_text("from tests.support.streams import app\n")
    command = (
        "uvicorn {app} --fd {fd} --app-dir %s"
        " --reload --reload-dir %s --reload-delay 0.05"
    )
    monkeypatch.setitem(COMMANDS, "reload", command % (tmp_path, tmp_path))
    with serve_process("reload", "reloaded:app", READY) as server:
        with opened(server, "/reply?seconds=0.8") as reply:
            del server.said[:]
            module.write_text("from tests.support.streams import app  # changed\n")
            assert reply.read_to_end().endswith(b'data: "done"\n\n')
        wait_until(lambda: server.said == [*CLEANED_UP, "closed finished"])
        assert get(server.port, "/numbers?n=2") == b"data: 0\n\ndata: 1\n\n"


@pytest.mark.parametrize("name", WITH_MAX_REQUESTS)
def test_a_reply_is_completed_before_a_worker_ends_at_its_limit_of_requests(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = WITH_MAX_REQUESTS[name].replace("requests 5", "requests 2")
    monkeypatch.setitem(COMMANDS, "limited", command)
    with serve_process("limited", APP, READY) as server:  # the first request
        with opened(server, "/reply?seconds=2") as reply:
            assert reply.read_to_end().endswith(b'data: "done"\n\n')
        wait_until(lambda: server.said == [*CLEANED_UP, "closed finished"])
