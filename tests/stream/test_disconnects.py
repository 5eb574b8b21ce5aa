"""Clients that disconnect."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import Depends, FastAPI

from fastapi_sse_fast import EncodedEvent

from ..support.apps import KINDS, MS, Log, app_of
from ..support.asgi import fetch, scope, send_for_ever
from ..support.closings import SOON, Closings
from ..support.middlewares import PAUSES, with_pause
from ..support.server import HTTP_AND_LOOPS, Client, serve, wait_until


def test_a_disconnect_closes_the_generator_on_every_backend(
    anyio_backend: str,
) -> None:
    log = Log()

    async def resource() -> AsyncIterator[None]:
        yield
        log("dependency")

    async def idle() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            log("generator")

    async def busy() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(MS)
            log("generator")

    def sync_busy() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            log("generator")

    for endpoint in (idle, busy, sync_busy):
        log.lines.clear()
        app = app_of(endpoint, dependencies=[Depends(resource)])
        reply = fetch(app, backend=anyio_backend, disconnect_after=1)
        assert reply.error is None
        assert not reply.complete
        assert log.lines == ["generator", "dependency"]


@pytest.mark.parametrize(
    "config", HTTP_AND_LOOPS, ids=lambda c: f"{c['http']}-{c['loop']}"
)
@pytest.mark.parametrize("pace", ["idle", "busy", "blocked"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_leaves_closes_the_generator_then_the_dependencies(
    config: dict[str, Any], pace: str, kind: str
) -> None:
    log = Log()
    gone = threading.Event()

    def pause() -> None:
        gone.wait(5)  # A thread cannot be interrupted.

    async def resource() -> AsyncIterator[None]:
        yield
        log("dependency")

    async def items() -> AsyncIterator[Any]:
        try:
            while True:
                yield EncodedEvent(raw_data="x" * 1000)
                if pace == "idle":
                    await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(MS)
            log("generator")

    def sync_items() -> Iterator[Any]:
        try:
            while True:
                yield EncodedEvent(raw_data="x" * 1000)
                if pace == "idle":
                    pause()
        finally:
            log("generator")

    app = app_of(
        items if kind == "async" else sync_items, dependencies=[Depends(resource)]
    )
    with serve(app, **config) as port:
        with Client(port, buffer_size=4096) as client:
            client.read_until(b"x")
            if pace == "blocked":
                time.sleep(50 * MS)
        gone.set()
        wait_until(lambda: len(log.lines) == 2)
    assert log.lines == ["generator", "dependency"]


# Delay


async def send_nowhere(message: object) -> None:
    """Send to a client that reads everything."""


@pytest.mark.parametrize("spec_version", ["2.0", "2.3", "2.4", "2.5", None])
@pytest.mark.parametrize("send", [send_nowhere, send_for_ever])
def test_a_disconnect_is_noticed_soon_whatever_the_server_announces(
    send: Any, spec_version: str | None, anyio_backend: str
) -> None:
    announced = {} if spec_version is None else {"spec_version": spec_version}
    asgi = {"version": "3.0", **announced}
    closings = Closings()

    async def seconds_to_close(app: FastAPI) -> float:
        leave = anyio.Event()

        async def receive() -> dict[str, str]:
            await leave.wait()
            return {"type": "http.disconnect"}

        closings.produced = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, scope(asgi=asgi), receive, send)
            while not closings.produced:
                await anyio.sleep(MS)
            await anyio.sleep(2 * MS)
            assert not closings.times
            left = time.perf_counter()
            leave.set()
        return closings.times.pop() - left

    async def main() -> None:
        for endpoint in (closings.idle, closings.busy, closings.sync_busy):
            app = app_of(endpoint)
            with anyio.fail_after(20):
                times = [await seconds_to_close(app) for _ in range(5)]
            assert statistics.median(times) < SOON

    anyio.run(main, backend=anyio_backend)


def leave_with_reset(client: Client) -> None:
    linger = struct.pack("ii", 1, 0)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.socket.close()


def leave_politely(client: Client) -> None:
    client.socket.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError):
        while client.socket.recv(1 << 16):
            pass


@pytest.mark.parametrize("leave", [leave_with_reset, leave_politely])
def test_a_disconnect_is_noticed_soon_on_a_real_socket(leave: Any) -> None:
    closings = Closings()
    for endpoint in (closings.idle, closings.busy, closings.sync_busy):
        times = []
        with serve(app_of(endpoint)) as port:
            for _ in range(10):
                with Client(port, buffer_size=4096) as client:
                    client.read_until(b"x")
                    left = time.perf_counter()
                    leave(client)
                    wait_until(lambda: closings.times)
                times.append(closings.times.pop() - left)
        assert statistics.median(times) < SOON


# Interrupted code


def test_a_send_that_waits_is_cancelled_when_the_client_leaves_with_it() -> None:
    """The disconnect arrives before the request's task can continue the send."""
    log = Log()

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(MS)
        finally:
            log("generator")

    async def main() -> None:
        leave = asyncio.Event()
        sent = 0

        async def receive() -> Any:
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal sent
            sent += 1
            if sent < 10:
                return
            leave.set()
            try:
                await anyio.sleep_forever()
            finally:
                await asyncio.sleep(0)  # Only a cancellation gets it here.
                log("send")

        await asyncio.wait_for(app_of(items)(scope(), receive, send), 5)

    asyncio.run(main())
    assert log.lines == ["send", "generator"]


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_client_that_leaves_interrupts_what_the_generator_awaits(
    pause: float | None, depth: int
) -> None:
    """The depth does not matter, and the cleanup can await."""
    log: list[str] = []

    async def waiting(levels: int) -> None:
        try:
            await (waiting(levels - 1) if levels else asyncio.sleep(3600))
        except asyncio.CancelledError:
            log.append("interrupted")
            raise
        finally:
            await asyncio.sleep(MS)
            log.append("cleaned up")

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await waiting(depth)
        finally:
            await asyncio.sleep(MS)
            log.append("closed")

    app = with_pause(app_of(items), pause)
    reply = fetch(app, disconnect_after=1)
    assert reply.error is None
    assert reply.body == b"data: 1\n\n"
    assert log == ["interrupted", "cleaned up"] * (depth + 1) + ["closed"]
