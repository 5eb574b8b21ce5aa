"""When a server writes the line of a stream into its access log."""

from __future__ import annotations

import time

import pytest

from ..support.server import COMMANDS, Client, serve_process, wait_until

COMMANDS_THAT_LOG = {
    "uvicorn": "uvicorn {app} --fd {fd}",
    "gunicorn": f"{COMMANDS['gunicorn']} --access-logfile -",
    "hypercorn": f"{COMMANDS['hypercorn']} --access-logfile -",
    "granian": f"{COMMANDS['granian']} --access-log",
    "daphne": f"{COMMANDS['daphne']} --access-log -",
}


@pytest.mark.parametrize("name", COMMANDS_THAT_LOG)
def test_when_the_access_log_has_the_line_of_a_stream(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, name, COMMANDS_THAT_LOG[name])
    with serve_process(name, "tests.support.streams:app", "/numbers?n=1") as server:

        def lines() -> int:
            return sum("GET /reply" in line for line in server.log)

        with Client(server.port, "/reply?seconds=0.6") as client:
            client.read_until(b"begun")
            time.sleep(0.3)
            assert lines() == (name == "uvicorn")
            client.read_to_end()
            wait_until(lambda: lines() == 1)
        with Client(server.port, "/reply?seconds=3600") as client:
            client.read_until(b"begun")
        wait_until(lambda: "closed disconnected" in server.said)
        if name == "daphne":
            time.sleep(0.3)
            assert lines() == 1
        else:
            wait_until(lambda: lines() == 2)
