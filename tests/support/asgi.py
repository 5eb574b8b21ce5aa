"""Call an ASGI application as a server does, and keep what it sends."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import anyio

Application = Callable[..., Any]


@dataclasses.dataclass
class Reply:
    """The response of an application, and the error that it raised."""

    status: int | None = None
    headers: list[tuple[bytes, bytes]] = dataclasses.field(default_factory=list)
    chunks: list[bytes] = dataclasses.field(default_factory=list)
    complete: bool = False
    error: BaseException | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


def scope(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


async def receive_nothing() -> dict[str, Any]:
    """Receive nothing, as from a client that stays connected."""
    await anyio.sleep_forever()
    raise AssertionError


async def send_for_ever(message: Any) -> None:
    """Send to a client that reads the head of a response and nothing else."""
    if message["type"] == "http.response.body":
        await anyio.sleep_forever()


async def call(
    app: Application,
    path: str = "/",
    *,
    body: bytes = b"",
    disconnect_after: int | None = None,
    disconnect_at: anyio.Event | None = None,
    freeze_after: int | None = None,
    max_time: float = math.inf,
    **more: Any,
) -> Reply:
    """Make a request and return its reply.

    The client can disconnect after a number of body messages, when an event is set, or
    after some seconds, and it can stop reading after a number of body messages.
    """
    reply = Reply()
    leave = disconnect_at or anyio.Event()
    requested = False

    async def receive() -> dict[str, Any]:
        nonlocal requested
        if not requested:
            requested = True
            return {"type": "http.request", "body": body, "more_body": False}
        with anyio.move_on_after(max_time):
            await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"].endswith("http.response.start"):
            reply.status = message["status"]
            reply.headers = list(message["headers"])
        elif message["type"].endswith("http.response.body"):
            assert reply.status is not None
            if message.get("body"):
                reply.chunks.append(message["body"])
            reply.complete = not message.get("more_body", False)
            if disconnect_after is not None and len(reply.chunks) >= disconnect_after:
                leave.set()
            if freeze_after is not None and len(reply.chunks) >= freeze_after:
                await anyio.sleep_forever()

    with anyio.fail_after(20):
        try:
            await app(scope(path, **more), receive, send)
        except Exception as error:
            reply.error = error
    return reply


async def call_until(condition: Callable[[], object], app: Application) -> None:
    """Make a request and cancel it when a condition is true."""
    with anyio.fail_after(20), anyio.CancelScope() as around:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                while not condition():
                    await anyio.sleep(0.001)
                around.cancel()

            tasks.start_soon(cancel)
            reply = await call(app)
            raise AssertionError(f"the request ended by itself: {reply}")
    assert around.cancelled_caught


def fetch(
    app: Application, path: str = "/", backend: str = "asyncio", **more: Any
) -> Reply:
    """Run `call` in a new event loop."""

    async def main() -> Reply:
        return await call(app, path, **more)

    return anyio.run(main, backend=backend)
