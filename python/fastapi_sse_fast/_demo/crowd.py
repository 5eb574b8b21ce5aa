"""The client of the race's slow streams: a process that reads hundreds of them at once.

A browser opens no more than six connections to a server, and what it does for each
would show in the race. `python -m fastapi_sse_fast._demo.crowd` prints a line whenever
it has read for a while: how many events have come so far, of all streams.
"""

import subprocess
import sys
import time
from collections.abc import Generator

from .._bench.client import Crowd

INTERVAL = 0.1
"""Seconds between two lines."""

AT_ONCE = 20
"""Streams that are opened between two lines."""


def progress(
    host: str, port: int, *, streams: int, number: int, pause: float
) -> Generator[int, None, None]:
    """Read streams of a contestant, and say again and again how many events have come.

    Args:
        host: Where the contestant listens.
        port: One of its ports.
        streams: How many to open at once.
        number: The events of each.
        pause: Seconds between two of them.
    """
    arguments = [host, port, streams, number, pause]
    with subprocess.Popen(
        [sys.executable, "-m", __name__, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the demo to see
    ) as process:
        try:
            assert process.stdout is not None
            yield from map(int, process.stdout)
        finally:
            process.kill()


def main(host: str, port: str, streams: str, number: str, pause: str) -> None:
    """Read the streams."""
    say(0)
    path = f"/events?number={number}&pause={pause}"
    with Crowd((host, int(port)), path) as crowd:
        for opened in range(0, int(streams), AT_ONCE):
            count = min(AT_ONCE, int(streams) - opened)
            # Spread evenly over the pause, as tokens of many models are.
            crowd.grow(count, interval=float(pause) / int(streams))
            say(crowd.events)
        while len(crowd):
            crowd.read_until(time.perf_counter() + INTERVAL)
            say(crowd.events)


def say(events: int) -> None:
    print(events, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
