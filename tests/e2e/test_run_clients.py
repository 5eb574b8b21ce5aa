"""Clients that resume a run, with the routes of the page on channels, in Chromium."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_sse_fast import EventSourceResponse, Runs
from fastapi_sse_fast.runs import Wire
from fastapi_sse_fast.stores import MemoryStore

from ..docs.test_channels_page import names_of
from ..support.server import serve
from . import test_documented
from .test_documented import Browser, add_page, bundle_of
from .test_examples import LONGER_THAN_A_RETRY, SECTIONS, numbers

browser = test_documented.browser


class Requests:
    """An application, and the requests for its streams.

    Attributes:
        seen: The method and the status of each, and the `Last-Event-ID` if it has one.
        aborts_at_end: Whether to abort each response after the last event of a run.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.seen: list[str] = []
        self.aborts_at_end = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not re.fullmatch(
            r"/chats/1/answer|/api/chat(/1/stream)?", scope.get("path", "")
        ):
            await self._app(scope, receive, send)
            return
        last = dict(scope["headers"]).get(b"last-event-id", b"").decode()
        offset = re.sub(r"^\w{8}", "", last)

        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                note = f"{scope['method']} {message['status']} {offset}"
                self.seen.append(note.rstrip())
            await send(message)
            if self.aborts_at_end and b"event: end" in message.get("body", b""):
                raise ConnectionError

        await self._app(scope, receive, noting)


@contextlib.contextmanager
def served(app: Any, script: str) -> Iterator[tuple[str, Requests]]:
    """Serve an application with a page that runs a script."""
    add_page(app, {"main.js": script})
    requests = Requests(app)
    with serve(requests, lifespan="on") as port:
        yield f"http://127.0.0.1:{port}/page", requests


# `@microsoft/fetch-event-source`

ANSWER = """
const answer = document.createElement("p");
document.body.append(answer);
"""
REPORT = """
const report = document.createElement("p");
report.textContent = "it has returned";
document.body.append(report);
"""
HIDE = """
let hidden = false;
Object.defineProperty(document, "hidden", { get: () => hidden });
const button = document.createElement("button");
button.textContent = "Switch tabs";
button.onclick = () => {
  hidden = !hidden;
  document.dispatchEvent(new Event("visibilitychange"));
};
document.body.append(button);
"""


@pytest.fixture
def fetching(tmp_path: Path) -> str:
    [script] = [
        block.text
        for block in SECTIONS["A chat answer that survives a reload"]
        if block.language == "javascript" and "fetchEventSource" in block.text
    ]
    files = {"main.js": ANSWER + HIDE + script + REPORT}
    return bundle_of(tmp_path, files, "@microsoft/fetch-event-source")


def chats() -> dict[str, Any]:
    return names_of("A chat answer that survives a reload")


def test_fetch_event_source_reads_an_answer(browser: Browser, fetching: str) -> None:
    with served(chats()["app"], fetching) as (url, requests):
        seen = browser.visit(url, ("shows", "it has returned"))
    assert numbers(20) in seen.text
    assert requests.seen == ["POST 200"]


def test_fetch_event_source_resumes_after_a_sleep(
    browser: Browser, fetching: str
) -> None:
    names = chats()
    answer, calls = names["answer"], []

    def counted(question: Any) -> AsyncIterator[Any]:
        calls.append(question)
        events: AsyncIterator[Any] = answer(question)
        return events

    names["answer"] = counted
    script = fetching.replace("count_to: 20", "count_to: 30")
    with served(names["app"], script) as (url, requests):
        seen = browser.visit(
            url,
            ("contains", numbers(5)),
            ("sleep", None),
            LONGER_THAN_A_RETRY,  # The answer is complete, and retries fail.
            ("wake", None),
            ("shows", "it has returned"),
        )
    assert numbers(30) in seen.text
    assert seen.text.count("30") == 1
    first, again = requests.seen
    assert first == "POST 200"
    assert re.fullmatch(r"POST 200 \.\d+", again)
    assert len(calls) == 1


def test_fetch_event_source_resumes_when_its_tab_is_shown_again(
    browser: Browser, fetching: str
) -> None:
    script = fetching.replace("count_to: 20", "count_to: 60")
    with served(chats()["app"], script) as (url, requests):
        seen = browser.visit(
            url,
            ("contains", numbers(5)),
            ("click", "Switch tabs"),
            ("wait", 1000),
            ("click", "Switch tabs"),
            ("shows", "it has returned"),
        )
    assert numbers(60) in seen.text
    assert seen.text.count("60") == 1
    assert len(requests.seen) == 2


def test_fetch_event_source_stops_at_a_204(browser: Browser, fetching: str) -> None:
    script = fetching.replace('"end"', '"overlooked"')
    with served(chats()["app"], script) as (url, requests):
        requests.aborts_at_end = True
        browser.visit(url, ("contains", numbers(20)), ("shows", "it has returned"))
    first, *others, last = requests.seen
    assert first == "POST 200"
    # A browser may drop the last event if its connection is aborted at once.
    assert all(re.fullmatch(r"POST 200 \.\d+", other) for other in others)
    assert re.fullmatch(r"POST 204 \.\d+", last)


def test_fetch_event_source_stops_at_a_failure(browser: Browser, fetching: str) -> None:
    async def answer(question: Any) -> AsyncIterator[int]:
        yield 1
        raise LookupError("gone")

    names = chats()
    names["answer"] = answer
    with served(names["app"], fetching) as (url, requests):
        browser.visit(url, ("shows", "it has returned"))
    assert requests.seen == ["POST 200"]


def test_fetch_event_source_does_not_retry_an_error_response(
    browser: Browser, fetching: str
) -> None:
    script = fetching.replace("count_to: 20", 'count_to: "many"')
    with served(chats()["app"], script) as (url, requests):
        seen = browser.visit(url, ("wait", 1500))
    assert requests.seen == ["POST 422"]
    assert "Refused: HTTP 422" in seen.errors


# The AI SDK

AI_CHAT = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { AiChat } from "./AiChat.jsx";

const saved = await (await fetch("/api/chat/1")).json();
const root = createRoot(document.getElementById("root"));
root.render(<StrictMode><AiChat id="1" saved={saved} /></StrictMode>);
"""


@pytest.fixture
def using_ai(tmp_path: Path) -> str:
    [component] = [
        block.text for block in SECTIONS["The AI SDK"] if block.language == "jsx"
    ]
    files = {"AiChat.jsx": component, "main.js": AI_CHAT}
    return bundle_of(tmp_path, files, "ai", "@ai-sdk/react")


def ai_names() -> dict[str, Any]:
    return names_of("The AI SDK")


def test_use_chat_resumes_after_a_reload(browser: Browser, using_ai: str) -> None:
    script = using_ai.replace('text: "20"', 'text: "60"')
    with served(ai_names()["app"], script) as (url, requests):
        seen = browser.visit(
            url,
            ("shows", "ready"),
            ("click", "Send"),
            ("contains", numbers(5)),
            ("reload", None),
            ("contains", numbers(10)),
            ("shows", "streaming"),
            ("contains", numbers(60)),
            ("shows", "ready"),
            ("reload", None),
            ("contains", numbers(60)),
            ("shows", "ready"),
        )
    assert seen.text.split("\n\n")[:3] == ["60", numbers(60), "ready"]
    assert requests.seen == ["GET 204", "POST 200", "GET 200", "GET 204"]


def test_use_chat_is_stopped_from_another_tab(browser: Browser, using_ai: str) -> None:
    script = using_ai.replace('text: "20"', 'text: "100"')
    with served(ai_names()["app"], script) as (url, _):
        seen = browser.visit(
            url,
            ("shows", "ready"),
            ("click", "Send"),
            ("contains", numbers(5)),
            ("openAnotherTab", None),
            ("containsThere", numbers(8)),
            ("clickThere", "Stop"),
            ("showsThere", "ready"),
            ("shows", "ready"),
        )
    assert seen.text == seen.other
    question, answer, *_ = seen.text.split("\n\n")
    assert question == "100"
    assert answer.startswith(numbers(8))
    assert numbers(100) not in answer


def test_use_chat_reconnects_after_a_sleep(browser: Browser, using_ai: str) -> None:
    script = using_ai.replace('text: "20"', 'text: "60"')
    with served(ai_names()["app"], script) as (url, requests):
        seen = browser.visit(
            url,
            ("shows", "ready"),
            ("click", "Send"),
            ("contains", numbers(5)),
            ("sleep", None),
            ("shows", "network error"),
            ("wake", None),
            ("click", "Reconnect"),
            ("contains", numbers(60)),
            ("shows", "ready"),
        )
    assert seen.text.split("\n\n")[:3] == ["60", numbers(60), "ready"]
    assert requests.seen == ["GET 204", "POST 200", "GET 200"]


def test_use_chat_shows_errors(browser: Browser, using_ai: str) -> None:
    script = using_ai.replace('text: "20"', 'text: "many"')
    assert script != using_ai
    with served(ai_names()["app"], script) as (url, _):
        browser.visit(
            url, ("shows", "ready"), ("click", "Send"), ("shows", "Send a number.")
        )


def test_use_chat_reports_a_run_that_fails(browser: Browser, using_ai: str) -> None:
    async def answer(chat: Any) -> AsyncIterator[Any]:
        yield {"type": "start"}
        raise LookupError("gone")

    names = ai_names()
    names["answer"] = answer
    with served(names["app"], using_ai) as (url, _):
        seen = browser.visit(
            url,
            ("shows", "ready"),
            ("click", "Send"),
            ("contains", "validation failed"),
        )
    assert "gone" not in seen.text


def test_use_chat_replaces_an_answer_that_it_has_already(
    browser: Browser, using_ai: str
) -> None:
    names = ai_names()
    # As if the run ended while the page is loaded: the answer is saved, and is sent.
    status = names["runs"].status

    async def running(name: str) -> str | None:
        return await status(name) and "running"

    names["runs"].status = running
    with served(names["app"], using_ai) as (url, requests):
        seen = browser.visit(
            url,
            ("shows", "ready"),
            ("click", "Send"),
            ("contains", numbers(20)),
            ("shows", "ready"),
            ("reload", None),
            ("wait", 500),
            ("shows", "ready"),
        )
    assert requests.seen == ["GET 204", "POST 200", "GET 200"]
    assert seen.text.split("\n\n")[:3] == ["20", numbers(20), "ready"]


TRANSPORT = """
import { DefaultChatTransport } from "ai";

const transport = new DefaultChatTransport();
try {
  const stream = await transport.reconnectToStream({ chatId: "1" });
  for await (const { type } of stream) console.log(type);
  console.log("end");
} catch (error) {
  console.log(error.name);
}
"""


@pytest.mark.parametrize(
    ("wire", "last"), [("openai", "end"), ("events", "AI_TypeValidationError")]
)
def test_the_transport_of_the_ai_sdk_needs_the_wire_of_openai(
    browser: Browser, tmp_path: Path, wire: Wire, last: str
) -> None:
    script = bundle_of(tmp_path, {"main.js": TRANSPORT}, "ai")
    store = MemoryStore()
    runs = Runs(store)
    app = FastAPI(lifespan=store.lifespan)

    async def answer() -> AsyncIterator[Any]:
        yield {"type": "start"}
        yield {"type": "finish"}

    @app.get("/api/chat/1/stream")
    async def stream() -> EventSourceResponse:
        run = await runs.start("answer", answer)
        return EventSourceResponse(run.subscribe(wire=wire))

    with served(app, script) as (url, _):
        seen = browser.visit(url, ("logs", last))
    assert seen.console == ["start", "finish", last]
