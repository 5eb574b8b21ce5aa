"""SDKs that read event streams, used as in applications."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from ..support.server import TIMEOUT, Server, wait_until
from .test_clients import BETWEEN_EVENTS

Ask = Callable[..., list[str | None]]


def settings(url: str, **query: object) -> dict[str, Any]:
    return {
        "base_url": url,
        "api_key": "key",
        "max_retries": 0,
        "timeout": TIMEOUT,
        "default_query": query,
    }


def completion(prompt: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "m", "messages": messages, "stream": True}


def ask_sync(url: str, prompt: str = "", **query: object) -> list[str | None]:
    with openai.OpenAI(**settings(url, **query)) as client:
        chunks = client.chat.completions.create(**completion(prompt))
        return [chunk.choices[0].delta.content for chunk in chunks]


def ask_async(url: str, prompt: str = "", **query: object) -> list[str | None]:
    async def main() -> list[str | None]:
        async with openai.AsyncOpenAI(**settings(url, **query)) as client:
            chunks = await client.chat.completions.create(**completion(prompt))
            return [chunk.choices[0].delta.content async for chunk in chunks]

    return asyncio.run(main())


@pytest.fixture(params=[ask_sync, ask_async])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Ask OpenAI's client, sync or async."""
    ask: Ask = request.param
    return ask


def test_openai_reads_a_completion(ask: Ask, url: str) -> None:
    words = ["Guten", "Tag,", "世界", "🦀", "a\nb\u2028c"]
    assert ask(url, " ".join(words)) == words


def test_openai_raises_the_status_of_an_early_error(ask: Ask, url: str) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        ask(url, "forbidden")


def test_openai_raises_what_on_error_says(ask: Ask, url: str) -> None:
    with pytest.raises(openai.APIError, match="broken"):
        ask(url, "a broken reply")


def test_openai_raises_when_a_stream_breaks_off(ask: Ask, url: str) -> None:
    with pytest.raises(openai.APIConnectionError):
        ask(url, "a cut reply")


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("between", BETWEEN_EVENTS)
def test_openai_and_what_stands_between_events(
    ask: Ask, url: str, between: str, size: int
) -> None:
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    frames = ["", f"data: {chunk}\n\n", f"data: {chunk}\nid: 1\n\n"]
    body = BETWEEN_EVENTS[between].join([*frames, "data: [DONE]\n\n"])
    if between in ("ping", "retry"):
        # It dispatches an empty event at a blank line after an id or a `retry`.
        with pytest.raises(json.JSONDecodeError):
            ask(f"{url}/parts", body=body, size=size)
    else:
        assert ask(f"{url}/parts", body=body, size=size) == ["a", "a"]


def test_mcp_over_sse(url: str) -> None:
    async def main() -> str:
        async with (
            sse_client(f"{url}/mcp/sse") as streams,
            ClientSession(*streams) as session,
        ):
            result = await session.initialize()
            await session.send_ping()
            return result.server_info.name

    assert asyncio.run(asyncio.wait_for(main(), TIMEOUT)) == "e2e"


def test_mcp_over_streamable_http_resumes_a_broken_stream(
    server: Server, url: str
) -> None:
    async def main() -> str:
        async with (
            streamable_http_client(f"{url}/mcp") as streams,
            ClientSession(*streams) as session,
        ):
            result = await session.initialize()
            await session.send_ping()
            return result.server_info.name

    assert asyncio.run(asyncio.wait_for(main(), TIMEOUT)) == "e2e"
    wait_until(lambda: "mcp resumes after 2" in server.said)
