"""Buffers and encoders of the Rust core, made as a stream makes them."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from fastapi_sse_fast._core import EventBuffer, ItemEncoder


def buffer_of(
    encoder: ItemEncoder | None = None,
    wake: Any = lambda: None,
    *,
    high_water: int = 1 << 20,
    time_slice: float = 3600.0,
) -> EventBuffer:
    return EventBuffer(
        encoder or ItemEncoder(),
        wake=wake,
        source=None,
        max_pending=high_water,
        time_slice=time_slice,
    )


def typed(item_type: Any) -> ItemEncoder:
    adapter = TypeAdapter(item_type)
    return ItemEncoder.typed(
        validate=adapter.validator.validate_python,
        serialize=adapter.serializer.to_json,
        invalid=lambda item, error: LookupError(item, error),
    )


def taken(buffer: EventBuffer) -> bytes:
    """Take all pending bytes, in as many sends as it takes."""
    parts = []
    while body := buffer.take():
        parts.append(body)
    return b"".join(parts)
