"""The contestants' processes: how they are started, and what they use."""

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
"""Seconds until a server must listen."""


class Server:
    """A running server process."""

    def __init__(self, process: subprocess.Popen[bytes], address: tuple[str, int]):
        self.address = address
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process and its workers have used.

        Where only Linux could tell, any time by the clock on the wall.
        """
        if not ON_LINUX:
            return time.perf_counter()
        return sum(
            time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED
            for pid in _family(self.pid)
        )

    def resident_bytes(self) -> int:
        """Memory that the process occupies. Linux only."""
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
    """Find a process, its children, and theirs."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


class Cores(NamedTuple):
    """Where client and servers run; `None` if the system does not let us choose."""

    client: int | None
    server: int | None


def pin() -> Cores:
    """Keeps this process on one core; returns it and another one for the servers."""
    if not hasattr(os, "sched_setaffinity"):
        return Cores(None, None)
    client, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return Cores(None, None)
    os.sched_setaffinity(0, {client})
    return Cores(client, others[-1])


def raise_file_limit() -> int:
    """Lets this process and its servers have as many sockets as they may."""
    try:
        import resource
    except ImportError:  # Windows, which has another limit
        return 512
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def serving(app: str, core: int | None) -> AbstractContextManager[Server]:
    """Run one of `apps.py`."""
    return serving_program([sys.executable, "-m", APPS, app], core)


@contextmanager
def serving_program(
    command: Sequence[str], core: int | None, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a program that prints its port and ends with its standard input.

    So it ends with this process, even if that is killed.

    Args:
        command: The program and its arguments.
        core: Where it runs.
        env: Variables that it has besides those of this process.
    """
    with ExitStack() as stack:
        with _interrupts_held_back():
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    env={**os.environ, **(env or {})},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for this process to see
                )
            )
            # `Popen` by itself waits only a moment when Ctrl-C is what ends it.
            stack.callback(process.wait)
            stack.callback(process.kill)
        _put_onto(core, process)
        assert process.stdout is not None
        port = process.stdout.readline()
        if not port:
            sys.exit(f"{' '.join(command)!r} does not start")
        yield Server(process, ("127.0.0.1", int(port)))


@contextmanager
def serving_by(command: Sequence[str], core: int | None) -> Iterator[Server]:
    """A module that is run with `{port}` filled in."""
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
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C comes at the end: in the middle of a `Popen` it loses the process."""
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def _put_onto(core: int | None, process: subprocess.Popen[bytes]) -> None:
    """From outside: Python's hooks around a `preexec_fn` can swallow a Ctrl-C."""
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
