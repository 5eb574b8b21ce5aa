"""`examples/chat.py`, and a run, with OpenAI's SDK for Node."""

from __future__ import annotations

import contextlib
import json
import logging
import runpy
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from fastapi_sse_fast import Runs, ServerSentEvent

from ..docs.test_channels_page import names_of
from ..support.demo import EXAMPLES, REPLY
from ..support.server import TIMEOUT, serve, wait_until
from .clients import HERE, needed

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = runpy.run_path(str(EXAMPLES / "chat.py"), run_name="chat")["app"]
    with serve(app) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def ask(url: str) -> Ask:
    """Open a stream and read all of it, or a number of tokens."""
    return asking(url)


def asking(url: str) -> Ask:
    if not (HERE / "node_modules" / "openai").exists():
        pytest.skip("npm's openai IS MISSING: npm ci --prefix tests/e2e")

    def ask(
        model: str = "replay", most: int = 10_000, again: str = "", **more: Any
    ) -> dict[str, Any]:
        question = json.dumps({"model": model, "rate": 10_000, **more})
        done = subprocess.run(
            [needed("node"), str(HERE / "chat.mjs"), url, question, str(most), again],
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        )
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    return ask


def test_the_tokens_make_the_reply(ask: Ask) -> None:
    seen = ask(stream_options={"include_usage": True})
    assert "".join(seen["tokens"]) == REPLY
    assert seen["role"] == "assistant"
    assert seen["reason"] == "stop"
    assert seen["usage"]["completion_tokens"] == len(seen["tokens"])


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"model": "gpt"}, ("NotFoundError", 404, "model_not_found")),
        ({"model": "replay-busy"}, ("RateLimitError", 429, "rate_limit_exceeded")),
        ({"max_tokens": 0}, ("BadRequestError", 400, "invalid_request")),
    ],
)
def test_an_error_before_the_first_token_has_its_status(
    ask: Ask, asked: dict[str, Any], error: tuple[str, int, str]
) -> None:
    seen = ask(**asked)
    assert seen["tokens"] == []
    raised = seen["error"]
    assert (raised["name"], raised["status"], raised["code"]) == error


def test_an_error_in_mid_stream_comes_after_the_tokens_before_it(ask: Ask) -> None:
    seen = ask("replay-broken")
    assert len(seen["tokens"]) == 10
    raised = seen["error"]
    assert (raised["name"], raised["code"]) == ("APIError", "model_failed")
    assert "The model has failed" in raised["message"]


def test_leaving_stops_the_model(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="fastapi_sse_fast._demo.chat")
    assert len(ask(rate=50, most=3)["tokens"]) == 3
    wait_until(lambda: len(caplog.messages) == 2)
    generated, ended = caplog.messages
    assert 3 <= int(generated.split()[1]) < len(REPLY) / 6
    assert ended.startswith("disconnected after ")


# A run, with the routes of the page on channels


Complete = Callable[..., AsyncIterator[Any]]


@contextlib.contextmanager
def served_run(complete: Complete | None = None) -> Iterator[tuple[Ask, Runs]]:
    pytest.importorskip("openai", exc_type=ImportError)  # which the section imports
    names = names_of("OpenAI's protocol")
    if complete is not None:
        names["complete"] = complete
    with serve(names["app"], lifespan="on") as port:
        yield asking(f"http://127.0.0.1:{port}/v1"), names["runs"]


def chunk(id: str, token: str) -> dict[str, Any]:
    return {"id": id, "choices": [{"index": 0, "delta": {"content": token}}]}


def test_a_run_is_read() -> None:
    with served_run() as (ask, _):
        assert ask()["tokens"] == ["Hel", "lo"]


def test_a_run_is_read_again_while_it_is_running() -> None:
    left = threading.Event()

    async def complete(id: str, body: Any) -> AsyncIterator[Any]:
        yield chunk(id, "Hel")
        while not left.is_set():
            await anyio.sleep(0.01)
        yield chunk(id, "lo")
        yield ServerSentEvent(raw_data="[DONE]")

    with served_run(complete) as (ask, _):
        seen = ask(most=1)
        assert (seen["tokens"], seen["id"]) == (["Hel"], "chatcmpl-1")
        assert ask(most=1, again=seen["id"])["tokens"] == ["Hel"]
        left.set()
        seen = ask(again=seen["id"])
        assert (seen["tokens"], seen["id"]) == (["Hel", "lo"], "chatcmpl-1")
        assert "error" not in seen


def test_a_run_that_fails_is_an_error() -> None:
    async def complete(id: str, body: Any) -> AsyncIterator[Any]:
        yield chunk(id, "Hel")
        raise LookupError("gone")

    with served_run(complete) as (ask, _):
        seen = ask()
        assert seen["tokens"] == ["Hel"]
        raised = seen["error"]
        assert (raised["name"], raised["code"]) == ("APIError", "failed")
        assert "gone" not in raised["message"]
        assert ask(again=seen["id"])["error"] == raised


def test_a_run_that_is_cancelled_looks_complete() -> None:
    async def complete(id: str, body: Any) -> AsyncIterator[Any]:
        yield chunk(id, "Hel")
        await runs.cancel(id)
        await anyio.sleep_forever()

    with served_run(complete) as (ask, runs):
        seen = ask()
    assert seen["tokens"] == ["Hel"]
    assert "error" not in seen
