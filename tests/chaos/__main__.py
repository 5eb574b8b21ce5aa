"""Break things while channels and runs are used, and check what every client receives.

    python -m tests.chaos [--seed N] [--server NAME] [--short] [--only WORD ...]

Several workers share a real server. Hundreds of clients read channels and runs, and
reconnect to any worker, while one thing breaks at a time. Every event that a client
receives is compared with what was published: what is missing is what its gaps say.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import signal
import sys
import time
from collections.abc import Sequence

from tests.soak.watch import Faults, say
from tests.support.redis import BINARIES

from .scenarios import LARGE, SETTINGS, SMALL, Scenario, staged
from .traffic import Size

SLACK = 1.0
"""Seconds, in addition to the lease, in which readers know that a run is lost."""


async def run(
    server: str,
    size: Size,
    faults: Faults,
    randomness: random.Random,
    only: Sequence[str] = (),
    slack: float = SLACK,
) -> None:
    """Play scenarios.

    Args:
        server: Name of the server.
        size: How much happens.
        faults: List of the faults that are found.
        randomness: Chooses what happens.
        only: Words in the names of the scenarios. Without words, all are played.
        slack: See `SLACK`.
    """
    for setting in SETTINGS:
        names = [
            name
            for name in setting.scenarios
            if not only or any(word in name for word in only)
        ]
        if not names:
            continue
        async with staged(setting, server, faults, randomness, slack) as stage:
            for name in names:
                began = time.perf_counter()
                figures = await setting.scenarios[name](stage, Scenario(name, size))
                say(f"{name}, {time.perf_counter() - began:.0f} s: {figures}")
            await stage.check_nothing_left()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--server", choices=BINARIES, default=next(iter(BINARIES)))
    parser.add_argument("--short", action="store_true", help="with few clients")
    parser.add_argument("--only", nargs="+", default=[], help="words of scenarios")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # It stops the servers.
    say(f"{arguments.server}, seed {arguments.seed}")
    faults = Faults()
    size = SMALL if arguments.short else LARGE
    randomness = random.Random(arguments.seed)
    asyncio.run(run(arguments.server, size, faults, randomness, arguments.only))
    say(f"{len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
