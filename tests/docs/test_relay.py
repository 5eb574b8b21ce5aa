"""`examples/relay.py` and `relay_bytes.py` between a client and an upstream model.

All three speak over real sockets. The documentation shows the same code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import runpy
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from fastapi_sse_fast import EncodedEvent, EventSourceResponse

from ..support.demo import EXAMPLES
from ..support.eventsource import parse
from ..support.server import BROKEN_OFF, PLAIN, TIMEOUT, serve, wait_until

if TYPE_CHECKING:
    import openai
else:  # it has no build for some Pythons
    openai = pytest.importorskip("openai", exc_type=ImportError)

PAGE = EXAMPLES.parent / "docs" / "tokens.md"
RELAYS = {"relay.py": "/chat", "relay_bytes.py": "/v1/chat/completions"}


class Upstream:
    """A server that behaves as the model that is asked for is called.

    Attributes:
        log: What it has sent and closed, and what it was asked.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.complete)
        self.app.exception_handler(HTTPException)(self.refuse)

    async def complete(
        self, body: dict[str, Any], request: Request
    ) -> EventSourceResponse:
        self.asked.append({**body, "key": request.headers["authorization"]})
        return EventSourceResponse(self.reply(body["model"]), error_window=5.0)

    async def reply(self, model: str) -> AsyncIterator[bytes | EncodedEvent]:
        self.log.append("begun")
        try:
            if model == "busy":
                raise HTTPException(429, "slow down")
            if model == "unauthorized":
                raise HTTPException(401, "wrong key")
            if model == "silent":
                await anyio.sleep_forever()
            if model == "fails-at-once":
                yield self.error()
                return
            for token in ["Hel", "lo"]:
                yield self.token(token)
                await anyio.sleep(0.01)
            if model == "breaks":
                raise ConnectionError
            if model == "breaks-in-an-event":
                yield bytes(self.token("!"))[:20]
                raise ConnectionError
            if model == "fails":
                yield self.error()
                return
            while model == "endless":
                yield self.token("!")
                await anyio.sleep(0.01)
            yield EncodedEvent(raw_data="[DONE]")
        finally:
            self.log.append("closed")

    def token(self, text: str) -> EncodedEvent:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        return EncodedEvent(data={"id": "1", "choices": [choice]}, json="compact")

    def error(self) -> EncodedEvent:
        return EncodedEvent(data={"error": {"message": "out of memory"}})

    async def refuse(self, _: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        body = {"error": {"message": error.detail, "code": "refused"}}
        # Without it, OpenAI's client would try again after a while.
        return JSONResponse(body, error.status_code, {"x-should-retry": "false"})


def names_of(file: str, base_url: str) -> dict[str, Any]:
    """The names of a relay to an upstream."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", base_url)
        patch.setenv("OPENAI_API_KEY", "key")
        return runpy.run_path(str(EXAMPLES / file), run_name="relay")


@contextlib.contextmanager
def relay_to(base_url: str, file: str) -> Iterator[str]:
    with serve(names_of(file, base_url)["app"], lifespan="on") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture(scope="module")
def upstream_url(upstream: Upstream) -> Iterator[str]:
    with serve(upstream.app) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(autouse=True)
def nothing_is_left(upstream: Upstream) -> Iterator[None]:
    upstream.log.clear()
    yield
    wait_until(lambda: upstream.log.count("begun") == upstream.log.count("closed"))


@pytest.fixture(scope="module", params=RELAYS)
def relay(request: pytest.FixtureRequest) -> str:
    """The file of a relay."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def url(upstream_url: str, relay: str) -> Iterator[str]:
    """Of the route of a relay."""
    with relay_to(upstream_url, relay) as url:
        yield url + RELAYS[relay]


def question(model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hi"}]
    return {"text": "Hi", "model": model, "messages": messages}


@contextlib.contextmanager
def asked(url: str, model: str) -> Iterator[httpx.Response]:
    with httpx.stream("POST", url, json=question(model), **PLAIN) as response:
        yield response


def body_of_aborted(response: httpx.Response) -> str:
    """What arrives of a response that is not complete."""
    parts: list[str] = []
    with contextlib.suppress(*BROKEN_OFF):
        parts.extend(response.iter_text())
        raise AssertionError("the response is complete")
    return "".join(parts)


def data_of(body: str) -> list[str]:
    """The data of all events, and of chunks of a completion the token."""
    texts = []
    for event in parse(body.encode()).events:
        data = {} if event.data == "[DONE]" else json.loads(event.data)
        if isinstance(data, dict) and "choices" in data:
            data = {"text": data["choices"][0]["delta"]["content"]}
        is_token = isinstance(data, dict) and "text" in data
        texts.append(data["text"] if is_token else event.data)
    return texts


# What works


def test_the_tokens_arrive(url: str, upstream: Upstream) -> None:
    with asked(url, "hello") as response:
        assert response.status_code == 200
        response.read()
    assert data_of(response.text) == ["Hel", "lo", "[DONE]"]
    assert upstream.asked[-1]["key"] == "Bearer key"
    assert upstream.asked[-1]["stream"] is True
    assert upstream.asked[-1]["messages"] == [{"role": "user", "content": "Hi"}]


def test_a_token_does_not_wait_for_the_next_one(url: str, upstream: Upstream) -> None:
    with asked(url, "endless") as response:
        body = ""
        for text in response.iter_text():
            body += text
            if body.count("data:") >= 3:
                break
        assert upstream.log == ["begun"]


# Clients that disconnect


def test_a_disconnect_ends_the_upstream_request(url: str, upstream: Upstream) -> None:
    with asked(url, "endless") as response:
        next(response.iter_raw())
        assert upstream.log == ["begun"]
    wait_until(lambda: upstream.log == ["begun", "closed"])


def test_a_disconnect_before_the_first_token_does_too(
    url: str, upstream: Upstream
) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(**PLAIN) as client:
            # The head waits for the first token.
            reply = asyncio.ensure_future(client.post(url, json=question("silent")))
            while not upstream.log:
                await asyncio.sleep(0.002)
            reply.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reply

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    wait_until(lambda: upstream.log == ["begun", "closed"])


# Errors before the first token


def test_an_upstream_that_is_busy_is_a_429(url: str, relay: str) -> None:
    with asked(url, "busy") as response:
        response.read()
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/json"
    if relay == "relay_bytes.py":
        assert response.json()["error"]["message"] == "slow down"
    else:
        assert response.json() == {"detail": "The model is not available."}


def test_another_error_keeps_its_status_only_as_bytes(url: str, relay: str) -> None:
    with asked(url, "unauthorized") as response:
        response.read()
    assert response.status_code == (401 if relay == "relay_bytes.py" else 502)


def test_an_upstream_that_is_not_there_is_a_502(
    relay: str,
) -> None:
    with serve(FastAPI()) as port:
        nobody = f"http://127.0.0.1:{port}/v1"
    with relay_to(nobody, relay) as url:
        with asked(url + RELAYS[relay], "hello") as response:
            response.read()
    assert response.status_code == 502


def test_an_error_event_in_place_of_the_first_token(url: str, relay: str) -> None:
    with asked(url, "fails-at-once") as response:
        response.read()
    if relay == "relay_bytes.py":  # it does not read what it passes on
        assert response.status_code == 200
        assert data_of(response.text) == ['{"error": {"message": "out of memory"}}']
    else:
        assert response.status_code == 502


# Errors after it


def test_an_upstream_that_breaks_is_an_error_for_the_client(
    url: str, relay: str
) -> None:
    with asked(url, "breaks") as response:
        if relay == "relay_bytes.py":
            body = body_of_aborted(response)
            last = '{"error": {"message": "The model is not available."}}'
        else:
            body = response.read().decode()
            assert "event: error\n" in body
            last = '"The model has stopped."'
    assert response.status_code == 200
    assert data_of(body) == ["Hel", "lo", last]


def test_an_upstream_that_breaks_in_an_event(url: str, relay: str) -> None:
    with asked(url, "breaks-in-an-event") as response:
        if relay == "relay_bytes.py":
            # An event of ours would be a part of the one that is not complete.
            body = body_of_aborted(response)
            assert data_of(body) == ["Hel", "lo"]
        else:
            assert data_of(response.read().decode())[:2] == ["Hel", "lo"]
            assert "event: error\n" in response.text


def test_an_upstream_that_fails_with_an_event(url: str, relay: str) -> None:
    with asked(url, "fails") as response:
        body = response.read().decode()
    if relay == "relay_bytes.py":
        assert data_of(body)[2:] == ['{"error": {"message": "out of memory"}}']
    else:
        assert data_of(body)[2:] == ['"The model has stopped."']


# OpenAI's client, which can ask the relay of bytes


@pytest.fixture(scope="module")
def client(upstream_url: str) -> Iterator[openai.OpenAI]:
    with relay_to(upstream_url, "relay_bytes.py") as url:
        with openai.OpenAI(
            base_url=f"{url}/v1", api_key="none", timeout=TIMEOUT, max_retries=0
        ) as client:
            yield client


def ask(client: openai.OpenAI, model: str) -> Iterator[str]:
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    with stream:
        for chunk in stream:
            yield chunk.choices[0].delta.content or ""


def test_openai_reads_what_is_relayed(client: openai.OpenAI) -> None:
    assert list(ask(client, "hello")) == ["Hel", "lo"]


def test_openai_raises_what_the_upstream_says(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match="slow down") as raised:
        list(ask(client, "busy"))
    assert raised.value.code == "refused"
    with pytest.raises(openai.APIError, match="out of memory"):
        list(ask(client, "fails"))
    with pytest.raises(openai.APIError, match="The model is not available"):
        list(ask(client, "breaks"))
    with pytest.raises(openai.APIConnectionError):
        list(ask(client, "breaks-in-an-event"))


# The documentation


BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.mark.parametrize("name", RELAYS)
def test_the_page_shows_the_example(name: str) -> None:
    _, _, code = (EXAMPLES / name).read_text().split('"""', 2)
    assert code.lstrip("\n") in BLOCKS


def test_a_generator_in_between_is_closed_too(
    upstream_url: str, upstream: Upstream
) -> None:
    """What the page adds to the first example."""
    names = names_of("relay.py", upstream_url)
    (block,) = [block for block in BLOCKS if "aclosing(tokens(" in block]
    exec(block, names)
    with serve(names["app"], lifespan="on") as port:
        url = f"http://127.0.0.1:{port}/words"
        with asked(url, "endless") as response:
            next(response.iter_raw())
            assert upstream.log == ["begun"]
        wait_until(lambda: upstream.log == ["begun", "closed"])
        with asked(url, "hello") as response:
            assert data_of(response.read().decode()) == ["Hel", "lo"]
