"""Clients of channels and runs, in the process of the test."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import anyio
from hypothesis import strategies as st

from fastapi_sse_fast import EventSourceResponse, Subscription

from .asgi import Application, scope
from .eventsource import Event, EventSource

TIMEOUT = 10.0
"""Seconds after which a test that waits has failed."""

ID = re.compile(r"([0-9A-Za-z]{8})\.(0|[1-9][0-9]*)")
"""A position in one log."""


class Id(NamedTuple):
    """A position, taken apart."""

    epoch: str
    offset: int

    @classmethod
    def of(cls, text: str) -> Id:
        match = ID.fullmatch(text)
        assert match is not None, f"{text!r} is no position"
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}"


def offset(text: str) -> int:
    """Return the offset of a position in one log."""
    return Id.of(text).offset


def moved(text: str, by: int) -> str:
    """Return a position that is so many events further."""
    position = Id.of(text)
    return str(position._replace(offset=position.offset + by))


class Subscriber:
    """A client of one stream, which reads it as a browser does.

    Args:
        app: A response, or an application.
        last_event_id: What the browser has from the connection before.
        method: Of the request.

    Attributes:
        status: Of the response.
        chunks: What has been sent, piece by piece.
        empty: Number of pieces that had nothing in them, before the end.
        complete: Whether the response is complete.
        is_blocked: Whether the stream waits for the client to take something.
        error: What the application has raised.
        waits: Whether each send waits for a moment. Otherwise, it is over in the step
            in which it begins, unless the client is frozen.
    """

    def __init__(
        self, app: Application, last_event_id: str = "", method: str = "GET"
    ) -> None:
        self._app = app
        self._method = method
        self._source = EventSource(last_event_id)
        self._news = anyio.Event()
        self._left = anyio.Event()
        self._takes = anyio.Event()
        self._takes.set()
        self.status: int | None = None
        self.chunks: list[bytes] = []
        self.empty = 0
        self.complete = False
        self.is_over = False
        self.is_blocked = False
        self.error: Exception | None = None
        self.waits = False

    # What the browser has

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def events(self) -> list[Event]:
        return self._source.events

    @property
    def last_event_id(self) -> str:
        """What the browser asks to continue from."""
        return self._source.last_event_id

    @property
    def data(self) -> list[Any]:
        """The data of the events that are neither gaps nor ends, which is JSON."""
        return [json.loads(each.data) for each in self.events if is_item(each)]

    @property
    def ids(self) -> list[str]:
        return [event.last_event_id for event in self.events]

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """The data of the gaps, each with its id."""
        return [
            {**json.loads(event.data), "id": event.last_event_id}
            for event in self.events
            if event.type == "gap"
        ]

    # What it does

    def leave(self) -> None:
        self._left.set()

    def freeze(self) -> None:
        """Take nothing more."""
        self._takes = anyio.Event()

    def thaw(self) -> None:
        self._takes.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what has been sent fulfils a condition."""
        with anyio.fail_after(TIMEOUT):
            while not condition():
                assert not self.is_over, f"the stream is over: {self.body!r}"
                await self._news.wait()

    async def has(self, count: int) -> list[Event]:
        """Wait for so many events, and return all."""
        await self.until(lambda: len(self.events) >= count)
        return self.events

    async def to_end(self) -> list[Event]:
        """Wait for the end of the stream, and return all events."""
        with anyio.fail_after(TIMEOUT):
            while not self.is_over:
                await self._news.wait()
        return self.events

    async def run(self) -> None:
        try:
            await self._app(scope(method=self._method), self._receive, self._send)
        except Exception as error:
            self.error = error
        finally:
            self.is_over = True
            self._tell()

    async def _receive(self) -> dict[str, Any]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self.waits or not self._takes.is_set():
            self.is_blocked = True
            await self._takes.wait()
            self.is_blocked = False
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            body = message.get("body", b"")
            if body:
                self.chunks.append(body)
                self._source.feed(body)
            self.complete = not message.get("more_body", False)
            self.empty += not body and not self.complete
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()


def is_item(event: Event) -> bool:
    """Whether an event was published, rather than added by the library."""
    return event.type not in ("gap", "end", "error")


@contextlib.asynccontextmanager
async def subscribed(
    *apps: Subscription | Application, last_event_id: str = "", method: str = "GET"
) -> AsyncIterator[Any]:
    """Connect a client, or several, and disconnect them in the end.

    Each has received something: the subscription has begun.
    """
    subscribers = [
        Subscriber(
            EventSourceResponse(app) if isinstance(app, Subscription) else app,
            last_event_id,
            method,
        )
        for app in apps
    ]
    async with anyio.create_task_group() as tasks:
        for subscriber in subscribers:
            tasks.start_soon(subscriber.run)
        try:
            for subscriber in subscribers:
                await until(lambda it=subscriber: it.chunks or it.is_over)  # type: ignore[misc]
            yield subscribers[0] if len(subscribers) == 1 else subscribers
        finally:
            for subscriber in subscribers:
                subscriber.thaw()
                subscriber.leave()


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    with anyio.fail_after(TIMEOUT):
        while not condition():
            await anyio.sleep(0.001)


class Work:
    """A generator function whose calls go step by step, as the test says."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._steps: list[Any] = []
        self._news = anyio.Event()

    def step(self, *items: Any) -> None:
        """Have it yield items."""
        self._steps += items
        self._news.set()

    def finish(self) -> None:
        self.step(StopAsyncIteration)

    def fail(self, error: BaseException) -> None:
        self.step(error)

    async def __call__(self) -> AsyncIterator[Any]:
        self.log.append("begun")
        try:
            while True:
                await self._news.wait()
                self._news = anyio.Event()
                while self._steps:
                    item = self._steps.pop(0)
                    if item is StopAsyncIteration:
                        return
                    if isinstance(item, BaseException):
                        raise item
                    yield item
        finally:
            with anyio.CancelScope(shield=True):  # for trio
                await anyio.sleep(0.001)
            self.log.append("closed")


def cursors(own: str, others: str) -> st.SearchStrategy[bytes]:
    """Return what clients may send, with real positions among it."""
    offsets = st.one_of(
        st.integers(min_value=0, max_value=12),
        st.sampled_from([2**31, 2**32, 2**53, 2**63, 2**64 - 1, 2**64, 10**40]),
    )
    epochs = st.sampled_from(
        [Id.of(own).epoch, Id.of(others).epoch, "Ab3dE9xZ", "a" * 32, "a" * 33, ""]
    )
    position = st.builds("{}.{}".format, epochs, offsets)
    text = st.one_of(
        position,
        st.lists(position, max_size=9).map("~".join),
        st.text(),
        st.text("0123456789.~aA+- "),
        st.just("9" * 10_000),
        st.just("~" * 10_000),
    )
    return st.one_of(text.map(lambda it: it.encode("utf-8", "replace")), st.binary())
