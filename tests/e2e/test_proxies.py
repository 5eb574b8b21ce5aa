"""Streams through real proxies, and over HTTP/2."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest

from ..support.eventsource import EventSource, parse
from ..support.server import Server, serve_process
from .clients import Node, needed, said
from .proxies import Way, apache, caddy, express, haproxy, nginx

HTTP_1_1 = "proxy_http_version 1.1;"
GZIP = ("gzip on;", "gzip_types text/event-stream;")
NO_DELAY = "option http-no-delay"
ABORT = "option abortonclose"
DEFLATE = "AddOutputFilterByType DEFLATE text/event-stream"

Proxy: TypeAlias = Callable[[int, Path], contextlib.AbstractContextManager[Way]]

PROXIES: dict[str, Proxy] = {
    "nginx": lambda port, path: nginx(port, path, HTTP_1_1),
    "nginx-gzip": lambda port, path: nginx(port, path, HTTP_1_1, *GZIP),
    "nginx-http2": lambda port, path: nginx(port, path, HTTP_1_1, http2=True),
    "haproxy": lambda port, path: haproxy(port, path, NO_DELAY, ABORT),
    "caddy": caddy,
    "caddy-gzip": lambda port, path: caddy(port, path, "encode gzip"),
    "apache": apache,
    "apache-gzip": lambda port, path: apache(port, path, DEFLATE),
}
"""Proxies with the configuration that an event stream needs."""


@pytest.fixture(params=[*PROXIES, "hypercorn-http2"])
def way_and_server(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Way, Server]]:
    if request.param == "hypercorn-http2":
        with serve_process("hypercorn", "tests.e2e.app:app", "/events") as server:
            yield Way(f"http://127.0.0.1:{server.port}", http2=True), server
    else:
        server = request.getfixturevalue("server")
        with PROXIES[request.param](server.port, tmp_path) as way:
            yield way, server


def delays(way: Way, path: str = "/ticks") -> list[float]:
    """Return the seconds from the `yield` of each event to its arrival."""
    source = EventSource()
    arrived: list[float] = []
    with way.client() as client, client.stream("GET", path) as response:
        for data in response.iter_bytes():
            source.feed(data)
            arrived += [time.monotonic()] * (len(source.events) - len(arrived))
    return [
        at - float(event.data) for at, event in zip(arrived, source.events, strict=True)
    ]


def test_events_arrive_at_once(way_and_server: tuple[Way, Server]) -> None:
    way, _ = way_and_server
    streams = [delays(way) for _ in range(5)]
    assert statistics.median(stream[0] for stream in streams) < 0.1
    assert statistics.median(delay for stream in streams for delay in stream) < 0.1


def test_events_are_compressed_one_by_one(server: Server, tmp_path: Path) -> None:
    with nginx(server.port, tmp_path, HTTP_1_1, *GZIP) as way:
        with way.client() as client:
            assert client.get("/ticks").headers["content-encoding"] == "gzip"
        assert delays(way)[0] < 0.1
        # Without the header `X-Accel-Buffering: no`, nginx buffers events.
        assert delays(way, "/ticks?buffering=yes")[0] > 0.1


@pytest.mark.parametrize(
    ("inner_option", "outer_option", "at_once"),
    [
        ("", "", False),
        ("proxy_pass_header X-Accel-Buffering;", "", True),
        ("", "proxy_buffering off;", True),
    ],
)
def test_the_outer_of_two_nginxes_does_not_see_the_header(
    inner_option: str, outer_option: str, at_once: bool, server: Server, tmp_path: Path
) -> None:
    for name in ("inner", "outer"):
        (tmp_path / name).mkdir()
    with nginx(server.port, tmp_path / "inner", HTTP_1_1, inner_option) as inner:
        port = int(inner.url.rpartition(":")[2])
        options = [HTTP_1_1, *GZIP, outer_option]
        with nginx(port, tmp_path / "outer", *options) as way:
            assert (delays(way)[0] < 0.1) == at_once


def test_nginx_that_does_not_compress_keeps_no_events_back(
    server: Server, tmp_path: Path
) -> None:
    with nginx(server.port, tmp_path, HTTP_1_1) as way:
        assert delays(way, "/ticks?buffering=yes")[0] < 0.1


def test_no_transform_forbids_a_proxy_to_compress(server: Server) -> None:
    with express(server.port) as way, way.client() as client:
        for cache_control, encoding in [
            ("no-cache", "gzip"),
            ("no-cache, no-transform", None),
        ]:
            path = f"/ticks?cache_control={cache_control}"
            assert client.get(path).headers.get("content-encoding") == encoding
            assert (delays(way, path)[0] > 0.1) == (encoding == "gzip")


def test_haproxy_keeps_events_back_unless_told_not_to(
    server: Server, tmp_path: Path
) -> None:
    with haproxy(server.port, tmp_path) as way:
        assert delays(way)[0] > 0.1


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_pings_keep_a_stream_open_beyond_the_read_timeout(
    name: str, server: Server, tmp_path: Path
) -> None:
    if name == "nginx":
        proxy = nginx(server.port, tmp_path, HTTP_1_1, "proxy_read_timeout 1s;")
    else:
        proxy = haproxy(server.port, tmp_path, "timeout client 1s", "timeout server 1s")
    with proxy as way, way.client() as client:
        body = client.get("/pinging?seconds=2").content
        assert [event.data for event in parse(body).events] == ["a", "b", ""]
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/silent?seconds=2")


@pytest.mark.parametrize("path", ["/pinging", "/silent"])
def test_a_client_that_leaves_is_noticed(
    way_and_server: tuple[Way, Server],
    path: str,
    run: str,
    request: pytest.FixtureRequest,
) -> None:
    if "apache" in request.node.callspec.id and path == "/silent":
        pytest.skip("Apache notices only when it sends something, such as a ping")
    way, server = way_and_server
    with way.client() as client:
        with client.stream("GET", f"{path}?seconds=3600&run={run}") as response:
            assert next(response.iter_bytes()) == b"data: a\n\n"
    assert said(server, run, times=1) == [["closed"]]


def test_an_error_before_the_first_event_has_its_status(
    way_and_server: tuple[Way, Server],
) -> None:
    way, _ = way_and_server
    with way.client() as client:
        assert client.get("/forbidden?run=").status_code == 403


@pytest.mark.parametrize("name", PROXIES)
def test_an_error_in_mid_stream_breaks_it_off(
    name: str, server: Server, tmp_path: Path
) -> None:
    with PROXIES[name](server.port, tmp_path) as way, way.client() as client:
        with client.stream("GET", "/broken") as response:
            received = response.iter_bytes()
            assert next(received) == b"data: a\n\n"
            with pytest.raises(httpx.RemoteProtocolError):
                next(received)


def test_http_1_0_between_proxy_and_server_has_no_broken_streams(
    tmp_path: Path,
) -> None:
    """With HTTP/1.0, every response ends with its connection."""
    with (
        serve_process("uvicorn-h11", "tests.e2e.app:app", "/events") as server,
        nginx(server.port, tmp_path, "proxy_http_version 1.0;") as way,
        way.client() as client,
    ):
        assert client.get("/broken").content == b"data: a\n\n"


@pytest.mark.parametrize("ending", ["clean", "error"])
@pytest.mark.parametrize("name", PROXIES)
def test_chromium_reconnects_through_a_proxy(
    name: str, ending: str, node: Node, server: Server, tmp_path: Path, run: str
) -> None:
    needed("chromium")
    with PROXIES[name](server.port, tmp_path) as way:
        seen = node.see("chromium", f"{way.url}/resume?run={run}&ending={ending}")
    assert [int(event.data) for event in seen.events] == list(range(5000))
    assert len(said(server, run, times=4)) == 4 or ending == "error"
