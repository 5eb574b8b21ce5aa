"""What runs the demo's race: servers, clients, and a stage for all pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import fastapi.sse
import httpx
import pytest

pytest.importorskip("uvicorn")

import fastapi_sse_fast
from fastapi_sse_fast import EncodedEvent
from fastapi_sse_fast._demo.contestant import PACKAGES, Contestant, application
from fastapi_sse_fast._demo.race import Workload, client, race
from fastapi_sse_fast._demo.stage import Stage

from ..support.eventsource import Event, parse
from ..support.server import Client, serve

Events = AsyncGenerator[EncodedEvent, None]


# Contestants


def test_contestants_differ_in_the_package_of_their_streams() -> None:
    classes = {}
    for package in PACKAGES:
        routes: Any = application(package).routes
        classes[package] = {
            route.response_class
            for route in routes
            if getattr(route, "path", "") == "/ticks"
        }
    assert classes == {
        "fastapi.sse": {fastapi.sse.EventSourceResponse},
        "fastapi_sse_fast": {fastapi_sse_fast.EventSourceResponse},
    }


def test_both_contestants_send_the_same_bytes() -> None:
    bodies = []
    for package in PACKAGES:
        with serve(application(package)) as port:
            with Client(port, "/tokens/a?pause=0") as stream:
                body = stream.read_chunk()  # nothing more before the start
                httpx.post(f"http://127.0.0.1:{port}/start/a", verify=False)
                while body.count(b"\n\n") < 300:
                    body += stream.read_chunk()
        bodies.append(parse(body).events[:300])
    assert bodies[0] == bodies[1]


def test_a_contestant_is_started_again_at_its_port() -> None:
    async def main() -> None:
        contestant = Contestant("fastapi_sse_fast")
        await contestant.start()
        port = contestant.port
        try:
            await contestant.start()  # it runs
            assert contestant.port == port
            assert await contestant.terminate(timeout=20)
            await contestant.start()
            assert contestant.port == port
        finally:
            await contestant.kill()

    asyncio.run(main())


def test_a_contestant_that_does_not_start_is_an_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def main() -> None:
        contestant = Contestant("no_such_package")
        with pytest.raises(RuntimeError, match="no_such_package does not start"):
            await contestant.start()
        await contestant.kill()

    asyncio.run(main())
    assert "No module named 'no_such_package'" in capfd.readouterr().err


# The race


WORKLOADS = {
    rate: Workload(streams=30, rate=rate, seconds=0.5)
    for rate in (0, 20)  # a burst, and one token at a time
}


@pytest.fixture(scope="module")
def races() -> dict[int, list[Event]]:
    """A race of each workload, by its rate."""

    async def main() -> dict[int, list[Event]]:
        contestants = [Contestant(package) for package in PACKAGES]
        events = {}
        try:
            for rate, workload in WORKLOADS.items():
                sent = [bytes(one) async for one in race(contestants, workload)]
                events[rate] = parse(b"".join(sent)).events
        finally:
            for one in contestants:
                await one.kill()
        return events

    return asyncio.run(main())


@pytest.mark.parametrize("rate", WORKLOADS)
def test_a_race_measures_one_contestant_after_the_other(
    races: dict[int, list[Event]], rate: int
) -> None:
    workload = WORKLOADS[rate]
    first, *events = races[rate]
    assert (first.type, json.loads(first.data)) == ("workload", workload.model_dump())
    names = [event.type for event in events]
    assert [*dict.fromkeys(names)] == PACKAGES
    assert names == sorted(names, key=PACKAGES.index)
    for package in PACKAGES:
        samples = [json.loads(one.data) for one in events if one.type == package]
        before = [one for one in samples if one["seconds"] == 0]
        after = samples[len(before) :]
        assert before  # so that the CPU for opening the streams is known
        assert {one["received"] for one in before} == {0}
        for key in ("seconds", "received", "cpu"):
            values = [one[key] for one in samples]
            assert values == sorted(values)
        assert all(one["seconds"] < 0.5 for one in after[:-1])
        assert after[-1]["seconds"] >= 0.5
        if rate:
            due = 30 * (rate * after[-1]["seconds"] + 1)
            assert 0 < after[-1]["received"] <= due
        assert after[-1]["cpu"] > before[-1]["cpu"]


def test_a_client_is_ended_when_nobody_watches() -> None:
    async def main() -> int | None:
        async with client(1, Workload()) as process:
            assert process.returncode is None
        return process.returncode

    assert asyncio.run(main()) is not None


def test_a_client_that_fails_fails_the_race(capfd: pytest.CaptureFixture[str]) -> None:
    class Closed(Contestant):
        async def start(self) -> None:
            self.port = 1

    async def main() -> None:
        with pytest.raises(RuntimeError, match="the client of nobody has failed"):
            async for _ in race([Closed("nobody")], Workload()):
                pass

    asyncio.run(main())
    assert "ConnectionRefusedError" in capfd.readouterr().err


# The stage

FIRST, SECOND, THIRD = (EncodedEvent(data=number) for number in (1, 2, 3))


async def collect(events: Events) -> list[EncodedEvent]:
    return [event async for event in events]


def test_all_who_watch_see_one_performance_from_its_first_event() -> None:
    begun = []
    go_on = asyncio.Event()

    async def perform() -> Events:
        begun.append(1)
        yield FIRST
        await go_on.wait()
        yield SECOND

    async def main() -> None:
        stage = Stage()
        async with aclosing(stage.watch("a", perform)) as early:
            assert await anext(early) is FIRST
            late = asyncio.create_task(collect(stage.watch("a", perform)))
            await asyncio.sleep(0)
            go_on.set()
            assert await late == [FIRST, SECOND]
            assert await collect(early) == [SECOND]
        assert begun == [1]
        assert await collect(stage.watch("a", perform)) == [FIRST, SECOND]
        assert begun == [1, 1]

    asyncio.run(main())


def test_one_performance_waits_for_the_other() -> None:
    running = 0

    async def perform() -> Events:
        nonlocal running
        running += 1
        assert running == 1
        yield FIRST
        await asyncio.sleep(0.01)
        yield SECOND
        running -= 1

    async def main() -> None:
        stage = Stage()
        first, second = await asyncio.gather(
            collect(stage.watch("a", perform)), collect(stage.watch("b", perform))
        )
        assert first == [FIRST, SECOND]
        assert bytes(second[0]) == b"event: waiting\n\n"
        assert second[1:] == [FIRST, SECOND]

    asyncio.run(main())


def test_a_performance_stops_when_the_last_one_stops_watching() -> None:
    log = []

    async def perform() -> Events:
        try:
            yield FIRST
            await asyncio.sleep(3600)
        finally:
            log.append("stopped")

    async def main() -> None:
        stage = Stage()
        one, other = stage.watch("a", perform), stage.watch("a", perform)
        await anext(one)
        await anext(other)
        await one.aclose()
        assert log == []
        await other.aclose()
        assert log == ["stopped"]

    asyncio.run(main())


def test_a_performance_that_fails_fails_for_all() -> None:
    async def perform() -> Events:
        yield FIRST
        await asyncio.sleep(0.01)
        raise LookupError

    async def main() -> None:
        stage = Stage()
        seen = await asyncio.gather(
            collect(stage.watch("a", perform)),
            collect(stage.watch("a", perform)),
            return_exceptions=True,
        )
        assert [type(one) for one in seen] == [LookupError, LookupError]

    asyncio.run(main())
