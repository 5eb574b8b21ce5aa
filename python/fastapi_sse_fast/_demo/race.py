"""The race: one contestant after the other, each with a client process of its own.

They do not run at the same time. Two servers, two clients, and a browser would compete
for the cores of a small machine, and it would be chance who gets them.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

from pydantic import BaseModel, Field

from .. import EncodedEvent
from .contestant import Contestant

SECONDS = 3.5
"""How long each contestant sends."""


class Workload(BaseModel):
    streams: Annotated[int, Field(ge=1, le=500)] = 300
    rate: Annotated[float, Field(ge=0, le=1000)] = 50
    """Tokens per second of each stream; 0 is a burst, as fast as it goes."""
    seconds: Annotated[float, Field(gt=0, le=30)] = SECONDS


async def race(
    contestants: Collection[Contestant], workload: Workload
) -> AsyncGenerator[EncodedEvent, None]:
    """Yield the `workload`, then for each contestant what its client prints.

    An event has the name of the contestant. Its data is how many tokens the client has
    `received` after how many `seconds`, and the `cpu` that the server has used.
    """
    yield EncodedEvent(event="workload", data=workload)
    await asyncio.gather(*(one.start() for one in contestants))
    async with AsyncExitStack() as stack:
        # They take a second to start. None of that is in anybody's race.
        clients = [
            (one.package, await stack.enter_async_context(client(one.port, workload)))
            for one in contestants
        ]
        for _, process in clients:
            await read_line(process)
        for package, process in clients:
            assert process.stdin is not None
            process.stdin.write(b"begin\n")
            while line := await read_line(process):
                yield EncodedEvent(event=package, raw_data=line)
            if await process.wait():
                raise RuntimeError(f"the client of {package} has failed")
    yield EncodedEvent(event="done")


@asynccontextmanager
async def client(
    port: int, workload: Workload
) -> AsyncIterator[asyncio.subprocess.Process]:
    pause = 1 / workload.rate if workload.rate else 0
    arguments = map(str, [port, workload.streams, pause, workload.seconds])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{__package__}.crowd", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the demo to see
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def read_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()
