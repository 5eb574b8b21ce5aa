"""`examples/chat.py` with OpenAI's SDK over a real socket."""

from __future__ import annotations

import asyncio
import json
import logging
import runpy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fastapi_sse_fast import shutdown

from ..support.demo import EXAMPLES, REPLY
from ..support.eventsource import Event, parse
from ..support.internals import without_patience
from ..support.server import TIMEOUT, serve, wait_until

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionChunk
else:  # It has no wheels for some Pythons.
    openai = pytest.importorskip("openai", exc_type=ImportError)

FAST = 10_000.0
"""Tokens a second."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = runpy.run_path(str(EXAMPLES / "chat.py"), run_name="chat")["app"]
    with serve(app, lifespan="on") as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """Return a client for what only pages ask for."""
    base = url.removesuffix("/v1")
    with httpx.Client(base_url=base, trust_env=False, timeout=TIMEOUT) as client:
        yield client


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Capture what the application logs about its streams."""
    caplog.set_level(logging.INFO, logger="fastapi_sse_fast._demo.chat")
    return caplog


def settings(url: str, rate: float) -> dict[str, Any]:
    return {
        "base_url": url,
        "api_key": "key",
        "max_retries": 0,
        "timeout": TIMEOUT,
        "default_query": {"rate": rate},
    }


def question(model: str = "replay", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "What are Server-Sent Events?"}]
    return {"model": model, "messages": messages, **more}


def ask(url: str, rate: float = FAST, **asked: Any) -> list[ChatCompletionChunk]:
    with openai.OpenAI(**settings(url, rate)) as client:
        return list(client.chat.completions.create(**question(**asked), stream=True))


def ask_async(url: str, rate: float = FAST, **asked: Any) -> list[ChatCompletionChunk]:
    async def main() -> list[ChatCompletionChunk]:
        async with openai.AsyncOpenAI(**settings(url, rate)) as client:
            stream = await client.chat.completions.create(
                **question(**asked), stream=True
            )
            return [chunk async for chunk in stream]

    return asyncio.run(main())


both = pytest.mark.parametrize("ask", [ask, ask_async])
"""OpenAI's client, sync and async."""


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    contents = [c.choices[0].delta.content for c in chunks if c.choices]
    return "".join(content for content in contents if content)


@both
def test_the_tokens_make_the_reply(ask: Any, url: str) -> None:
    chunks = ask(url)
    assert text_of(chunks) == REPLY
    assert len(chunks) > len(REPLY) / 6
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]


def test_all_chunks_of_a_reply_have_its_id(url: str) -> None:
    replies = [ask(url, max_tokens=3) for _ in range(2)]
    ids = [{(chunk.id, chunk.created) for chunk in reply} for reply in replies]
    assert [len(of_one_reply) for of_one_reply in ids] == [1, 1]
    assert ids[0] != ids[1]
    assert {chunk.model for chunk in replies[0]} == {"replay"}


@both
def test_usage_comes_last_and_only_if_it_is_asked_for(ask: Any, url: str) -> None:
    assert [chunk.usage for chunk in ask(url, max_tokens=2)] == [None] * 4
    *chunks, last = ask(url, max_tokens=2, stream_options={"include_usage": True})
    assert [chunk.usage for chunk in chunks] == [None] * 4
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 2
    assert last.usage.total_tokens == last.usage.prompt_tokens + 2


def test_a_reply_that_is_cut_short_says_so(url: str) -> None:
    chunks = ask(url, max_completion_tokens=2)
    assert len(chunks) == 4
    assert REPLY.startswith(text_of(chunks))
    assert chunks[-1].choices[0].finish_reason == "length"


def test_the_same_seed_gives_the_same_tokens(url: str) -> None:
    first, again, other = (
        [chunk.choices[0].delta.content for chunk in ask(url, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_reply_in_one_piece(url: str) -> None:
    with openai.OpenAI(**settings(url, FAST)) as client:
        completion = client.chat.completions.create(**question())
    assert completion.choices[0].message.content == REPLY
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens > len(REPLY) / 6


def test_the_accumulating_helper_of_the_sdk_reads_a_stream(url: str) -> None:
    with openai.OpenAI(**settings(url, FAST)) as client:
        with client.chat.completions.stream(**question()) as stream:
            completion = stream.get_final_completion()
    assert completion.choices[0].message.content == REPLY


def test_the_models_are_listed(url: str) -> None:
    with openai.OpenAI(**settings(url, FAST)) as client:
        names = [model.id for model in client.models.list()]
    assert names == ["replay", "replay-busy", "replay-broken"]


def test_the_wire(url: str) -> None:
    body = question(stream=True, max_tokens=1)
    with httpx.Client(trust_env=False, timeout=TIMEOUT) as client:
        response = client.post(f"{url}/chat/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    role, token, last, done, rest = response.text.split("\n\n")
    assert role.endswith(
        '"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
        '"finish_reason":null}]}'
    )
    assert '"delta":{"content":"' in token
    assert last.endswith('"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}')
    assert (done, rest) == ("data: [DONE]", "")


# What goes wrong


@both
@pytest.mark.parametrize(
    ("asked", "error", "code"),
    [
        ({"model": "gpt"}, openai.NotFoundError, "model_not_found"),
        ({"model": "replay-busy"}, openai.RateLimitError, "rate_limit_exceeded"),
        ({"max_tokens": 0}, openai.BadRequestError, "invalid_request"),
    ],
)
def test_an_error_before_the_first_token_has_its_status(
    ask: Any, url: str, asked: Any, error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as raised:
        ask(url, **asked)
    assert raised.value.code == code


def test_a_model_may_take_its_time_to_fail(url: str) -> None:
    with pytest.raises(openai.RateLimitError):
        ask(url, rate=3, model="replay-busy")


def test_a_busy_model_is_the_same_error_without_a_stream(url: str) -> None:
    with openai.OpenAI(**settings(url, FAST)) as client:
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**question("replay-busy"))


def test_an_error_in_mid_stream_comes_after_the_tokens_before_it(url: str) -> None:
    chunks: list[ChatCompletionChunk] = []
    with openai.OpenAI(**settings(url, FAST)) as client:
        stream = client.chat.completions.create(
            **question("replay-broken"), stream=True
        )
        with pytest.raises(openai.APIError, match="The model has failed") as raised:
            chunks.extend(stream)
    assert raised.value.code == "model_failed"
    assert not isinstance(raised.value, openai.APIStatusError)
    assert len(chunks) == 1 + 10


def test_an_error_in_mid_stream_for_the_async_client(url: str) -> None:
    with pytest.raises(openai.APIError, match="The model has failed"):
        ask_async(url, model="replay-broken")


def test_a_reply_outlives_the_stop_of_its_server(url: str) -> None:
    with openai.OpenAI(**settings(url, rate=50)) as client:
        stream = client.chat.completions.create(**question(), stream=True)
        chunks = [next(stream)]
        shutdown()
        chunks.extend(stream)
    assert text_of(chunks) == REPLY


def test_a_reply_that_the_end_of_the_server_cuts_off_is_an_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_patience(monkeypatch)
    with openai.OpenAI(**settings(url, rate=50)) as client:
        stream = client.chat.completions.create(**question(), stream=True)
        next(stream)
        shutdown()
        with pytest.raises(openai.APIError, match="The server is stopping"):
            list(stream)


# Clients that disconnect


def closed(log: pytest.LogCaptureFixture) -> list[str]:
    """Wait until a stream has ended, and return what was logged about it."""
    wait_until(lambda: len(log.messages) == 2)
    return log.messages


def test_leaving_stops_the_model(url: str, log: pytest.LogCaptureFixture) -> None:
    with openai.OpenAI(**settings(url, rate=50)) as client:
        stream = client.chat.completions.create(**question(), stream=True)
        received = [next(stream) for _ in range(3)]
        stream.close()
        generated, ended = closed(log)
    assert len(received) == 3
    assert generated.startswith("generated ")
    assert int(generated.split()[1]) < len(REPLY) / 6
    assert ended.startswith("disconnected after ")


def test_leaving_stops_the_model_for_the_async_client(
    url: str, log: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(**settings(url, rate=50)) as client:
            async with await client.chat.completions.create(
                **question(), stream=True
            ) as stream:
                async for _ in stream:
                    break
            # The client keeps its connections open, so nothing else can end the stream.
            generated, ended = await asyncio.to_thread(closed, log)
            assert int(generated.split()[1]) < len(REPLY) / 6
            assert ended.startswith("disconnected after ")

    asyncio.run(main())


def test_a_reply_that_was_read_to_its_end_is_finished(
    url: str, log: pytest.LogCaptureFixture
) -> None:
    tokens = len(ask(url)) - 2
    assert closed(log) == [
        f"generated {tokens} tokens",
        f"finished after {tokens + 3} events",
    ]


# Chats of a page


def begin(client: httpx.Client, chat: str, rate: float = FAST, **asked: Any) -> None:
    response = client.post(f"/chats/{chat}", params={"rate": rate}, json={**asked})
    assert response.status_code == 202


def read(client: httpx.Client, chat: str, last: str = "") -> list[Event]:
    response = client.get(f"/chats/{chat}/stream", headers={"Last-Event-ID": last})
    return parse(response.content).events


def test_a_page_reads_its_reply_as_often_as_it_likes(client: httpx.Client) -> None:
    begin(client, "a", **question(max_tokens=3))
    events = read(client, "a")
    role, *tokens, last, done, end = [event.data for event in events]
    assert json.loads(role)["choices"][0]["delta"]["role"] == "assistant"
    assert len(tokens) == 3
    assert json.loads(last)["choices"][0]["finish_reason"] == "length"
    assert (done, end) == ("[DONE]", '{"status": "done"}')
    assert read(client, "a") == events
    assert read(client, "a", events[2].last_event_id) == events[3:]
    again = events[-1].last_event_id
    response = client.get("/chats/a/stream", headers={"Last-Event-ID": again})
    assert response.status_code == 204


def test_a_chat_without_a_reply(client: httpx.Client) -> None:
    assert client.get("/chats/none/stream").status_code == 204
    assert client.post("/chats/none/stop").json() is False


def test_a_reply_outlives_its_page_until_it_is_stopped(
    client: httpx.Client, log: pytest.LogCaptureFixture
) -> None:
    begin(client, "b", rate=50, **question())
    with client.stream("GET", "/chats/b/stream") as response:
        received = response.iter_raw()
        while b'"content"' not in next(received):
            pass
    assert log.messages == []
    assert client.post("/chats/b/stop").json() is True
    assert read(client, "b")[-1].data == '{"status": "cancelled"}'
    wait_until(lambda: log.messages)
    assert log.messages[0].startswith("generated ")


def test_a_new_prompt_replaces_the_reply(client: httpx.Client) -> None:
    begin(client, "c", rate=1, **question())
    begin(client, "c", **question(max_tokens=1))
    assert len(read(client, "c")) == 5


@pytest.mark.parametrize(
    ("model", "tokens", "message"),
    [
        ("replay-busy", 0, "The model is busy."),
        ("replay-broken", 10, "The model has failed."),
    ],
)
def test_every_error_of_a_reply_is_an_event(
    client: httpx.Client, model: str, tokens: int, message: str
) -> None:
    begin(client, model, **question(model))
    *events, error, end = read(client, model)
    assert len(events) == (1 + tokens if tokens else 0)
    assert json.loads(error.data)["error"]["message"] == message
    assert end.data == '{"status": "done"}'


def test_a_chat_with_an_unknown_model(client: httpx.Client) -> None:
    response = client.post("/chats/d", json=question("gpt"))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
