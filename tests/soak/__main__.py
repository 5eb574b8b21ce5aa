"""Run thousands of streams with every ending, and check that nothing is left.

    python -m tests.soak [--minutes M] [--seed N] [--servers NAME ...]

In the first part, streams of all kinds end in all ways, in rounds. The servers run
without the garbage collector, and after each round no stream may have left anything.
In the second part, a thousand streams are open at a time. Their clients disconnect,
stop reading and reconnect at random, until the server shuts down. Both parts check
every event that a client receives, and the record of every stream on the server. The
test needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import resource
import signal
import sys
import time
import unittest.mock
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from tests.support.server import COMMANDS, serve_process

from .app import LEAKS
from .visits import ENDINGS, PATIENCE, Ending, Visit, get, random_case
from .watch import MEASURED, Faults, Watch, say

APP = "tests.soak.app:app"

SERVERS = [
    name for name in COMMANDS if name.startswith(("uvicorn", "hypercorn", "granian"))
]

ENVIRONMENT = {
    # The keep-alive timer would keep requests of clients that have disconnected.
    "UVICORN_TIMEOUT_KEEP_ALIVE": "0",
    # With an arena for each of 40 threads, each would keep its maximum memory.
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
"""The environment of servers, in which all memory growth is a leak."""

MINUTES = 4.0
"""The duration on two idle cores, with the numbers that follow."""

CONNECTS = 10_000
AT_ONCE = 100
WARM_UP_ROUNDS = 6

OPEN = 1000
CLIENTS = 1250  # Some of them are between two streams.
CROWD_SECONDS = 60.0
CROWD_WARM_UP = 5.0  # All clients start in these seconds.


async def end_in_every_way(
    watch: Watch,
    connects: int,
    randomness: random.Random,
    endings: Sequence[Ending] = ENDINGS,
) -> None:
    """Run streams of all kinds and endings in rounds, and check what is left."""
    await get(watch.port, "/stop-collecting")
    await get(watch.port, "/trace")
    cases = itertools.cycle(
        [(kind, ending) for ending in endings for kind in ending.kinds]
    )
    rounds = WARM_UP_ROUNDS + MEASURED - 1
    streams = 0
    for turn in range(1, rounds + 1):
        numbers = range(streams, connects * turn // rounds)
        visits = [Visit(number, *next(cases)) for number in numbers]
        streams += len(visits)
        randomness.shuffle(visits)
        await make_visits(watch, visits, randomness)
        await watch.check_quiet()
        watch.check_records(visits, await get(watch.port, "/records"))
        watch.say(streams, watch.last.counts)
        if turn >= WARM_UP_ROUNDS:
            await watch.measure(streams)
    await watch.check_growth()


async def make_visits(
    watch: Watch, visits: Iterable[Visit], randomness: random.Random
) -> None:
    waiting = iter(visits)

    async def client() -> None:
        for visit in waiting:
            await watch.make(visit, reset=randomness.random() < 0.5)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))


async def keep_many_open(
    watch: Watch, clients: int, seconds: float, randomness: random.Random
) -> None:
    """Keep a number of streams open until the server shuts down."""
    visits: list[Visit] = []
    records: dict[str, list[str]] = {}
    begun = time.perf_counter()
    stops_at = begun + CROWD_WARM_UP + seconds

    async def client() -> None:
        await asyncio.sleep(randomness.uniform(0, CROWD_WARM_UP))
        while time.perf_counter() < stops_at:
            visit = Visit(len(visits), *random_case(randomness))
            visits.append(visit)
            await watch.make(visit, reset=randomness.random() < 0.5)

    everyone = asyncio.gather(*(client() for _ in range(clients)))
    await asyncio.sleep(CROWD_WARM_UP)
    least = clients
    while time.perf_counter() < stops_at:
        records.update(await get(watch.port, "/records"))
        counts = await watch.counts()
        watch.say(len(visits), counts)
        least = min(least, counts.open)
        await asyncio.sleep(seconds / 10)
    for visit in visits:
        visit.may_be_shut_down = str(visit.stream) not in records
    while not everyone.done():  # Some streams begin only now.
        await get(watch.port, "/shutdown")
        await asyncio.wait([everyone], timeout=1.0)
    await watch.check_quiet()
    records.update(await get(watch.port, "/records"))
    watch.check_records(visits, records)
    watch.say(len(visits), watch.last.counts)
    events = sum(visit.events for visit in visits)
    ends = Counter(visit.ends for visit in visits)
    say(f"{len(visits)} streams, at least {least} of them open at any time")
    say(f"{events} events; {', '.join(f'{n} {end}' for end, n in ends.most_common())}")
    if least < OPEN:
        watch.fault(f"only {least} streams were open")


def run(
    part: Callable[[Watch], Coroutine[Any, Any, None]],
    name: str,
    faults: Faults,
    leaks: Iterable[str] = (),
    patience: float = PATIENCE,
) -> None:
    """Run a part of the test on a server, and check that the server exits normally.

    Args:
        part: Function of the part.
        name: Name of the server.
        faults: List of the faults that are found.
        leaks: Keys of `app.LEAKS`: what every stream leaks on purpose.
        patience: Seconds in which streams that have ended must be gone.
    """

    async def main(port: int) -> None:
        watch = await Watch.begin(name, port, faults, patience)
        for kind in leaks:
            await get(port, f"/leak?kind={kind}")
        await part(watch)

    with (
        unittest.mock.patch.dict(os.environ, ENVIRONMENT),
        # The C library reads the environment when a process starts, so no fork.
        serve_process(name, APP, "/ready", is_forked=False) as server,
    ):
        try:
            asyncio.run(main(server.port))
        except Exception as error:
            faults.add(f"{name}: {error!r}")
        server.terminate()
        code = server.wait()
    if code not in (0, -signal.SIGTERM):
        faults.add(f"{name}: exit code {code}")
    if log := [line for line in server.log if "INFO" not in line]:
        faults.add(f"{name}: in the log:\n{''.join(log[:100])}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument(
        "--servers",
        nargs="+",
        choices=SERVERS,
        default=["uvicorn-h11", "uvicorn-uvloop"],
        help="servers of the first part; the last one also runs the second (default: "
        "uvicorn-h11 uvicorn-uvloop)",
    )
    parser.add_argument(
        "--leaks",
        nargs="+",
        choices=LEAKS,
        default=[],
        help="what every stream leaks, to check that the test finds it",
    )
    arguments = parser.parse_args()
    servers = arguments.servers
    scale = arguments.minutes / MINUTES
    randomness = random.Random(arguments.seed)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # It stops the servers.
    say(f"seed {arguments.seed}")
    faults = Faults()
    connects = int(CONNECTS * scale / len(servers))
    parts: list[tuple[str, Callable[[Watch], Coroutine[Any, Any, None]]]] = [
        (name, lambda watch: end_in_every_way(watch, connects, randomness))
        for name in servers
    ]
    parts.append(
        (
            servers[-1],
            lambda watch: keep_many_open(
                watch, CLIENTS, CROWD_SECONDS * scale, randomness
            ),
        )
    )
    for name, part in parts:
        # With leaks, waiting longer is useless.
        run(part, name, faults, arguments.leaks, 1.0 if arguments.leaks else PATIENCE)
    say(f"{len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
