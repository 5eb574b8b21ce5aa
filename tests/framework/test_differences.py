"""The rows of `docs/differences.md` that can be shown by running both packages.

Each test runs the same code with both packages. If one fails because FastAPI has
changed, its row is out of date.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import fastapi.routing
import fastapi.sse
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import ValidationError

import fastapi_sse_fast

from ..support import releases
from ..support.apps import MS, app_of
from ..support.asgi import Reply, call, fetch, receive_nothing, scope, send_for_ever
from ..support.comparison import both
from ..support.server import Client, serve, serve_process, wait_until

FASTAPI = fastapi.sse
OURS = fastapi_sse_fast

pytestmark = pytest.mark.skipif(
    releases.FASTAPI < (0, 165), reason="the table speaks of FastAPI 0.165"
)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Disable the garbage collector, which would close dropped generators."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


# Errors


def test_an_error_before_the_first_event_is_a_response() -> None:
    async def items() -> AsyncIterator[int]:
        raise HTTPException(403, "not yours")
        yield 1

    with serve(app_of(items, module=FASTAPI)) as port, Client(port) as client:
        assert client.status == 200
        with pytest.raises(EOFError):
            client.read_chunk()
    with serve(app_of(items, module=OURS)) as port, Client(port) as client:
        assert client.status == 403

    theirs, ours = both(items)
    assert (theirs.status, theirs.body) == (200, b"")
    assert (ours.status, ours.body) == (403, b'{"detail":"not yours"}')


def test_an_error_while_idle_does_not_look_like_the_end() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(50 * MS)
        raise LookupError

    with serve(app_of(items, module=FASTAPI)) as port, Client(port) as client:
        assert client.read_to_end() == b"data: 1\n\n"
    with serve(app_of(items, module=OURS)) as port, Client(port) as client:
        client.read_until(b"data: 1\n\n")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_chunk()


def test_events_before_an_error_arrive() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2
        yield 3
        raise LookupError

    theirs, ours = both(items)
    assert b"data: 3\n\n" not in theirs.body
    assert ours.body == b"data: 1\n\ndata: 2\n\ndata: 3\n\n"


def test_dependencies_see_the_exception_itself() -> None:
    seen: list[type[BaseException]] = []

    async def resource() -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            seen.append(type(error))
            raise

    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    theirs, ours = both(items, dependencies=[Depends(resource)])
    assert [seen[0].__name__, seen[1]] == ["ExceptionGroup", LookupError]
    assert type(theirs.error).__name__ == "ExceptionGroup"
    assert type(ours.error) is LookupError


def test_exception_handlers_are_found() -> None:
    async def early() -> AsyncIterator[int]:
        raise LookupError
        yield 1

    async def late() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    def answer(request: Request, error: Exception) -> Response:
        return PlainTextResponse("handled", 418)

    def reply(module: ModuleType, endpoint: Callable[..., Any]) -> Reply:
        app = app_of(endpoint, module=module)
        app.add_exception_handler(LookupError, answer)
        return fetch(app)

    for endpoint in (early, late):
        assert type(reply(FASTAPI, endpoint).error).__name__ == "ExceptionGroup"
    assert reply(OURS, early).body == b"handled"
    # Starlette raises this after the head is sent.
    error = reply(OURS, late).error
    assert isinstance(error, RuntimeError)
    assert "response already started" in str(error)
    assert isinstance(error.__cause__, LookupError)


# Cleanup


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("pause", [0, 3600])
def test_a_generator_is_closed_first(pause: int) -> None:
    log: list[str] = []

    async def resource() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("dependency")

    async def items(tasks: BackgroundTasks) -> AsyncIterator[int]:
        tasks.add_task(log.append, "background")
        try:
            while True:
                yield 1
                if pause:
                    await anyio.sleep(pause)
        finally:
            log.append("generator")

    async def main(module: ModuleType) -> list[str]:
        log.clear()
        app = app_of(items, module=module, dependencies=[Depends(resource)])
        await call(app, disconnect_after=1)
        return log.copy()

    late = ["generator"] if pause else []
    assert anyio.run(main, FASTAPI) == ["background", *late, "dependency"]
    assert anyio.run(main, OURS) == ["generator", "background", "dependency"]


def test_a_generator_can_await_while_it_is_closed() -> None:
    log: list[str] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            log.append("begins")
            await anyio.sleep(MS)
            log.append("done")

    fetch(app_of(items, module=FASTAPI), disconnect_after=1)
    assert log == ["begins"]
    log.clear()
    fetch(app_of(items, module=OURS), disconnect_after=1)
    assert log == ["begins", "done"]


@pytest.mark.usefixtures("no_collector")
def test_a_sync_generator_is_closed_too() -> None:
    async def main(module: ModuleType) -> list[str]:
        log: list[str] = []  # FastAPI's generator may be closed much later.

        def items() -> Iterator[int]:
            try:
                while True:
                    yield 1
                    time.sleep(MS)
            finally:
                log.append("generator")

        await call(app_of(items, module=module), disconnect_after=3)
        return log.copy()

    assert anyio.run(main, FASTAPI) == []
    assert anyio.run(main, OURS) == ["generator"]


def test_a_client_that_leaves_is_no_error() -> None:
    async def items(tasks: BackgroundTasks) -> AsyncIterator[int]:
        tasks.add_task(anyio.sleep, 0)
        while True:
            yield 1

    theirs = fetch(app_of(items, module=FASTAPI), disconnect_after=3)
    ours = fetch(app_of(items, module=OURS), disconnect_after=3)
    assert "BrokenResourceError" in repr(theirs.error)
    assert ours.error is None


@pytest.mark.parametrize("spec_version", ["2.4", "2.5"])
def test_a_client_that_leaves_an_idle_stream_is_noticed(spec_version: str) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(3600)

    async def is_over(module: ModuleType) -> bool:
        asgi = {"version": "3.0", "spec_version": spec_version}
        with anyio.move_on_after(200 * MS if module is FASTAPI else 20):
            await call(app_of(items, module=module), disconnect_after=1, asgi=asgi)
            return True
        return False

    assert not anyio.run(is_over, FASTAPI)
    assert anyio.run(is_over, OURS)


# Servers and clients


async def paced() -> AsyncIterator[int]:
    while True:
        yield 1
        await anyio.sleep(10 * MS)


async def short() -> AsyncIterator[int]:
    yield 1


app = FastAPI()
app.get("/fastapi", response_class=FASTAPI.EventSourceResponse)(paced)
app.get("/ours", response_class=OURS.EventSourceResponse)(paced)
app.get("/short", response_class=FASTAPI.EventSourceResponse)(short)


def test_an_open_stream_does_not_keep_the_server() -> None:
    with serve_process("uvicorn-h11", f"{__name__}:app", "/short") as server:
        with Client(server.port, "/fastapi") as client:
            client.read_chunk()
            server.terminate()
            wait_until(lambda: "Waiting for connections" in "".join(server.log))
            for _ in range(10):
                assert client.read_chunk() == b"data: 1\n\n"
        server.wait()
    with serve_process("uvicorn-h11", f"{__name__}:app", "/short") as server:
        with Client(server.port, "/ours") as client:
            client.read_chunk()
            server.terminate()
            with pytest.raises(EOFError):
                client.read_to_end()
        server.wait()


def test_a_client_that_does_not_read_is_dropped() -> None:
    async def items() -> AsyncIterator[int]:
        while True:
            yield 1

    async def is_over(module: ModuleType, response_class: type[Any]) -> bool:
        app = app_of(items, module=module, response_class=response_class)
        with anyio.move_on_after(200 * MS if module is FASTAPI else 20):
            await app(scope(), receive_nothing, send_for_ever)
            return True
        return False

    impatient = OURS.EventSourceResponse.with_options(send_timeout=20 * MS)
    assert not anyio.run(is_over, FASTAPI, FASTAPI.EventSourceResponse)
    assert anyio.run(is_over, OURS, impatient)


def test_events_that_are_ready_leave_in_one_write() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(50):
            yield number

    theirs, ours = both(items)
    assert theirs.body == ours.body
    assert len(theirs.chunks) == 50
    assert len(ours.chunks) < 25


def test_the_private_ping_interval_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fastapi.sse, fastapi.routing):
        monkeypatch.setattr(module, "_PING_INTERVAL", 5 * MS)

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(100 * MS)

    theirs, ours = both(items)
    assert b": ping\n\n" in theirs.body
    assert ours.body == b"data: 1\n\n"


def test_a_generator_runs_ahead_of_its_client() -> None:
    async def runs_ahead(module: ModuleType) -> bool:
        ahead = anyio.Event()

        async def items() -> AsyncIterator[int]:
            for number in range(1_000_000):
                if number == 1000:
                    ahead.set()
                yield number

        app = app_of(items, module=module)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, scope(), receive_nothing, send_for_ever)
            with anyio.move_on_after(100 * MS if module is FASTAPI else 20):
                await ahead.wait()
            tasks.cancel_scope.cancel()
        return ahead.is_set()

    assert not anyio.run(runs_ahead, FASTAPI)
    assert anyio.run(runs_ahead, OURS)


def test_a_timeout_around_a_yield_is_the_generators() -> None:
    async def items() -> AsyncIterator[int]:
        with anyio.move_on_after(20 * MS):
            while True:
                yield 1
        yield 2

    theirs, ours = both(items)
    assert theirs.error is not None
    assert not theirs.complete
    assert ours.body.endswith(b"data: 2\n\n")
    assert ours.complete


def test_context_variables_of_a_sync_generator_are_kept() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    def items() -> Iterator[str]:
        variable.set("set")
        for _ in range(3):
            time.sleep(10 * MS)  # No batch is as long as all of them.
            yield variable.get()

    theirs, ours = both(items)
    assert theirs.body == b'data: "set"\n\n' + b'data: "unset"\n\n' * 2
    assert ours.body == b'data: "set"\n\n' * 3


# Responses


@pytest.mark.parametrize("declared", [True, False])
def test_a_returned_response_streams(declared: bool) -> None:
    def reply(module: ModuleType) -> Reply:
        def endpoint() -> Response:
            response: Response = module.EventSourceResponse(iter([{"a": 1}]))
            return response

        response_class = module.EventSourceResponse if declared else Response
        return fetch(app_of(endpoint, module=module, response_class=response_class))

    theirs, ours = reply(FASTAPI), reply(OURS)
    assert (theirs.status, theirs.body, theirs.complete) == (200, b"", False)
    assert (ours.status, ours.body) == (200, b'data: {"a": 1}\n\n')


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_what_an_async_decorator_returns_is_streamed() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    @functools.wraps(items)
    async def wrapper() -> Any:
        await anyio.lowlevel.checkpoint()
        return items()

    theirs, ours = both(wrapper)
    assert theirs.status == 500
    assert isinstance(theirs.error, AttributeError)
    del theirs
    gc.collect()  # It finds a coroutine that was never awaited.
    assert (ours.status, ours.body) == (200, b"data: 1\n\n")


@pytest.mark.parametrize("returned", ["ab", {"a": 1, "b": 2}])
def test_a_returned_value_is_no_stream(returned: Any) -> None:
    def endpoint() -> Any:
        return returned

    theirs, ours = both(endpoint)
    assert theirs.body == b'data: "a"\n\ndata: "b"\n\n'
    assert ours.status == 500
    assert isinstance(ours.error, TypeError)
    assert "`yield` the events" in str(ours.error)


def test_a_subclass_of_the_response_counts() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    def reply(module: ModuleType) -> Reply:
        class Mine(module.EventSourceResponse):  # type: ignore[misc, name-defined]
            media_type = "text/event-stream; version=2"

            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                self.headers["x-mine"] = "init"

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                scope["called"].append(module)
                await super().__call__(scope, receive, send)

        called: list[ModuleType] = []
        reply = fetch(app_of(items, module=module, response_class=Mine), called=called)
        assert called == ([] if module is FASTAPI else [OURS])
        return reply

    theirs, ours = dict(reply(FASTAPI).headers), dict(reply(OURS).headers)
    assert theirs[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert b"x-mine" not in theirs
    assert ours[b"content-type"].startswith(b"text/event-stream; version=2")
    assert ours[b"x-mine"] == b"init"


def test_a_header_of_a_dependency_replaces_the_default() -> None:
    def no_store(response: Response) -> None:
        response.headers["Cache-Control"] = "no-store"

    async def items() -> AsyncIterator[int]:
        yield 1

    def values(reply: Reply) -> list[bytes]:
        return [value for name, value in reply.headers if name == b"cache-control"]

    theirs, ours = both(items, dependencies=[Depends(no_store)])
    assert values(theirs) == [b"no-cache", b"no-store"]
    assert values(ours) == [b"no-store"]


# Events


@pytest.mark.parametrize(
    ("fields", "injected"),
    [
        ({"event": "a\nb"}, b"event: a\nb\n\n"),
        ({"id": "a\rb"}, b"id: a\rb\n\n"),
        ({"id": "a\0"}, b"id: a\0\n\n"),
        ({"retry": -1}, b"retry: -1\n\n"),
    ],
)
def test_no_line_can_be_injected(fields: dict[str, Any], injected: bytes) -> None:
    assert FASTAPI.format_sse_event(**fields) == injected
    with pytest.raises(ValueError, match=r"^SSE '"):
        OURS.format_sse_event(**fields)


def test_assigned_fields_are_checked() -> None:
    async def items() -> AsyncIterator[Any]:
        event = FASTAPI.ServerSentEvent(data=1)
        event.event = "a\ndata: 2"
        yield event

    theirs, ours = both(items)
    assert theirs.body == b"event: a\ndata: 2\ndata: 1\n\n"
    assert isinstance(ours.error, ValidationError)
    assert ours.status == 500


def test_text_and_numbers_are_those_of_the_newest_release() -> None:
    async def items() -> AsyncIterator[Any]:
        yield float("nan")
        yield FASTAPI.ServerSentEvent(raw_data="a\u2028b\n")

    items.__annotations__ = {}
    theirs, ours = both(items)
    assert ours.body == b"data: null\n\ndata: a\xe2\x80\xa8b\ndata: \n\n"
    assert theirs.body == ours.body
