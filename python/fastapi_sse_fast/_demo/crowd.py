"""The client of a contestant in the race: a process that reads many streams at once.

A browser opens at most six connections to a server, and its own work would disturb the
race. `python -m fastapi_sse_fast._demo.crowd` prints `ready`, and begins when it reads
a line from its standard input. Then it prints several times a second how many tokens it
has received, and the CPU time that the contestant has used.
"""

import http.client
import json
import socket
import sys
import threading
import time
import uuid

from .._bench.client import TIMEOUT, Crowd, request
from .contestant import HOST

CALM = 0.25
"""Seconds from the last opened stream to the start, so that the CPU before is known."""

INTERVAL = 0.05
"""Seconds between two looks at whether the time is over."""


class Ticker(threading.Thread):
    """Print a line for every event of `/cpu`.

    A line has the CPU time, and the number of tokens received at the same moment.
    """

    def __init__(self, crowd: Crowd, port: int) -> None:
        super().__init__(daemon=True)
        self.seconds = 0.0
        self._crowd = crowd
        self._socket = socket.create_connection((HOST, port), timeout=TIMEOUT)
        self._start: float | None = None
        self._before = 0

    def begin(self) -> None:
        """Count from now on."""
        self._before = self._crowd.events
        self._start = time.perf_counter()

    def run(self) -> None:
        self._socket.sendall(request("/cpu", "close"))
        with self._socket.makefile() as lines:
            for line in lines:
                if line.startswith("data: "):
                    self._tick(float(line.removeprefix("data: ")))

    def _tick(self, cpu: float) -> None:
        received = 0
        if self._start is not None:
            self.seconds = time.perf_counter() - self._start
            received = self._crowd.events - self._before
        line = {"seconds": self.seconds, "received": received, "cpu": cpu}
        print(json.dumps(line), flush=True)


def main(port: int, streams: int, pause: float, seconds: float) -> None:
    """Open the streams, start the tokens, and read them for so many seconds."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    race = uuid.uuid4().hex
    with Crowd((HOST, port), f"/tokens/{race}?pause={pause}") as crowd:
        ticker = Ticker(crowd, port)
        ticker.start()
        crowd.grow(streams)
        crowd.read_until(time.perf_counter() + CALM)
        starter = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT)
        ticker.begin()
        starter.request("POST", f"/start/{race}")
        while ticker.seconds < seconds and ticker.is_alive():
            crowd.read_until(time.perf_counter() + INTERVAL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
