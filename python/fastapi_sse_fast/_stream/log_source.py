"""A source that reads logs: what a `Subscription` becomes in a stream.

It has no task and no queue. The logs call the reader when they have something new, and
the reader sends it in the same step of the event loop, or wakes the outlet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .source import Phase, Source

if TYPE_CHECKING:
    from .._core import DirectSend, LogReader
    from ..content import LogContent
    from .asyncio_ import AsyncioBackend
    from .outlet import Outlet
    from .trio_ import TrioBackend


class LogSource(Source):
    """The events of a subscription.

    Args:
        subscription: What to read.
        reader: Reads it.
        backend: What runs the stream.
    """

    __slots__ = ("_reader",)

    def __init__(
        self,
        subscription: LogContent,
        reader: LogReader,
        backend: AsyncioBackend | TrioBackend,
    ) -> None:
        super().__init__(subscription, reader, backend, 0.0)
        self._reader = reader

    has_task = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes, except what is pending."""
        return self._reader.is_over

    def attach(self, outlet: Outlet) -> None:
        """Begin to read, and wake the outlet when it has to send."""
        super().attach(outlet)
        self._reader.attach(outlet)

    def send_with(self, direct: DirectSend | None) -> None:
        """Have the reader send what is new by itself, or not any more."""
        self._reader.send_with(direct)

    def resume(self) -> None:
        """Do nothing: logs do not wait for a client."""

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()
        self.phase = Phase.CLOSED
        self._wake()

    def forget(self) -> None:
        """Forget what knows it, when the stream is over."""
        self._reader.close()
        super().forget()
