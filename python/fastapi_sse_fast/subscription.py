"""A subscription: the events of channels or of a run, from a position on."""

from __future__ import annotations

import contextvars
import inspect
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio

from ._core import (
    EncodedEvent,
    LogReader,
    encode_event,
    parse_last_event_id,
    split_events,
)
from .content import LogContent
from .stores.store import Position

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from ._core import EventLog
    from .event import ServerSentEvent
    from .options import Json

    Snapshot: TypeAlias = ServerSentEvent | EncodedEvent | None

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
        names: The channels, in the order of the positions.
    """

    reason: GapReason
    requested: str
    missed: int | None
    position: str
    names: Sequence[str]


class _Report(NamedTuple):
    """What a stream sends because of a gap.

    Attributes:
        frames: Frames to send.
        ends: Whether the stream ends after them.
        snapshot: What an async `on_gap` has returned, and what is sent after `frames`.
    """

    frames: bytes
    ends: bool = False
    snapshot: Awaitable[Snapshot] | None = None


class Readings:
    """What subscriptions have met, for `stats()`."""

    def __init__(self) -> None:
        self.reconnects = 0
        self.gaps: Counter[GapReason] = Counter()


class Subscription(LogContent):
    """The events of channels or of a run, from a position on.

    `Channels.subscribe` and `Run.subscribe` return subscriptions. Return one in a
    response:

        return EventSourceResponse(channels.subscribe("news", last))

    Or iterate over it in a generator, with `async for`, to filter events or to add
    some. A subscription can be used only once.
    """

    def __init__(
        self,
        open_logs: Callable[[Sequence[Position] | None], Awaitable[Sequence[EventLog]]],
        last: str | None,
        *,
        name: str,
        readings: Readings,
        start_task: Callable[..., None],
        from_start: bool,
        names: Sequence[str] = (),
        on_gap: Any = "resume",
        json: Json = "fastapi",
        with_ids: bool = True,
    ) -> None:
        self.__qualname__ = name
        self._open_logs = open_logs
        self._last = last
        self._readings = readings
        self._start_task = start_task
        self._from_start = from_start
        self._names = names
        self._on_gap = on_gap
        self._json = json
        self._with_ids = with_ids
        self._logs: list[EventLog] | None = None
        # Where the subscription begins, and what it sends first. Known once it is open.
        self._positions: list[Position] = []
        self._opening = b""
        self._ends_at_once = False
        # Not a reference, because the reader refers to this.
        self._reader: Callable[[], LogReader | None] = lambda: None
        self._context: contextvars.Context | None = None

    async def open(self) -> None:
        """Find the logs, and decide where to begin.

        Called before the first event is asked for.

        Raises:
            Exception: The store or `on_gap` raised it.
        """
        if self._logs is not None:
            return
        if callable(self._on_gap):
            # A gap may be found while another task publishes. But `on_gap` is always
            # called in the context of the task that reads.
            self._context = contextvars.copy_context()
        last = None if self._last is None else parse_last_event_id(self._last)
        positions = None if last is None else [Position(*one) for one in last]
        logs = list(await self._open_logs(positions))
        gap = self._begin(logs, positions)
        if gap is not None:
            report = self._report(gap)
            self._opening = await self._frames_of_report(report)
            self._ends_at_once = report.ends
        elif self._with_ids and logs:
            # A browser keeps the id, and dispatches nothing.
            self._opening = bytes(EncodedEvent(id=_text(self._positions)))
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
            self._positions,
            most_bytes=most_bytes,
            with_ids=self._with_ids,
            gap=self._meet_gap,
        )
        self._reader = weakref.ref(reader)
        reader.open_with(opening + self._opening)
        if self._ends_at_once:
            reader.end()
        return reader

    def _begin(
        self, logs: Sequence[EventLog], requested: Sequence[Position] | None
    ) -> Gap | None:
        """Set the positions to begin at, and return the gap before them."""
        # A run whose first events are gone begins with those that are left.
        self._positions = [
            Position(log.epoch, 0 if self._from_start else log.top) for log in logs
        ]
        if self._last is None:
            return None
        self._readings.reconnects += 1
        if requested is None or len(requested) != len(logs):
            return self._gap("unknown", self._last, None, _text(self._positions))
        reasons: list[GapReason] = []
        missed: int | None = 0
        for index, (log, position) in enumerate(zip(logs, requested, strict=True)):
            offset, reason, count = log.resume(*position)
            if reason is not None:
                if reason == "unknown" and self._from_start:
                    offset = log.first - 1
                reasons.append(reason)
                missed = None if missed is None or count is None else missed + count
            self._positions[index] = Position(log.epoch, offset)
        if not reasons:
            return None
        return self._gap(reasons[0], self._last, missed, _text(self._positions))

    def _gap(
        self, reason: GapReason, requested: str, missed: int | None, position: str
    ) -> Gap:
        return Gap(reason, requested, missed, position, self._names)

    def _meet_gap(
        self, reason: GapReason, requested: str, missed: int | None, position: str
    ) -> tuple[bytes, bool] | None:
        """Return the frames that report a gap, or report it later."""
        gap = self._gap(reason, requested, missed, position)
        if self._context is None:
            return self._report_now_or_later(gap)
        return self._context.run(self._report_now_or_later, gap)

    def _report_now_or_later(self, gap: Gap) -> tuple[bytes, bool] | None:
        report = self._report(gap)
        if report.snapshot is None:
            return report.frames, report.ends
        try:
            self._start_task(self._report_later, report)
        except RuntimeError:  # The store is closed.
            if inspect.iscoroutine(report.snapshot):
                report.snapshot.close()
            raise
        return None

    def _report(self, gap: Gap) -> _Report:
        """Decide what to send because of a gap."""
        self._readings.gaps[gap.reason] += 1
        if not self._with_ids:
            return _Report(b"")
        event = EncodedEvent(
            event="gap",
            id=gap.position,
            data={
                "reason": gap.reason,
                "requested": gap.requested[:MOST_REQUESTED],
                "missed": gap.missed,
            },
        )
        frames = bytes(event)
        if self._on_gap == "close":
            return _Report(frames, ends=True)
        if callable(self._on_gap):
            snapshot = self._on_gap(gap)
            if inspect.isawaitable(snapshot):
                return _Report(frames, snapshot=snapshot)
            frames += self._frames_of(snapshot)
        return _Report(frames)

    async def _report_later(self, report: _Report) -> None:
        """Report a gap when `on_gap` has returned."""
        try:
            frames = await self._frames_of_report(report)
        except Exception as error:
            self._fail(error)
        except BaseException:
            # The store is being closed, which completes all streams. A client that
            # reconnects has this gap again, because the gap was not reported.
            self._send_report(b"", ends=True)
            raise
        else:
            self._send_report(frames, ends=False)

    def _send_report(self, frames: bytes, *, ends: bool) -> None:
        reader = self._reader()
        if reader is not None:
            reader.report(frames, ends)

    def _fail(self, error: Exception) -> None:
        # The reader keeps the error, whose traceback must not lead back to the reader.
        reader = self._reader()
        if reader is not None:
            reader.fail(error)

    async def _frames_of_report(self, report: _Report) -> bytes:
        if report.snapshot is None:
            return report.frames
        return report.frames + self._frames_of(await report.snapshot)

    def _frames_of(self, snapshot: Snapshot) -> bytes:
        if snapshot is None:
            return b""
        frames = bytes(encode_event(snapshot, json=self._json))
        split_events(frames)  # raises an error for an `id`
        return frames

    def __aiter__(self) -> AsyncIterator[EncodedEvent]:
        """Return the events one by one."""
        return _Events(self)


MOST_REQUESTED = 200
"""Characters of a client's `Last-Event-ID` that a gap repeats."""


def _text(positions: Sequence[Position]) -> str:
    return "~".join(f"{epoch}.{offset}" for epoch, offset in positions)


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
        self.event.set()  # `take` raises the error

    def interrupt_source(self) -> None:
        raise NotImplementedError
