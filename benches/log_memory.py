"""What events, channels and subscribers keep in memory.

    python benches/log_memory.py

prints how much the resident memory grows for each of them, on Linux. Subscribers are
connections to the application of `subscribers.py`; for comparison, the last line is of
subscribers that are generators.
"""

import asyncio
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

from fastapi_sse_fast import Channels
from fastapi_sse_fast.stores import MemoryStore

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


def main() -> None:
    for size in (100, 1000):
        kept = asyncio.run(bytes_of_an_event(size))
        print(f"event with {size} bytes of data: {kept:.0f} bytes")
    print(f"channel without events: {asyncio.run(bytes_of_a_channel()):.0f} bytes")
    for path in ("Channels", "generators"):
        print(f"subscriber, {path}: {bytes_of_a_subscriber(path):.0f} bytes")


if __name__ == "__main__":
    main()
