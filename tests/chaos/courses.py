"""What clients may receive, and what all of them together know of each log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.soak.watch import Faults


class Position(NamedTuple):
    """A position in a log."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}"


def parsed(id: str) -> list[Position]:
    pairs = [part.split(".") for part in id.split("~")]
    return [Position(epoch, int(offset)) for epoch, offset in pairs]


def text(positions: Iterable[Position]) -> str:
    return "~".join(map(str, positions))


class Log:
    """A channel or a run, as its publishers and all clients together know it.

    Attributes:
        name: Its name.
        events: The type and data of the event at each position.
        acknowledged: The positions that publishers were told.
        joins: The positions at which a client has followed the log into another epoch
            without a gap, and that epoch.
        ends: How a run has ended, and where.
    """

    def __init__(self, name: str, faults: Faults) -> None:
        self.name = name
        self.events: dict[Position, tuple[str, str]] = {}
        self.acknowledged: dict[Position, tuple[str, str]] = {}
        self.joins: set[tuple[Position, str]] = set()
        self.ends: set[tuple[str, int]] = set()
        self._faults = faults

    def see(self, position: Position, type: str, data: str) -> None:
        """Note the event of a position: the same for everybody."""
        event = (type, data)
        if (known := self.events.setdefault(position, event)) != event:
            self._faults.add(f"{self.name} {position}: {event}, not {known}")

    def acknowledge(self, position: Position, type: str, data: str) -> None:
        """Note that a publisher was told that an event is in the log."""
        if (known := self.acknowledged.get(position)) is not None:
            self._faults.add(f"{self.name} {position}: told for {known} and {data}")
        self.acknowledged[position] = (type, data)
        self.see(position, type, data)

    def check_joins(self) -> None:
        """Check that epochs have the same events up to where clients join them."""
        for join, epoch in self.joins:
            for offset in range(1, join.offset + 1):
                before = self.events.get(Position(join.epoch, offset))
                after = self.events.get(Position(epoch, offset))
                if before is not None and after is not None and before != after:
                    self._faults.add(
                        f"{self.name}: {epoch} follows {join}, but at {offset} it has "
                        f"{after}, not {before}"
                    )

    def lost(self, kept: Mapping[int, tuple[str, str]]) -> int:
        """Return how many acknowledged events are not in the store at the end.

        Args:
            kept: The events that the store has, by offset.
        """
        counts = Counter(kept.values())
        if twice := [event for event, count in counts.items() if count > 1]:
            self._faults.add(f"{self.name}: stored twice: {twice}")
        first = min(kept, default=1)
        return sum(
            event not in counts
            for position, event in self.acknowledged.items()
            # Older events may have been dropped.
            if position.offset >= first
        )


class Course:
    """What one client receives, from its first event on.

    Args:
        name: Name of the client.
        logs: The logs that it reads, in the order of their names.
        faults: List of the faults that are found.

    Attributes:
        logs: The logs.
        positions: The positions of the last event that has arrived.
        gaps: Number of gaps by reason.
        events: Number of events.
        end: How a run has ended.
    """

    def __init__(self, name: str, logs: Sequence[Log], faults: Faults) -> None:
        self.name = name
        self.logs = logs
        self.positions: list[Position] = []
        self.gaps: Counter[str] = Counter()
        self.events = 0
        self.end: str | None = None
        self._finals: set[str] = set()
        self._faults = faults
        self._is_opening = False
        # The last number of each publisher.
        self._numbers: dict[str, int] = {}

    @property
    def last_event_id(self) -> str:
        return text(self.positions)

    @property
    def has_finals(self) -> bool:
        """Whether the final event of each channel has arrived."""
        return len(self._finals) == len(self.logs)

    def fault(self, what: str) -> None:
        self._faults.add(f"{self.name} at {self.last_event_id or 'its start'}: {what}")

    def open(self) -> None:
        """Note that a connection was opened: a position comes first."""
        self._is_opening = True

    def take(self, id: str, type: str, data: str | None) -> None:
        """Check what has arrived."""
        was_opening, self._is_opening = self._is_opening, False
        positions = parsed(id)
        if len(positions) != len(self.logs):
            self.fault(f"{id} is a position in {len(positions)} logs")
        elif type == "gap" and data is not None:
            self._take_gap(positions, json.loads(data))
        elif data is None:
            self._take_opening(positions, was_opening=was_opening)
        elif self.end is not None:
            self.fault(f"{id} after the end")
        elif was_opening:
            self.fault(f"{id} before a position")
        else:
            self._take_event(positions, type, data)

    def _take_opening(self, positions: list[Position], *, was_opening: bool) -> None:
        if not was_opening:
            self.fault(f"{text(positions)} has no data")
        if self.positions:
            self._advance(positions, 0)
        self.positions = positions

    def _take_gap(self, positions: list[Position], gap: dict[str, Any]) -> None:
        reason, missed = gap["reason"], gap["missed"]
        self.gaps[reason] += 1
        if not self.positions:
            self.fault(f"gap {gap}")
            self.positions = positions
            return
        self._advance(parsed(gap["requested"]), 0)
        if missed is None:
            # The log has begun anew: a publisher may have repeated what was lost.
            self._numbers.clear()
            if reason == "unknown" or (reason != "reset" and len(self.logs) == 1):
                self.fault(f"gap {gap}")
        elif reason in ("trimmed", "overflow") and missed > 0:
            self._advance(positions, missed)
        else:
            self.fault(f"gap {gap}")
        self.positions = positions

    def _advance(self, positions: list[Position], events: int) -> None:
        """Note new positions, which are further by some events in all."""
        pairs = list(zip(self.positions, positions, strict=True))
        steps = [after.offset - before.offset for before, after in pairs]
        if sum(steps) != events or min(steps) < 0:
            self.fault(f"{text(positions)} follows, not {events} later")
        for log, (before, after) in zip(self.logs, pairs, strict=True):
            if before.epoch != after.epoch:
                log.joins.add((before, after.epoch))
        self.positions = positions

    def _take_event(self, positions: list[Position], type: str, data: str) -> None:
        self.events += 1
        before = self.positions
        self._advance(positions, 1)
        for log, earlier, position in zip(self.logs, before, positions, strict=True):
            if position.offset == earlier.offset + 1:
                log.see(position, type, data)
                self._take_data(log, position, type, json.loads(data))

    def _take_data(self, log: Log, position: Position, type: str, data: Any) -> None:
        if type in ("end", "error"):
            self.end = data["status"] if type == "end" else data["code"]
            log.ends.add((self.end or "", position.offset))
            return
        publisher, number, *_ = data
        if type == "final":
            self._finals.add(log.name)
        last = self._numbers.get(publisher, 0)
        if number <= last:
            self.fault(f"{number} of {publisher} arrives after {last}")
        self._numbers[publisher] = number
