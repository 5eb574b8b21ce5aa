"""How long an event takes to reach all of 10,000 subscribers of one worker.

    python benches/crowd.py
    python benches/crowd.py --seconds 10 --url redis://localhost

publishes an event per second for a minute to a channel in memory, and to one in Redis:
Valkey is started unless a URL is given. The clients are in another process than the
worker. The memory of an idle subscriber includes its connection and request. The CPU
while nothing is published is that of pings, of which each subscriber gets one every 15
seconds.
"""

import argparse
import resource
import statistics
import time

import redis

from log_memory import resident
from subscribers import HOST, Subscribers
from workers import Worker, server_url

SUBSCRIBERS = 10_000
SECONDS = 60
IDLE_SECONDS = 5


def cpu(worker: Worker) -> float:
    seconds: float = worker.get("/process/cpu")
    return seconds


def measure(kind: str, url: str, subscribers: int, seconds: int) -> None:
    worker = Worker(url)
    try:
        path = f"/channels/{kind}"
        worker.post(path)
        before = resident(worker.pid)
        clients = Subscribers((HOST, worker.port), path, subscribers)
        each = (resident(worker.pid) - before) / subscribers / 1024
        with redis.Redis.from_url(url) as server:
            connections = len(server.client_list()) - 1  # without this one

        cpu_before = cpu(worker)
        time.sleep(IDLE_SECONDS)
        idle = (cpu(worker) - cpu_before) / IDLE_SECONDS

        took = []
        cpu_before = cpu(worker)
        begun_at = time.perf_counter()
        for number in range(seconds):
            time.sleep(max(0.0, begun_at + number - time.perf_counter()))
            sent_at = time.perf_counter()
            worker.post(path)
            clients.read_events(1)
            took.append(time.perf_counter() - sent_at)
        busy = (cpu(worker) - cpu_before) / seconds
        clients.close()
    finally:
        worker.stop()
    print(f"{subscribers} subscribers of a channel in {kind}")
    print(f"  connections of the worker to Redis       {connections:8}")
    print(f"  KiB for each, idle                       {each:8.1f}")
    print(f"  CPU of pings while idle, % of a core     {100 * idle:8.2f}")
    print(f"  seconds until all have an event, median  {statistics.median(took):8.2f}")
    print(f"  seconds until all have an event, most    {max(took):8.2f}")
    print(f"  CPU with an event per second, % of a core{100 * busy:8.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", help="a Redis to use instead of starting Valkey")
    parser.add_argument("--subscribers", type=int, default=SUBSCRIBERS)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the workers, too
    with server_url(arguments.url) as url:
        for kind in ("memory", "redis"):
            measure(kind, url, arguments.subscribers, arguments.seconds)


if __name__ == "__main__":
    main()
