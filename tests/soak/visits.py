"""Ways for a stream to end, and clients that check what they see of it."""

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
"""Seconds after which something that has not come is a fault."""

Ends = Literal["complete", "broken", "refused", "left"]


class Ending(NamedTuple):
    """A way for a stream to end, and what its client does.

    Attributes:
        name: For the report.
        reason: What `on_close` has to be told.
        ends: What the client has to see, if it does not leave.
        plan: The query, see `soak_app.Plan`.
        limit: One of `soak_app.LIMITS`.
        reads: Events that the client reads at first; 0 for not even the head.
        stays: Seconds that it reads nothing then; infinity: until it is dropped.
        reads_on: Whether it reads to the end after that.
        kinds: Of generators that can end so.
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
BIG = {"padding": 20_000}  # sockets hold a few megabytes
FAILS = {"then": "fail"}

FINISHES = Ending("finishes", "finished", "complete", {"events": 20})
REFUSED = Ending(
    "fails before the first event",
    "error",
    "refused",
    {"events": 0, "then": "refuse"},
    kinds=[kind for kind in KINDS if kind != "grouped"],  # which wraps the error
)
LAST_WORDS = {"error": "failed", "max_duration": "farewell"}
"""By the reason of the end."""

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
    """A kind of generator and an ending, for one of a thousand streams."""
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
    # Few are sync: anyio has 40 threads for them.
    weights = tuple(0.03 if "sync" in kind else 1.0 for kind in ending.kinds)
    (kind,) = randomness.choices(list(ending.kinds), weights)
    return kind, ending


class Visit:
    """A client's connection, whose events are checked as they come.

    Args:
        stream: The number of the stream, different from that of any other.
        kind: Of generator.
        ending: What happens to the stream.
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
        """The whole visit.

        Args:
            port: Of the server.
            reset: Whether a client that leaves does so without a proper goodbye.

        Raises:
            AssertionError: The client did not see what was planned.
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
        if self._padding:  # which is only counted: the parser takes its time
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
        named = self.events % 4 == 2  # see `soak_app.event`
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
        elif self.ends == "refused":  # cancelled before there was a head to send
            assert ending.reason == "cancelled" or ending.ends == "refused"
        else:
            assert self.ends == ending.ends, f"{self.ends}, not {ending.ends}"
            if ending.ends in ("complete", "broken"):
                last_words = LAST_WORDS.get(ending.reason, "")
                assert self._last_words == last_words, self._last_words
                events = ending.plan.get("events", self.events)
                if ending.reason == "cancelled":  # nobody waits for the last ones
                    events = min(events, self.events)
                assert self.events == events, f"{self.events} events, not {events}"
        if self.ends == "complete":
            assert self._padded == self.events * len(self._padding), self._padded

    def wrong_in_record(self, record: list[str] | None) -> str:
        """What the server noted otherwise than planned, if anything."""
        if record is None:
            return "no record" if self.ending.reads else ""
        reasons = {self.ending.reason}
        steps = [["opened", "begun", "ended", "released"]]
        if self.may_be_shut_down:
            reasons |= {"shutdown", "send_timeout"}  # which is short then
        limited = self.ending.limit == "max_duration"  # while it waits for a thread
        if self.may_be_shut_down or limited or not self.ending.reads:
            steps.append(["opened", "released"])
        # Of a response that a route of another class returns, it is told before.
        noted = list(record)
        reason = noted.pop(-2 if "/returned-" in self._path else -1)
        if reason in reasons and noted in steps:
            return ""
        return f"{record}, not {steps[0]} and {' or '.join(reasons)}"


@contextlib.asynccontextmanager
async def connected(
    port: int, *, small: bool = False, reset: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server.

    Args:
        port: Of the server.
        small: Whether the client's buffer is, so that it is full soon.
        reset: Whether it is closed without a proper goodbye.
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
    """What the application answers, from JSON."""
    async with connected(port) as (reader, writer):
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return json.loads(body)
