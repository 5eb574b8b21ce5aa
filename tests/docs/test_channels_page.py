"""The page on channels: its examples, and clients that it names."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from ..support.demo import EXAMPLES
from ..support.server import serve
from .test_docs import ROOT, sections_of

PAGE = ROOT / "docs" / "channels.md"
BLOCKS = [block for section in sections_of(PAGE) for block in section.blocks]

OF_THE_PAGE = ("PAGE", "HTMLResponse")
"""What only the statements that serve a page have."""


def statements_of(source: str) -> Iterator[str]:
    for statement in ast.parse(source).body:
        text = ast.unparse(statement)
        if not any(name in text for name in OF_THE_PAGE):
            yield text


@pytest.mark.parametrize("name", ["notifications.py", "resumable_chat.py"])
def test_the_page_shows_the_example(name: str) -> None:
    _, _, code = (EXAMPLES / name).read_text().split('"""', 2)
    shown = {
        statement
        for block in BLOCKS
        if block.language == "python" and ">>> " not in block.text
        for statement in statements_of(block.text)
    }
    assert [text for text in statements_of(code) if text not in shown] == []


@pytest.mark.parametrize("name", ["notifications.py", "resumable_chat.py"])
def test_the_page_shows_the_script_of_the_example(name: str) -> None:
    example = (EXAMPLES / name).read_text()
    scripts = [block.text for block in BLOCKS if block.language == "javascript"]
    assert sum(script.strip() in example for script in scripts) == 1


def names_of(title: str) -> dict[str, Any]:
    """Run the Python blocks of a section of the page, and return their names."""
    names: dict[str, Any] = {"__name__": "main"}
    for section in sections_of(PAGE):
        if section.title == title:
            for block in section.blocks:
                if block.language == "python" and ">>> " not in block.text:
                    code = compile(block.text, PAGE, "exec", dont_inherit=True)
                    exec(code, names)
    return names


@pytest.fixture
def openai_url() -> Iterator[str]:
    pytest.importorskip("openai", exc_type=ImportError)  # which the section imports
    with serve(names_of("OpenAI's protocol")["app"], lifespan="on") as port:
        yield f"http://127.0.0.1:{port}/v1"


def ask(url: str) -> str:
    openai = pytest.importorskip("openai", exc_type=ImportError)
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        return text_of(chunks)


def text_of(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content for chunk in chunks)


def test_openais_client_reads_a_run(openai_url: str) -> None:
    assert ask(openai_url) == "Hello"


def test_openais_client_reads_a_run_again(openai_url: str) -> None:
    openai = pytest.importorskip("openai", exc_type=ImportError)
    ask(openai_url)
    read_again = names_of("OpenAI's protocol")["read_again"]
    with openai.OpenAI(base_url=openai_url, api_key="none") as client:
        chunks = list(read_again(client, "chatcmpl-1"))
    assert text_of(chunks) == "Hello"
    assert {chunk.id for chunk in chunks} == {"chatcmpl-1"}


def test_openais_client_reports_no_error_for_a_run_that_is_cancelled() -> None:
    pytest.importorskip("openai", exc_type=ImportError)
    names = names_of("OpenAI's protocol")

    async def complete(id: str, body: Any) -> AsyncIterator[Any]:
        yield {"choices": [{"delta": {"content": "Hel"}}]}
        await names["runs"].cancel(id)
        await anyio.sleep_forever()

    names["complete"] = complete
    with serve(names["app"], lifespan="on") as port:
        assert ask(f"http://127.0.0.1:{port}/v1") == "Hel"


def test_openais_client_raises_for_a_run_that_failed() -> None:
    openai = pytest.importorskip("openai", exc_type=ImportError)
    names = names_of("OpenAI's protocol")

    async def complete(id: str, body: Any) -> AsyncIterator[Any]:
        yield {"choices": [{"delta": {"content": "Hel"}}]}
        raise LookupError("gone")

    names["complete"] = complete
    with serve(names["app"], lifespan="on") as port:
        with pytest.raises(openai.APIError, match="failed"):
            ask(f"http://127.0.0.1:{port}/v1")
