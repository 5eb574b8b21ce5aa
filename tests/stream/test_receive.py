"""`receive`, called by the stream and by generators that use their request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, Request

from fastapi_sse_fast import EventSourceResponse

from ..support.apps import MS, Summaries, app_of, logged, numbers
from ..support.asgi import Application, fetch, receive_nothing, scope


def sent_to(receive: Any, app: Application, backend: str) -> bytes:
    """Return the body that an application sends, given a `receive`."""
    chunks: list[bytes] = []

    async def send(message: Any) -> None:
        chunks.append(message.get("body", b""))

    async def main() -> None:
        with anyio.fail_after(20):
            await app(scope(), receive, send)

    anyio.run(main, backend=backend)
    return b"".join(chunks)


# Called by the stream


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_only_a_disconnect_is_a_disconnect(
    count: int, leaves: bool, anyio_backend: str
) -> None:
    """An extension of the server can send other messages, any number of them."""
    ended = []

    async def items() -> AsyncIterator[int]:
        try:
            for number in range(20):
                yield number
                await anyio.sleep(5 * MS)
            if leaves:
                await anyio.sleep(3)
        finally:
            ended.append(True)

    said: list[Any] = [
        {"type": "http.request", "body": b"", "more_body": False},
        *[{"type": "http.response.news"} for _ in range(count)],
    ]

    async def receive() -> Any:
        if said:
            await anyio.sleep(MS)
            return said.pop(0)
        if leaves:
            return {"type": "http.disconnect"}
        return await receive_nothing()

    summaries = Summaries()
    body = sent_to(receive, app_of(items, on_close=summaries), anyio_backend)
    if not leaves:
        assert numbers(body) == list(range(20))
    assert summaries.reasons == ["disconnected" if leaves else "finished"]
    assert ended == [True]


@pytest.mark.parametrize("more_body", [False, True])
@pytest.mark.parametrize("body", [b"", b"x" * 1000])
def test_a_receive_that_gives_the_body_to_whoever_asks(
    body: bytes, more_body: bool, anyio_backend: str
) -> None:
    """It returns at once, endlessly. That says nothing about the client."""
    pauses: list[float] = []

    async def items() -> AsyncIterator[int]:
        for number in range(20):
            yield number
            await anyio.sleep(5 * MS)

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": more_body}

    async def look() -> None:
        while True:
            started = time.perf_counter()
            await anyio.sleep(MS)
            pauses.append(time.perf_counter() - started)

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await app(scope, receive, send)
            tasks.cancel_scope.cancel()

    summaries = Summaries()
    app = app_of(items, on_close=summaries)
    assert numbers(sent_to(receive, watched, anyio_backend)) == list(range(20))
    assert summaries.reasons == ["finished"]
    assert sorted(pauses)[len(pauses) // 2] < 20 * MS


def test_a_receive_that_never_ends_its_body_is_not_asked_for_ever(
    anyio_backend: str,
) -> None:
    """A long stream would use a whole CPU core for it."""
    asked = 0

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(100 * MS)

    async def receive() -> Any:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"", "more_body": True}

    assert sent_to(receive, app_of(items), anyio_backend) == b"data: 1\n\n"
    assert asked < 1000


@pytest.mark.parametrize("at_first", [True, False])
def test_a_receive_that_raises_does_not_end_the_stream(
    at_first: bool, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(5):
            yield number
            await anyio.sleep(5 * MS)

    async def receive() -> Any:
        nonlocal at_first
        if at_first:
            raise LookupError
        at_first = True
        return {"type": "http.request", "body": b"", "more_body": False}

    summaries = Summaries()
    body = sent_to(receive, app_of(items, on_close=summaries), anyio_backend)
    assert numbers(body) == list(range(5))
    assert summaries.reasons == ["finished"]
    assert [error for _, error in logged(caplog)] == [LookupError]


def test_a_receive_that_raises_hides_no_error(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(5 * MS)
        raise LookupError("mid-stream")

    failing = anyio.Event()

    async def receive() -> Any:
        await failing.wait()
        raise ZeroDivisionError

    async def on_error(error: Exception) -> None:
        failing.set()
        await anyio.sleep(5 * MS)

    response = EventSourceResponse(items(), on_error=on_error)
    with pytest.raises(LookupError):
        sent_to(receive, response, anyio_backend)
    assert [error for _, error in logged(caplog)] == [ZeroDivisionError]


# Called by a generator


@pytest.mark.parametrize("way", ["body", "json", "stream"])
@pytest.mark.parametrize("when", ["at first", "after an event", "late"])
def test_a_generator_can_read_the_body_of_its_request(
    when: str, way: str, anyio_backend: str
) -> None:
    app = FastAPI()

    @app.post("/", response_class=EventSourceResponse)
    async def items(request: Request) -> AsyncIterator[Any]:
        if when != "at first":
            yield "begun"
        if when == "late":
            await anyio.sleep(20 * MS)  # The stream watches the client by then.
        if way == "body":
            yield (await request.body()).decode()
        elif way == "json":
            yield await request.json()
        else:
            yield b"".join([chunk async for chunk in request.stream()]).decode()
        yield await request.is_disconnected()

    reply = fetch(app, backend=anyio_backend, method="POST", body=b"123")
    assert reply.error is None
    text = b"123" if way == "json" else b'"123"'
    begun = b"" if when == "at first" else b'data: "begun"\n\n'
    assert reply.body == begun + b"data: %s\n\ndata: false\n\n" % text
    assert reply.complete
