"""`LastEventID`: where a client wants to continue."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query


# FastAPI would run a `def` in a thread, which costs more than the rest of a dependency.
async def _last_event_id(
    last_event_id: Annotated[
        str | None,
        Header(description="The `id` of the last event that the client has received."),
    ] = None,
    query: Annotated[str | None, Query(alias="last_event_id")] = None,
    camel_query: Annotated[
        str | None, Query(alias="lastEventId", include_in_schema=False)
    ] = None,
) -> str | None:
    return last_event_id or query or camel_query or None


LastEventID = Annotated[str | None, Depends(_last_event_id)]
"""Type of a parameter for the position that a client wants to continue from.

Declare it in a path operation or in a dependency:

    @app.get("/news")
    async def news(last: LastEventID) -> EventSourceResponse:
        return EventSourceResponse(channels.subscribe("news", last))

The value is the header `Last-Event-ID`, which an `EventSource` sends when it
reconnects. Without the header, it is the query parameter `last_event_id` or
`lastEventId`, which a page can put into the URL of a new `EventSource`. If there is
neither, it is `None`.
"""
