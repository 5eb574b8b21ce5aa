"""The pages of the examples on channels and runs, in Chromium."""

from __future__ import annotations

import contextlib
import runpy
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
from starlette.responses import Response

from ..docs.test_channels_page import PAGE, names_of
from ..docs.test_docs import sections_of
from ..support.demo import EXAMPLES
from ..support.server import serve
from . import test_documented
from .test_documented import Browser, add_page

browser = test_documented.browser

EVENT_STREAMS = ("/inbox/events", "/chats/1/stream")

SECTIONS = {section.title: section.blocks for section in sections_of(PAGE)}
"""Of the page on channels."""

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
            ("openAnotherTab", None),
            ("containsThere", numbers(5)),
            ("clickThere", "Stop"),
            ("showsThere", "cancelled"),
            ("shows", "cancelled"),
            ("click", "Ask"),
            ("contains", numbers(3)),
        )
    assert "100" not in seen.text


def test_two_tabs_have_the_same_answer(browser: Browser) -> None:
    with running("resumable_chat.py") as (url, connections, _):
        seen = browser.visit(
            url,
            ("fill", ["count_to", "20"]),
            ("click", "Ask"),
            ("contains", numbers(5)),
            ("openAnotherTab", None),
            ("containsThere", numbers(8)),
            ("shows", "done"),
            ("showsThere", "done"),
        )
    assert numbers(20) in seen.text
    assert seen.other == seen.text
    assert len(connections.asked) == 3


LONGER_THAN_A_RETRY = ("wait", 3500)
"""Chromium waits 3 s before it reconnects."""


def test_an_answer_goes_on_after_a_sleep(browser: Browser) -> None:
    with running("resumable_chat.py") as (url, connections, _):
        seen = browser.visit(
            url,
            ("fill", ["count_to", "30"]),
            ("click", "Ask"),
            ("contains", numbers(5)),
            ("sleep", None),
            LONGER_THAN_A_RETRY,  # The answer is complete, and the first retry fails.
            ("wake", None),
            ("shows", "done"),
        )
    assert numbers(30) in seen.text
    assert seen.text.count("30") == 1
    assert connections.asked[:2] == ["", ""]
    assert len(connections.asked) == 3
    assert connections.asked[2]


def test_notifications_are_complete_after_a_sleep(browser: Browser) -> None:
    with running("notifications.py") as (url, connections, _):
        seen = browser.visit(
            url,
            notify("one"),
            ("shows", "one"),
            ("sleep", None),
            notify("two"),
            notify("three"),
            LONGER_THAN_A_RETRY,
            ("wake", None),
            ("shows", "three"),
            notify("four"),
            ("shows", "four"),
        )
    assert seen.text.split() == ["Notifications", "four", "three", "two", "one"]
    assert len(connections.asked) == 2


SHOW = """
const list = document.querySelector("#root");
const print = (text) => {
  list.append(document.createElement("p"));
  list.lastChild.textContent = text;
};
const show = ([symbol, price]) => print(`${symbol} ${price}`);
"""
SHOW_GAP = """
source.addEventListener("gap", (event) => {
  const { reason, missed } = JSON.parse(event.data);
  print(`gap: ${reason}, ${missed} missed`);
});
"""


def test_a_gap_is_shown_if_the_history_is_trimmed_during_a_sleep(
    browser: Browser,
) -> None:
    """The ticker of the page on channels, whose history is of two events."""
    blocks = SECTIONS["A ticker"]
    [script] = [block.text for block in blocks if block.language == "javascript"]
    app = names_of("A ticker")["app"]
    add_page(app, {"main.js": SHOW + script + SHOW_GAP})

    def post(symbol: str, price: int) -> tuple[str, Any]:
        return ("post", [f"/prices/{symbol}?price={price}", None])

    with serve(app, lifespan="on") as port:
        seen = browser.visit(
            f"http://127.0.0.1:{port}/page",
            post("ACME", 1),
            ("shows", "ACME 1"),
            ("sleep", None),
            *[post("ACME", price) for price in range(2, 6)],
            post("INIT", 7),
            ("wake", None),
            ("shows", "gap: trimmed, 3 missed"),
            post("INIT", 8),
            ("shows", "INIT 8"),
        )
    assert seen.text.split("\n\n") == [
        "ACME 1",
        "gap: trimmed, 3 missed",
        "ACME 5",  # the snapshot
        "INIT 7",
        "ACME 5",  # the oldest event that is kept
        "INIT 7",
        "INIT 8",
    ]


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
