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

__all__ = ["ValidatedEvent", "dump_compact_json", "dump_json", "jsonable_encoder"]


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
