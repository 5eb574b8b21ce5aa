"""Streams as real clients receive them."""

from __future__ import annotations

import subprocess
from urllib.parse import quote

import pytest

from ..support.eventsource import Event
from ..support.server import Server, get
from .app import EVENTS
from .clients import Client, Seen, needed, said

RECONNECTING = ["chromium", "eventsource", "fetch-event-source"]
DOCUMENTED = ["documented", "documented-in-chromium"]
ONE_CONNECTION = [*DOCUMENTED, "eventsource-parser", "httpx-sse", "curl"]
CLIENTS = RECONNECTING + ONE_CONNECTION


@pytest.mark.parametrize("client_name", CLIENTS)
def test_every_kind_of_event(client: Client, client_name: str, url: str) -> None:
    expected = [event for _, event in EVENTS]
    if client_name == "eventsource":
        # This client delivers no id with an event without one, but still remembers it.
        expected[8] = expected[8]._replace(last_event_id="")
    assert client(f"{url}/events").events == expected


@pytest.mark.parametrize("client_name", CLIENTS)
def test_50_000_events(client: Client, url: str) -> None:
    seen = client(f"{url}/many?n=50000")
    numbers = [str(number) for number in range(50_000)]
    assert [event.data for event in seen.events] == numbers
    assert [event.last_event_id for event in seen.events] == numbers


STATES_AFTER_ONE_EVENT = {
    # They reconnect, get status 204, and stop.
    "chromium": ["open", "reconnecting", "closed"],
    "eventsource": ["open", "reconnecting", "closed"],
    "fetch-event-source": ["ended"],
    "documented": ["ended"],
    "documented-in-chromium": ["ended"],
    "eventsource-parser": ["ended"],
    "httpx-sse": ["ended"],
    "curl": ["ended"],
}


@pytest.mark.parametrize("client_name", CLIENTS)
def test_a_clean_end(client: Client, client_name: str, url: str, run: str) -> None:
    seen = client(f"{url}/once?run={run}")
    assert seen == Seen([Event("a")], STATES_AFTER_ONE_EVENT[client_name])


@pytest.mark.parametrize("client_name", ONE_CONNECTION)
def test_an_error_in_mid_stream(client: Client, url: str) -> None:
    assert client(f"{url}/broken") == Seen([Event("a")], ["broken"])


STATES_AFTER_403 = {
    "chromium": ["closed"],
    "eventsource": ["closed"],
    # It would reconnect endlessly. The test stops it.
    "fetch-event-source": ["reconnecting", "reconnecting", "stopped"],
    "documented": ["refused"],
    "documented-in-chromium": ["refused"],
    "eventsource-parser": ["refused"],
    "httpx-sse": ["refused"],
    "curl": ["refused"],
}


@pytest.mark.parametrize("client_name", CLIENTS)
def test_http_403(
    client: Client, client_name: str, server: Server, url: str, run: str
) -> None:
    states = STATES_AFTER_403[client_name]
    assert client(f"{url}/forbidden?run={run}") == Seen([], states)
    requests = states.count("reconnecting") or 1
    assert len(said(server, run, times=requests)) == requests


@pytest.mark.parametrize(
    ("client_name", "ending"),
    [
        ("chromium", "clean"),
        ("chromium", "error"),
        ("eventsource", "clean"),
        ("eventsource", "error"),
        ("fetch-event-source", "error"),  # It stops at a complete response.
    ],
)
def test_reconnecting_loses_and_doubles_no_event(
    client: Client, ending: str, server: Server, url: str, run: str
) -> None:
    seen = client(f"{url}/resume?run={run}&ending={ending}")
    assert [int(event.data) for event in seen.events] == list(range(5000))
    last_event_ids = [line[0] for line in said(server, run, times=4)]
    if ending == "clean":
        assert last_event_ids == ["999", "1999", "2999", "3999"]


@pytest.mark.parametrize("client_name", RECONNECTING)
def test_retry_is_honoured(client: Client, server: Server, url: str, run: str) -> None:
    client(f"{url}/resume?run={run}&ending=error&n=5&retry=250")
    pauses = [float(line[1]) for line in said(server, run, times=4)]
    assert min(pauses) >= 0.24
    assert min(pauses) < 0.9  # Their defaults are 1 and 3 seconds.


@pytest.mark.parametrize(
    ("client_name", "last_event_id"),
    [("chromium", "2"), ("eventsource", "1"), ("fetch-event-source", "2")],
)
def test_an_id_without_data(
    client: Client, last_event_id: str, server: Server, url: str, run: str
) -> None:
    client(f"{url}/checkpoint?run={run}")
    assert said(server, run, times=1) == [[last_event_id]]


BETWEEN_EVENTS = {
    "ping": ": ping\n\n",
    "ping-line": ": ping\n",
    "retry": "retry: 5000\n\n",
    "retry-line": "retry: 5000\n",
}

EMPTY_EVENTS = {
    # It dispatches an event at every blank line.
    ("fetch-event-source", "ping"): 5,
    ("fetch-event-source", "retry"): 5,
    # It does so after an id, and after a `retry`.
    ("httpx-sse", "ping"): 3,
    ("httpx-sse", "retry"): 5,
}
"""The number of empty events that a client delivers although none was sent."""


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("between", BETWEEN_EVENTS)
@pytest.mark.parametrize("client_name", CLIENTS)
def test_what_stands_between_events(
    client: Client, client_name: str, between: str, size: int, url: str
) -> None:
    frames = ["", "data: a\n\n", "data: b\nid: 1\n\n", "", "data: 你\ndata: \n\n"]
    body = BETWEEN_EVENTS[between].join([*frames, "event: end\ndata: \n\n"])
    seen = client(f"{url}/parts?size={size}&body={quote(body)}").events
    empty = [event for event in seen if not event.data]
    assert len(empty) == EMPTY_EVENTS.get((client_name, between), 0)
    third_id = "" if client_name == "eventsource" else "1"
    assert [event for event in seen if event.data] == [
        Event("a"),
        Event("b", last_event_id="1"),
        Event("你\n", last_event_id=third_id),
    ]


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("client_name", DOCUMENTED)
def test_every_end_of_a_line(
    client: Client, client_name: str, end: str, size: int, url: str
) -> None:
    lines = ["\ufeffdata: 你", "data:  🦀", "", ": ping", "", "data", "unknown: x", ""]
    lines += ["event: e", "id: 1", "", "id: 2\0", "data:b:c\u2028d", "", "data: lost"]
    seen = client(f"{url}/parts?size={size}&body={quote(end.join(lines))}")
    expected = [Event("你\n 🦀"), Event(""), Event("b:c\u2028d", last_event_id="1")]
    assert seen == Seen(expected, ["ended"])


@pytest.mark.parametrize("client_name", CLIENTS)
def test_pings_in_a_pause(
    client: Client, client_name: str, server: Server, url: str
) -> None:
    assert get(server.port, "/pinging").count(b": ping\n\n") >= 3
    seen = client(f"{url}/pinging").events
    if client_name == "fetch-event-source":
        seen = [event for event in seen if event != Event("")]
    assert seen == [Event("a"), Event("b")]


def test_curl_prints_an_event_at_once(url: str) -> None:
    command = [needed("curl"), "--no-buffer", "--silent", f"{url}/silent?seconds=3600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline() == b"data: a\n"
        curl.kill()
