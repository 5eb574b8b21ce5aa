"""The event class that applications use."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import fastapi.sse
from pydantic import BaseModel, ConfigDict

from . import _fallback
from ._core import encode_event, fill_event

if TYPE_CHECKING:
    from ._core import EncodedEvent
    from .options import Json


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    if model is ServerSentEvent:
        schema["description"] = inspect.getdoc(fastapi.sse.ServerSentEvent)


class ServerSentEvent(fastapi.sse.ServerSentEvent):
    """An event with control over `event`, `id`, `retry` and `comment`.

    This is a subclass of `fastapi.sse.ServerSentEvent` with a faster constructor.
    Fields, validation and errors are FastAPI's. `EncodedEvent` takes the same arguments
    and is several times faster still.

    Args:
        data: The payload, always sent as JSON: `data="hi"` is sent as `data: "hi"`.
            `None` sends no `data` field.
        raw_data: Text to send unchanged instead of `data`.
        event: The event name that `addEventListener` listens for. A single line.
        id: The value that a browser sends back as `Last-Event-ID`. A single line
            without NUL.
        retry: Milliseconds that a browser waits before it reconnects.
        comment: Text that clients ignore. Each of its lines is sent as a comment line.

    Raises:
        pydantic.ValidationError: A field is invalid, or both `data` and `raw_data` are
            set.

    Examples:
        >>> ServerSentEvent(data={"n": 1}, event="count", id="1").event
        'count'
    """

    # In OpenAPI documents, events keep the description of FastAPI's class.
    model_config = ConfigDict(json_schema_extra=_describe)

    # Type checkers derive the signature from the fields, as for any model.
    if not TYPE_CHECKING:

        def __init__(self, /, **fields: Any) -> None:
            # A subclass may have other defaults, fields or validators, so pydantic has
            # to initialize it.
            if type(self) is ServerSentEvent and fill_event(self, fields):
                return
            super().__init__(**fields)

        # Without this attribute pydantic would treat `__init__` as a custom one, and
        # call it during validation as well.
        __init__.__pydantic_base_init__ = True

    def encode(self, _: None = None, /, *, json: Json = "fastapi") -> EncodedEvent:
        r"""Return the event pre-encoded, so that it can be sent many times.

        Args:
            json: How `data` is written as JSON; see `StreamOptions`.

        Raises:
            ValueError: `data` cannot be encoded, or a field was assigned an invalid
                value.
            TypeError: `data` cannot be encoded.

        Examples:
            >>> ServerSentEvent(data=[1, 2], event="pair").encode()
            <EncodedEvent b'event: pair\ndata: [1, 2]\n\n'>
        """
        if _ is not None:
            # A `StreamingResponse` calls `encode(charset)`, as if the item were a str.
            raise TypeError(_fallback.what_to_do_with(self))
        return encode_event(self, json=json)
