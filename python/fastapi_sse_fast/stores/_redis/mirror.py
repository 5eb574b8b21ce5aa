"""The events of one log in this process, for all who read it here.

    subscribe ── confirmed ──▶ read ──▶ up to date: each message appends what is new
    a message leaves a hole, or a connection is a new one, or nothing was heard for long
        ──▶ compare: read from the newest event on
    the server has begun a new epoch ──▶ restart, from the slowest reader on

Messages that arrive before an answer of the server does are kept and looked at
afterwards, so events are in order whatever comes first.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from ..._core import EventLog, split_events
from ...errors import StoreError
from ..store import Position
from .link import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store import History
    from .link import Link
    from .listener import Listener

PAGE = 1000
"""Entries in one answer of the server."""

COMPARE_INTERVAL = 10.0
"""Seconds after which a log is compared with the server, whatever was heard."""

MISSING_FOR = 30.0
"""Seconds that a run may be missing on the server until its streams fail. If its process
is alive, that restores the run."""


class Entry(NamedTuple):
    """An event on the server."""

    offset: int
    frame: bytes
    without_id: bytes | None
    is_last: bool


class Answer(NamedTuple):
    """What the server has of a log."""

    epoch: str
    top: int
    status: str
    earlier: list[tuple[str, int]]
    lease: float
    """Seconds until the lease of a run expires, negative if there is none."""
    entries: list[Entry]


class Mirror:
    """A log of the server, as far as it is read here.

    Args:
        link: For commands.
        listener: For messages.
        key: The key of the log.
        run: The id of the run, or empty for a channel.
        history: How much to keep.
        on_lost: Called if the run was found lost by this process.

    Attributes:
        log: The events. `None` until it is open.
        compare_at: When to compare it with the server, on the monotonic clock.
        used_at: When somebody has asked for it last.
        compares: How often messages were missing, or may have been.
    """

    def __init__(
        self,
        link: Link,
        listener: Listener,
        key: bytes,
        run: str,
        history: History,
        on_lost: Callable[[bytes], None],
    ) -> None:
        self._link = link
        self._listener = listener
        self._key = key
        self._run = run
        self._history = history
        self._on_lost = on_lost
        self._busy = asyncio.Lock()
        self._held: list[bytes] = []
        # Whether the log has everything that the server has, back to its first event.
        self._has_first = False
        self._missing_since: float | None = None
        self.log: EventLog | None = None
        self.compare_at = 0.0
        self.used_at = time.monotonic()
        self.compares = 0

    @property
    def seconds_unused(self) -> float:
        unasked = time.monotonic() - self.used_at
        if self.log is None:
            return 0.0 if self._busy.locked() else unasked
        return min(unasked, self.log.seconds_unread)

    async def reach(self, after: Position | None) -> EventLog | None:
        """Return the log, so that it can be read after a position.

        Returns `None` if it is a run that the server does not have.

        Raises:
            StoreError: The server refuses it, or cannot be reached.
        """
        self.used_at = time.monotonic()
        if self.log is None or not self._reaches(self.log, after):
            async with self._busy:
                try:
                    await self._reach(after)
                finally:
                    self._release()
        return self.log

    def _reaches(self, log: EventLog, after: Position | None) -> bool:
        if after is None or (log.is_over and self._has_first):
            return True
        _, reason, _ = log.resume(*after)
        # Otherwise, another process may have been faster, or the server may have more.
        return reason is None or (reason != "unknown" and self._has_first)

    async def _reach(self, after: Position | None) -> None:
        log = self.log
        if log is None:
            await self._open(after)
        elif not self._reaches(log, after):
            await self._compare()
            if after is not None and not self._reaches(log, after):
                await self._read_older(log, after)

    async def _open(self, after: Position | None) -> None:
        try:
            with anyio.fail_after(PATIENCE):
                await self._listener.subscribe(self._key, self.hear)
        except TimeoutError:
            self._listener.unsubscribe(self._key, self.hear)
            raise StoreError("Redis is not available") from None
        answer = await self._read(after)
        if not answer.epoch:
            self.close()
            return
        first = answer.entries[0].offset if answer.entries else answer.top + 1
        self._has_first = _has_first(answer, after)
        log = EventLog(
            answer.epoch,
            most=self._history.events,
            call_soon=asyncio.get_running_loop().call_soon,
            top=first - 1,
            earlier=answer.earlier,
        )
        _append(log, answer.entries)
        self.log = log
        await self._read_pages(log, answer)

    async def _read_pages(self, log: EventLog, answer: Answer) -> None:
        """Read what did not fit into an answer."""
        while len(answer.entries) == PAGE:
            answer = await self._read(Position(log.epoch, log.top))
            _append(log, answer.entries)

    async def _read_older(self, log: EventLog, after: Position) -> None:
        """Put events in front of the log, back to a position."""
        first = log.first
        frames: list[bytes] = []
        while True:
            answer = await self._read(after)
            if answer.epoch != log.epoch:
                return  # the next message, or the next compare, restarts the log
            if not frames:
                self._has_first = _has_first(answer, after)
            older = [entry for entry in answer.entries if entry.offset < first]
            if any(entry.is_last for entry in older):
                return
            frames += [entry.frame for entry in older]
            if len(older) < len(answer.entries) or len(answer.entries) < PAGE:
                break
            after = Position(answer.epoch, older[-1].offset)
        if frames and older and older[-1].offset == first - 1 and log.first == first:
            log.prepend(frames)

    async def _read(self, after: Position | None) -> Answer:
        epoch, offset = ("", "") if after is None else (after.epoch, str(after.offset))
        values = await self._link.call(
            "read",
            self._key,
            round(self._history.ttl * 1000),
            self._run,
            epoch,
            offset,
            PAGE,
        )
        answer = _answer_of(values)
        if values[6] == b"1":
            self._on_lost(self._key)
        now = time.monotonic()
        self.compare_at = now + COMPARE_INTERVAL
        if answer.status == "running" and answer.lease > 0:
            # A process that dies is noticed as soon as its lease has expired.
            self.compare_at = min(self.compare_at, now + answer.lease + 0.1)
        return answer

    # What is new

    def hear(self, message: bytes) -> None:
        """Append what a message tells."""
        if self.log is None or self._busy.locked():
            self._held.append(message)
        elif not self._apply(self.log, message):
            self.compare_at = 0.0

    def _release(self) -> None:
        """Look at what has been heard meanwhile."""
        held, self._held = self._held, []
        for message in held:
            self.hear(message)

    def _apply(self, log: EventLog, message: bytes) -> bool:
        """Append what a message tells. Return whether no event before it is missing."""
        head, _, body = message.partition(b"\n")
        epoch, first, count, status, size = head.split(b" ")
        if log.is_over:
            return True
        if epoch.decode() != log.epoch:
            return False
        missing = int(first) - 1 - log.top
        if missing > 0:
            return False
        if status != b"-":
            if missing == 0:
                log.end(body[int(size) :], without_id=body[: int(size)])
        elif missing == 0:
            log.append(body)
        elif missing + int(count) > 0:
            frames, _ = split_events(body)
            log.append(b"".join(frames[-missing:]))
        return True

    async def compare(self) -> None:
        """Read what is new on the server."""
        self.compare_at = time.monotonic() + COMPARE_INTERVAL
        async with self._busy:
            try:
                await self._compare()
            except StoreError as error:
                # If the server is away, its return is noticed. But if it refuses to be
                # read, streams must not wait for ever.
                if error.__cause__ is not None and self.log is not None:
                    self.log.fail(error)
            finally:
                self._release()

    async def _compare(self) -> None:
        log = self.log
        if log is None or log.is_over:
            return
        self.compares += 1
        top = log.top
        answer = await self._read(Position(log.epoch, top))
        if not answer.epoch:
            self._note_missing(log)
            return
        self._missing_since = None
        if answer.epoch != log.epoch:
            until = dict(answer.earlier).get(log.epoch)
            since = 0 if until is None else max(0, min(top, until) - log.lag)
            await self._restart(log, Position(answer.epoch, since))
        elif answer.entries:
            if answer.entries[0].offset > top + 1:
                log.restart(
                    log.epoch, answer.entries[0].offset - 1, earlier=log.earlier
                )
                self._has_first = True
            _append(log, answer.entries)
            await self._read_pages(log, answer)

    async def _restart(self, log: EventLog, since: Position) -> None:
        answer = await self._read(since)
        first = answer.entries[0].offset if answer.entries else answer.top + 1
        self._has_first = _has_first(answer, since)
        log.restart(answer.epoch, first - 1, earlier=answer.earlier)
        _append(log, answer.entries)
        await self._read_pages(log, answer)

    def _note_missing(self, log: EventLog) -> None:
        now = time.monotonic()
        if self._missing_since is None:
            self._missing_since = now
        if now - self._missing_since > MISSING_FOR:
            log.fail(StoreError("the run is not in the store any more"))
        self.compare_at = now + 1.0

    def close(self) -> None:
        """Listen no more."""
        self._listener.unsubscribe(self._key, self.hear)
        if self.log is not None:
            # A reader that begins just now must not wait for ever.
            self.log.fail(StoreError("the log was closed"))


def _append(log: EventLog, entries: list[Entry]) -> None:
    """Append entries that follow each other, from the first one that is new."""
    frames: list[bytes] = []
    for entry in entries:
        if entry.offset <= log.top:
            continue
        if entry.is_last:
            log.append(b"".join(frames))
            log.end(entry.frame, without_id=entry.without_id)
            return
        frames.append(entry.frame)
    if frames:
        log.append(b"".join(frames))


def _has_first(answer: Answer, after: Position | None) -> bool:
    """Whether an answer begins with the first event that the server has."""
    if after is None:
        return False
    epoch, offset = after
    until = {**dict(answer.earlier), answer.epoch: offset}.get(epoch, -1)
    if offset == 0 or offset > until:
        return True  # it was read from the first one on
    return not answer.entries or answer.entries[0].offset > offset + 1


def _answer_of(values: Any) -> Answer:
    epoch, top, status, earlier, lease, entries, _ = values
    pairs = [one.rpartition(":") for one in earlier.decode().split(",") if one]
    return Answer(
        epoch.decode(),
        int(top),
        status.decode(),
        [(one, int(until)) for one, _, until in pairs],
        int(lease) / 1000,
        [_entry_of(id, fields) for id, fields in entries],
    )


def _entry_of(id: bytes, fields: list[bytes]) -> Entry:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    return Entry(
        int(id.partition(b"-")[0]), values[b"f"], values.get(b"w"), b"s" in values
    )
