"""The race of the demo: its servers, and the processes that read from them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn")

from fastapi_sse_fast._demo import crowd, race

from ..support.eventsource import EventSource, parse
from ..support.server import Client, get

PACKAGES = ["fastapi_sse_fast", "fastapi.sse"]


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    with race.contestants(*PACKAGES) as ports:
        yield ports


def test_both_contestants_send_the_same_bytes(ports: dict[str, int]) -> None:
    ours, theirs = (get(ports[package], "/events?number=300") for package in PACKAGES)
    assert len(parse(ours).events) == 300
    assert ours == theirs


@pytest.mark.parametrize("package", PACKAGES)
def test_a_contestant_tells_its_own_cpu(ports: dict[str, int], package: str) -> None:
    source = EventSource()
    with Client(ports[package], "/usage") as client:
        source.feed(client.read_chunk())
        get(ports[package], "/events?number=2000")
        before_and_after = len(source.events) + 2
        while len(source.events) < before_and_after:
            source.feed(client.read_chunk())
    first, *_, last = (json.loads(event.data) for event in source.events)
    assert 0 < last["cpu"] - first["cpu"] <= last["clock"] - first["clock"]


@pytest.mark.parametrize("pause", [0, 0.01])
def test_every_event_of_every_stream_is_read(
    ports: dict[str, int], pause: float
) -> None:
    said = list(crowd.race(ports, streams=30, number=20, pause=pause))
    for package in PACKAGES:
        lines = [line for of, line in said if of == package]
        assert "usage" in lines[0]  # This is before the race.
        assert [*lines[-1]] == ["usage"]  # This is after it.
        received = [line["received"] for line in lines if "received" in line]
        assert received == sorted(received)
        assert received[-1] == 30 * 20
    begun = [of for of, line in said if "received" in line]
    assert {*begun} == {*PACKAGES}


def test_nobody_begins_before_all_are_ready(ports: dict[str, int]) -> None:
    ready = set()
    for package, line in crowd.race(ports, streams=1, number=1, pause=0):
        if "received" in line:
            break
        ready.add(package)
    assert ready == {*PACKAGES}


def test_the_crowds_are_told_to_leave(ports: dict[str, int]) -> None:
    said = crowd.race(ports, streams=5, number=100_000, pause=0.05)
    assert any(line.get("received", 0) >= 5 for _, line in said)
    said.close()
