"""Run a module as `python -m` does, but without the time to import FastAPI.

Each process is forked from `python -m tests.support.forking`, which has imported the
dependencies of the servers, but neither this package nor an application. It has no
threads.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

IMPORTED = ["fastapi", "granian.cli", "hypercorn.asyncio", "hypercorn.trio", "uvicorn"]


class Forked:
    """A process in a new session. It is used like a `subprocess.Popen`.

    Args:
        arguments: Module and its arguments. "{fd}" is replaced by the descriptor.
        listener: Socket of that descriptor, if the process needs one.

    Attributes:
        pid: Process id.
        stdout: Standard output and standard error.
    """

    _lock = threading.Lock()
    _requests: socket.socket | None = None

    def __init__(
        self, arguments: Sequence[str], listener: socket.socket | None
    ) -> None:
        output, its_output = os.pipe()
        answers, its_answers = os.pipe()
        fds = [its_output, its_answers]
        if listener is not None:
            fds.append(listener.fileno())
        self.stdout = os.fdopen(output)
        self._answers = os.fdopen(answers)
        self._code: int | None = None
        with Forked._lock:
            if Forked._requests is None:
                Forked._requests = begun()
            socket.send_fds(Forked._requests, [json.dumps(arguments).encode()], fds)
            self.pid = int(self._answers.readline())
        os.close(its_output)
        os.close(its_answers)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._code

    def wait(self, timeout: float) -> int:
        if self._code is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            with self._answers:
                self._code = int(self._answers.readline())
        return self._code


def begun() -> socket.socket:
    """Start the process that forks. It ends with this one."""
    requests, its_requests = socket.socketpair()
    with its_requests:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(its_requests.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[its_requests.fileno()],
            start_new_session=True,  # Ctrl+C must not reach it.
        )

    @atexit.register
    def end() -> None:
        requests.close()
        process.wait()

    return requests


def arguments_of_a_fork(requests: socket.socket) -> list[str]:
    """Fork for each request, and return the arguments in the fork."""
    while True:
        request, fds, _, _ = socket.recv_fds(requests, 1 << 16, 3)
        if not request:
            sys.exit()
        output, answers, *listeners = fds
        if os.fork() == 0:
            break
        for fd in fds:
            os.close(fd)
        # Reap earlier forks that have ended. No other code waits for them.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
    requests.close()
    if pid := os.fork():
        for fd in (output, *listeners):
            os.close(fd)
        os.write(answers, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.close(answers)
    arguments: list[str] = json.loads(request)
    for listener in listeners:
        os.set_inheritable(listener, True)
        arguments = [each.replace("{fd}", str(listener)) for each in arguments]
    return arguments


if __name__ == "__main__":
    for module in IMPORTED:
        with contextlib.suppress(ImportError):  # Some servers are not installed.
            importlib.import_module(module)
    sys.argv = arguments_of_a_fork(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
