"""The modules that the package imports, from Python and from Rust."""

from __future__ import annotations

import ast
import re
from pathlib import Path

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
