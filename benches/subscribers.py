"""What an event costs the server for each of 1,000 subscribers of a channel.

    python benches/subscribers.py

compares `Channels` with a channel of twenty lines, whose subscribers are generators
that wait for an `asyncio.Event`. Its events are encoded once for all subscribers, once
for each, or by `fastapi.sse`. An event is published when all subscribers have the one
before. The last lines are for ten events that are published at once, for each of them.
"""

import argparse
import asyncio
import json
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote
from urllib.request import Request, urlopen

import fastapi.sse
from fastapi import FastAPI

import fastapi_sse_fast
from fastapi_sse_fast import Channels, EncodedEvent
from fastapi_sse_fast.stores import MemoryStore

SUBSCRIBERS = 1000
EVENTS = 10
ROUNDS = 3
HOST = "127.0.0.1"

ROW = {"symbol": "ACME", "price": 123.45, "volume": 1234567, "time": "09:30:00.125"}
SIZES = (1, 20)
"""How many rows an event has, of 78 bytes each."""


# The server


class GeneratorChannel:
    """A channel by hand: subscribers are generators that wait for the next event."""

    def __init__(self, keep: int) -> None:
        self._kept: deque[Any] = deque(maxlen=keep)
        self._last = 0
        self._published = asyncio.Event()

    async def publish(self, data: Any) -> None:
        self._last += 1
        self._kept.append(self.event(data, self._last))
        self._published.set()
        self._published = asyncio.Event()

    def event(self, data: Any, number: int) -> Any:
        return EncodedEvent(data=data, id=str(number))

    async def subscribe(self) -> AsyncIterator[Any]:
        seen = self._last
        while True:
            while seen == self._last:
                await self._published.wait()
            oldest = self._last - len(self._kept) + 1
            seen = max(seen + 1, oldest)
            yield self._kept[seen - oldest]


class UnencodedChannel(GeneratorChannel):
    def event(self, data: Any, number: int) -> Any:
        return fastapi_sse_fast.ServerSentEvent(data=data, id=str(number))


class FastAPIChannel(GeneratorChannel):
    def event(self, data: Any, number: int) -> Any:
        return fastapi.sse.ServerSentEvent(data=data, id=str(number))


class StoreChannel:
    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def publish(self, data: Any) -> None:
        await self._channels.publish("rows", data)

    def subscribe(self) -> fastapi_sse_fast.Subscription:
        return self._channels.subscribe("rows")


store = MemoryStore()
app = FastAPI(lifespan=store.lifespan)
channels: dict[str, StoreChannel | GeneratorChannel] = {
    "Channels": StoreChannel(Channels(store, history=100)),
    "generators": GeneratorChannel(keep=100),
    "encoded for each": UnencodedChannel(keep=100),
    "fastapi.sse": FastAPIChannel(keep=100),
}


@app.get("/fastapi.sse", response_class=fastapi.sse.EventSourceResponse)
async def subscribe_to_fastapi() -> AsyncIterator[Any]:
    async for event in channels["fastapi.sse"].subscribe():
        yield event


@app.get("/{name}")
async def subscribe(name: str) -> fastapi_sse_fast.EventSourceResponse:
    return fastapi_sse_fast.EventSourceResponse(channels[name].subscribe())


@app.post("/{name}")
async def publish(name: str, data: list[Any], times: int = 1) -> None:
    for _ in range(times):
        await channels[name].publish(data)


@app.get("/process/cpu")
async def cpu() -> float:
    return time.process_time()


# Its clients


class Subscribers:
    """Clients of a stream, in one thread."""

    def __init__(
        self, address: tuple[str, int], path: str, number: int = SUBSCRIBERS
    ) -> None:
        self._selector = selectors.DefaultSelector()
        self._ends: dict[int, bytes] = {}
        self._number = number
        request = f"GET {quote(path)} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        for _ in range(number):
            subscriber = socket.create_connection(address)
            subscriber.sendall(request)
            self._selector.register(subscriber, selectors.EVENT_READ)
        self.read_until(b"\r\n\r\n")  # the head of the response

    def read_events(self, number: int) -> None:
        self.read_until(b"]\n", number)

    def read_until(self, end: bytes, times: int = 1) -> None:
        """Read until everybody has had something so many times."""
        waiting = self._number * times
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


def microseconds(address: tuple[str, int], name: str, data: bytes, times: int) -> float:
    """Return the server's CPU time for a subscriber and an event, of one or several."""
    url = f"http://{HOST}:{address[1]}"
    headers = {"content-type": "application/json"}
    subscribers = Subscribers(address, f"/{name}")
    before = float(urlopen(f"{url}/process/cpu").read())
    for _ in range(EVENTS):
        publish = f"{url}/{quote(name)}?times={times}"
        urlopen(Request(publish, data, headers)).close()
        subscribers.read_events(times)
    after = float(urlopen(f"{url}/process/cpu").read())
    subscribers.close()
    return (after - before) / EVENTS / times / SUBSCRIBERS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the server, too
    with socket.create_server((HOST, 0), backlog=SUBSCRIBERS) as listener:
        address = listener.getsockname()
        command = [
            *(sys.executable, "-m", "uvicorn", f"{Path(__file__).stem}:app"),
            *("--app-dir", str(Path(__file__).parent)),
            *("--fd", str(listener.fileno()), "--log-level", "warning"),
        ]
        server = subprocess.Popen(command, pass_fds=[listener.fileno()])
    try:
        print("µs of server CPU for each event and subscriber")
        for size in SIZES:
            data = json.dumps([ROW] * size).encode()
            report(f"{size} rows", address, data, 1, rounds)
        report("10 events at once", address, json.dumps([ROW]).encode(), 10, rounds)
    finally:
        server.kill()
        server.wait()


def report(
    title: str, address: tuple[str, int], data: bytes, times: int, rounds: int
) -> None:
    names = [name for name in channels if times == 1 or name != "fastapi.sse"]
    measured = [
        [microseconds(address, name, data, times) for name in names]
        for _ in range(rounds)
    ]
    ours = statistics.median(row[0] for row in measured)
    for name, found in zip(names, zip(*measured, strict=True), strict=True):
        median = statistics.median(found)
        print(
            f"{title:18} {name:17} {median:8.2f} ({min(found):.2f} to {max(found):.2f})"
            f"  {ours / median:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
