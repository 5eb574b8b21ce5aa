"""The page on channels shows the examples."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from ..support.demo import EXAMPLES
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
