"""The examples in docstrings, in the README and in the documentation work.

The Python blocks under one heading of a page run in order in one namespace. A block
with prompts runs as a doctest. `console` blocks show the output of curl; here the test
calls the application of that namespace instead, inside its lifespan. Blocks that read
`REDIS_URL` get a server for their section.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import doctest
import functools
import importlib
import math
import pkgutil
import re
import shlex
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.testclient import TestClient

import fastapi_sse_fast
from fastapi_sse_fast import StreamOptions

from ..support.asgi import Reply, call

ROOT = Path(__file__).parents[2]
PACKAGE = Path(fastapi_sse_fast.__file__).parent
MODULES = [module.name for module in pkgutil.iter_modules([str(PACKAGE)])]
MODULES += ["sse_starlette._install", "sse_starlette.event"]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = {
    "caddy",
    "dockerfile",
    "haproxy",
    "html",
    "ini",
    "javascript",
    "jsx",
    "nginx",
    "sh",
    "text",
    "yaml",
}
"""Languages of blocks that do not run."""

OPTIONAL = {
    "FastAPI(telemetry=": "fastapi.telemetry",
    "httpx_sse": "httpx_sse",
    "openai": "openai",
    "opentelemetry.instrumentation": "opentelemetry.instrumentation.fastapi",
    "opentelemetry.sdk": "opentelemetry.sdk",
    "prometheus_client": "prometheus_client",
    "RedisStore": "redis",
    "sse_starlette": "sse_starlette",
}
"""A text in an example, and the module it needs, which tests can run without."""


class Block(NamedTuple):
    language: str
    text: str
    line: int


class Section(NamedTuple):
    page: Path
    title: str
    blocks: list[Block]

    def __str__(self) -> str:
        return f"{self.page.name}: {self.title}"


def sections_of(page: Path) -> Iterator[Section]:
    """Yield the sections of a page below headings of the first and second level."""
    section = Section(page, "", [])
    block: Block | None = None
    fence = ""
    for number, line in enumerate(page.read_text().splitlines(keepends=True), 1):
        opening = re.match(r"( *`{3,})(\S*)", line)
        if block is not None:
            if line.rstrip() == fence:
                section.blocks.append(block)
                block = None
            else:
                text = line.removeprefix(" " * fence.index("`"))
                block = block._replace(text=block.text + text)
        elif opening:
            fence = opening[1]
            block = Block(opening[2], "", number)
        elif re.match("##? ", line):
            yield section
            section = Section(page, line.strip("# \n"), [])
    assert block is None, f"{page}:{block and block.line} is not closed"
    yield section


SECTIONS = [
    section for page in PAGES for section in sections_of(page) if section.blocks
]


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_the_blocks_of_a_section_run(
    section: Section, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for text, module in OPTIONAL.items():
        if any(text in block.text for block in section.blocks):
            pytest.importorskip(module, exc_type=ImportError)
    monkeypatch.setenv("OPENAI_API_KEY", "none")  # which its client asks for
    monkeypatch.setattr("fastapi_sse_fast.stores.memory.new_epoch", epochs().__next__)
    if any("REDIS_URL" in block.text for block in section.blocks):
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
        for module in ("link", "sync"):
            name = f"fastapi_sse_fast.stores._redis.{module}.new_epoch"
            monkeypatch.setattr(name, lambda: "Ab3dE9xZ")
    namespace: dict[str, Any] = {"__name__": "main"}
    callers: dict[Any, Caller] = {}
    with contextlib.ExitStack() as stack:
        for block in section.blocks:
            if block.language == "console":
                app = namespace["app"]
                if app not in callers:
                    callers[app] = start(app, stack)
                run_curl(block, callers[app])
            elif block.language != "python":
                assert block.language in NOT_RUN, f"{section.page}:{block.line}"
            elif ">>> " in block.text:
                run_doctest(block, section.page, namespace)
            else:
                # Empty lines before the block make errors show its line of the page.
                source = "\n" * block.line + block.text
                code = compile(source, section.page, "exec", dont_inherit=True)
                exec(code, namespace)


def epochs() -> Iterator[str]:
    """Yield what positions begin with: the same for each section."""
    return (f"{letter}b3dE9xZ" for letter in string.ascii_uppercase)


Caller = Callable[..., Reply]


def start(app: Any, stack: contextlib.ExitStack) -> Caller:
    """Run the lifespan of an application, and return what sends requests to it."""
    portal = stack.enter_context(TestClient(app)).portal
    assert portal is not None

    def caller(path: str, **more: Any) -> Reply:
        reply: Reply = portal.call(functools.partial(call, app, path, **more))
        return reply

    return caller


def run_doctest(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    parser = doctest.DocTestParser()
    test = parser.get_doctest(block.text, namespace, page.name, str(page), block.line)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(test, clear_globs=False).failed == 0
    namespace.update(test.globs)


CURL = argparse.ArgumentParser("curl")
CURL.add_argument("url")
CURL.add_argument("-N", action="store_true")
CURL.add_argument("-s", action="store_true")
CURL.add_argument("--max-time", type=float, default=math.inf)
CURL.add_argument("-X", dest="method")
CURL.add_argument("-H", dest="headers", action="append", default=[])
CURL.add_argument("-d", dest="data")
CURL.add_argument("--json")
CURL.add_argument("-w", dest="write_out", default="")


def run_curl(block: Block, caller: Caller) -> None:
    """Compare the response of the application with the output in the block."""
    commands = re.split(r"^\$ curl ", block.text, flags=re.M)
    assert commands.pop(0) == ""
    for text in commands:
        command, _, printed = re.sub(r"\\\n *", "", text).partition("\n")
        options = CURL.parse_args(shlex.split(command))
        data, headers = options.data, options.headers
        if options.json is not None:
            data = options.json
            headers += ["Content-Type: application/json", "Accept: application/json"]
        pairs = [header.split(": ") for header in headers]
        reply = caller(
            options.url.removeprefix("http://127.0.0.1:8000"),
            method=options.method or ("GET" if data is None else "POST"),
            headers=[(b"host", b"127.0.0.1:8000")]
            + [(name.lower().encode(), value.encode()) for name, value in pairs],
            body=(data or "").encode(),
            max_time=options.max_time,
        )
        expected = reply.body.decode().replace("\r\n", "\n")
        code = options.write_out.replace("%{http_code}", str(reply.status))
        expected += code.replace("\\n", "\n")
        if not reply.complete and not options.s:
            expected += (
                "curl: (18) transfer closed with outstanding read data remaining"
            )
        assert printed.rstrip("\n") == expected.rstrip("\n")


def test_no_block_is_overlooked() -> None:
    blocks = [block for section in SECTIONS for block in section.blocks]
    for language in ("python", "console"):
        written = sum(page.read_text().count(f"```{language}\n") for page in PAGES)
        assert len([block for block in blocks if block.language == language]) == written


def test_links_are_named_after_their_page() -> None:
    """A link in a sentence, which does not begin with a capital, can have any text."""
    link = re.compile(r"\[([A-Z][^\]]*)\]\((?:docs/)?([a-z-]+\.md)\)")
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for text, target in link.findall(page.read_text()):
            title = (ROOT / "docs" / target).read_text().partition("\n")[0]
            assert f"# {text}" == title, page


def test_everything_exported_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    documented = re.findall(r"^::: fastapi_sse_fast\.(\w+)$", page, re.M)
    assert sorted(documented) == sorted(fastapi_sse_fast.__all__)


def test_every_option_is_told_with_its_default() -> None:
    page = (ROOT / "docs" / "options.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)`]\(\S+\) \| (\S+) \|", page, re.M)
    told = {name: default.strip("`").replace('"', "'") for name, default in rows}
    names = [field.name for field in dataclasses.fields(StreamOptions)]
    assert list(told) == names
    for name in names:
        assert told[name] == repr(getattr(StreamOptions(), name))


# Statements that name their test

TEST = re.compile(r"tests/([\w/]+)\.py::(\w+)")


@functools.cache
def names_of_tests(module: str) -> list[str]:
    tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in tree.body if isinstance(node, functions)]
    return [name for name in names if name.startswith("test_")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    for module, name in TEST.findall(page.read_text()):
        assert name in names_of_tests(module)


def test_every_difference_names_its_test() -> None:
    page = (ROOT / "docs" / "differences.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| [^|]", line)]
    rows = [row for row in rows if "`fastapi_sse_fast` |" not in row]
    hidden = re.compile(r"<!-- (tests/[\w/]+\.py::\w+) --> \|$")
    assert [row for row in rows if not hidden.search(row)] == []
    named = [TEST.findall(row) for row in rows]
    assert [len(tests) for tests in named] == [1] * len(rows)
    both = "framework/test_differences"
    assert sorted(name for [(module, name)] in named if module == both) == sorted(
        names_of_tests(both)
    )


# Docstrings


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_of_the_package(name: str) -> None:
    module = importlib.import_module(f"fastapi_sse_fast.{name}")
    names: dict[str, Any] = {**vars(fastapi_sse_fast), **vars(module)}
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
