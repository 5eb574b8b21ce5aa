"""The JavaScript and Python examples on the page "Clients".

The JavaScript runs in Chromium, on a page that the section's application serves.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import anyio
import pytest
from fastapi import FastAPI, Header, HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent

from ..docs.test_docs import sections_of
from ..support.apps import MS, Summaries
from ..support.server import TIMEOUT, serve
from .clients import CLIENTS_PAGE, FILE, HERE, documented_files, needed
from .proxies import nginx

SECTIONS = {section.title: section.blocks for section in sections_of(CLIENTS_PAGE)}


def blocks_of(language: str, *titles: str) -> list[str]:
    return [
        block.text
        for title in titles
        for block in SECTIONS[title]
        if block.language == language
    ]


def scripts(title: str) -> list[str]:
    """Return the blocks of JavaScript of a section, without those that are files."""
    return [text for text in blocks_of("javascript", title) if not FILE.match(text)]


def app_of(title: str) -> Any:
    """Run the Python blocks of a section, and return its application."""
    namespace: dict[str, Any] = {"__name__": "main"}
    for text in blocks_of("python", title):
        exec(text, namespace)
    return namespace["app"]


summaries = Summaries()
Watched = EventSourceResponse.with_options(on_close=summaries)


Step: TypeAlias = tuple[str, Any]


class Seen(NamedTuple):
    console: list[str]
    errors: list[str]
    text: str
    other: str | None = None
    """The text of the other tab, if there is one."""


class Browser:
    """Chromium, and `documented.mjs` that drives it."""

    def __init__(self) -> None:
        if not (HERE / "node_modules").exists():
            pytest.skip("npm's playwright-core IS MISSING: npm ci --prefix tests/e2e")
        self._process = subprocess.Popen(
            [needed("node"), str(HERE / "documented.mjs")],
            env={**os.environ, "CHROMIUM": needed("chromium")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def visit(self, url: str, *steps: Step) -> Seen:
        """Open a page in a new browser context, and take some steps there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(6 * TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            request = json.dumps({"url": url, "steps": steps})
            print(request, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line, "Node has ended; see what it printed"
        seen = json.loads(line)
        assert seen.pop("failure") is None, seen
        return Seen(**seen)

    def visit_section(
        self, app: FastAPI, script: str, *steps: Step, requests: list[str] | None = None
    ) -> Seen:
        """Serve an application with a page that runs a script, and visit the page."""
        add_page(app, {**documented_files(), "main.js": script})
        with serve(app if requests is None else count(app, requests)) as port:
            return self.visit(f"http://127.0.0.1:{port}/page", *steps)

    def close(self) -> None:
        with self._process:
            watchdog = threading.Timer(TIMEOUT, self._process.kill)
            watchdog.start()
            self._process.communicate()
            watchdog.cancel()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


def add_page(app: FastAPI, modules: dict[str, str]) -> None:
    """Add a page that runs the module `main.js`."""

    async def page(request: Request) -> Response:
        return HTMLResponse(
            '<!doctype html><link rel="icon" href="data:,"><div id="root"></div>'
            '<script type="module" src="/main.js"></script>'
        )

    async def module(request: Request) -> Response:
        text = modules[request.path_params["name"]]
        return Response(text, media_type="text/javascript")

    app.router.routes += [Route("/page", page), Route("/{name:str}.js", module)]
    modules.update({Path(name).stem: text for name, text in modules.items()})


@pytest.fixture
def requests() -> list[str]:
    """The requests that an application receives, without those for the page."""
    return []


def count(app: Any, requests: list[str]) -> Any:
    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not re.search(r"/page$|\.js$", scope["path"]):
            query = scope["query_string"].decode()
            path = scope["path"] + (f"?{query}" if query else "")
            requests.append(f"{scope['method']} {path}")
        await app(scope, receive, send)

    return counting


STEPS = ["1 fetch", "2 compile", "3 test", "done"]


def test_eventsource(browser: Browser, requests: list[str]) -> None:
    script, _ = scripts("`EventSource`")
    seen = browser.visit_section(
        app_of("`EventSource`"),
        script,
        ("logs", "done"),
        ("wait", 3500),  # longer than a browser waits before it reconnects
        requests=requests,
    )
    assert seen == Seen(STEPS, [], "")
    assert requests == ["GET /build"]


def test_an_eventsource_is_opened_again_after_an_error_response(
    browser: Browser,
    requests: list[str],
) -> None:
    """The server ends the stream, then answers with 503, and then recovers."""
    _, script = scripts("`EventSource`")
    app = app_of("`EventSource`")
    stream: Any = app

    async def restarting(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/build":
            await stream(scope, receive, send)
        elif len(requests) == 1:
            headers = [(b"content-type", b"text/event-stream")]
            await send(
                {"type": "http.response.start", "status": 200, "headers": headers}
            )
            body = b'retry: 10\n\nevent: step\ndata: {"name": "fetch"}\nid: 1\n\n'
            await send({"type": "http.response.body", "body": body})
        elif len(requests) < 4:
            await Response(status_code=503)(scope, receive, send)
        else:
            await stream(scope, receive, send)

    add_page(app, {**documented_files(), "main.js": script})
    with serve(count(restarting, requests)) as port:
        seen = browser.visit(f"http://127.0.0.1:{port}/page", ("logs", "done"))
    assert seen.console == STEPS
    assert requests[:2] == ["GET /build"] * 2  # its own attempt, and that was a 503
    assert requests[2:] == ["GET /build?after=1"] * 2


def test_fetch_and_abort(browser: Browser, requests: list[str]) -> None:
    [script] = scripts("`fetch`")
    seen = browser.visit_section(
        app_of("`fetch`"), script, ("logs", "AbortError"), requests=requests
    )
    assert seen == Seen(["ONE", "TWO", "AbortError"], [], "")
    assert requests == ["POST /chat"]


ASK = """
import {{ chat }} from "./chat.js";

const words = [];
try {{
  await chat("{prompt}", {{ onWord: (word) => words.push(word) }});
  console.log(words.join(" "));
}} catch (error) {{
  console.log(words.join(" "), String(error));
}}
console.log("end");
"""


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("say it", "SAY IT"),
        ("", ' Error: HTTP 422: {"detail":"say something"}'),
    ],
)
def test_a_chat_with_fetch(browser: Browser, prompt: str, expected: str) -> None:
    seen = browser.visit_section(
        app_of("`fetch`"), ASK.format(prompt=prompt), ("logs", "end")
    )
    assert seen.console == [expected, "end"]


def chat_app(ending: str) -> FastAPI:
    """Return an application that sends half a reply, or never ends its reply."""
    app = FastAPI()

    @app.post("/chat", response_class=Watched)
    async def chat() -> AsyncIterator[Any]:
        yield {"word": "A"}
        await anyio.sleep(3600 if ending == "endless" else 300 * MS)
        if ending == "aborted":
            raise LookupError("mid-stream")

    return app


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("aborted", "A TypeError: network error"),
        ("complete", "A Error: the reply is not complete"),
    ],
)
def test_half_a_reply_to_fetch_is_an_error(
    browser: Browser, ending: str, expected: str
) -> None:
    script = ASK.format(prompt="a")
    seen = browser.visit_section(chat_app(ending), script, ("logs", "end"))
    assert seen.console == [expected, "end"]


# React

MAIN = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Build } from "./Build.jsx";
import { Chat } from "./Chat.jsx";

const root = createRoot(document.getElementById("root"));
root.render(<StrictMode><Build url="/build" /><Chat /></StrictMode>);
const unmount = document.createElement("button");
unmount.textContent = "Unmount";
unmount.onclick = () => root.unmount();
document.body.append(unmount);
"""


def bundle_of(directory: Path, files: dict[str, str], *packages: str) -> str:
    """Bundle `main.js` with the development build of React, or skip the test."""
    modules = HERE / "node_modules"
    for package in ("esbuild", "react", *packages):
        if not (modules / package).exists():
            pytest.skip(f"npm's {package} IS MISSING: npm ci --prefix tests/e2e")
    for name, text in files.items():
        (directory / name).write_text(text)
    command = [str(modules / ".bin" / "esbuild"), "main.js", "--bundle"]
    command += ["--loader:.js=jsx", "--jsx=automatic", "--log-level=error"]
    command += ['--define:process.env.NODE_ENV="development"', "--format=esm"]
    return subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "NODE_PATH": str(modules)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    """The components of the page."""
    return bundle_of(tmp_path, {**documented_files(), "main.js": MAIN})


def test_react_under_strict_mode(
    browser: Browser, bundle: str, requests: list[str]
) -> None:
    app = app_of("`EventSource`")
    app.router.routes += app_of("`fetch`").router.routes
    seen = browser.visit_section(
        app,
        bundle,
        ("shows", "done"),
        ("click", "Send"),
        ("shows", "SAY IT"),
        ("click", "Send"),
        ("wait", 300),
        requests=requests,
    )
    shown = ["done", "fetch", "compile", "test", "SendStop", "SAY", "IT", "Unmount"]
    assert seen.text.split() == shown
    assert seen.errors == []
    # Strict mode mounts twice; the request of the first time may not get that far.
    assert requests.count("GET /build") in (1, 2)
    assert requests.count("POST /chat") == 2


def test_react_closes_its_streams(browser: Browser, bundle: str) -> None:
    summaries.clear()
    app = chat_app("endless")

    @app.get("/build", response_class=Watched)
    async def build() -> AsyncIterator[Any]:
        yield ServerSentEvent(event="step", data={"name": "fetch"}, id="1")
        await anyio.sleep(3600)

    add_page(app, {**documented_files(), "main.js": bundle})
    with serve(app) as port:
        seen = browser.visit(
            f"http://127.0.0.1:{port}/page",
            ("shows", "fetch"),
            ("click", "Send"),
            ("shows", "A"),
            ("click", "Stop"),
            ("wait", 300),
            ("click", "Send"),
            ("wait", 300),
            ("shows", "A"),
            ("click", "Unmount"),
            ("wait", 1000),
        )
    assert seen.errors == []
    assert seen.text.strip() == "Unmount"
    assert summaries.reasons.count("disconnected") in (3, 4)


# Authentication and CORS


def test_a_cookie_a_header_and_a_ticket(browser: Browser, requests: list[str]) -> None:
    title = "Authentication"
    cookie, header, ticket = scripts(title)
    seen = browser.visit_section(
        app_of(title), cookie, ("logs", '"Hello Ada"'), requests=requests
    )
    assert seen == Seen(['"Hello Ada"'], [], "")
    seen = browser.visit_section(app_of(title), header, ("logs", '"Hello Ada"'))
    assert seen.console == ["renew the token", '"Hello Ada"']
    seen = browser.visit_section(
        app_of(title), ticket, ("logs", '"Hello Ada"'), requests=requests
    )
    assert seen == Seen(['"Hello Ada"'], [], "")
    assert [request.split("=")[0] for request in requests] == [
        "POST /login",
        "GET /inbox",
        "POST /tickets",
        "GET /ticket/inbox?ticket",
    ]


def test_a_ticket_is_valid_once_and_a_401_closes(
    browser: Browser, requests: list[str]
) -> None:
    script = """
    const source = new EventSource("/ticket/inbox?ticket=used");
    source.onerror = () => console.log(source.readyState);
    """
    seen = browser.visit_section(
        app_of("Authentication"),
        script,
        ("logs", "2"),
        ("wait", 3500),
        requests=requests,
    )
    assert seen.console == ["2"]
    assert requests == ["GET /ticket/inbox?ticket=used"]


@contextlib.contextmanager
def page_and_api(
    script: str, requests: list[str], api: FastAPI | None = None
) -> Iterator[str]:
    """Serve a page at one origin, and the application of the section at another.

    Args:
        script: The script that the page runs.
        requests: Receives the requests to the application.
        api: Routes to add to the application.
    """
    site = FastAPI()
    modules = {**documented_files(), "main.js": script}
    add_page(site, modules)
    with serve(site) as port:
        origin = f"http://localhost:{port}"
        namespace: dict[str, Any] = {"__name__": "main"}
        [text] = blocks_of("python", "CORS")
        exec(text.replace("https://app.example.com", origin), namespace)
        app = namespace["app"]
        if api is not None:
            app.router.routes += api.router.routes
        with serve(count(app, requests)) as api_port:
            modules["main"] = script.replace(
                "https://api.example.com", f"http://localhost:{api_port}"
            )
            yield f"{origin}/page"


@pytest.mark.parametrize("kind", ["EventSource", "fetch"])
def test_cookies_across_origins(
    browser: Browser, kind: str, requests: list[str]
) -> None:
    script = scripts("CORS")[["EventSource", "fetch"].index(kind)]
    last = '"session abc, last event 7"'
    # A script has the cookie of its host, whatever the port.
    script = script.replace("\n\n", '\n\ndocument.cookie = "session=abc";\n', 1)
    with page_and_api(script, requests) as url:
        seen = browser.visit(url, ("logs", last))
    assert seen.errors == []
    if kind == "EventSource":
        assert seen.console == [last.replace("7", "none"), last]
        assert requests == ["GET /feed"] * 2
    else:
        assert seen.console == [last]
        assert requests == ["OPTIONS /feed", "GET /feed"]


@pytest.mark.parametrize(
    ("method", "headers", "preflight"),
    [
        ("GET", {}, False),
        ("GET", {"Accept": "text/event-stream"}, False),
        ("GET", {"Last-Event-ID": "7"}, True),
        ("GET", {"Authorization": "Bearer token"}, True),
        ("GET", {"Cache-Control": "no-cache"}, True),
        ("POST", {"Content-Type": "application/json"}, True),
    ],
)
def test_which_headers_have_a_preflight(
    browser: Browser,
    method: str,
    headers: dict[str, str],
    preflight: bool,
    requests: list[str],
) -> None:
    init = json.dumps({"method": method, "headers": headers})
    script = f"""
    await fetch("https://api.example.com/feed", {init}).catch(() => null);
    console.log("end");
    """
    with page_and_api(script, requests) as url:
        browser.visit(url, ("logs", "end"))
    assert requests[0] == ("OPTIONS /feed" if preflight else f"{method} /feed")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("unhandled", "TypeError: Failed to fetch"),
        ("handled", "403"),
    ],
)
def test_an_unhandled_error_looks_like_one_of_cors(
    browser: Browser, path: str, expected: str, requests: list[str]
) -> None:
    api = FastAPI()

    @api.get("/unhandled", response_class=EventSourceResponse)
    async def unhandled() -> AsyncIterator[int]:
        raise LookupError("a bug")
        yield 1

    @api.get("/handled", response_class=EventSourceResponse)
    async def handled() -> AsyncIterator[int]:
        raise HTTPException(403)
        yield 1

    script = f"""
    console.log(await fetch("https://api.example.com/{path}").then(
      (response) => response.status, String));
    """
    with page_and_api(script, requests, api) as url:
        seen = browser.visit(url, ("logs", expected))
    assert any("CORS" in error for error in seen.errors) == (path == "unhandled")


# Connections

MANY = """
const sources = [];
for (let number = 0; number < $STREAMS; number++) {
  const source = new EventSource("/open");
  source.onmessage = () => console.log("open");
  sources.push(source);
}
const timeout = AbortSignal.timeout(2000);
setTimeout(async () => {
  const { status } = await fetch("/answer", { signal: timeout }).catch(() => ({}));
  console.log(status ? "answered" : "waits");
}, 1500);
"""


@pytest.mark.parametrize(
    ("protocol", "streams", "expected"),
    [
        ("HTTP/1.1", 5, "answered"),
        ("HTTP/1.1", 6, "waits"),
        ("HTTP/2", 30, "answered"),
    ],
)
def test_six_connections(
    browser: Browser, protocol: str, streams: int, expected: str, tmp_path: Path
) -> None:
    app = FastAPI()

    @app.get("/open", response_class=EventSourceResponse)
    async def stream() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(3600)

    app.get("/answer")(lambda: None)
    add_page(app, {"main.js": MANY.replace("$STREAMS", str(streams))})
    with contextlib.ExitStack() as stack:
        url = f"http://127.0.0.1:{stack.enter_context(serve(app))}"
        if protocol == "HTTP/2":
            port = int(url.rpartition(":")[2])
            url = stack.enter_context(nginx(port, tmp_path, http2=True)).url
        seen = browser.visit(f"{url}/page", ("logs", expected))
    assert seen.console.count("open") == streams


# Python


def python_clients() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "main"}
    for text in blocks_of("python", "Python"):
        exec(text, namespace)
    return namespace


def test_httpx_sse(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(app_of("`EventSource`")) as port:
        python_clients()["print_build"](f"http://127.0.0.1:{port}/build")
    assert capsys.readouterr().out.splitlines() == STEPS[:-1]


@pytest.mark.parametrize("ping_form", ["block", "line"])
def test_httpx_sse_resumes_and_skips_pings(
    ping_form: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    app = FastAPI()
    response_class = EventSourceResponse.with_options(
        ping_interval=20 * MS, ping_form=ping_form
    )

    @app.get("/build", response_class=response_class)
    async def build(last_event_id: Annotated[int, Header()] = 0) -> AsyncIterator[Any]:
        if last_event_id == 2:
            yield ServerSentEvent(event="done", data={})
            return
        number = last_event_id + 1
        yield ServerSentEvent(event="step", data=number, id=str(number))
        await anyio.sleep(100 * MS)
        raise LookupError("mid-stream")

    read_events = python_clients()["read_events"]
    seen = []
    with serve(app) as port:
        for event in read_events(f"http://127.0.0.1:{port}/build", pause=10 * MS):
            seen.append((event.event, event.json()))
            if event.event == "done":
                break
    assert seen == [("step", 1), ("step", 2), ("done", {})]
    assert capsys.readouterr().out.count("reconnecting: peer closed") == 2


def test_openai(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_reply = python_clients()["print_reply"]
    print_reply(url, "Hello there")
    print_reply(url, "a cut reply")
    expected = ["Hello", "there", "a", "the reply is not complete"]
    assert capsys.readouterr().out.splitlines() == expected
