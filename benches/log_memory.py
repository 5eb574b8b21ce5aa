"""What events, channels and subscribers keep in memory.

    python benches/log_memory.py

prints how much the resident memory grows for each of them, on Linux. Subscribers are
connections to the application of `subscribers.py`; for comparison, the last line is of
subscribers that are generators.

    python benches/log_memory.py --redis redis://localhost

prints what they keep in a Redis or Valkey instead, by its `MEMORY USAGE`. Its keys have
a prefix, and are deleted in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from fastapi_sse_fast import Channels, Runs
from fastapi_sse_fast.stores import MemoryStore

if TYPE_CHECKING:
    from redis import Redis

EVENTS = 100_000
CHANNELS = 50_000
FIRST_SUBSCRIBERS = 100
SUBSCRIBERS = 900


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def bytes_of_an_event(size: int) -> float:
    channels = Channels(store := MemoryStore(), history=EVENTS)
    data = "x" * (size - len('""'))
    async with store:
        before = resident(os.getpid())
        for _ in range(EVENTS):
            await channels.publish("events", data)
        return (resident(os.getpid()) - before) / EVENTS


async def bytes_of_a_channel() -> float:
    channels = Channels(store := MemoryStore())
    async with store:
        before = resident(os.getpid())
        for number in range(CHANNELS):
            await channels.position(f"user:{number}")
        return (resident(os.getpid()) - before) / CHANNELS


def subscribe(address: tuple[str, int], path: str, number: int) -> list[socket.socket]:
    clients = [socket.create_connection(address) for _ in range(number)]
    for client in clients:
        client.sendall(f"GET /{path} HTTP/1.1\r\nHost: {address[0]}\r\n\r\n".encode())
    for client in clients:
        client.recv(4096)
    return clients


def bytes_of_a_subscriber(path: str) -> float:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with socket.create_server(("127.0.0.1", 0), backlog=SUBSCRIBERS) as listener:
        command = [
            *(sys.executable, "-m", "uvicorn", "subscribers:app"),
            *("--app-dir", str(Path(__file__).parent)),
            *("--fd", str(listener.fileno()), "--log-level", "warning"),
        ]
        server = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            clients = subscribe(listener.getsockname(), path, FIRST_SUBSCRIBERS)
            before = resident(server.pid)
            clients += subscribe(listener.getsockname(), path, SUBSCRIBERS)
            return (resident(server.pid) - before) / SUBSCRIBERS
        finally:
            server.kill()
            server.wait()


REDIS_EVENTS = 1000
PREFIX = "log_memory:"


def bytes_in_redis(client: Redis, name: str) -> int:
    keys = client.scan_iter(f"{PREFIX}{{{name}}}*")
    return sum(client.memory_usage(key, samples=0) for key in keys)  # type: ignore[misc]


async def measure_redis(client: Redis, url: str) -> None:
    from fastapi_sse_fast.stores import RedisStore

    async def answer() -> AsyncIterator[str]:
        for _ in range(REDIS_EVENTS):
            yield "x" * 98
            await anyio.lowlevel.checkpoint()  # or it would be ahead of the server

    async with RedisStore.from_url(url, prefix=PREFIX) as store:
        channels, runs = Channels(store, history=REDIS_EVENTS), Runs(store)
        await channels.position("empty")
        empty = bytes_in_redis(client, "channel:empty")
        print(f"channel without events: {empty} bytes")
        for size in (100, 1000):
            for _ in range(REDIS_EVENTS):
                await channels.publish(f"{size}", "x" * (size - len('""')))
            kept = (bytes_in_redis(client, f"channel:{size}") - empty) / REDIS_EVENTS
            print(f"event with {size} bytes of data: {kept:.0f} bytes")
        for number in range(REDIS_EVENTS):
            await channels.publish("keys", "x" * 98, dedupe=f"notification:{number}")
        both = bytes_in_redis(client, "channel:keys")
        keys = (both - bytes_in_redis(client, "channel:100")) / REDIS_EVENTS
        print(f"a key of 16 characters, of dedupe: {keys:.0f} bytes")
        run = await runs.start("one", answer)
        async for _ in run.subscribe():
            pass  # until its end
        kept = bytes_in_redis(client, "run:one") / REDIS_EVENTS
        print(f"event of a run with 100 bytes of data: {kept:.0f} bytes")


def in_redis(url: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        server: Any = client.info("server")
        name = server.get("server_name", "redis")
        print(name, server.get(f"{name}_version", server["redis_version"]))
        try:
            asyncio.run(measure_redis(client, url))
        finally:
            for key in client.scan_iter(f"{PREFIX}*"):
                client.delete(key)


def in_process() -> None:
    for size in (100, 1000):
        kept = asyncio.run(bytes_of_an_event(size))
        print(f"event with {size} bytes of data: {kept:.0f} bytes")
    print(f"channel without events: {asyncio.run(bytes_of_a_channel()):.0f} bytes")
    for path in ("Channels", "generators"):
        print(f"subscriber, {path}: {bytes_of_a_subscriber(path):.0f} bytes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--redis", metavar="URL")
    url = parser.parse_args().redis
    if url is None:
        in_process()
    else:
        in_redis(url)


if __name__ == "__main__":
    main()
