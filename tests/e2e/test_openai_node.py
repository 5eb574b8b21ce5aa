"""`examples/chat.py` with OpenAI's SDK for Node."""

from __future__ import annotations

import json
import logging
import runpy
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

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
    if not (HERE / "node_modules" / "openai").exists():
        pytest.skip("npm's openai IS MISSING: npm ci --prefix tests/e2e")

    def ask(model: str = "replay", most: int = 10_000, **more: Any) -> dict[str, Any]:
        question = json.dumps({"model": model, "rate": 10_000, **more})
        done = subprocess.run(
            [needed("node"), str(HERE / "chat.mjs"), url, question, str(most)],
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
