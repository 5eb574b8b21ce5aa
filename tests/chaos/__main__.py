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
from collections.abc import Mapping, Sequence
from typing import Any

from tests.soak.watch import Faults, say
from tests.support.redis import BINARIES

from .scenarios import (
    ALONE,
    AOF,
    BEHIND_A_PROXY,
    LARGE,
    ON_ONE_SERVER,
    QUIET,
    SMALL,
    SMALL_HISTORY,
    WITHOUT_PERSISTENCE,
    Play,
    Scenario,
    staged,
)
from .traffic import Size

STAGES: Sequence[tuple[Mapping[str, Play], Sequence[str], dict[str, Any]]] = (
    (ON_ONE_SERVER, AOF, {}),
    (WITHOUT_PERSISTENCE, (), {}),
    (BEHIND_A_PROXY, (), {"behind_proxy": True}),
    (SMALL_HISTORY, (), {"history": 5}),
    (QUIET, (), {}),
    (ALONE, (), {"workers": 1}),
)
"""Scenarios, the options of their server, and settings of their workers."""


async def run(
    server: str,
    size: Size,
    faults: Faults,
    randomness: random.Random,
    only: Sequence[str] = (),
    slack: float = 1.0,
) -> None:
    """Play all scenarios, or those whose names have one of some words in them."""
    for plays, options, settings in STAGES:
        chosen = {
            name: play
            for name, play in plays.items()
            if not only or any(word in name for word in only)
        }
        if not chosen:
            continue
        async with staged(
            server, options, faults, randomness, slack=slack, **settings
        ) as stage:
            for name, play in chosen.items():
                began = time.perf_counter()
                before = len(faults)
                try:
                    figures = await play(stage, Scenario(name, play, size))
                except Exception as error:
                    faults.add(f"{name}: {error!r}")
                    raise
                seconds = time.perf_counter() - began
                found = len(faults) - before
                say(f"{name} ({seconds:.0f} s): {figures}")
                if found:
                    say(f"{'':8}{found} faults")
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
