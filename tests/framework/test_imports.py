"""The modules that the package imports, from Python and from Rust."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastapi_sse_fast

ROOT = Path(__file__).resolve().parents[2]


def imported_by_rust() -> set[str]:
    text = "\n".join(path.read_text("utf-8") for path in ROOT.glob("src/**/*.rs"))
    found = re.findall(r'import\((?:intern!\()?(?:[\w.()]+, )?"([\w.]+)"', text)
    return {*found, *re.findall(r'MODULE: &str = "([\w.]+)"', text)}


def imported_by_python() -> set[str]:
    modules = set()
    for path in ROOT.glob("python/fastapi_sse_fast/**/*.py"):
        package = list(path.parent.relative_to(ROOT / "python").parts)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*above, *filter(None, [node.module])])
                modules |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return modules


def test_python_imports_all_that_rust_imports() -> None:
    """A frozen application contains only modules that Python code imports."""
    of_rust = imported_by_rust()
    assert {"fastapi_sse_fast._fallback", "secrets", "asyncio"} <= of_rust
    of_libraries = {"asyncio.tasks"}  # asyncio imports it.
    assert of_rust - imported_by_python() == of_libraries & of_rust


LEFT_OUT = {
    "channels",
    "last_event_id",
    "runs",
    "stores",
    "subscription",
    "summary",
    "_slotted",
    "_stream.log_source",
    "_stream.trio_",
}
"""Modules that a plain stream on asyncio does not need."""


def test_what_most_applications_do_not_use_is_imported_when_it_is_used() -> None:
    code = (
        "import sys, fastapi_sse_fast as package\n"
        "print(*sys.modules)\n"
        "assert set(package.__all__) <= set(dir(package))\n"
        "for name in package.__all__:\n"
        "    assert getattr(package, name) is vars(package)[name], name\n"
        "from fastapi_sse_fast import *\n"
        "assert Runs.__module__ == 'fastapi_sse_fast.runs'\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = set(run.stdout.split())
    assert "fastapi_sse_fast._stream.asyncio_" in modules
    assert not modules & {f"fastapi_sse_fast.{name}" for name in LEFT_OUT}


def test_a_name_that_does_not_exist_is_an_error_for_type_checkers_too() -> None:
    with pytest.raises(AttributeError, match=r"'fastapi_sse_fast' has no attribute 'A"):
        _ = fastapi_sse_fast.Absent  # type: ignore[attr-defined]
