"""The scenes of the demo: what a client sees when a stream does not end as planned."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

pytest.importorskip("uvicorn")

from fastapi_sse_fast._demo.contestant import PACKAGES, Contestant
from fastapi_sse_fast._demo.scenes import SCENES, play

from ..support import releases
from ..support.eventsource import Event, parse

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="SIGTERM kills a process there"
)


@pytest.fixture(scope="module")
def played() -> dict[str, list[Event]]:
    """All scenes, one after the other on the same contestants."""

    async def main() -> dict[str, list[Event]]:
        contestants = [Contestant(package) for package in PACKAGES]
        events = {}
        try:
            for name, scene in SCENES.items():
                sent = [bytes(one) async for one in play(scene, contestants)]
                events[name] = parse(b"".join(sent)).events
        finally:
            for one in contestants:
                await one.kill()
        return events

    return asyncio.run(main())


def said(events: list[Event], package: str) -> tuple[list[str], str, str]:
    """The lines of a contestant, its result, and whether that is good."""
    data = [(event.type, json.loads(event.data)) for event in events]
    mine = [(kind, one) for kind, one in data if one["package"] == package]
    seconds = [one["seconds"] for kind, one in mine if kind == "line"]
    assert seconds == sorted(seconds)
    (result,) = [one for kind, one in mine if kind == "result"]
    lines = [one["text"] for kind, one in mine if kind == "line"]
    return lines, result["text"], result["outcome"]


def test_a_reply_is_saved_when_its_client_disconnects(
    played: dict[str, list[Event]],
) -> None:
    lines, result, outcome = said(played["disconnect"], "fastapi_sse_fast")
    assert lines == [
        "first token",
        "client disconnects after 20 tokens",
        "save() has completed",
    ]
    assert result.startswith("Reply saved after ")
    assert outcome == "good"


def test_a_reply_continues_when_the_page_is_reloaded(
    played: dict[str, list[Event]],
) -> None:
    assert said(played["reload"], "fastapi_sse_fast") == (
        [
            "page is reloaded after 20 tokens",
            "page is back: it reads the run",
            "reply is complete, all 50 tokens",
        ],
        "The reply continued",
        "good",
    )


def test_a_server_stops_and_its_clients_lose_nothing(
    played: dict[str, list[Event]],
) -> None:
    lines, result, outcome = said(played["restart"], "fastapi_sse_fast")
    assert sorted(lines[:2]) == ["GET /ticks: open", "POST /reply: open"]
    assert lines[2] == "SIGTERM to the server"
    assert lines[3].startswith("GET /ticks: connection closed after id ")
    assert lines[4] == "POST /reply: complete, all 50 tokens"
    assert lines[5].startswith("server has stopped, ")
    assert lines[6] == "server is started again"
    assert lines[7] == lines[3].replace("connection closed", "resumed")
    assert result.endswith(", nothing lost")
    assert outcome == "good"


def test_errors_of_a_model_are_errors_for_the_client(
    played: dict[str, list[Event]],
) -> None:
    assert said(played["fail"], "fastapi_sse_fast") == (
        ["busy model: 429", "failing model: 20 tokens, then an error"],
        "The client sees both errors",
        "good",
    )


@pytest.mark.skipif(releases.FASTAPI < (0, 165), reason="seen with FastAPI 0.165")
def test_what_the_clients_of_fastapi_see(played: dict[str, list[Event]]) -> None:
    lines, *result = said(played["disconnect"], "fastapi.sse")
    assert lines[-1] == "save() has not completed"
    assert result == ["Reply lost", "bad"]
    lines, *result = said(played["reload"], "fastapi.sse")
    assert lines[-1] == "page is back: there is no reply"
    assert result == ["Reply lost", "bad"]
    lines, *result = said(played["restart"], "fastapi.sse")
    assert "still not stopped after 5 s: SIGKILL" in lines
    assert result == ["Did not stop in 5 s", "bad"]
    assert said(played["fail"], "fastapi.sse") == (
        [
            "busy model: 200, an empty reply",
            "failing model: 20 tokens, then a normal end",
        ],
        "The client sees no error",
        "bad",
    )
