"""What an event costs the server for each of 1,000 subscribers of a `Channel`.

`python examples/measure_broadcast.py` compares events that are encoded once for all,
once for each subscriber, and by `fastapi.sse`. An event is published as soon as
everybody has the one before.
"""

import json
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from urllib.request import Request, urlopen

import fastapi.sse
from broadcast import Channel
from fastapi import FastAPI

import fastapi_sse_fast

SUBSCRIBERS = 1000
EVENTS = 10
ROUNDS = 3
HOST = "127.0.0.1"

ROW = {"symbol": "ACME", "price": 123.45, "volume": 1234567, "time": "09:30:00.125"}
SIZES = (1, 20, 200)
"""How many rows an event has, of 78 bytes each."""


# The server: the same channel, but for what it keeps


class UnencodedChannel(Channel):
    def event(self, data: Any, number: int) -> Any:
        return fastapi_sse_fast.ServerSentEvent(data=data, id=str(number))


class FastAPIChannel(Channel):
    def event(self, data: Any, number: int) -> Any:
        return fastapi.sse.ServerSentEvent(data=data, id=str(number))


app = FastAPI()
channels = {
    "once": Channel(keep=10),
    "each": UnencodedChannel(keep=10),
    "fastapi": FastAPIChannel(keep=10),
}


@app.get("/once")
async def subscribe_to_once() -> fastapi_sse_fast.EventSourceResponse:
    return fastapi_sse_fast.EventSourceResponse(channels["once"].subscribe(None))


@app.get("/each")
async def subscribe_to_each() -> fastapi_sse_fast.EventSourceResponse:
    return fastapi_sse_fast.EventSourceResponse(channels["each"].subscribe(None))


@app.get("/fastapi", response_class=fastapi.sse.EventSourceResponse)
async def subscribe_to_fastapi() -> AsyncIterator[Any]:
    async for event in channels["fastapi"].subscribe(None):
        yield event


@app.post("/{name}")
async def publish(name: str, data: list[Any]) -> int:
    return channels[name].publish(data)


@app.get("/cpu")
async def cpu() -> float:
    return time.process_time()


# Its clients


class Subscribers:
    def __init__(self, address: tuple[str, int], name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._ends: dict[int, bytes] = {}
        request = f"GET /{name} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        for _ in range(SUBSCRIBERS):
            subscriber = socket.create_connection(address)
            subscriber.sendall(request)
            self._selector.register(subscriber, selectors.EVENT_READ)
        self.read_until(b"\r\n\r\n")  # the head of the response

    def read_event(self) -> None:
        self.read_until(b"\n\n\r\n")  # the last bytes of an event and of its chunk

    def read_until(self, end: bytes) -> None:
        """Reads until everybody has had what ends so."""
        waiting = SUBSCRIBERS
        while waiting:
            for key, _ in self._selector.select():
                received = self._ends.get(key.fd, b"")
                received += cast("socket.socket", key.fileobj).recv(1 << 16)
                waiting -= received.count(end)
                self._ends[key.fd] = received[1 - len(end) :]

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            cast("socket.socket", key.fileobj).close()
        self._selector.close()


def microseconds(address: tuple[str, int], name: str, data: bytes) -> float:
    """CPU of the server for an event and a subscriber."""
    url = f"http://{HOST}:{address[1]}"
    headers = {"content-type": "application/json"}
    subscribers = Subscribers(address, name)
    before = float(urlopen(f"{url}/cpu").read())
    for _ in range(EVENTS):
        urlopen(Request(f"{url}/{name}", data, headers)).close()
        subscribers.read_event()
    after = float(urlopen(f"{url}/cpu").read())
    subscribers.close()
    return (after - before) / EVENTS / SUBSCRIBERS * 1e6


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the server, too
    with socket.create_server((HOST, 0), backlog=SUBSCRIBERS) as listener:
        address = listener.getsockname()
        command = [
            *(sys.executable, "-m", "uvicorn", "measure_broadcast:app"),
            *("--app-dir", str(Path(__file__).parent)),
            *("--fd", str(listener.fileno()), "--log-level", "warning"),
        ]
        server = subprocess.Popen(command, pass_fds=[listener.fileno()])
    try:
        print("rows encoded   µs of server CPU for each event and subscriber")
        for size in SIZES:
            data = json.dumps([ROW] * size).encode()
            rounds = [
                [microseconds(address, name, data) for name in channels]
                for _ in range(ROUNDS)
            ]
            for name, measured in zip(channels, zip(*rounds, strict=True), strict=True):
                print(
                    f"{size:4} {name:8} {statistics.median(measured):7.1f} "
                    f"({min(measured):.1f} to {max(measured):.1f})",
                    flush=True,
                )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
