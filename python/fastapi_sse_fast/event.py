"""The event that applications yield."""

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
    """One event, for control over `event`, `id`, `retry` and `comment`.

    A subclass of `fastapi.sse.ServerSentEvent` with a faster constructor; fields,
    validation, errors and everything pydantic are FastAPI's. For the hot path of a
    stream see `EncodedEvent`, which takes the same arguments and is several times
    cheaper still.

    Args:
        data: Payload, always sent as JSON: `data="hi"` is `data: "hi"` on the wire.
            `None` sends no data.
        raw_data: Text that is sent as it is, instead of `data`.
        event: Name that `addEventListener` listens for; a single line.
        id: What a browser sends back as `Last-Event-ID`; a single line without NUL.
        retry: Milliseconds that a browser waits before it reconnects.
        comment: Lines that every client ignores.

    Raises:
        pydantic.ValidationError: A field has the wrong type or breaks its rule, or both
            `data` and `raw_data` are set.

    Examples:
        >>> ServerSentEvent(data={"n": 1}, event="count", id="1").event
        'count'
    """

    # OpenAPI documents describe an event in FastAPI's words.
    model_config = ConfigDict(json_schema_extra=_describe)

    # To type checkers the signature is that of the fields, as in any model.
    if not TYPE_CHECKING:

        def __init__(self, /, **fields: Any) -> None:
            # A subclass can have other defaults, fields or validators: pydantic knows
            # them.
            if type(self) is ServerSentEvent and fill_event(self, fields):
                return
            super().__init__(**fields)

        # Without this mark pydantic takes ours for a custom constructor and calls it
        # during validation too.
        __init__.__pydantic_base_init__ = True

    def encode(self, _: None = None, /, *, json: Json = "fastapi") -> EncodedEvent:
        r"""Makes a ready frame of it, to be sent any number of times.

        Args:
            json: How `data` is spelled; see `StreamOptions`.

        Raises:
            ValueError: `data` cannot be encoded, or a field that was assigned to breaks
                its rule.
            TypeError: `data` cannot be encoded.

        Examples:
            >>> ServerSentEvent(data=[1, 2], event="pair").encode()
            <EncodedEvent b'event: pair\ndata: [1, 2]\n\n'>
        """
        if _ is not None:
            # A `StreamingResponse` takes it for text, and gives the charset.
            raise TypeError(_fallback.what_to_do_with(self))
        return encode_event(self, json=json)
