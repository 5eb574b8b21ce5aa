"""Events on routes with another response class: the error says what is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from fastapi_sse_fast import EncodedEvent, EventTemplate, ServerSentEvent, Slot

from ..support.asgi import fetch

ENCODED = EncodedEvent(data=1)
MADE = EventTemplate({"n": Slot("n")})


async def untyped():  # type: ignore[no-untyped-def]
    yield ENCODED


def untyped_sync():  # type: ignore[no-untyped-def]
    yield ENCODED


async def typed() -> AsyncIterator[EncodedEvent]:
    yield ENCODED


def typed_sync() -> Iterator[int | EncodedEvent]:
    yield 1
    yield ENCODED


async def made_by_a_template() -> Any:
    return MADE(n=1)


async def returned() -> EncodedEvent:
    return ENCODED


async def in_a_list() -> Any:
    return [ENCODED]


async def in_a_streaming_response() -> StreamingResponse:
    return StreamingResponse(typed())  # type: ignore[arg-type]


async def validated() -> AsyncIterator[Any]:
    yield ServerSentEvent(data=1)


async def validated_in_a_streaming_response() -> StreamingResponse:
    return StreamingResponse(validated())


WHAT_TO_DO = (
    " can only be sent by an EventSourceResponse: set response_class="
    "EventSourceResponse (from fastapi_sse_fast) on a route that yields it, or return "
    "EventSourceResponse(...)"
)


@pytest.mark.parametrize(
    ("endpoint", "options", "event"),
    [
        (untyped, {}, "EncodedEvent"),
        (untyped_sync, {}, "EncodedEvent"),
        (typed, {}, "EncodedEvent"),
        (typed_sync, {}, "EncodedEvent"),
        (made_by_a_template, {}, "EncodedEvent"),
        (returned, {}, "EncodedEvent"),
        (in_a_list, {}, "EncodedEvent"),
        (in_a_streaming_response, {}, "EncodedEvent"),
        (typed, {"response_class": StreamingResponse}, "EncodedEvent"),
        (validated, {"response_class": StreamingResponse}, "ServerSentEvent"),
        (validated_in_a_streaming_response, {}, "ServerSentEvent"),
    ],
)
def test_an_event_on_a_route_with_another_response_says_what_to_do(
    endpoint: Callable[[], Any], options: dict[str, Any], event: str
) -> None:
    app = FastAPI()
    app.get("/", **options)(endpoint)
    error = fetch(app).error
    while exceptions := getattr(error, "exceptions", ()):
        (error,) = exceptions
    assert str(error).endswith(event + WHAT_TO_DO)


def test_an_event_has_no_other_attribute() -> None:
    assert not hasattr(ENCODED, "encode")
    with pytest.raises(AttributeError, match=r"'EncodedEvent' object has no attr"):
        ENCODED.data  # type: ignore[attr-defined]  # noqa: B018
