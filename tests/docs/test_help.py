"""`help()` for the compiled classes and functions, and the version."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import pydoc
from pathlib import Path
from typing import Any

import pytest

import fastapi_sse_fast
from fastapi_sse_fast import EncodedEvent, EventTemplate

from ..support.ids import stable_id

STUB = Path(fastapi_sse_fast.__file__).with_name("_core.pyi")

# CPython documents these itself, with the same text for all types.
SLOTS = {"__new__", "__call__", "__len__"}


def documented() -> dict[str, str]:
    """Return the public docstrings of the stub by qualified name."""
    texts: dict[str, str] = {}
    for node in ast.parse(STUB.read_text()).body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            continue
        if node.name not in fastapi_sse_fast.__all__:
            continue
        texts[node.name] = ast.get_docstring(node) or ""
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and member.name not in SLOTS:
                texts[f"{node.name}.{member.name}"] = ast.get_docstring(member) or ""
    return {name: text for name, text in texts.items() if text}


@pytest.mark.parametrize(("name", "text"), documented().items(), ids=documented())
def test_documentation_is_that_of_the_stub(name: str, text: str) -> None:
    documented: Any = fastapi_sse_fast
    for part in name.split("."):
        documented = getattr(documented, part)
    assert inspect.getdoc(documented) == text


@pytest.mark.parametrize(
    ("what", "texts"),
    [
        (
            EventTemplate,
            ["data, *, event=None, id=None,", "with slots for", ">>> token("],
        ),
        (
            EventTemplate.partial,
            ["(self, /, **values)", "all events of a stream", ">>>"],
        ),
        (EventTemplate.slots, ["The names of the slots, in the order of the frame."]),
        (EncodedEvent, ["raw_data=None", "encoded once and can be sent any number"]),
        (
            EncodedEvent.from_bytes,
            ["(frames, /)", "relay the events of another", "Raises:"],
        ),
        (fastapi_sse_fast.encode_event, ["(item, /, *, json='fastapi')", "Raises:"]),
        (
            fastapi_sse_fast.format_sse_event,
            ["data_str=None", "ends with a blank"],
        ),
    ],
    ids=stable_id,
)
def test_help(what: Any, texts: list[str]) -> None:
    # Since Python 3.13 a long signature takes several lines, each behind a bar.
    shown = " ".join(pydoc.plain(pydoc.render_doc(what)).replace("|", " ").split())
    for text in texts:
        assert text in shown


def test_the_version_is_that_of_the_package() -> None:
    assert fastapi_sse_fast.__version__ == importlib.metadata.version(
        "fastapi_sse_fast"
    )
