"""The server processes of the contestants, with their CPU time and memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

ON_LINUX = sys.platform.startswith("linux")

APPS = f"{__package__}.apps"

STARTUP_TIMEOUT = 20.0
"""Seconds within which a server must listen."""


class Server:
    """A running server process."""

    def __init__(self, process: subprocess.Popen[bytes], address: tuple[str, int]):
        self.address = address
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process and its workers have used, in seconds.

        On other systems than Linux, return the wall-clock time.
        """
        if not ON_LINUX:
            return time.perf_counter()
        return sum(
            time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED
            for pid in _family(self.pid)
        )

    def resident_bytes(self) -> int:
        """Return the resident memory of the process. Linux only."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + STARTUP_TIMEOUT
        with socket.socket() as client:
            while client.connect_ex(self.address):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{self._process.args!r} does not listen")
                time.sleep(0.05)


def _family(pid: int) -> Iterator[int]:
    """Yield the ids of a process and of all its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


class Cores(NamedTuple):
    """The cores of the client and the servers. `None` if they cannot be chosen."""

    client: int | None
    server: int | None


def pin() -> Cores:
    """Pin this process to a core. Return that and another one for the servers."""
    if not hasattr(os, "sched_setaffinity"):
        return Cores(None, None)
    client, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return Cores(None, None)
    os.sched_setaffinity(0, {client})
    return Cores(client, others[-1])


def raise_file_limit() -> int:
    """Raise the limit of open files for this process and its servers, and return it."""
    try:
        import resource
    except ImportError:  # Windows has another limit.
        return 512
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def serving(app: str, core: int | None) -> AbstractContextManager[Server]:
    """Run an application of `apps.py`."""
    return serving_program([sys.executable, "-m", APPS, app], core)


@contextmanager
def serving_program(
    command: Sequence[str], core: int | None, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a program that prints its port, and ends when its standard input is closed.

    It therefore ends with this process, even if this process is killed.

    Args:
        command: The program and its arguments.
        core: The core to run it on.
        env: Additional environment variables.
    """
    with ExitStack() as stack:
        with _deferred_interrupts():
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    env={**os.environ, **(env or {})},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # Ctrl+C must reach only this process.
                )
            )
            # After a Ctrl+C, `Popen.__exit__` would wait only for a moment.
            stack.callback(process.wait)
            stack.callback(process.kill)
        _put_onto(core, process)
        assert process.stdout is not None
        port = process.stdout.readline()
        if not port:
            sys.exit(f"{' '.join(command)!r} did not start")
        yield Server(process, ("127.0.0.1", int(port)))


@contextmanager
def serving_by(command: Sequence[str], core: int | None) -> Iterator[Server]:
    """Run a module. `{port}` in its arguments is replaced by a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    module = [word.format(port=address[1]) for word in command]
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _put_onto(core, process)
        server = Server(process, address)
        server.wait_until_it_listens()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _deferred_interrupts() -> Iterator[None]:
    """Defer Ctrl+C until the end. Within `Popen()`, it would lose the process."""
    received: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def _put_onto(core: int | None, process: subprocess.Popen[bytes]) -> None:
    """Pin a process to a core.

    A `preexec_fn` would do that from inside, but Python's hooks around it can swallow a
    Ctrl+C.
    """
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
