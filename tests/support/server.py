"""Real servers and real clients on loopback sockets."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from typing_extensions import Self

from . import releases
from .forking import Forked

TIMEOUT = 20.0
"""Seconds after which a test that waits has failed."""


def wait_until(condition: Callable[[], Any], timeout: float = TIMEOUT) -> None:
    """Return as soon as a condition is true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.002)


@contextlib.contextmanager
def serve(app: Any, **config: Any) -> Iterator[int]:
    """Run uvicorn in a thread, and yield its port."""
    for optional in ("httptools", "uvloop"):  # Windows has no uvloop.
        if optional in config.values():
            pytest.importorskip(optional)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    settings = {"log_level": "critical", "lifespan": "off"}
    server = uvicorn.Server(uvicorn.Config(app, **{**settings, **config}))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the server did not stop"
        listener.close()


HTTP_AND_LOOPS: list[dict[str, Any]] = [
    {"http": "httptools", "loop": "asyncio"},
    {"http": "httptools", "loop": "uvloop"},
    {"http": "h11", "loop": "asyncio"},
]
"""All combinations of protocols and event loops of uvicorn."""


@contextlib.contextmanager
def serve_all(app: Any) -> Iterator[list[int]]:
    """Run a uvicorn per event loop in threads, and yield their ports."""
    with contextlib.ExitStack() as servers:
        yield [
            servers.enter_context(serve(app, loop=loop))
            for loop in ("asyncio", "uvloop") * 2
        ]


GUNICORN = "gunicorn {app} -k asgi --bind fd://{fd} --no-control-socket"

COMMANDS = {
    "uvicorn-h11": "uvicorn {app} --fd {fd} --http h11 --loop asyncio",
    "uvicorn-httptools": "uvicorn {app} --fd {fd} --http httptools --loop asyncio",
    "uvicorn-uvloop": "uvicorn {app} --fd {fd} --http httptools --loop uvloop",
    "hypercorn": "hypercorn {app} --bind fd://{fd} --workers 0",
    "hypercorn-uvloop": "hypercorn {app} --bind fd://{fd} --workers 0 -k uvloop",
    "hypercorn-trio": "hypercorn {app} --bind fd://{fd} -k trio",
    "granian": "granian {app} --interface asgi --port {port}",
    "gunicorn": f"{GUNICORN} --asgi-loop asyncio",
    "gunicorn-uvloop": f"{GUNICORN} --asgi-loop uvloop",
    "daphne": "daphne --fd {fd} {app}",
}
"""How to start each server. Most of them take our socket."""


class Server:
    """A server in a process, and its output.

    Args:
        name: Key in `COMMANDS`.
        app: Import string of its application.
        is_forked: Whether the process is forked from one that has imported FastAPI.
            That makes its start much faster.
    """

    _process: Forked | subprocess.Popen[str]

    def __init__(self, name: str, app: str, *, is_forked: bool) -> None:
        self.name = name
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        takes_socket = "{fd}" in COMMANDS[name]
        if takes_socket:
            self._listener.listen(512)
        else:
            self._listener.close()
        fd = self._listener.fileno()
        command = COMMANDS[name].format(
            app=app, fd="{fd}" if is_forked else fd, port=self.port
        )
        if is_forked:
            listener = self._listener if takes_socket else None
            self._process = Forked(command.split(), listener)
        else:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command.split()],
                pass_fds=[fd] if takes_socket else [],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # `close` kills its workers too.
            )
        self.said: list[str] = []  # Lines that the application prints.
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                if line.startswith("say: "):
                    self.said.append(line.removeprefix("say: ").rstrip())
                else:
                    self.log.append(line)

    def wait_until_ready(self, path: str) -> None:
        def ready() -> bool:
            assert self._process.poll() is None, self.log
            # A connection may never be answered if the workers do not listen yet.
            with contextlib.suppress(OSError, EOFError):
                with Client(self.port, path, timeout=1.0) as client:
                    return bool(client.read_to_end())
            return False

        wait_until(ready)

    def terminate(self) -> None:
        self._process.terminate()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the process to exit, and return its exit code."""
        code = self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return code

    def close(self) -> None:
        self._listener.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)


@contextlib.contextmanager
def serve_process(
    name: str, app: str, ready: str, *, is_forked: bool = sys.platform == "linux"
) -> Iterator[Server]:
    """Run a server of `COMMANDS`, and yield it once a path has answered."""
    if sys.platform == "win32":
        pytest.skip("the server is given a socket and a signal of Unix")
    if name == "granian" and releases.FREE_THREADED:
        pytest.skip("granian without the GIL does not abort any failed response")
    program = COMMANDS[name].split()[0]
    if importlib.util.find_spec(program) is None:
        pytest.skip(
            f"{program} is not installed: it is in the group `test`, not in all"
        )
    server = Server(name, app, is_forked=is_forked)
    try:
        server.wait_until_ready(ready)
        yield server
    finally:
        server.close()


class Client:
    """An HTTP/1.1 request over a plain socket, whose body is read as it arrives."""

    def __init__(
        self,
        port: int,
        path: str = "/",
        *,
        method: str = "GET",
        buffer_size: int | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._raw = b""
        self.body = b""
        self.socket = socket.socket()
        try:
            if buffer_size is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
            self.socket.settimeout(timeout)
            self.socket.connect(("127.0.0.1", port))
            length = "Content-Length: 0\r\n" if method == "POST" else ""
            head = f"{method} {path} HTTP/1.1\r\nHost: test\r\n{length}\r\n"
            self.socket.sendall(head.encode())
            self.head = self._read_head()
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def _read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._raw:
            self._receive()
        head, self._raw = self._raw.split(b"\r\n\r\n", 1)
        return head

    def _receive(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError("connection closed in the middle of the response")
        self._raw += data

    def read_chunk(self) -> bytes:
        """Return the next chunk, which is empty at the end of a complete body."""
        while b"\r\n" not in self._raw:
            self._receive()
        size_line, self._raw = self._raw.split(b"\r\n", 1)
        size = int(size_line, 16)
        while len(self._raw) < size + 2:
            self._receive()
        chunk, self._raw = self._raw[:size], self._raw[size + 2 :]
        self.body += chunk
        return chunk

    def read_until(self, text: bytes) -> bytes:
        """Read until the body contains some text, and return the body."""
        while text not in self.body:
            assert self.read_chunk(), f"the body ended without {text!r}"
        return self.body

    def read_to_end(self) -> bytes:
        """Return the whole body of a response that completes.

        Raises:
            EOFError: The response was aborted.
        """
        parts = [self.body]
        deadline = time.monotonic() + TIMEOUT
        while chunk := self.read_chunk():
            # With pings, an endless stream would never reach the timeout of the socket.
            assert time.monotonic() < deadline, "the response does not end"
            parts.append(chunk)
            self.body = b""
        self.body = b"".join(parts)
        return self.body

    def read_until_broken_off(self) -> bytes:
        """Return the whole body of a response that is aborted."""
        try:
            while self.read_chunk():
                pass
        except EOFError:
            return self.body
        raise AssertionError("the response is complete")


def get(port: int, path: str = "/") -> bytes:
    with Client(port, path) as client:
        return client.read_to_end()


PLAIN: dict[str, Any] = {"timeout": TIMEOUT, "verify": False, "trust_env": False}
"""Arguments for httpx. By default it loads all certificates for each request."""

BROKEN_OFF = (httpx.RemoteProtocolError, httpx.ReadError)


@contextlib.contextmanager
def opened(port: int, path: str = "/", **headers: str) -> Iterator[httpx.Response]:
    """Open a stream as a page does, and yield the response before its body is read."""
    headers = {"Accept-Encoding": "gzip", "Origin": "http://page", **headers}
    url = f"http://127.0.0.1:{port}{path}"
    with httpx.stream("GET", url, headers=headers, **PLAIN) as response:
        yield response
