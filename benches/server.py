"""Bursts of events over a real socket: our streams and those of others, side by side.

    python benches/server.py [ROW ...]

A contestant is a uvicorn process on a core of its own; this process reads its streams
to the end from another core. Contestants take turns, and how many events a stream has
is chosen so that it takes about as long as any other. Every byte is checked: lost,
torn or repeated events are an error, not a good result.

A row says which streams are compared. To add one: a path in `apps.py` that yields
`laps` times what is in `samples.py`, and a line in `ROWS`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from machine import DEBUG_BUILD, description, is_debug_build
from samples import DICTS, IDS, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROUNDS = 7
STREAM_SECONDS = 0.4
TIMEOUT = 60.0  # seconds without a byte
LAP = len(TOKENS)  # events


class Contestant(NamedTuple):
    """A stream of an application in `apps.py`, and how to call it in the table."""

    name: str
    app: str
    path: str


class Row(NamedTuple):
    """Streams of the same events: ours first, the others are compared to it.

    Attributes:
        title: What is sent.
        expected: The fields of every event of a lap, `data` decoded where it is JSON.
        contestants: Who sends it.
    """

    title: str
    expected: Sequence[dict[str, Any]]
    contestants: Sequence[Contestant]


def ours(path: str) -> Contestant:
    return Contestant("fastapi_sse_fast", "fastapi_sse_fast", path)


def fastapi(path: str, name: str = "") -> Contestant:
    return Contestant(f"fastapi.sse{name}", "fastapi.sse", path)


CHUNKS = [{"data": item} for item in DICTS]
RAW = [{"data": token} for token in TOKENS]
EVENTS = [
    {"event": "chunk", "data": item, "id": id_}
    for item, id_ in zip(DICTS, IDS, strict=True)
]

ROWS = {
    "typed": Row(
        "pydantic model, typed route",
        CHUNKS,
        [
            ours("typed"),
            fastapi("typed"),
            Contestant(
                "StreamingResponse, model_dump_json", "StreamingResponse", "typed"
            ),
            Contestant("sse-starlette, ready JSON", "sse-starlette", "typed"),
        ],
    ),
    "dict": Row(
        "dict",
        CHUNKS,
        [
            ours("dict"),
            fastapi("dict"),
            Contestant("StreamingResponse, orjson", "StreamingResponse", "dict"),
        ],
    ),
    "event": Row(
        "ServerSentEvent(data=model, event=, id=)",
        EVENTS,
        [ours("event"), fastapi("event")],
    ),
    "raw": Row(
        "ServerSentEvent(raw_data=token)",
        RAW,
        [ours("raw"), fastapi("raw")],
    ),
    "encoded": Row(
        "EncodedEvent(raw_data=token)",
        RAW,
        [ours("encoded"), fastapi("raw", ", ServerSentEvent")],
    ),
    "sync": Row(
        "pydantic model, sync generator",
        CHUNKS,
        [ours("sync"), fastapi("sync")],
    ),
}


class Server:
    """A running application."""

    def __init__(self, process: subprocess.Popen[bytes], address: tuple[str, int]):
        self._process = process
        self._address = address

    def cpu_seconds(self) -> float:
        """CPU time that the process has used, where the system tells (Linux)."""
        if not sys.platform.startswith("linux"):
            return 0.0
        return time.clock_gettime(~self._process.pid << 3 | 2)  # CPUCLOCK_SCHED

    def read(self, path: str) -> bytes:
        """The response to one request, as it came over the socket."""
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
        parts = []
        with socket.create_connection(self._address, timeout=TIMEOUT) as client:
            client.sendall(request.encode())
            while part := client.recv(256 * 1024):
                parts.append(part)
        return b"".join(parts)


@contextmanager
def serving(app: str, core: int | None) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("apps.py")),
                app,
                str(fd),
                "" if core is None else str(core),
            ],
            pass_fds=[fd],
        )
        address = listener.getsockname()
    # Here the listener is the child's alone: if that fails to start, so does a request.
    try:
        yield Server(process, address)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Sample(NamedTuple):
    """One stream that was read."""

    events: int
    wall: float
    cpu: float


class Stream:
    """One contestant's stream, to be measured again and again.

    Its first lap is decoded and compared with what is expected; whatever comes later
    must be the same bytes over and over.
    """

    def __init__(self, server: Server, row: Row, contestant: Contestant) -> None:
        self.contestant = contestant
        self.samples: list[Sample] = []
        self._server = server
        self._lap = body_of(self._request(1)[0])
        if (found := decode(self._lap, row.expected)) != list(row.expected):
            sys.exit(f"{contestant.name}: wrong events for {row.title}: {found}")
        self._laps = self._calibrated()

    def measure(self) -> None:
        self.samples.append(self._sample(self._laps))

    def _calibrated(self) -> int:
        laps = 1
        while (sample := self._sample(laps)).wall < STREAM_SECONDS / 4:
            laps *= 2
        return max(1, round(laps * STREAM_SECONDS / sample.wall))

    def _sample(self, laps: int) -> Sample:
        response, sample = self._request(laps)
        if (body := body_of(response)) != self._lap * laps:
            sys.exit(
                f"{self.contestant.name}: {len(body)} bytes instead of "
                f"{len(self._lap) * laps}, or others, for {sample.events} events"
            )
        return sample

    def _request(self, laps: int) -> tuple[bytes, Sample]:
        cpu = self._server.cpu_seconds()
        began = time.perf_counter()
        response = self._server.read(f"/{self.contestant.path}/{laps}")
        wall = time.perf_counter() - began
        cpu = self._server.cpu_seconds() - cpu
        return response, Sample(laps * LAP, wall, cpu)


def body_of(response: bytes) -> bytes:
    """What a complete, successful response carries, without its transfer coding."""
    head, _, rest = response.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"not a stream: {response[:500]!r}")
    if b"transfer-encoding: chunked" not in head.lower():
        sys.exit(f"not chunked: {head!r}")
    parts: list[bytes] = []
    at = 0
    while True:
        end = rest.find(b"\r\n", at)
        if end < 0:
            sys.exit("the stream was cut off")
        size = int(rest[at:end], 16)
        if size == 0:
            return b"".join(parts)
        at = end + 2
        parts.append(rest[at : at + size])
        at += size + 2


def decode(body: bytes, expected: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of a body. `data` is taken for JSON where that is expected."""
    events = []
    *frames, rest = body.decode().split("\n\n")
    if rest:
        sys.exit(f"an event is not finished: {rest!r}")
    for index, frame in enumerate(frames):
        fields: dict[str, Any] = {}
        for line in frame.split("\n"):
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        if index < len(expected) and not isinstance(expected[index]["data"], str):
            fields["data"] = json.loads(fields["data"])
        events.append(fields)
    return events


def measure(row: Row, server: Callable[[str], Server]) -> list[Stream]:
    streams = [Stream(server(c.app), row, c) for c in row.contestants]
    for turn in range(ROUNDS):
        # To and fro: a machine that gets slower or faster does so for all alike.
        for stream in streams if turn % 2 == 0 else reversed(streams):
            progress(f"{row.title}: {turn + 1}/{ROUNDS} {stream.contestant.name}")
            stream.measure()
    return streams


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def table_lines(row: Row, streams: Sequence[Stream]) -> Iterator[str]:
    first: float | None = None
    for stream in streams:
        walls = [1e6 * sample.wall / sample.events for sample in stream.samples]
        wall = statistics.median(walls)
        cpu = statistics.median(1e6 * s.cpu / s.events for s in stream.samples)
        cells = (
            row.title if first is None else "",
            stream.contestant.name,
            f"{wall:.2f}",
            f"{min(walls):.2f}-{max(walls):.2f}",
            f"{cpu:.2f}" if cpu else "",
            "" if first is None else f"{wall / first:.1f}",
            f"{stream.samples[0].events:,}",
        )
        yield f"| {' | '.join(cells)} |"
        first = first or wall


def main(names: Sequence[str]) -> None:
    if unknown := set(names) - set(ROWS):
        sys.exit(f"no such row: {', '.join(unknown)}. There are: {', '.join(ROWS)}")
    if is_debug_build():
        sys.exit(DEBUG_BUILD)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the servers too
    client_core, server_core = pin()
    print("python benches/server.py", *names)
    for line in description():
        print("-", line)
    where = (
        "nothing is pinned to a core"
        if server_core is None
        else f"servers on core {server_core}, client on core {client_core}"
    )
    print(f"- {ROUNDS} rounds of about {STREAM_SECONDS} s; {where}")
    print("- median (and range) of µs per event; CPU is the server's")
    print()
    print("| events | contestant | µs | range | CPU µs | times ours | per stream |")
    print("|---|---|--:|--:|--:|--:|--:|")
    with ExitStack() as servers:
        running: dict[str, Server] = {}

        def server(app: str) -> Server:
            if app not in running:
                running[app] = servers.enter_context(serving(app, server_core))
            return running[app]

        for name in names or ROWS:
            for line in table_lines(ROWS[name], measure(ROWS[name], server)):
                progress("")
                print(line, flush=True)


def pin() -> tuple[int | None, int | None]:
    """Keeps this process on one core; returns it and another one for the servers."""
    if not hasattr(os, "sched_setaffinity"):
        return None, None
    client, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return None, None
    os.sched_setaffinity(0, {client})
    return client, others[-1]


if __name__ == "__main__":
    main(sys.argv[1:])
