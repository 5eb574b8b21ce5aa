"""A tracer provider for FastAPI's telemetry that keeps all spans."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from fastapi.telemetry import get_telemetry_data
from opentelemetry import trace


@dataclasses.dataclass
class Record:
    """A span, and the endpoint's arguments that were known while it was open."""

    name: str
    attributes: dict[str, Any]
    status: Any = None
    arguments: set[str] = dataclasses.field(default_factory=set)

    def see(self) -> None:
        data = get_telemetry_data()
        if data is not None and data.values is not None:
            self.arguments |= data.values.keys()


class Spans(trace.TracerProvider):
    """The spans of an application, in the order in which they began."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        return _Tracer(self.records)


class _Tracer(trace.Tracer):
    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def start_span(self, name: str, *_: Any, **options: Any) -> trace.Span:
        record = Record(name, dict(options.get("attributes") or {}))
        record.see()
        self._records.append(record)
        return _Span(record)

    @contextlib.contextmanager
    def _current(self, name: str, **options: Any) -> Iterator[trace.Span]:
        span = self.start_span(name, attributes=options.get("attributes"))
        with trace.use_span(span, True, False, False):
            yield span

    start_as_current_span: Any = _current


class _Span(trace.Span):
    def __init__(self, record: Record) -> None:
        self._record = record

    def end(self, end_time: int | None = None) -> None:
        self._record.see()

    def get_span_context(self) -> trace.SpanContext:
        return trace.INVALID_SPAN_CONTEXT

    def set_attributes(self, attributes: Any) -> None:
        self._record.attributes.update(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self._record.attributes[key] = value

    def add_event(self, *_: Any, **__: Any) -> None:
        raise AssertionError

    def update_name(self, name: str) -> None:
        self._record.name = name

    def is_recording(self) -> bool:
        return True

    def set_status(self, status: Any, description: str | None = None) -> None:
        self._record.status = status

    def record_exception(self, *_: Any, **__: Any) -> None:
        raise AssertionError
