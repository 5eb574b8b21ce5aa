"""A subscription: the events of channels or of a run, from a position on."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio

from ._core import (
    EncodedEvent,
    LogReader,
    check_no_id,
    encode_event,
    parse_last_event_id,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ._core import EventLog
    from .options import Json

GapReason = Literal["trimmed", "reset", "unknown", "overflow"]


class Gap(NamedTuple):
    """Events that a subscriber has missed, as `on_gap` of `Channels` receives it.

    Attributes:
        reason: `"trimmed"`: the position is older than the history. `"reset"`: the
            channel or run has begun anew since then. `"unknown"`: the position is not
            one of this channel or run. `"overflow"`: the client has read so slowly that
            the history has overtaken it.
        requested: Position after which events are missing.
        missed: Number of events that are missing, if it is known.
        position: Position from which the stream continues.
    """

    reason: GapReason
    requested: str
    missed: int | None
    position: str


class Readings:
    """What subscriptions have met, for `stats()`."""

    def __init__(self) -> None:
        self.reconnects = 0
        self.gaps: Counter[GapReason] = Counter()


class Subscription(AsyncIterable[EncodedEvent]):
    """The events of channels or of a run, from a position on.

    `Channels.subscribe` and `Run.subscribe` return subscriptions. Return one in a
    response:

        return EventSourceResponse(channels.subscribe("news", last))

    Or iterate it in a generator, with `async for`, to filter events or to add some. A
    subscription can be used once.
    """

    def __init__(
        self,
        open_logs: Callable[[], Awaitable[Sequence[EventLog]]],
        last: str | None,
        *,
        name: str,
        readings: Readings,
        from_start: bool,
        on_gap: Any = "resume",
        json: Json = "fastapi",
        with_ids: bool = True,
    ) -> None:
        self.__qualname__ = name
        self._open_logs = open_logs
        self._last = last
        self._readings = readings
        self._from_start = from_start
        self._on_gap = on_gap
        self._json = json
        self._with_ids = with_ids
        self._logs: list[EventLog] | None = None
        # Where the subscription begins, and what it sends first. Known once it is open.
        self._cursors: list[int] = []
        self._opening = b""
        self._ends_at_once = False

    async def open(self) -> None:
        """Find the logs, and decide where to begin.

        Called before the first event is asked for.

        Raises:
            Exception: What `on_gap` raises.
        """
        if self._logs is None:
            logs = list(await self._open_logs())
            self._cursors, gap = self._begin(logs)
            if gap is not None:
                self._opening, self._ends_at_once = self._told(gap)
            elif self._with_ids:
                # A browser keeps the id, and dispatches nothing.
                self._opening = bytes(EncodedEvent(id=_position(logs, self._cursors)))
            self._logs = logs

    def reader(self, most_bytes: int, opening: bytes = b"") -> LogReader:
        """Return what reads the logs from the position on.

        Args:
            most_bytes: The bytes of one send.
            opening: Bytes to send before everything else.
        """
        assert self._logs is not None, "the subscription is not open"
        reader = LogReader(
            self._logs,
            self._cursors,
            most_bytes=most_bytes,
            with_ids=self._with_ids,
            gap=self._overflow,
        )
        reader.open_with(opening + self._opening)
        if self._ends_at_once:
            reader.end()
        return reader

    def _begin(self, logs: Sequence[EventLog]) -> tuple[list[int], Gap | None]:
        """Return the cursors to begin at, and the gap before them, if there is one."""
        start = [0 if self._from_start else log.top for log in logs]
        # A run whose first events are gone begins with those that are left.
        if self._last is None:
            return start, None
        self._readings.reconnects += 1
        requested = self._last
        positions = parse_last_event_id(requested)
        if positions is None or len(positions) != len(logs):
            return start, Gap("unknown", requested, None, _position(logs, start))
        cursors = []
        reasons: list[GapReason] = []
        missed: int | None = 0
        for log, (epoch, offset) in zip(logs, positions, strict=True):
            oldest = log.first - 1
            if epoch != log.epoch:
                reasons.append("reset")
                missed = None
                offset = oldest
            elif offset > log.top:
                reasons.append("unknown")
                missed = None
                offset = oldest if self._from_start else log.top
            elif offset < oldest:
                reasons.append("trimmed")
                missed = None if missed is None else missed + oldest - offset
                offset = oldest
            cursors.append(offset)
        if not reasons:
            return cursors, None
        return cursors, Gap(reasons[0], requested, missed, _position(logs, cursors))

    def _overflow(
        self, requested: str, missed: int, position: str
    ) -> tuple[bytes, bool]:
        return self._told(Gap("overflow", requested, missed, position))

    def _told(self, gap: Gap) -> tuple[bytes, bool]:
        """Return the frames that report a gap, and whether the stream then ends."""
        self._readings.gaps[gap.reason] += 1
        if not self._with_ids:
            return b"", False
        event = EncodedEvent(
            event="gap",
            id=gap.position,
            data={
                "reason": gap.reason,
                "requested": gap.requested[:MOST_REQUESTED],
                "missed": gap.missed,
            },
        )
        told = bytes(event)
        if self._on_gap == "close":
            return told, True
        if callable(self._on_gap):
            snapshot = self._on_gap(gap)
            if snapshot is not None:
                frames = bytes(encode_event(snapshot, json=self._json))
                check_no_id(frames)
                told += frames
        return told, False

    def __aiter__(self) -> AsyncIterator[EncodedEvent]:
        """Return the events one by one."""
        return _Events(self)


MOST_REQUESTED = 200
"""Characters of a client's `Last-Event-ID` that a gap repeats."""


def _position(logs: Sequence[EventLog], cursors: Sequence[int]) -> str:
    pairs = zip(logs, cursors, strict=True)
    return "~".join(log.position(cursor) for log, cursor in pairs)


class _Events(AsyncIterator[EncodedEvent]):
    """The events of a subscription one by one.

    This is a class and not an async generator. A `break` in a loop over a generator
    leaves the generator to the garbage collector, together with its reader, and trio
    warns about that.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._reader: LogReader | None = None
        self._waker = _Waker()

    async def __anext__(self) -> EncodedEvent:
        reader, waker = self._reader, self._waker
        if reader is None:
            await self._subscription.open()
            reader = self._reader = self._subscription.reader(0)
            reader.attach(waker)
        while True:
            waker.event = anyio.Event()
            is_over = reader.is_over
            if frame := reader.take():
                while reader.mid_event:
                    frame += reader.take()
                return EncodedEvent.from_bytes(frame)
            if is_over:
                reader.close()
                raise StopAsyncIteration
            await waker.event.wait()

    async def aclose(self) -> None:
        """Stop reading."""
        self.__del__()

    def __del__(self) -> None:
        if self._reader is not None:
            self._reader.close()


class _Waker:
    """What a reader wakes instead of an outlet."""

    def __init__(self) -> None:
        self.event = anyio.Event()

    def wake(self) -> None:
        self.event.set()

    def begun(self) -> None:
        raise NotImplementedError

    def hand_over(self, send: Any, waits_for: Any) -> None:
        raise NotImplementedError

    def send_failed(self, error: BaseException) -> None:
        raise NotImplementedError

    def interrupt_source(self) -> None:
        raise NotImplementedError
