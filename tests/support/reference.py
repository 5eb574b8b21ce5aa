"""The event-stream format in plain Python. The Rust core must give the same bytes.

It is written from the standard and from what FastAPI sends. It is slow, because it is
meant to be clear.
"""

from __future__ import annotations

import json
import math
from typing import Any

from fastapi.encoders import jsonable_encoder


def split_lines(text: str) -> list[str]:
    """Return the lines of a text. Only CRLF, CR and LF end a line."""
    lines = [""]
    previous = ""
    for character in text:
        if character == "\n" and previous == "\r":
            pass  # This is the second half of a CRLF.
        elif character in "\r\n":
            lines.append("")
        else:
            lines[-1] += character
        previous = character
    return lines


def frame(
    *,
    comment: str | None = None,
    event: str | None = None,
    data: str | None = None,
    id: str | None = None,
    retry: int | None = None,
) -> bytes:
    """Return the frame of an event."""
    text = ""
    if comment is not None:
        text += "".join(f": {line}\n" for line in split_lines(comment))
    if event is not None:
        text += f"event: {event}\n"
    if data is not None:
        text += "".join(f"data: {line}\n" for line in split_lines(data))
    if id is not None:
        text += f"id: {id}\n"
    if retry is not None:
        text += f"retry: {retry}\n"
    return (text + "\n").encode()


def dumps(value: Any) -> str:
    """Return the JSON of a value without an item type."""
    return json.dumps(finite(jsonable_encoder(value)))


def finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value
