"""What the Rust core falls back to for unusual values: FastAPI's own code.

Rust imports it by name. So does `event.py`: what freezes an application, such as
PyInstaller, reads import statements, and leaves out what nobody imports.
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
    "REFUSING",
    "ValidatedEvent",
    "dump_compact_json",
    "dump_json",
    "jsonable_encoder",
    "refuse",
    "what_to_do_with",
]


def what_to_do_with(event: object) -> str:
    """Say what is missing where an event is taken for data, or for a part of a body."""
    return (
        f"{type(event).__name__} is sent by an EventSourceResponse only: set "
        "response_class=EventSourceResponse (from fastapi_sse_fast) for a route that "
        "yields it, or return EventSourceResponse(...)"
    )


def refuse(event: object) -> Any:
    """What `jsonable_encoder` calls for an event."""
    raise TypeError(what_to_do_with(event))


def _refuse_in_pydantic(event: object) -> Any:
    # The only error that pydantic does not wrap in another one.
    raise PydanticSerializationError(what_to_do_with(event))


REFUSING = SchemaSerializer(
    core_schema.any_schema(
        serialization=core_schema.plain_serializer_function_ser_schema(
            _refuse_in_pydantic
        )
    )
)
"""What pydantic serializes an event with, as its `__pydantic_serializer__`."""


def dump_json(value: Any) -> str:
    """The JSON of what `jsonable_encoder` returned, as FastAPI's router makes it."""
    return json.dumps(_without_non_finite(value))


def dump_compact_json(value: Any) -> str:
    """The same without spaces and, but for what JSON and UTF-8 demand, unescaped."""
    encoded = _without_non_finite(value)
    text = json.dumps(encoded, ensure_ascii=False, separators=(",", ":"))
    # Only in strings can there be one; UTF-8 cannot say it.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _without_non_finite(value: Any) -> Any:
    # As FastAPI does since 0.143.3: values only, never the keys of a dict.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_non_finite(item) for item in value]
    return value
