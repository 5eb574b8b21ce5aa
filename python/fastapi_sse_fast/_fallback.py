"""What the Rust core falls back to for unusual values: FastAPI's own code."""

from __future__ import annotations

import json
import math
from typing import Any

from fastapi.encoders import jsonable_encoder
from fastapi.sse import ServerSentEvent as ValidatedEvent

__all__ = ["ValidatedEvent", "dump_compact_json", "dump_json"]


def dump_json(value: Any) -> str:
    """The JSON of a value without an item type, as FastAPI's router makes it."""
    return json.dumps(_without_non_finite(jsonable_encoder(value)))


def dump_compact_json(value: Any) -> str:
    """The same without spaces and, but for lone surrogates, with nothing escaped."""
    encoded = _without_non_finite(jsonable_encoder(value))
    text = json.dumps(encoded, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(encoded, separators=(",", ":"))
    return text


def _without_non_finite(value: Any) -> Any:
    # As FastAPI does since 0.143.3: values only, never the keys of a dict.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_non_finite(item) for item in value]
    return value
