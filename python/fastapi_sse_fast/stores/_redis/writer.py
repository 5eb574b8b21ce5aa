"""The events of one run, in the process that has started it.

An event is kept here until the server has it, and a while longer, in case the server
loses it. Every frame is sent with its offset, so it can be sent again: the server takes
what it does not have. It takes nothing any more once it has given up the owner.

    append ── nothing in flight ──▶ send
           ── otherwise ──────────▶ sent together, with the next answer
    answer "ok" ──▶ forget, send what has come meanwhile
           "behind" ──▶ send again from there
           "missing" ──▶ restore the run, send again
           "ended" ──▶ the run is lost: end the generator
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ..._core import split_events
from ...errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..store import LastEvent, RunStatus, RunTerms
    from .link import Link

MOST_PENDING = 4 * 1024 * 1024
"""Bytes of events that the server does not have yet. With more, the run fails."""

MOST_KEPT = 4 * 1024 * 1024
"""Bytes of events to keep that the server has, in case it loses them."""

PATIENCE = 30.0
"""Seconds that the server may be away before the run fails."""

MOST_AT_ONCE = 512
"""Frames in one command."""


class Writer:
    """Appends the events of a run.

    Args:
        link: For commands.
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
        key: bytes,
        id: str,
        owner: str,
        worker: bytes,
        terms: RunTerms,
        on_over: Callable[[Writer], object],
    ) -> None:
        self._link = link
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
        self._kept_bytes = 0
        self._pending_bytes = 0
        self._in_flight = False
        self._failure: StoreError | None = None
        self._ended: RunStatus | None = None
        self._settled = asyncio.Event()
        self._settled.set()
        self._sent_at = time.monotonic()
        self.events = 0

    # What comes

    def append(self, frames: bytes) -> None:
        """Append events. The last one may be continued in the next call.

        Raises:
            StoreError: The server has not accepted earlier events.
        """
        if self._failure is not None:
            raise self._failure
        events, self._rest = split_events(self._rest + frames if self._rest else frames)
        for event in events:
            self._frames.append(event)
            self._pending_bytes += len(event)
        self.events += len(events)
        if self._pending_bytes > MOST_PENDING:
            self._fail(StoreError("Redis is slower than the run, or not available"))
            raise self._failure  # type: ignore[misc]
        self._flush()

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

    def beat(self) -> None:
        """Renew the lease if nothing else has done so for a while."""
        if time.monotonic() - self._sent_at > self._terms.lease / 3:
            self._flush(even_if_empty=True)

    # What is sent

    def _flush(self, *, even_if_empty: bool = False) -> None:
        if self._in_flight or self._failure is not None or self._ended is not None:
            return
        start = self._stored + 1 - self._first
        frames = [
            self._frames[index]
            for index in range(start, min(len(self._frames), start + MOST_AT_ONCE))
        ]
        if frames or even_if_empty:
            self._submit("write", self._stored + 1, *frames)

    def _submit(self, operation: str, *args: Any) -> None:
        self._in_flight = True
        self._settled.clear()
        self._sent_at = time.monotonic()
        answer = self._link.submit(
            operation, self._key, self.id, self._owner, *args, patience=PATIENCE
        )
        answer.add_done_callback(self._answered)

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self._in_flight = False
        if answer.cancelled():
            self._fail(StoreError("the store was closed"))
        elif (error := answer.exception()) is not None:
            self._fail(error)
        else:
            self._take(answer.result())
        if not self._in_flight:
            self._settled.set()

    def _take(self, answer: Sequence[bytes]) -> None:
        kind = answer[0]
        if kind == b"ok":
            self._note_stored(int(answer[1]))
            if answer[2]:
                self.ask_to_end("cancelled")
            self._flush()
        elif kind == b"behind":
            self._send_again(int(answer[1]))
        elif kind == b"missing":
            self._send_again(0)
        else:
            self._note_ended(answer[1].decode())  # type: ignore[arg-type]

    def _note_stored(self, top: int) -> None:
        for index in range(self._stored + 1 - self._first, top + 1 - self._first):
            size = len(self._frames[index])
            self._pending_bytes -= size
            self._kept_bytes += size
        self._stored = top
        while self._kept_bytes > MOST_KEPT:
            self._kept_bytes -= len(self._frames.popleft())
            self._first += 1

    def _send_again(self, top: int) -> None:
        """Give the server again what it has lost, from an offset on."""
        kept_from = max(top + 1, self._first)
        for index in range(kept_from - self._first, self._stored + 1 - self._first):
            size = len(self._frames[index])
            self._pending_bytes += size
            self._kept_bytes -= size
        self._stored = kept_from - 1
        history, lease, lost = self._terms
        self._submit(
            "restore",
            self._worker,
            round(lease * 1000),
            round(history.ttl * 1000),
            *lost,
            self.id,
            "",
            self._stored,
        )

    def _note_ended(self, status: RunStatus) -> None:
        self._ended = status
        self._failure = StoreError(f"the run has ended already: {status}")
        self._on_over(self)
        self.ask_to_end("lost")

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = (
                error if isinstance(error, StoreError) else StoreError(str(error))
            )
            # The generator may be waiting for something else, and would go on for long.
            self.ask_to_end("failed")

    # The end

    async def end(self, status: RunStatus, last: LastEvent) -> RunStatus:
        """End the run with its last event, and return how it has ended.

        Raises:
            StoreError: The server did not accept the event.
        """
        try:
            while True:
                await self._settled.wait()
                if self._ended is not None:
                    return self._ended
                if self._failure is not None:
                    # The events that the server did not take are lost, and `last` says
                    # that the run has failed.
                    self.events = self._stored
                answer = await self._link.call(
                    "finish",
                    self._key,
                    self.id,
                    self._owner,
                    self.events + 1,
                    status,
                    *last,
                    patience=PATIENCE,
                )
                if answer[0] == b"ok":
                    return status
                if answer[0] == b"ended":
                    self._ended = answer[1].decode()
                else:
                    self._take(answer)
        finally:
            self._on_over(self)
