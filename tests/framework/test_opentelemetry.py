"""What traces of a stream look like, with the real SDK and the real instrumentation."""

from __future__ import annotations

import collections
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent, shutdown

from ..support.apps import Summaries, logged
from ..support.asgi import fetch

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode


class Traces:
    """A provider, and the spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def names(self) -> dict[str, int]:
        return dict(collections.Counter(span.name for span in self.spans))

    def app(self) -> FastAPI:
        pytest.importorskip("fastapi.telemetry", reason="this FastAPI has none")
        settings: Any = {"tracer_provider": self.provider, "operation_spans": False}
        return FastAPI(telemetry=settings)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_span_may_stay_open_over_a_yield(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    traces = Traces()
    app = traces.app()
    tracer = traces.provider.get_tracer("test")

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            with tracer.start_as_current_span("outer"):
                yield number
                await anyio.sleep(0.001)
                with tracer.start_as_current_span("inner"):
                    yield number

    def sync_items() -> Iterator[int]:
        for number in range(3):
            with tracer.start_as_current_span("outer"):
                yield number
                time.sleep(0.001)
                with tracer.start_as_current_span("inner"):
                    yield number

    app.get("/", response_class=EventSourceResponse)(
        items if kind == "async" else sync_items
    )
    fetch(app)
    assert traces.names == {"outer": 3, "inner": 3, "GET /": 1}
    parents = {span.context.span_id: span for span in traces.spans if span.context}
    for span in traces.spans:
        above = {"outer": "GET /", "inner": "outer"}.get(span.name)
        parent = parents[span.parent.span_id].name if span.parent else None
        assert parent == above
    assert caplog.records == []
    assert logged(caplog) == []


@pytest.mark.parametrize("farewell", [None, ServerSentEvent(comment="bye")])
@pytest.mark.parametrize("ending", ["finished", "disconnected", "shutdown", "error"])
def test_how_the_span_of_fastapi_ends(
    ending: str, farewell: ServerSentEvent | None
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        if ending == "error":
            await anyio.sleep(0.001)
            raise LookupError
        if ending == "shutdown":
            shutdown()
        if ending != "finished":
            await anyio.sleep(3600)

    traces, summaries = Traces(), Summaries()
    app = traces.app()
    response = EventSourceResponse.with_options(farewell=farewell, on_close=summaries)
    app.get("/", response_class=response)(items)
    fetch(app, disconnect_after=1 if ending == "disconnected" else None)
    assert summaries.reasons == [ending]
    (span,) = traces.spans
    assert span.attributes is not None
    error = {
        "disconnected": "ConnectionError",
        "error": "LookupError",
        "shutdown": None if farewell else "RuntimeError",
    }.get(ending)
    assert span.attributes.get("error.type") == error
    assert (span.status.status_code is StatusCode.ERROR) == (error is not None)
    assert span.attributes["http.response.status_code"] == 200


@pytest.mark.parametrize("excluded", [[], ["send"], ["send", "receive"]])
def test_the_instrumentation_records_a_span_for_every_event(
    excluded: list[str],
) -> None:
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.fastapi")

    async def items() -> AsyncIterator[int]:
        for number in range(5):
            yield number
            await anyio.sleep(0.001)

    traces = Traces()
    app = FastAPI()
    app.get("/", response_class=EventSourceResponse)(items)
    instrumentation.FastAPIInstrumentor.instrument_app(
        app, tracer_provider=traces.provider, exclude_spans=excluded or None
    )
    fetch(app)
    names = traces.names
    assert names.pop("GET /") == 1
    # One for the head, one for the end; the last `receive` waits for the disconnect.
    expected = {"GET / http send": 7, "GET / http receive": 2}
    assert names == {
        name: count
        for name, count in expected.items()
        if name.rpartition(" ")[2] not in excluded
    }


@pytest.mark.parametrize("ending", ["disconnected", "shutdown", "error"])
def test_the_instrumentation_knows_no_error_but_that_of_the_generator(
    ending: str,
) -> None:
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.fastapi")

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(0.001)
        if ending == "error":
            raise LookupError
        if ending == "shutdown":
            shutdown()
        await anyio.sleep(3600)

    traces = Traces()
    app = FastAPI()
    app.get("/", response_class=EventSourceResponse)(items)
    instrumentation.FastAPIInstrumentor.instrument_app(
        app, tracer_provider=traces.provider, exclude_spans=["send", "receive"]
    )
    fetch(app, disconnect_after=1 if ending == "disconnected" else None)
    (span,) = traces.spans
    assert (span.status.status_code is StatusCode.ERROR) == (ending == "error")
