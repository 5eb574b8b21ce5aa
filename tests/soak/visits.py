"""Endings of streams, and clients that check what they receive."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

from tests.support.eventsource import Event, EventSource

from .app import GENERATORS

KINDS = [*GENERATORS, "returned-async", "returned-sync"]

PATIENCE = 120.0
"""Seconds after which something that has not arrived is a fault."""

Ends = Literal["complete", "broken", "refused", "left"]


class Ending(NamedTuple):
    """A way for a stream to end, and the behaviour of its client.

    Attributes:
        name: Name in the report.
        reason: Reason that `on_close` must get.
        ends: End that the client must see, if it stays connected.
        plan: Query of the request, see `app.Plan`.
        limit: Key in `app.LIMITS`.
        reads: Number of events that the client reads at first. 0: not even the head.
        stays: Seconds in which it then reads nothing. Infinity: until it is dropped.
        reads_on: Whether it then reads to the end.
        kinds: Kinds of generators that can end like this.
    """

    name: str
    reason: str
    ends: Ends
    plan: Mapping[str, Any]
    limit: str = "unlimited"
    reads: float = math.inf
    stays: float = 0.0
    reads_on: bool = False
    kinds: Iterable[str] = KINDS


PACED = {"pause": 0.002}
BIG = {"padding": 20_000}  # Sockets buffer a few megabytes.
FAILS = {"then": "fail"}

FINISHES = Ending("finishes", "finished", "complete", {"events": 20})
REFUSED = Ending(
    "fails before the first event",
    "error",
    "refused",
    {"events": 0, "then": "refuse"},
    kinds=[kind for kind in KINDS if kind != "grouped"],  # A group wraps errors.
)
LAST_WORDS = {"error": "failed", "max_duration": "farewell"}
"""The type of the last event by the reason of the end."""

FAILS_MIDWAY = Ending("fails", "error", "broken", {"events": 20, **FAILS})
INVALID = Ending(
    "yields what is invalid",
    "error",
    "broken",
    {"events": 20, "then": "yield what is invalid"},
    kinds=["typed", "typed-sync"],
)
LEFT_AT_ONCE = Ending("left at once", "disconnected", "left", PACED, reads=0)
LEFT = Ending("left", "disconnected", "left", PACED, reads=5)
FROZEN = Ending("frozen, then left", "disconnected", "left", BIG, reads=1, stays=0.15)
DROPPED = Ending(
    "frozen, then dropped",
    "send_timeout",
    "broken",
    BIG,
    limit="send_timeout",
    reads=1,
    stays=math.inf,
    reads_on=True,
)
CANCELLED = Ending(
    "is cancelled",
    "cancelled",
    "broken",
    {"events": 5, "then": "be cancelled", **PACED},
)

ENDINGS = [
    FINISHES,
    FINISHES._replace(name="finishes, paced", plan={"events": 20, **PACED}),
    REFUSED,
    FAILS_MIDWAY,
    FAILS_MIDWAY._replace(name="fails, paced", plan={"events": 5, **FAILS, **PACED}),
    INVALID,
    INVALID._replace(
        name="begins with what is invalid",
        ends="refused",
        plan={"events": 0, "then": "yield what is invalid"},
    ),
    Ending(
        "cancels itself",
        "error",
        "broken",
        {"events": 5, "then": "cancel"},
        kinds=["async", "typed", "returned-async"],
    ),
    LEFT_AT_ONCE,
    LEFT,
    LEFT._replace(name="left while busy", plan={}),
    LEFT._replace(
        name="left while idle", plan={"events": 1, "then": "wait"}, reads=1, stays=0.05
    ),
    FROZEN,
    DROPPED,
    Ending("lasts too long", "max_duration", "complete", PACED, limit="max_duration"),
    Ending(
        "lasts too long, busy", "max_duration", "complete", {}, limit="max_duration"
    ),
    CANCELLED,
]


def random_case(randomness: random.Random) -> tuple[str, Ending]:
    """Return a random kind of generator and a random ending."""
    number = randomness.randrange(1, 50)
    plan = {"pause": randomness.uniform(0.2, 1.0)}
    finite = {"events": number, **plan}
    big = {"events": 300, **BIG}
    stays = randomness.uniform(0.5, 3.0)
    frozen = FINISHES._replace(stays=stays, reads_on=True)
    weighted = [
        (60, FINISHES._replace(plan=finite)),
        (8, frozen._replace(name="freezes", plan=finite, reads=(number + 1) // 2)),
        (2, frozen._replace(name="freezes while busy", plan=big, reads=1)),
        (5, FAILS_MIDWAY._replace(plan={**finite, **FAILS})),
        (2, REFUSED),
        (2, INVALID),
        (10, LEFT._replace(plan=plan, reads=number)),
        (5, LEFT_AT_ONCE),
        (5, FROZEN._replace(stays=stays)),
        (2, DROPPED),
        (1, CANCELLED),
    ]
    weights, endings = zip(*weighted, strict=True)
    (ending,) = randomness.choices(endings, weights)
    # Only few are sync, because AnyIO has 40 threads for them.
    weights = tuple(0.03 if "sync" in kind else 1.0 for kind in ending.kinds)
    (kind,) = randomness.choices(list(ending.kinds), weights)
    return kind, ending


class Visit:
    """A connection of a client that checks each event on arrival.

    Args:
        stream: Unique number of the stream.
        kind: Kind of generator.
        ending: Ending of the stream.
    """

    def __init__(self, stream: int, kind: str, ending: Ending) -> None:
        self.stream = stream
        self.ending = ending
        self.ends: Ends = "left"
        self.events = 0
        self.may_be_shut_down = False
        query = urlencode({"stream": stream, **ending.plan})
        self._path = f"/{kind}/{ending.limit}?{query}"
        self._padding = b"x" * ending.plan.get("padding", 0)
        self._padded = 0
        self._source = EventSource()
        self._last_event_id = ""
        self._last_words = ""

    def __str__(self) -> str:
        return f"{self.ending.name}, {self._path}"

    async def make(self, port: int, *, reset: bool) -> None:
        """Open the stream, read it, and check its end.

        Args:
            port: Port of the server.
            reset: Whether the client disconnects with a TCP reset.

        Raises:
            AssertionError: The client has not received what was planned.
        """
        await asyncio.wait_for(self._make(port, reset=reset), PATIENCE)
        self._check_ending()

    async def _make(self, port: int, *, reset: bool) -> None:
        ending = self.ending
        async with connected(port, small=bool(self._padding), reset=reset) as (
            reader,
            writer,
        ):
            writer.write(f"GET {self._path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode())
            if ending.reads:
                await self._read_head(reader)
                await self._read(reader, ending.reads)
            if ending.stays < math.inf:
                await asyncio.sleep(ending.stays)
            else:
                while not await get(port, f"/over?stream={self.stream}"):
                    await asyncio.sleep(0.2)
            if ending.reads_on:
                await self._read(reader, math.inf)

    async def _read_head(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith((b"HTTP/1.1 403", b"HTTP/1.1 500")):
            self.ends = "refused"
        else:
            assert head.startswith(b"HTTP/1.1 200"), head

    async def _read(self, reader: asyncio.StreamReader, events: float) -> None:
        try:
            while self.ends == "left" and self.events < events:
                size = int(await reader.readuntil(b"\r\n"), 16)
                body = (await reader.readexactly(size + 2))[:-2]
                if body:
                    self._check(body)
                else:
                    self.ends = "complete"
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ends = "broken"

    def _check(self, body: bytes) -> None:
        if self._padding:  # It is only counted, because parsing it is slow.
            self._padded += body.count(b"x")
            body = body.replace(self._padding, b"")
        self._source.feed(body)
        for event in self._source.events:
            assert not self._last_words, f"{event} after {self._last_words}"
            if event.type in ("failed", "farewell"):
                self._last_words = event.type
            else:
                self._check_event(event)
        self._source.events.clear()

    def _check_event(self, event: Event) -> None:
        item = json.loads(event.data)
        found = (item["stream"], item["number"])
        assert found == (self.stream, self.events), f"{found} instead of {self.events}"
        named = self.events % 4 == 2  # See `app.event`.
        if named:
            self._last_event_id = str(self.events)
        assert event.type == ("item" if named else "message"), event
        assert event.last_event_id == self._last_event_id, event
        self.events += 1

    def _check_ending(self) -> None:
        ending = self.ending
        if self.may_be_shut_down and self._last_words == "farewell":
            assert self.ends != "refused"
        elif self.may_be_shut_down and self.ends == "broken":
            assert ending.stays or ending.ends == "broken", "broken by the shutdown"
        elif self.ends == "refused":  # It may be cancelled before the head.
            assert ending.reason == "cancelled" or ending.ends == "refused"
        else:
            assert self.ends == ending.ends, f"{self.ends}, not {ending.ends}"
            if ending.ends in ("complete", "broken"):
                last_words = LAST_WORDS.get(ending.reason, "")
                assert self._last_words == last_words, self._last_words
                events = ending.plan.get("events", self.events)
                if ending.reason == "cancelled":  # The last ones may be lost.
                    events = min(events, self.events)
                assert self.events == events, f"{self.events} events, not {events}"
        if self.ends == "complete":
            assert self._padded == self.events * len(self._padding), self._padded

    def wrong_in_record(self, record: list[str] | None) -> str:
        """Return what is wrong in the server's record, or an empty string."""
        if record is None:
            return "no record" if self.ending.reads else ""
        reasons = {self.ending.reason}
        steps = [["opened", "begun", "ended", "released"]]
        if self.may_be_shut_down:
            reasons |= {"shutdown", "send_timeout"}  # The timeout is short then.
        limited = self.ending.limit == "max_duration"  # It may wait for a thread.
        if self.may_be_shut_down or limited or not self.ending.reads:
            steps.append(["opened", "released"])
        # For a returned response, `on_close` is called before the dependency closes.
        noted = list(record)
        reason = noted.pop(-2 if "/returned-" in self._path else -1)
        if reason in reasons and noted in steps:
            return ""
        return f"{record}, not {steps[0]} and {' or '.join(reasons)}"


@contextlib.asynccontextmanager
async def connected(
    port: int, *, small: bool = False, reset: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a server.

    Args:
        port: Port of the server.
        small: Whether the client's receive buffer is small, to be full soon.
        reset: Whether to close the connection with a TCP reset.
    """
    connection = socket.socket()
    try:
        connection.setblocking(False)
        if small:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        if reset:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=8192)
    except BaseException:
        connection.close()
        raise
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def get(port: int, path: str) -> Any:
    """Return the parsed JSON of a response."""
    async with connected(port) as (reader, writer):
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return json.loads(body)
