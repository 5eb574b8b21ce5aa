"""The events of one log in this process, for all who read it here.

    subscribe ── confirmed ──▶ read ──▶ up to date: each message appends what is new
    a message leaves a hole, or a connection is a new one, or nothing was heard for long
        ──▶ compare: read from the newest event on
    no messages arrive ──▶ compare regularly, and once more when they do
    the server has begun a new epoch ──▶ restart, from the slowest reader on

Messages that arrive before an answer of the server does are kept and looked at
afterwards, so events are in order whatever comes first.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._core import EventLog, split_events
from ...errors import StoreError
from ..store import START, Position
from .limits import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store import History
    from .limits import RedisLimits
    from .link import Link
    from .listener import Listener


class Entry(NamedTuple):
    """An event on the server."""

    offset: int
    frame: bytes
    without_id: bytes | None
    is_last: bool


class Answer(NamedTuple):
    """What the server has of a log."""

    epoch: str
    """Empty if it has nothing."""
    top: int
    first: int
    """The offset of the oldest event that it keeps, or of the next one."""
    status: str
    """Of a run."""
    is_settled: bool
    """Whether nothing is missing that the owner of the run will restore."""
    earlier: list[tuple[str, int]]
    lease: float
    """Seconds until the lease of a run expires, negative if there is none."""
    entries: list[Entry]


class Mirror:
    """A log of the server, as far as it is read here.

    Args:
        link: For commands.
        listener: For messages.
        limits: The limits of the store.
        key: The key of the log.
        run: The id of the run, or empty for a channel.
        history: How much to keep.
        on_lost: Called if the run was found lost by this process.

    Attributes:
        key: The key of the log.
        run: The id of the run, or empty for a channel.
        log: The events. `None` until it is open.
        compare_at: When to compare it with the server, on the monotonic clock.
        compares: How often that was done.
        has_failed: Whether the log cannot be read any more. Another mirror can.
    """

    def __init__(
        self,
        link: Link,
        listener: Listener,
        limits: RedisLimits,
        key: bytes,
        run: str,
        history: History,
        on_lost: Callable[[bytes], None],
    ) -> None:
        self._link = link
        self._listener = listener
        self._limits = limits
        self.key = key
        self.run = run
        self._history = history
        self._on_lost = on_lost
        # Each read renews the time that the server keeps a channel.
        self._interval = min(limits.compare_interval, history.ttl / 3)
        self._busy = asyncio.Lock()
        # How many wait for it, to read the log. Between two of them, it is not locked.
        self._waiting = 0
        self._held: list[bytes] = []
        # The oldest event that the server has, and whether it has the newest ones.
        self._first = 0
        self._is_settled = True
        # The position of the newest event that this process has published.
        self._published: Position | None = None
        self._failure: StoreError | None = None
        self._failed_at = 0.0
        self._unserved_since: float | None = None
        self._used_at = self._compared_at = time.monotonic()
        self._is_deaf = False
        self.log: EventLog | None = None
        self.compare_at = self._used_at + self._interval
        self.compares = 0
        self.has_failed = False

    @property
    def is_busy(self) -> bool:
        """Whether it is being opened, or compared with the server."""
        return self._busy.locked()

    @property
    def seconds_unused(self) -> float:
        """How long nobody has asked for the log or read it."""
        if self.is_busy or self._waiting:
            return 0.0
        unasked = time.monotonic() - self._used_at
        return unasked if self.log is None else min(unasked, self.log.seconds_unread)

    async def reach(self, after: Position | None) -> EventLog | None:
        """Return the log, so that it can be read after a position.

        Returns `None` if it is a run that the server does not have.

        Raises:
            StoreError: The server refuses it, or cannot be reached.
        """
        since = self._used_at = time.monotonic()
        log = self.log
        if log is None or self._lacks(log, after):
            self._waiting += 1
            try:
                async with self._busy:
                    # Who waited for others has had the same time as they have.
                    if self._failure is not None and self._failed_at > since:
                        raise StoreError(str(self._failure)) from self._failure
                    await self._reach_or_compare(after)
            finally:
                self._waiting -= 1
                self._used_at = time.monotonic()
        return self.log

    def note_hearing(self) -> None:
        """Compare the log soon if its messages do not arrive, or did not until now."""
        if self.log is None:
            return
        was_deaf = self._is_deaf
        self._is_deaf = not self._listener.hears(self.key)
        if self._is_deaf or was_deaf:
            soon = self._compared_at + self._limits.deaf_interval
            self.compare_at = min(self.compare_at, soon)

    def note_published(self, position: Position) -> None:
        """Have readers from now on begin behind this event."""
        self._published = position

    def _lacks(self, log: EventLog, after: Position | None) -> bool:
        return self._lacks_newer(log, after) or self._lacks_older(log, after)

    def _lacks_newer(self, log: EventLog, after: Position | None) -> bool:
        """Whether the server may have something newer that matters for a position."""
        if log.is_over or after == START:
            return False
        if after is None:
            known = self._published
            return known is not None and (
                known.epoch != log.epoch or known.offset > log.top
            )
        # Another process may have been faster than the messages to this one.
        return log.resume(*after)[1] in ("unknown", "reset")

    def _lacks_older(self, log: EventLog, after: Position | None) -> bool:
        """Whether the server has something older that matters for a position."""
        is_full = log.top + 1 - log.first >= self._history.events
        if after is None or is_full or log.first <= self._first:
            return False
        return log.resume(*after)[1] is not None

    async def _reach_or_compare(self, after: Position | None) -> None:
        try:
            await self._reach(after)
        except BaseException as error:
            self.compare_at = 0.0  # a part may have been read
            if isinstance(error, StoreError):
                self._failure, self._failed_at = error, time.monotonic()
            raise
        else:
            self._failure = None
        finally:
            self._release()

    async def _reach(self, after: Position | None) -> None:
        log = self.log
        if log is None:
            log = await self._open(after)
        elif self._lacks_newer(log, after):
            self._published = None
            await self._catch_up(log)
        if log is None or after is None:
            return
        while (
            not (self._is_settled or log.is_over) and log.resume(*after)[1] == "unknown"
        ):
            # The server has lost events that the client has, and the owner of the run
            # has not restored them yet.
            await asyncio.sleep(self._limits.wait_interval)
            await self._catch_up(log)
        if self._lacks_older(log, after):
            await self._read_older(log, after)

    async def _open(self, after: Position | None) -> EventLog | None:
        await self._listener.subscribe(self.key, self.hear)
        self._is_deaf = not self._listener.hears(self.key)
        try:
            answer = await self._read(after)
            if answer.status not in ("", "running") and not answer.entries:
                # The client has all of the run. The log needs the last event anyway.
                answer = await self._read(Position(answer.epoch, answer.top - 1))
        except BaseException:
            self._listener.unsubscribe(self.key, self.hear)
            raise
        if not answer.epoch:
            self._listener.unsubscribe(self.key, self.hear)
            return None
        log = self.log = EventLog(
            answer.epoch,
            most=self._history.events,
            call_soon=asyncio.get_running_loop().call_soon,
            top=_begin(answer),
            earlier=answer.earlier,
        )
        await self._catch_up(log, answer)
        return log

    async def _catch_up(self, log: EventLog, answer: Answer | None = None) -> None:
        """Append all that the server has."""
        while not log.is_over:
            answer = answer or await self._read(Position(log.epoch, log.top))
            if answer.epoch and answer.epoch != log.epoch:
                answer = await self._restart(log, answer)
            if not answer.epoch:
                self._note_unserved(
                    log, StoreError("the run is not in the store any more")
                )
                return
            self._unserved_since = None
            _append(log, answer.entries)
            if log.top >= answer.top:
                if not log.is_over and answer.status not in ("", "running"):
                    self._fail(log, StoreError("the end of the run is lost"))
                return
            if not answer.entries:  # the server has evicted them
                log.restart(log.epoch, answer.top, earlier=log.earlier)
            answer = None

    async def _restart(self, log: EventLog, answer: Answer) -> Answer:
        """Begin again in another epoch, from the slowest reader on."""
        until = dict(answer.earlier).get(log.epoch)
        since = 0 if until is None else max(0, min(log.top, until) - log.lag)
        answer = await self._read(Position(answer.epoch, since))
        if answer.epoch:
            log.restart(answer.epoch, _begin(answer), earlier=answer.earlier)
        return answer

    async def _read_older(self, log: EventLog, after: Position) -> None:
        """Put events in front of the log, back to a position or to the first one."""
        if log.resume(*after)[1] != "trimmed":
            after = START
        frames: list[bytes] = []
        begin = 0
        while True:
            answer = await self._read(after)
            if answer.epoch != log.epoch or not answer.entries:
                return  # the next message, or the next compare, restarts the log
            entries = [entry for entry in answer.entries if entry.offset < log.first]
            if entries and entries[0].offset != begin + len(frames):
                # The first ones, or the server has dropped those before meanwhile.
                frames, begin = [], entries[0].offset
            frames += [entry.frame for entry in entries]
            if begin + len(frames) == log.first:
                log.prepend(frames)
                return
            if len(entries) < len(answer.entries):
                return
            after = Position(answer.epoch, entries[-1].offset)

    async def _read(self, after: Position | None) -> Answer:
        epoch, offset = ("", "") if after is None else after
        values = await self._link.call(
            "read",
            self.key,
            milliseconds(self._history.ttl),
            self.run,
            epoch,
            offset,
            self._limits.page_events,
            self._limits.page_bytes,
        )
        try:
            answer = _answer_of(values)
        except (KeyError, ValueError) as error:
            raise StoreError("the key is that of somebody else") from error
        if values[-1] == b"1":
            self._on_lost(self.key)
        self._first, self._is_settled = answer.first, answer.is_settled
        if answer.status == "running" and answer.lease > 0:
            # A process that dies is noticed as soon as its lease has expired.
            expires_at = time.monotonic() + answer.lease + 0.02
            self.compare_at = min(self.compare_at, expires_at)
        return answer

    # What is new

    def hear(self, message: bytes) -> None:
        """Append what a message tells."""
        if self.log is None or self.is_busy:
            self._held.append(message)
        else:
            self._take(self.log, message)

    def _release(self) -> None:
        """Look at what has been heard meanwhile."""
        held, self._held = self._held, []
        if self.log is not None:
            for message in held:
                self._take(self.log, message)

    def _take(self, log: EventLog, message: bytes) -> None:
        try:
            is_complete = _apply(log, message)
        except ValueError:  # somebody else has sent it
            is_complete = False
        if not is_complete:
            self.compare_at = 0.0

    async def compare(self) -> None:
        """Read what is new on the server."""
        self._compared_at = time.monotonic()
        self.compare_at = self._compared_at + self._interval
        async with self._busy:
            log = self.log
            if log is None or log.is_over:
                return
            self.compares += 1
            try:
                await self._catch_up(log)
            except StoreError as error:
                # If the server is away, streams wait until it is back. But if it
                # refuses to be read, they must not wait for ever.
                if error.__cause__ is not None:
                    self._note_unserved(log, error)
            finally:
                self._release()

    def _note_unserved(self, log: EventLog, error: StoreError) -> None:
        now = time.monotonic()
        if self._unserved_since is None:
            self._unserved_since = now
        if now - self._unserved_since > self._limits.unserved:
            self._fail(log, error)
        self.compare_at = min(self.compare_at, now + 1.0)

    def _fail(self, log: EventLog, error: StoreError) -> None:
        log.fail(error)
        self.has_failed = True

    def close(self) -> None:
        """Listen no more."""
        self._listener.unsubscribe(self.key, self.hear)
        if self.log is not None:
            # A reader that begins just now must not wait for ever.
            self._fail(self.log, StoreError("the log was closed"))


def _apply(log: EventLog, message: bytes) -> bool:
    """Append what a message tells. Return whether no event before it is missing."""
    if log.is_over:
        return True
    head, _, body = message.partition(b"\n")
    epoch, *numbers, status = head.split(b" ")
    first, count, size = map(int, numbers)
    if epoch.decode() != log.epoch:
        return False
    known = log.top + 1 - first
    if known < 0:
        return False
    if status != b"-":
        if known == 0:
            log.end(body[size:], without_id=body[:size])
    elif known == 0:
        log.append(body)
    elif known < count:
        frames, _ = split_events(body)
        log.append(b"".join(frames[known:]))
    return True


def _begin(answer: Answer) -> int:
    """Return the offset before the first event of an answer."""
    return answer.entries[0].offset - 1 if answer.entries else answer.top


def _append(log: EventLog, entries: list[Entry]) -> None:
    """Append entries, from the first one that is new."""
    frames: list[bytes] = []
    for entry in entries:
        if entry.offset <= log.top:
            continue
        if entry.offset > log.top + len(frames) + 1:  # those before it are dropped
            log.restart(log.epoch, entry.offset - 1, earlier=log.earlier)
            frames = []
        if entry.is_last:
            log.append(b"".join(frames))
            log.end(entry.frame, without_id=entry.without_id)
            return
        frames.append(entry.frame)
    if frames:
        log.append(b"".join(frames))


def _answer_of(values: Any) -> Answer:
    epoch, top, length, status, is_settled, earlier, lease, entries, _ = values
    pairs = [one.rpartition(":") for one in earlier.decode().split(",") if one]
    return Answer(
        epoch.decode(),
        int(top),
        int(top) + 1 - int(length),
        status.decode(),
        is_settled == b"1",
        [(one, int(until)) for one, _, until in pairs],
        int(lease) / 1000,
        [_entry_of(id, fields) for id, fields in entries],
    )


def _entry_of(id: bytes, fields: list[bytes]) -> Entry:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    return Entry(
        int(id.partition(b"-")[0]), values[b"f"], values.get(b"w"), b"s" in values
    )
