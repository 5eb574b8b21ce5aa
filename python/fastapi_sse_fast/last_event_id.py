"""`LastEventID`: where a client wants to continue."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query


def _last_event_id(
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
"""The position that a client continues from, as a parameter of a path operation.

It is the header `Last-Event-ID`, which an `EventSource` sends when it reconnects, or
the query parameter `last_event_id` or `lastEventId`, for a page that knows where to
begin. It is `None` if the client sends none of them.
"""
