"""Clients that call the application in the same process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import signal
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import sniffio
import trio

import fastapi_sse_fast

from ..support import releases
from ..support.apps import app_of
from ..support.comparison import MODULES
from ..support.internals import open_streams
from ..support.outcomes import ENDS_WELL, FAILS, streams
from ..support.server import wait_until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Newer releases deprecate httpx here.
    import starlette.testclient
    from starlette.testclient import TestClient


def get_by_test_client(app: Any, path: str, backend: Any) -> Any:
    return TestClient(app, backend=backend).get(path)


def get_by_transport(app: Any, path: str, backend: str) -> Any:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test"
        ) as client:
            return await client.get(path)

    return anyio.run(main, backend=backend)


@pytest.fixture(params=[get_by_test_client, get_by_transport])
def get_in_process(request: pytest.FixtureRequest) -> Any:
    return request.param


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Check that no thread, open stream or signal handler remains."""

    def handler(number: int, frame: object) -> None:
        raise AssertionError

    threads = set(threading.enumerate())
    original = signal.signal(signal.SIGTERM, handler)
    try:
        yield
        gc.collect()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, original)
    assert not open_streams()
    # The worker threads end shortly after the event loop. trio keeps them for 10 s.
    wait_until(
        lambda: all(
            thread in threads or thread.name.startswith("Trio thread")
            for thread in threading.enumerate()
        )
    )


def living_tasks() -> int:
    """Return the number of tasks in the event loop, including the caller's."""
    if sniffio.current_async_library() == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


def test_bodies_in_process_are_fastapis(
    get_in_process: Any, anyio_backend: str
) -> None:
    for path in ENDS_WELL:
        theirs, ours = (
            get_in_process(streams(module), path, anyio_backend) for module in MODULES
        )
        assert ours.content == theirs.content
        assert ours.headers == theirs.headers
        assert ours.content.count(b"\n\n") == 100


def the_one_in(error: Any) -> Any:
    while hasattr(error, "exceptions"):  # FastAPI has a task group.
        (error,) = error.exceptions
    return error


@pytest.mark.parametrize("path", FAILS)
def test_errors_in_process_are_fastapis(
    get_in_process: Any, anyio_backend: str, path: str
) -> None:
    errors: list[Any] = []
    for module in MODULES:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            get_in_process(streams(module), path, anyio_backend)
        errors.append(caught.value)
    theirs, ours = errors
    # Our error is never in an exception group.
    assert [type(ours)] == [FAILS[path].error]
    assert FAILS[path].words in str(ours)
    if not releases.ERRORS_IN_TEST_CLIENTS_ARE_THE_GENERATORS:
        return  # FastAPI's error is unknown then.
    theirs = the_one_in(theirs)
    assert [type(theirs)] == [type(ours)]
    if path == "/invalid":  # FastAPI may name an endpoint of an earlier test.
        assert ours.errors() == theirs.errors()
    else:
        assert ours.args == theirs.args


def test_nothing_is_left_of_loops_one_after_another(
    get_in_process: Any, anyio_backend: str
) -> None:
    app = streams(fastapi_sse_fast)
    with nothing_left_behind():
        for path in [*ENDS_WELL, *FAILS] * 3:
            failure = FAILS.get(path)
            fails: Any = contextlib.nullcontext()
            if failure is not None:
                fails = pytest.raises(failure.error, match=failure.words)
            with fails:
                get_in_process(app, path, anyio_backend)


def test_nothing_is_left_of_loops_in_many_threads(
    get_in_process: Any, anyio_backend: str
) -> None:
    app = streams(fastapi_sse_fast)
    get_one = functools.partial(get_in_process, app, backend=anyio_backend)
    with nothing_left_behind():
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(get_one, ENDS_WELL * 10))
    assert {reply.content.count(b"\n\n") for reply in replies} == {100}


def test_no_task_is_left_in_the_loop_of_a_test_client(anyio_backend: Any) -> None:
    with (
        nothing_left_behind(),
        TestClient(streams(fastapi_sse_fast), backend=anyio_backend) as client,
    ):
        assert client.portal is not None
        call_in_loop = client.portal.call
        tasks = call_in_loop(living_tasks)
        for path in ENDS_WELL * 20:
            with client.stream("GET", path) as response:
                assert response.read().count(b"\n\n") == 100
        for path, failure in FAILS.items():
            with pytest.raises(failure.error, match=failure.words):
                client.get(path)
        wait_until(lambda: call_in_loop(living_tasks) == tasks)


def test_no_task_is_left_after_requests_at_once_in_one_loop(anyio_backend: str) -> None:
    bodies = []

    async def get_one(client: httpx.AsyncClient, path: str) -> None:
        bodies.append((await client.get(path)).content)

    async def main() -> None:
        transport = httpx.ASGITransport(streams(fastapi_sse_fast))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test"
        ) as client:
            tasks = living_tasks()
            async with anyio.create_task_group() as group:
                for path in ENDS_WELL * 20:
                    group.start_soon(get_one, client, path)
            assert living_tasks() == tasks

    with nothing_left_behind():
        anyio.run(main, backend=anyio_backend)
    assert {body.count(b"\n\n") for body in bodies} == {100}
    assert len(bodies) == 40


def test_leaving_a_stream_of_a_test_client_closes_its_generator(
    anyio_backend: Any,
) -> None:
    if not hasattr(starlette.testclient, "_TestClientResponseStream"):
        pytest.skip("this Starlette collects the body before it returns a response")
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(3600)
        finally:
            closed.append(True)

    client = TestClient(app_of(items), backend=anyio_backend)
    with nothing_left_behind(), client.stream("GET", "/") as response:
        assert next(response.iter_text()) == "data: 1\n\n"
    assert closed == [True]
