"""Shielded code of a generator finishes, no matter how its stream ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from fastapi_sse_fast import shutdown

from ..support.apps import MS, Log, Summaries, app_of, numbers
from ..support.asgi import call, fetch
from ..support.internals import limits

ENDS = ["disconnected", "max_duration", "shutdown", "send_timeout", "cancelled"]


def end_in_a_shield(
    end: str,
    items: Callable[[], AsyncIterator[int]],
    log: Log,
    backend: str,
) -> Summaries:
    """Make a request that ends after its generator has logged "shielded".

    A generator that sleeps behind its shield sleeps long enough.
    """
    summaries = Summaries()
    options: dict[str, Any] = {"on_close": summaries, "error_window": 0}
    # By then the generator is behind its shield and not yet finished there.
    if end in ("max_duration", "send_timeout"):
        options[end] = 60 * MS
    app = app_of(items, **options)

    def is_shielded() -> bool:
        return "shielded" in log.lines

    async def main() -> None:
        leave = anyio.Event()
        around = anyio.CancelScope()

        async def act() -> None:
            while not is_shielded():
                await anyio.sleep(MS)
            if end == "disconnected":
                leave.set()
            elif end == "shutdown":
                shutdown()
            elif end == "cancelled":
                around.cancel()
            await anyio.sleep(2)
            went_on.append(True)
            leave.set()  # A failing test must end too.

        freeze = 1 if end == "send_timeout" else None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(act)
            with around:
                reply = await call(app, disconnect_at=leave, freeze_after=freeze)
                assert reply.error is None
                assert numbers(reply.body) == [1]
            tasks.cancel_scope.cancel()
        assert around.cancelled_caught == (end == "cancelled")

    went_on: list[bool] = []
    anyio.run(main, backend=backend)
    assert went_on == [], "the stream went on until its client left"
    return summaries


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", ["finally", "after the last yield", "after an await"])
def test_what_is_shielded_is_done_however_the_stream_ends(
    where: str, end: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, least_duration=0)
    log = Log()

    async def save() -> None:
        log("shielded")
        for _ in range(5):
            await anyio.sleep(20 * MS)
        log("saved")

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            if where == "after an await":
                await anyio.sleep(MS)
            if where != "finally":
                with anyio.CancelScope(shield=True):
                    await save()
        finally:
            if where == "finally":
                with anyio.CancelScope(shield=True):
                    await save()
            log("closed")

    summaries = end_in_a_shield(end, items, log, anyio_backend)
    assert log.lines == ["shielded", "saved", "closed"]
    assert summaries.reasons == [end]


def test_a_client_that_leaves_on_the_last_event_does_not_cut_the_clean_up(
    anyio_backend: str,
) -> None:
    saved = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep(2 * MS)
            yield 2
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(30 * MS)
                saved.append(True)

    for leaves_after in (1, 2):
        saved.clear()
        app = app_of(items)
        reply = fetch(app, backend=anyio_backend, disconnect_after=leaves_after)
        assert reply.error is None
        assert saved == [True]


@pytest.mark.parametrize("end", ENDS)
def test_behind_its_shield_a_generator_is_interrupted(
    end: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(monkeypatch, least_duration=0)
    log = Log()

    async def items() -> AsyncIterator[int]:
        yield 1
        with anyio.CancelScope(shield=True):
            log("shielded")
            for _ in range(5):
                await anyio.sleep(20 * MS)
            log("saved")
        try:
            await anyio.sleep(3600)
        except BaseException as error:
            assert isinstance(error, anyio.get_cancelled_exc_class())
            log("interrupted")
            raise

    started = time.perf_counter()
    summaries = end_in_a_shield(end, items, log, anyio_backend)
    assert log.lines == ["shielded", "saved", "interrupted"]
    assert summaries.reasons == [end]
    assert time.perf_counter() - started < 5


def test_what_is_yielded_after_the_end_is_dropped_valid_or_not(
    anyio_backend: str,
) -> None:
    went_on = []

    async def items() -> AsyncIterator[Any]:
        yield 1
        with anyio.CancelScope(shield=True):
            await anyio.sleep(30 * MS)  # The client disconnects.
        went_on.append(True)
        yield object()

    summaries = Summaries()
    app = app_of(items, on_close=summaries)
    reply = fetch(app, backend=anyio_backend, disconnect_after=1)
    assert reply.error is None
    assert went_on == [True]
    assert summaries.reasons == ["disconnected"]
