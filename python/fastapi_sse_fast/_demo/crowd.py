"""The client of a contestant of the race: a process that reads many streams at once.

A browser opens no more than six connections to a server, and what it does for each
would show in the race. `python -m fastapi_sse_fast._demo.crowd` says what CPU the
contestant has used, begins when it is told to on its standard input, and then prints
again and again how many events have come, of all streams.
"""

import contextlib
import json
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from typing import Any

from .._bench.client import TIMEOUT, Crowd, request

HOST = "127.0.0.1"

INTERVAL = 0.1
"""Seconds between two lines; of streams without pauses a fifth of it."""

AT_ONCE = 20
"""Streams that are opened between two lines."""

USAGES_AFTERWARDS = 2
"""The CPU of all of a race is in the second measurement after it."""


def race(
    ports: Mapping[str, int], *, streams: int, number: int, pause: float
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """Have a process for each contestant read its streams, all at the same time.

    Args:
        ports: Where each contestant listens.
        streams: How many to open at once.
        number: The events of each.
        pause: Seconds between two of them.

    Yields:
        A contestant, and what its client says: the `usage` of the contestant, as it is
        measured, or how many events it has `received` after how many `seconds`.
    """
    said: queue.SimpleQueue[tuple[str, dict[str, Any] | None]] = queue.SimpleQueue()

    def listen(package: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.put((package, json.loads(line)))
        said.put((package, None))

    with contextlib.ExitStack() as stack:
        processes = {}
        for package, port in ports.items():
            process = stack.enter_context(started(port, streams, number, pause))
            listener = threading.Thread(target=listen, args=(package, process))
            stack.callback(listener.join)
            stack.callback(process.kill)
            listener.start()
            processes[package] = process
        waiting = {*ports}
        running = {*ports}
        while running:
            package, line = said.get()
            if package in waiting:
                waiting.discard(package)
                if not waiting:
                    begin(*processes.values())
            if line is None:
                running.discard(package)
            else:
                yield package, line


def started(
    port: int, streams: int, number: int, pause: float
) -> subprocess.Popen[str]:
    arguments = map(str, [port, streams, number, pause])
    return subprocess.Popen(
        [sys.executable, "-m", __name__, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the demo to see
    )


def begin(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has failed
            process.stdin.write("begin\n")
            process.stdin.flush()


class Usage(threading.Thread):
    """Says what CPU the contestant has used, as often as that says it."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._socket = socket.create_connection((HOST, port), timeout=TIMEOUT)
        self._measured = threading.Condition()
        self._count = 0

    def run(self) -> None:
        self._socket.sendall(request("/usage", "close"))
        with contextlib.suppress(OSError), self._socket.makefile() as lines:
            for line in lines:
                if line.startswith("data: "):
                    say(usage=json.loads(line.removeprefix("data: ")))
                    self._note(1)
        self._note(USAGES_AFTERWARDS)  # there will be no more

    def _note(self, count: int) -> None:
        with self._measured:
            self._count += count
            self._measured.notify()

    def wait_for(self, count: int) -> None:
        """Waits for so many more."""
        with self._measured:
            count += self._count
            self._measured.wait_for(lambda: self._count >= count, TIMEOUT)


def main(port: int, streams: int, number: int, pause: float) -> None:
    """Read the streams."""
    usage = Usage(port)
    usage.start()
    if not sys.stdin.readline():
        return
    began = time.perf_counter()

    def say_how_far() -> None:
        say(received=crowd.events, seconds=time.perf_counter() - began)

    path = f"/events?number={number}&pause={pause}"
    interval = INTERVAL if pause else INTERVAL / 5
    with Crowd((HOST, port), path) as crowd:
        for opened in range(0, streams, AT_ONCE):
            count = min(AT_ONCE, streams - opened)
            # Spread evenly over the pause, as tokens of many models are.
            crowd.grow(count, interval=pause / streams)
            say_how_far()
        while len(crowd):
            crowd.read_until(time.perf_counter() + interval)
            say_how_far()
    usage.wait_for(USAGES_AFTERWARDS)


def say(**values: Any) -> None:
    # One write, so that the lines of both threads do not mix.
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
