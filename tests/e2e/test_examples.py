"""The pages of the examples on channels and runs, in Chromium."""

from __future__ import annotations

import contextlib
import runpy
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
from starlette.responses import Response

from ..support.demo import EXAMPLES
from ..support.server import serve
from . import test_documented
from .test_documented import Browser

browser = test_documented.browser

EVENT_STREAMS = ("/inbox/events", "/chats/1/stream")

CUT = ("post", ["/cut", {}])
"""The step that breaks the connections of all open streams."""


class Connections:
    """An application whose event streams can be cut.

    Attributes:
        asked: The `Last-Event-ID` of each event stream, or how it began.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._open: list[anyio.CancelScope] = []
        self.asked: list[str] = []
        self.forget = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path")
        if path == "/cut":
            for connection in self._open:
                connection.cancel()
            await Response()(scope, receive, send)
        elif path in EVENT_STREAMS:
            headers = dict(scope["headers"])
            self.asked.append(headers.get(b"last-event-id", b"").decode())
            if self.forget and b"last-event-id" in headers:
                headers[b"last-event-id"] = b"another.1~life.2"
            scope["headers"] = [*headers.items()]
            with anyio.CancelScope() as connection:
                self._open.append(connection)
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)


@contextlib.contextmanager
def running(name: str) -> Iterator[tuple[str, Connections, dict[str, Any]]]:
    """Run an example. Yield its URL, its connections, and the names of its module."""
    names = runpy.run_path(str(EXAMPLES / name), run_name="main")
    connections = Connections(names["app"])
    with serve(connections, lifespan="on") as port:
        yield f"http://127.0.0.1:{port}/", connections, names


def notify(text: str, to: str | None = None) -> tuple[str, Any]:
    return ("post", ["/notifications", {"text": text, "to": to}])


def test_notifications_are_shown_once_and_in_order(browser: Browser) -> None:
    with running("notifications.py") as (url, connections, _):
        seen = browser.visit(
            url,
            notify("one"),
            ("shows", "one"),
            notify("of another user", to="bob"),
            notify("two", to="ada"),
            ("shows", "two"),
            CUT,
            notify("three"),  # while it is not connected
            ("shows", "three"),
            ("reload", None),
            ("shows", "one"),
            notify("four"),
            ("shows", "four"),
        )
    assert seen.text.split() == ["Notifications", "four", "three", "two", "one"]
    first, again, reloaded = connections.asked
    assert (first, reloaded) == ("", "")
    assert again.count("~") == 1


def test_notifications_are_loaded_again_after_a_gap(browser: Browser) -> None:
    with running("notifications.py") as (url, connections, _):
        connections.forget = True
        seen = browser.visit(
            url,
            notify("one"),
            ("shows", "one"),
            CUT,
            notify("two"),
            ("shows", "two"),
            notify("three"),
            ("shows", "three"),
        )
    assert seen.text.split() == ["Notifications", "three", "two", "one"]
    first, again, loaded = connections.asked
    assert (first, bool(again), loaded) == ("", True, "")


def numbers(last: int) -> str:
    return " ".join(map(str, range(1, last + 1)))


def test_an_answer_goes_on_when_the_page_is_reloaded(browser: Browser) -> None:
    with running("resumable_chat.py") as (url, connections, _):
        seen = browser.visit(
            url,
            ("fill", ["count_to", "20"]),
            ("click", "Ask"),
            ("contains", numbers(5)),
            ("reload", None),
            ("contains", numbers(12)),
            ("shows", "done"),
        )
    assert numbers(20) in seen.text
    assert seen.text.count("20") == 1
    # When it was loaded, for the answer, when it was reloaded.
    assert connections.asked == ["", "", ""]


def test_an_answer_goes_on_after_a_lost_connection(browser: Browser) -> None:
    with running("resumable_chat.py") as (url, connections, _):
        seen = browser.visit(
            url,
            ("fill", ["count_to", "20"]),
            ("click", "Ask"),
            ("contains", numbers(5)),
            CUT,
            ("shows", "done"),
        )
    assert numbers(20) in seen.text
    assert seen.text.count("20") == 1
    assert connections.asked[:2] == ["", ""]
    assert len(connections.asked) == 3
    assert connections.asked[2]


def test_an_answer_is_stopped_from_another_tab(browser: Browser) -> None:
    with running("resumable_chat.py") as (url, _, _):
        seen = browser.visit(
            url,
            ("click", "Ask"),
            ("contains", numbers(5)),
            ("clickInAnotherTab", "Stop"),
            ("shows", "cancelled"),
            ("click", "Ask"),
            ("contains", numbers(3)),
        )
    assert "100" not in seen.text


def test_a_second_question_is_refused(browser: Browser) -> None:
    with running("resumable_chat.py") as (url, _, _):
        browser.visit(
            url,
            ("click", "Ask"),
            ("contains", numbers(3)),
            ("click", "Ask"),
            ("shows", "The last answer is not complete."),
        )


def test_a_failure_is_shown(browser: Browser) -> None:
    async def answer(question: Any) -> AsyncIterator[int]:
        yield 1
        raise LookupError("gone")

    with running("resumable_chat.py") as (url, connections, names):
        names["ask"].__globals__["answer"] = answer
        browser.visit(
            url,
            ("click", "Ask"),
            ("shows", "failed"),
            ("wait", 3500),  # longer than a browser waits before it reconnects
        )
    assert connections.asked == ["", ""]
