"""The `conftest.py` for sse-starlette's tests, which their archive does not contain.

It is copied to the tests and defines what they use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from fastapi_sse_fast import shutdown
from fastapi_sse_fast.sse_starlette.sse import AppStatus, EventSourceResponse

log = logging.getLogger(__name__)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def reset_shutdown_state() -> Iterator[None]:
    yield
    AppStatus.should_exit = False
    AppStatus.enable_automatic_graceful_drain = True


@pytest.fixture
async def httpx_client() -> AsyncIterator[httpx2.AsyncClient]:
    async def numbers() -> AsyncIterator[dict[str, int]]:
        try:
            for number in count():
                yield {"data": number}
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            log.info("Disconnected from client")
            raise

    async def endless(request: Request) -> EventSourceResponse:
        return EventSourceResponse(numbers())

    transport = httpx2.ASGITransport(Starlette(routes=[Route("/endless", endless)]))
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://localhost"
    ) as client:
        yield client


def shut_down_when(condition: Callable[[], Awaitable[None]]) -> None:
    """Shut the server down when a condition returns."""

    async def wait() -> None:
        await condition()
        shutdown()

    tasks.append(asyncio.get_running_loop().create_task(wait()))


tasks: list[asyncio.Task[None]] = []
"""References, so that tasks are not garbage collected before they are done."""


@contextmanager
def collapse_excgroups() -> Iterator[None]:
    """Do nothing: our response never raises an exception group."""
    yield
