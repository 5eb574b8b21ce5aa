"""The events of one run, in the process that has started it.

An event is kept here until the server has it, and a while longer, in case the server
loses it. Every frame is sent with its offset, so it can be sent again: the server takes
what it does not have. It takes nothing any more once it has given up the owner.

    append ── nothing in flight ──▶ send
           ── otherwise ──────────▶ sent together, with the next answer
    answer "ok" ──▶ forget, send what has come meanwhile, in the end the last event
           "behind" ──▶ send again from there
           "missing" ──▶ restore the run, send again
           "ended" ──▶ the run is over. If this has not ended it, end the generator
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ..._core import split_events
from ...errors import StoreError
from .limits import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..store import LastEvent, RunStatus, RunTerms
    from .limits import RedisLimits
    from .link import Link


class Writer:
    """Appends the events of a run.

    Args:
        link: For commands.
        limits: The limits of the store.
        key: The key of the log.
        id: The id of the run, which is its first epoch.
        owner: What shows the server that this is the owner.
        worker: The channel of this process.
        terms: How to keep the run.
        on_over: Called when there is nothing more to write.

    Attributes:
        events: The number of events so far.
    """

    def __init__(
        self,
        link: Link,
        limits: RedisLimits,
        key: bytes,
        id: str,
        owner: str,
        worker: bytes,
        terms: RunTerms,
        on_over: Callable[[Writer], object],
    ) -> None:
        self._link = link
        self._limits = limits
        self._key = key
        self.id = id
        self._owner = owner
        self._worker = worker
        self._terms = terms
        self._on_over = on_over
        self._on_end: Callable[[RunStatus], None] | None = None
        self._asked_to_end: RunStatus | None = None
        self._rest = b""
        # The frames that are kept: first those that the server has.
        self._frames: deque[bytes] = deque()
        self._first = 1  # the offset of the first of them
        self._stored = 0  # the offset up to which the server has them
        self._known = 0  # the offset up to which it has had them
        self._kept_bytes = 0
        self._pending_bytes = 0
        self._last: tuple[RunStatus, LastEvent] | None = None
        self._in_flight = False
        # When the lease was renewed last, and on which server.
        self._sent_at = self._renewed_at = time.monotonic()
        self._server = link.server
        self._refused_since: float | None = None
        self._failure: StoreError | None = None
        self._ended: RunStatus | None = None
        self._over = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.events = 0

    # What comes

    def append(self, frames: bytes) -> None:
        """Append events. The last one may be continued in the next call.

        Raises:
            StoreError: The server has not accepted earlier events.
        """
        if self._ended is not None:
            return  # the run was lost, and its generator is about to be closed
        if self._failure is not None:
            raise self._failure
        events, self._rest = split_events(self._rest + frames if self._rest else frames)
        for event in events:
            self._frames.append(event)
            self._pending_bytes += len(event)
        self.events += len(events)
        if self._pending_bytes > self._limits.pending_bytes:
            self._has_room.clear()
        self._flush()

    async def drain(self) -> None:
        """Wait until the server has taken most of the events."""
        await self._has_room.wait()

    def on_end(self, function: Callable[[RunStatus], None]) -> None:
        """Set what is called if the run is to end now."""
        self._on_end = function
        if self._asked_to_end is not None:
            function(self._asked_to_end)

    def ask_to_end(self, status: RunStatus) -> None:
        """Have the run ended: it was cancelled, or is lost."""
        if self._asked_to_end is None:
            self._asked_to_end = status
            if self._on_end is not None:
                self._on_end(status)

    async def end(self, status: RunStatus, last: LastEvent) -> RunStatus:
        """End the run with its last event, and return how it has ended.

        Raises:
            StoreError: The server did not accept the event.
        """
        self._last = status, last
        self._flush()
        await self._over.wait()
        if self._ended is None:
            assert self._failure is not None
            raise self._failure
        return self._ended

    def beat(self, *, now: bool = False) -> None:
        """Try again what was refused, and renew the lease if it is time to."""
        is_due = time.monotonic() - self._sent_at > self._terms.lease / 3
        self._flush(even_if_empty=now or is_due)

    # What is sent

    def _flush(self, *, even_if_empty: bool = False) -> None:
        if self._in_flight or self._over.is_set():
            return
        start = self._stored + 1 - self._first
        stop = min(len(self._frames), start + self._limits.write_events)
        frames = [self._frames[index] for index in range(start, stop)]
        if frames or (even_if_empty and self._last is None):
            self._submit("write", self._known, self._stored + 1, *frames)
        elif self._last is not None:
            status, last = self._last
            self._submit("finish", self._stored + 1, status, *last)

    def _submit(self, operation: str, *args: Any) -> None:
        self._in_flight = True
        self._sent_at = time.monotonic()
        answer = self._link.submit(
            operation,
            self._key,
            self.id,
            self._owner,
            *args,
            patience=self._limits.write_patience,
        )
        answer.add_done_callback(self._answered)

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self._in_flight = False
        error = answer.exception()
        if error is None:
            self._refused_since = None
            self._take(answer.result())
            return
        now = time.monotonic()
        since = self._refused_since = self._refused_since or now
        if error.__cause__ is None or now - since > self._limits.write_patience:
            self._fail(error)
        # Otherwise, the server has refused it. That may change, so `beat` tries again.

    def _take(self, answer: Sequence[bytes]) -> None:
        kind = answer[0]
        if kind == b"ok":
            self._renewed_at, self._server = self._sent_at, self._link.server
            self._note_stored(int(answer[1]))
            if answer[2]:
                self.ask_to_end("cancelled")
            self._flush()
        elif kind == b"behind":
            self._send_again(int(answer[1]))
        elif kind == b"ended":
            self._note_ended(answer[1].decode())  # type: ignore[arg-type]
        elif self._may_be_given_up():
            self._note_ended("lost")
        else:
            self._send_again(None)

    def _may_be_given_up(self) -> bool:
        """Whether a run that is missing may have been lost, and expired since."""
        if self._link.server != self._server:
            return False  # more likely, that server has never had it
        return time.monotonic() - self._renewed_at > self._terms.lease

    def _note_stored(self, top: int) -> None:
        top = min(top, self._first - 1 + len(self._frames))
        for index in range(self._stored + 1 - self._first, top + 1 - self._first):
            size = len(self._frames[index])
            self._pending_bytes -= size
            self._kept_bytes += size
        self._stored = top
        self._known = max(self._known, top)
        while self._kept_bytes > self._limits.kept_bytes:
            self._kept_bytes -= len(self._frames.popleft())
            self._first += 1
        if self._pending_bytes <= self._limits.pending_bytes:
            self._has_room.set()

    def _send_again(self, top: int | None) -> None:
        """Give the server again what it has lost.

        Args:
            top: The newest event that it has. `None` if it does not know the run.
        """
        kept_from = max((top or 0) + 1, self._first)
        for index in range(kept_from - self._first, self._stored + 1 - self._first):
            size = len(self._frames[index])
            self._pending_bytes += size
            self._kept_bytes -= size
        self._stored = kept_from - 1
        if top == self._stored:
            self._flush(even_if_empty=True)
            return
        _, lease, lost = self._terms
        times = milliseconds(lease), milliseconds(self._terms.history.ttl)
        self._submit("restore", self._worker, *times, *lost, self._stored)

    # The end

    def _note_ended(self, status: RunStatus) -> None:
        self._ended = status
        self._failure = StoreError(f"the run has ended already: {status}")
        self._be_over()
        if self._last is None:
            self.ask_to_end("lost")

    def _fail(self, error: BaseException) -> None:
        """Give up the events that the server has not taken."""
        self._failure = error if isinstance(error, StoreError) else StoreError(error)
        while len(self._frames) > self._stored + 1 - self._first:
            self._pending_bytes -= len(self._frames.pop())
        self.events = self._stored
        self._has_room.set()
        # The generator may be waiting for something else, and would go on for long.
        self.ask_to_end("failed")
        if self._last is not None:
            self._be_over()  # its last event would be wrong, or is refused itself

    def _be_over(self) -> None:
        self._has_room.set()
        self._over.set()
        self._on_over(self)
