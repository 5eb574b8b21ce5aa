"""A process with a run in Redis: `python -m tests.support.redis_owner URL LEASE`.

It prints what happens, a JSON value on each line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio

from fastapi_sse_fast import RunResult, Runs

from .redis import redis_store


def say(*what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def numbers() -> AsyncIterator[int]:
    number = 0
    try:
        while True:
            yield number
            number += 1
            await anyio.sleep(0.005)
    finally:
        say("closed", number)


async def main(url: str, lease: float) -> None:
    over = anyio.Event()

    def say_end(result: RunResult) -> None:
        say("ended", result.status)
        over.set()

    def say_lost(name: str) -> None:
        say("lost", name)

    async with redis_store(url) as store:
        runs = Runs(store, lease=lease, on_end=say_end, on_lost=say_lost)
        await runs.start("a", numbers)
        say("started")
        await over.wait()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], float(sys.argv[2]))
