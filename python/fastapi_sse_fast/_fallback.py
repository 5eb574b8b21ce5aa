"""FastAPI's own code, which the Rust core falls back to for unusual values.

Rust imports this module by name. `event.py` imports it as well, because tools that
freeze applications, such as PyInstaller, find modules by their import statements.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from fastapi.encoders import jsonable_encoder
from fastapi.sse import ServerSentEvent as ValidatedEvent
from pydantic_core import PydanticSerializationError, SchemaSerializer, core_schema

__all__ = [
    "REJECTING_SERIALIZER",
    "ValidatedEvent",
    "dump_compact_json",
    "dump_json",
    "jsonable_encoder",
    "reject_event",
    "what_to_do_with",
]


def what_to_do_with(event: object) -> str:
    """Return the error message for an event that another response would send."""
    return (
        f"{type(event).__name__} can only be sent by an EventSourceResponse: set "
        "response_class=EventSourceResponse (from fastapi_sse_fast) on a route that "
        "yields it, or return EventSourceResponse(...)"
    )


def reject_event(event: object) -> Any:
    """Raise an error. `jsonable_encoder` calls this for an event."""
    raise TypeError(what_to_do_with(event))


def _reject_in_pydantic(event: object) -> Any:
    # pydantic would wrap any other exception in this one.
    raise PydanticSerializationError(what_to_do_with(event))


REJECTING_SERIALIZER = SchemaSerializer(
    core_schema.any_schema(
        serialization=core_schema.plain_serializer_function_ser_schema(
            _reject_in_pydantic
        )
    )
)
"""The `__pydantic_serializer__` of an event."""


def dump_json(value: Any) -> str:
    """Return a result of `jsonable_encoder` as JSON, as FastAPI's router writes it."""
    return json.dumps(_without_non_finite(value))


def dump_compact_json(value: Any) -> str:
    """Return a result of `jsonable_encoder` as JSON without spaces and as UTF-8."""
    encoded = _without_non_finite(value)
    text = json.dumps(encoded, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate cannot be encoded as UTF-8. It can only occur in a string, where
    # it can be escaped.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _without_non_finite(value: Any) -> Any:
    # FastAPI does the same since 0.143.3, for values but not for the keys of a dict.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_non_finite(item) for item in value]
    return value
