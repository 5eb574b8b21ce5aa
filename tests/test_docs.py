"""The examples in docstrings and in the README do what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import fastapi_sse_fast

from .asgi import fetch

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "fastapi_sse_fast"
MODULES = [module.name for module in pkgutil.iter_modules([str(PACKAGE)])]
README = ROOT / "README.md"


def blocks_of(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.M)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_of_the_package(name: str) -> None:
    module = importlib.import_module(f"fastapi_sse_fast.{name}")
    names: dict[str, Any] = dict(vars(fastapi_sse_fast))
    assert doctest.testmod(module, extraglobs=names).failed == 0


def stub_docstrings() -> list[str]:
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    documented = (ast.ClassDef, ast.FunctionDef)
    docstrings = [
        ast.get_docstring(node)
        for node in ast.walk(tree)
        if isinstance(node, documented)
    ]
    return [text for text in docstrings if text and ">>>" in text]


@pytest.mark.parametrize("text", stub_docstrings(), ids=lambda text: text[:20])
def test_docstrings_of_the_stub(text: str) -> None:
    names: dict[str, Any] = dict(vars(fastapi_sse_fast))
    test = doctest.DocTestParser().get_doctest(text, names, "_core", None, 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_every_block_of_the_readme_runs() -> None:
    blocks = blocks_of(README)
    assert blocks
    for block in blocks:
        namespace: dict[str, Any] = {}
        exec(compile(block, str(README), "exec"), namespace)


def test_the_first_example_of_the_readme_streams() -> None:
    namespace: dict[str, Any] = {}
    exec(compile(blocks_of(README)[0], str(README), "exec"), namespace)
    reply = fetch(namespace["app"], "/tokens")
    assert reply.status == 200
    assert reply.complete
    assert reply.body.startswith(b"data: ")
