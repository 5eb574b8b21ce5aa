"""What channels and runs cost when several workers share them in Redis.

    python benches/workers.py
    python benches/workers.py --url redis://localhost

starts two workers, and Valkey unless a URL is given, and measures

* the CPU of a worker for each event and each of 1,000 subscribers: `Channels` in memory
  and in Redis, Litestar's channels, and a generator for each client with a pub/sub
  connection of its own,
* the round trips to Redis for each event: one publisher, and 100 runs at once,
* the time from `publish` in one worker to the client of the other one, and from
  `cancel` in one to the end of the run in the other,
* the connections of a worker to Redis with 10 and 1,000 subscribers,
* what it costs when 1,000 clients come back at once after a restart.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import redis
import redis.asyncio
from fastapi import FastAPI, Response
from typing_extensions import Self

from fastapi_sse_fast import Channels, EventSourceResponse, LastEventID, Runs
from fastapi_sse_fast.stores import MemoryStore, RedisStore

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
SUBSCRIBERS = 1000
EVENTS = 10
ROUNDS = 3
ROW = {"symbol": "ACME", "price": 123.45, "volume": 1234567, "time": "09:30:00.125"}


# The workers


URL = os.environ.get("REDIS_URL", "redis://localhost")
memory = MemoryStore()
store = RedisStore.from_url(URL)
in_memory = Channels(memory, history=100)
in_redis = Channels(store, history=100)
runs = Runs(store)
client = redis.asyncio.Redis.from_url(URL, socket_timeout=None, max_connections=2000)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with memory, store:
        yield


app = FastAPI(lifespan=lifespan)


async def connection_for_each() -> AsyncIterator[str]:
    async with client.pubsub() as messages:
        await messages.subscribe("each")
        async for message in messages.listen():
            if message["type"] == "message":
                yield json.loads(message["data"])


@app.get("/channels/{kind}")
async def subscribe(kind: str, last: LastEventID) -> EventSourceResponse:
    if kind == "each":
        return EventSourceResponse(connection_for_each())
    channels = in_memory if kind == "memory" else in_redis
    return EventSourceResponse(channels.subscribe("rows", last))


@app.post("/channels/{kind}")
async def publish(kind: str, data: Any = None) -> str:
    item = [ROW, time.time()]
    if kind == "each":
        await client.publish("each", json.dumps(item))
        return ""
    return await (in_memory if kind == "memory" else in_redis).publish("rows", item)


@app.post("/bursts/{number}")
async def publish_many(number: int) -> list[int]:
    before = store.stats()
    for _ in range(number):
        await in_redis.publish("bursts", ROW)
    after = store.stats()
    return [after.round_trips - before.round_trips, after.commands - before.commands]


async def tokens(number: int, interval: float) -> AsyncIterator[dict[str, Any]]:
    for _ in range(number):
        yield ROW
        await asyncio.sleep(interval)


@app.post("/runs/{name}")
async def start(name: str, number: int = 100, interval: float = 0.01) -> None:
    await runs.start(name, tokens, number, interval)


@app.get("/runs/{name}")
async def read(name: str, last: LastEventID) -> Response:
    return await runs.response(name, last)


@app.post("/runs/{name}/cancel")
async def cancel(name: str) -> float:
    await runs.cancel(name)
    return time.time()


@app.post("/many/{count}")
async def start_many(count: int) -> list[float]:
    before = store.stats()
    for number in range(count):
        await runs.start(f"many:{number}", tokens, 100, 0.02)
    while store.stats().runs:  # noqa: ASYNC110 - they end by themselves
        await asyncio.sleep(0.05)
    after = store.stats()
    return [after.round_trips - before.round_trips, count * 100]


@app.get("/process/cpu")
async def cpu() -> float:
    return time.process_time()


# The measurements


class Worker:
    def __init__(self, url: str, app: str = "workers:app") -> None:
        self._listener = socket.create_server((HOST, 0), backlog=SUBSCRIBERS)
        self.port = self._listener.getsockname()[1]
        self._url = url
        self._app = app
        self.start()

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "uvicorn", self._app, "--log-level", "warning"),
            *("--app-dir", str(Path(__file__).parent)),
            *("--fd", str(self._listener.fileno())),
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=[self._listener.fileno()],
            env={**os.environ, "REDIS_URL": self._url},
        )
        self.get("/process/cpu")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def get(self, path: str) -> Any:
        return json.loads(urlopen(f"http://{HOST}:{self.port}{path}").read())

    def post(self, path: str) -> Any:
        request = Request(f"http://{HOST}:{self.port}{path}", b"{}", method="POST")
        request.add_header("content-type", "application/json")
        return json.loads(urlopen(request).read())


class Clients:
    """Clients of a stream, which count what they have received."""

    def __init__(self, port: int, path: str, number: int) -> None:
        self._port = port
        self._path = path
        self._number = number
        self._tasks: list[asyncio.Task[None]] = []
        self._event = asyncio.Event()
        self.lines = 0
        self.begun = 0
        self.times: list[float] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._read()) for _ in range(self._number)]
        await self.until(lambda: self.begun >= self._number)
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            head = f"GET {self._path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
            writer.write(f"{head}\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            self.begun += 1
            self._event.set()
            async for line in reader:
                if line.startswith(b"data: "):
                    self.lines += 1
                    if self._number == 1:
                        self.times.append(time.time())
                    self._event.set()
        finally:
            writer.close()

    async def until(self, condition: Any) -> None:
        while not condition():
            self._event.clear()
            await self._event.wait()


async def post(worker: Worker, path: str) -> Any:
    return await asyncio.to_thread(worker.post, path)


async def cpu_of_subscribers(kind: str, publisher: Worker, reader: Worker) -> float:
    """Return the µs of CPU in the reader for each event and subscriber."""
    async with Clients(reader.port, f"/channels/{kind}", SUBSCRIBERS) as clients:
        await asyncio.sleep(0.5)
        before = await asyncio.to_thread(reader.get, "/process/cpu")
        for event in range(EVENTS):
            await post(publisher, f"/channels/{kind}")
            await clients.until(
                lambda event=event: clients.lines >= SUBSCRIBERS * (event + 1)
            )
        after = await asyncio.to_thread(reader.get, "/process/cpu")
    return float((after - before) / EVENTS / SUBSCRIBERS * 1e6)


async def delivery(publisher: Worker, reader: Worker) -> list[float]:
    """Return the milliseconds from `publish` to the client of the other worker."""
    latencies = []
    async with Clients(reader.port, "/channels/redis", 1) as clients:
        await asyncio.sleep(0.5)
        for number in range(500):
            sent_at = time.time()
            await post(publisher, "/channels/redis")
            await clients.until(lambda number=number: clients.lines > number)
            latencies.append((clients.times[number] - sent_at) * 1000)
    return latencies


async def cancelling(owner: Worker, other: Worker) -> list[float]:
    """Return the milliseconds from `cancel` to the end of the stream of its reader."""
    latencies = []
    for number in range(50):
        name = f"cancelled:{time.time()}:{number}"
        await post(owner, f"/runs/{name}?number=10000")
        async with Clients(other.port, f"/runs/{name}", 1) as clients:
            await clients.until(lambda clients=clients: clients.lines >= 3)
            asked_at = time.time()
            await post(other, f"/runs/{name}/cancel")
            await asyncio.gather(*clients._tasks)
            latencies.append((time.time() - asked_at) * 1000)
    return latencies


def percentiles(values: list[float]) -> str:
    values = sorted(values)
    return (
        f"p50 {values[len(values) // 2]:.1f}, p99 {values[len(values) * 99 // 100]:.1f}"
    )


async def measure(url: str, rounds: int) -> None:
    server = redis.Redis.from_url(url)
    with contextlib.ExitStack() as stack:
        others = stack.enter_context(contextlib.ExitStack())
        a, b = Worker(url), Worker(url)
        stack.callback(a.stop)
        stack.callback(b.stop)
        litestar = Worker(url, "litestar_channels:app")
        others.callback(litestar.stop)
        kinds = {
            "Channels, memory": ("memory", a, a),
            "Channels, Redis": ("redis", a, b),
            "a connection for each client": ("each", a, b),
            "Litestar's channels, Redis": ("litestar", litestar, litestar),
        }
        found = [
            [await cpu_of_subscribers(*row) for row in kinds.values()]
            for _ in range(rounds)
        ]
        others.close()
        print(f"µs of CPU for each event and each of {SUBSCRIBERS} subscribers")
        ours = statistics.median(row[1] for row in found)
        for name, values in zip(kinds, zip(*found, strict=True), strict=True):
            median = statistics.median(values)
            print(f"  {name:30} {median:8.1f}   {ours / median:.2f}", flush=True)

        print("round trips for each event")
        trips, calls = await post(a, "/bursts/300")
        print(f"  one publisher                  {trips / calls:8.2f}")
        trips, calls = await post(a, "/many/100")
        print(f"  100 runs at 50 events/s        {trips / calls:8.2f}", flush=True)

        print("milliseconds between workers, with the request")
        print(f"  publish to client              {percentiles(await delivery(a, b))}")
        print(f"  cancel to the end of the run   {percentiles(await cancelling(a, b))}")

        print("connections of a worker to Redis")
        for number in (10, SUBSCRIBERS):
            async with Clients(b.port, "/channels/redis", number):
                # Two workers, and this.
                count = (len(server.client_list()) - 1) / 2
                print(f"  {number:5} subscribers              {count:8.0f}", flush=True)

        last = await post(a, "/channels/redis")
        for _ in range(50):
            await post(a, "/channels/redis")
        await asyncio.to_thread(b.stop)
        await asyncio.to_thread(b.start)
        before = commands(server)
        began_at = time.time()
        path = f"/channels/redis?last_event_id={last}"
        async with Clients(b.port, path, SUBSCRIBERS) as clients:
            await clients.until(lambda: clients.lines >= SUBSCRIBERS * 50)
            seconds = time.time() - began_at
        print(f"{SUBSCRIBERS} clients come back, each after the same 50 events")
        print(f"  seconds                        {seconds:8.2f}")
        print(f"  commands                       {commands(server) - before:8}")


def commands(server: redis.Redis) -> int:
    """Return the number of scripts and subscriptions that the server has run."""
    stats: dict[str, Any] = server.info("commandstats")
    return sum(
        stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]
        for name in ("evalsha", "subscribe")
    )


@contextlib.contextmanager
def server_url(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    sys.path.insert(0, str(ROOT))
    from tests.support.redis import BINARIES, redis_server

    with redis_server(next(iter(BINARIES))) as server:
        yield server.url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", help="a Redis to use instead of starting Valkey")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with server_url(arguments.url) as url:
        asyncio.run(measure(url, arguments.rounds))


if __name__ == "__main__":
    main()
