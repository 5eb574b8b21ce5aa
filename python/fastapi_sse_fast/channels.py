"""Channels: publish an event once, for any number of subscribers."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ._core import encode_event
from .stores.store import History
from .subscription import Readings, Subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Literal

    from ._core import EventLog
    from .options import Json
    from .stores.store import Position, Store
    from .subscription import Gap, GapReason, Snapshot

    OnGap = (
        Literal["resume", "close"]
        | Callable[[Gap], Snapshot]
        | Callable[[Gap], Awaitable[Snapshot]]
    )

MOST_NAMES = 8
"""How many channels one stream can read."""


class ChannelStats(NamedTuple):
    """The channels of this process, as `Channels.stats` returns them.

    Attributes:
        channels: Number of channels that have subscribers.
        subscribers: Number of streams that read a channel. A stream that reads two
            channels counts twice.
        lag: Number of events that the slowest subscriber is behind.
        reconnects: Number of subscriptions so far that began at a given position.
        gaps: Number of gaps so far, by reason.
    """

    channels: int
    subscribers: int
    lag: int
    reconnects: int
    gaps: Mapping[GapReason, int]


class Channels:
    """Named channels with any number of publishers and subscribers.

    A channel exists as soon as its name is used:

        store = MemoryStore()
        channels = Channels(store)
        app = FastAPI(lifespan=store.lifespan)

        @app.get("/news")
        async def news(last: LastEventID) -> EventSourceResponse:
            return EventSourceResponse(channels.subscribe("news", last))

        @app.post("/news")
        async def publish(item: Item) -> str:
            return await channels.publish("news", item)

    Every event has a position, which is its `id`. A subscriber that reconnects
    continues after the last event that it received, as long as the history has the
    next one. Otherwise the stream sends an event named `gap`.

    Args:
        store: The store that keeps the events.
        history: Number of events that each channel keeps.
        ttl: Seconds to keep a channel after its last event, unless somebody reads it.
        on_gap: What a stream does after an event `gap`: `"resume"` with the oldest
            event that is kept; `"close"` the response, so that the client reconnects;
            or call a function with the `Gap`, send the event that it returns, such as
            a snapshot, and resume. The function may be async. If it raises an
            exception, so does the stream.
        json: Format of data that is not a pydantic model, as in `StreamOptions`.
    """

    def __init__(
        self,
        store: Store,
        *,
        history: int = 1000,
        ttl: float = 3600.0,
        on_gap: OnGap = "resume",
        json: Json = "fastapi",
    ) -> None:
        if not isinstance(history, int) or history < 1:
            raise ValueError(f"history must be a positive integer, not {history!r}")
        if not ttl > 0:
            raise ValueError(f"ttl must be a positive number of seconds, not {ttl!r}")
        if not callable(on_gap) and on_gap not in ("resume", "close"):
            raise ValueError(
                f"on_gap must be 'resume', 'close' or a function, not {on_gap!r}"
            )
        self._store = store
        self._history = History(history, ttl)
        self._on_gap = on_gap
        self._json = json
        self._readings = Readings()
        self._logs: dict[str, EventLog] = {}

    async def publish(self, name: str, item: Any, *, dedupe: str | None = None) -> str:
        """Publish an event to a channel, and return its `id`.

        The event is in the store when this returns. It does not wait for subscribers.

        Args:
            name: The channel.
            item: Anything that a stream can yield: an event, a model, data.
            dedupe: A key that you choose. If it is among the last `history` keys of
                the channel, nothing is published, and the `id` of the earlier event
                is returned. So a publisher can retry.

        Raises:
            ValueError: The item cannot be encoded, or is an event that has an `id`.
            TypeError: The item cannot be encoded, or the name is not a `str`.
            StoreError: The store is not available, or refuses the operation.
        """
        frames = bytes(encode_event(item, json=self._json))
        position = await self._store.append(
            _log_of(name), frames, self._history, dedupe
        )
        return f"{position.epoch}.{position.offset}"

    def subscribe(
        self, names: str | Sequence[str], last: str | None = None
    ) -> Subscription:
        """Subscribe to one or several channels.

        Args:
            names: A channel, or up to eight channels.
            last: Position to continue from, such as a `LastEventID`. Without one, the
                subscription begins with the next event.

        Raises:
            ValueError: There is no name, a name is repeated, or there are too many.
            TypeError: A name is not a `str`.
        """
        chosen = _sorted(names)
        logs = [_log_of(name) for name in chosen]
        return Subscription(
            functools.partial(self._open, logs),
            last,
            name=f"subscription to {', '.join(chosen)}",
            readings=self._readings,
            start_task=self._store.start_task,
            from_start=False,
            names=tuple(chosen),
            on_gap=self._on_gap,
            json=self._json,
        )

    async def position(self, names: str | Sequence[str]) -> str:
        """Return the position of the newest event of one or several channels.

        Call it before you read the state that a page shows, and send both to the page:
        a subscription from there misses nothing that is published afterwards.

        Args:
            names: The channels that the page will subscribe to.

        Raises:
            ValueError: There is no name, a name is repeated, or there are too many.
            TypeError: A name is not a `str`.
            StoreError: The store is not available, or refuses the operation.
        """
        logs = [_log_of(name) for name in _sorted(names)]
        positions = [await self._store.position(log, self._history) for log in logs]
        return "~".join(f"{epoch}.{offset}" for epoch, offset in positions)

    def stats(self) -> ChannelStats:
        """Return the numbers of subscribers, gaps and reconnects in this process."""
        logs = self._read_logs().values()
        return ChannelStats(
            channels=len(logs),
            subscribers=sum(log.readers for log in logs),
            lag=max((log.lag for log in logs), default=0),
            reconnects=self._readings.reconnects,
            gaps=dict(self._readings.gaps),
        )

    async def _open(
        self, names: Sequence[str], last: Sequence[Position] | None
    ) -> Sequence[EventLog]:
        known = last is not None and len(last) == len(names)
        positions = last if last is not None and known else [None] * len(names)
        logs = [
            await self._store.log(name, self._history, position)
            for name, position in zip(names, positions, strict=True)
        ]
        self._logs = self._read_logs() | dict(zip(names, logs, strict=True))
        return logs

    def _read_logs(self) -> dict[str, EventLog]:
        return {name: log for name, log in self._logs.items() if log.readers}


def _sorted(names: str | Sequence[str]) -> list[str]:
    """Return the names of channels in the order that positions have."""
    several = [names] if isinstance(names, str) else names
    if not isinstance(several, Iterable) or not all(
        isinstance(n, str) for n in several
    ):
        raise TypeError(
            f"the name of a channel must be a str, or several of them, not {names!r}"
        )
    chosen = sorted(several)
    if not 1 <= len(chosen) <= MOST_NAMES or len({*chosen}) < len(chosen):
        raise ValueError(
            f"a subscription is of 1 to {MOST_NAMES} different channels, not {chosen!r}"
        )
    return chosen


def _log_of(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a channel must be a str, not {name!r}")
    return f"channel:{name}"
