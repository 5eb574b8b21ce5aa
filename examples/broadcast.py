"""One publisher and any number of subscribers: every event is encoded once.

`uvicorn broadcast:app --app-dir examples` serves it. Subscribe and publish with

    curl --no-buffer http://127.0.0.1:8000/events
    curl http://127.0.0.1:8000/events --json '{"price": 2.75}'
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header

from fastapi_sse_fast import EncodedEvent, EventSourceResponse, ServerSentEvent


class Channel:
    """The last events, which all subscribers read.

    There is no queue for each of them: a subscriber is a number, that of the last event
    it has had. One that is slower than the publisher goes on with the oldest event that
    is kept, and misses those before it.
    """

    def __init__(self, keep: int) -> None:
        self.subscribers = 0
        self._kept: deque[EncodedEvent] = deque(maxlen=keep)
        self._last = 0
        self._published = asyncio.Event()

    def publish(self, data: Any) -> int:
        """Returns the number of the event."""
        self._last += 1
        self._kept.append(self.event(data, self._last))
        self._published.set()
        self._published = asyncio.Event()
        return self._last

    def event(self, data: Any, number: int) -> EncodedEvent:
        return ServerSentEvent(data=data, id=str(number)).encode()

    async def subscribe(self, last_seen: int | None) -> AsyncIterator[EncodedEvent]:
        """Yields what comes after an event or, without one, from now on."""
        seen = self._last if last_seen is None else min(last_seen, self._last)
        self.subscribers += 1
        try:
            while True:
                while seen == self._last:
                    await self._published.wait()
                oldest = self._last - len(self._kept) + 1
                seen = max(seen + 1, oldest)
                yield self._kept[seen - oldest]
        finally:
            self.subscribers -= 1


app = FastAPI(title="Broadcast")
channel = Channel(keep=1000)


# Who takes nothing at all for ten seconds is dropped. A browser comes back by itself,
# with the number of the last event that it has had. It need not wait for the next event
# to know that it is connected: nothing can go wrong before that one.
Response = EventSourceResponse.with_options(send_timeout=10.0, error_window=0.0)


@app.get("/events")
async def subscribe(
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
) -> EventSourceResponse:
    return Response(channel.subscribe(last_event_id))


@app.post("/events")
async def publish(data: Annotated[Any, Body()]) -> int:
    return channel.publish(data)


@app.get("/subscribers")
async def subscribers() -> int:
    return channel.subscribers
