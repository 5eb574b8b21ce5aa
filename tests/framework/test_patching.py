"""Where the package is joined to FastAPI, and where it keeps out."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from collections.abc import AsyncIterable
from typing import Any

import fastapi.routing
import fastapi.sse
from fastapi import FastAPI

from fastapi_sse_fast import EventSourceResponse, install, uninstall

from ..support.asgi import fetch
from ..support.comparison import stream_of
from ..support.internals import is_of_the_package


def test_other_routes_are_not_touched() -> None:
    original = fastapi.routing.get_request_handler.__wrapped__  # type: ignore[attr-defined]
    app = FastAPI()
    app.get("/json")(lambda: {"a": 1})
    app.get("/theirs", response_class=fastapi.sse.EventSourceResponse)(
        stream_of([1], int, "async")
    )
    assert fetch(app, "/json").body == b'{"a":1}'
    assert fetch(app, "/theirs").body == b"data: 1\n\n"
    assert original.__module__ == "fastapi.routing"


def ran_in_our_stream() -> bool:
    frame = sys._getframe()
    names: set[str] = set()
    while frame := frame.f_back:  # type: ignore[assignment]
        names.add(frame.f_globals["__name__"])
    return any(map(is_of_the_package, names))


def test_install_streams_fastapis_class_too() -> None:
    class Sub(fastapi.sse.EventSourceResponse):
        pass

    async def items() -> AsyncIterable[bool]:
        yield ran_in_our_stream()

    def body(response_class: Any) -> bytes:
        app = FastAPI()
        app.get("/", response_class=response_class)(items)
        return fetch(app).body

    classes = [fastapi.sse.EventSourceResponse, Sub]
    assert body(EventSourceResponse) == b"data: true\n\n"
    assert [body(class_) for class_ in classes] == [b"data: false\n\n"] * 2
    try:
        install()
        install()
        assert [body(class_) for class_ in classes] == [b"data: true\n\n"] * 2
    finally:
        uninstall()
    uninstall()
    assert [body(class_) for class_ in classes] == [b"data: false\n\n"] * 2
    assert body(EventSourceResponse) == b"data: true\n\n"


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning:nothing", "-c", code],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_unknown_fastapi_streams_by_itself() -> None:
    code = """
        import warnings
        import fastapi, fastapi.routing

        original = fastapi.routing.get_request_handler

        def get_request_handler(route):  # some other FastAPI
            raise AssertionError

        fastapi.routing.get_request_handler = get_request_handler
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            from fastapi_sse_fast import EventSourceResponse, ServerSentEvent
        assert fastapi.routing.get_request_handler is get_request_handler
        print(len(caught), caught[0].category.__name__, caught[0].message)
        fastapi.routing.get_request_handler = original

        app = fastapi.FastAPI()

        @app.get("/", response_class=EventSourceResponse)
        async def items():
            yield ServerSentEvent(data="still", event="e")

        import asyncio
        from starlette.testclient import TestClient

        warnings.simplefilter("ignore")
        print(TestClient(app).get("/").text)
    """
    printed = run_python(textwrap.dedent(code))
    assert printed.startswith("1 RuntimeWarning fastapi_sse_fast does not know FastAPI")
    assert 'event: e\ndata: "still"\n\n' in printed


def test_a_wrapper_of_another_library_fits_on_either_side() -> None:
    code = """
        import sys
        import fastapi, fastapi.routing

        seen = []

        def instrument():
            original = fastapi.routing.get_request_handler

            def wrapper(*args, **kwargs):
                seen.append(kwargs["dependant"].call.__name__)
                return original(*args, **kwargs)

            fastapi.routing.get_request_handler = wrapper

        instrument()
        from fastapi_sse_fast import EventSourceResponse
        instrument()

        app = fastapi.FastAPI()

        @app.get("/", response_class=EventSourceResponse)
        async def items():
            names = set()
            frame = sys._getframe()
            while frame := frame.f_back:
                names.add(frame.f_globals["__name__"])
            yield any(name.startswith("fastapi_sse_fast.") for name in names)

        import warnings
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
        print(TestClient(app).get("/").text.strip(), seen)
    """
    printed = run_python(textwrap.dedent(code))
    assert printed == "data: true ['items', 'items']\n"


def test_importing_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        run_python("import fastapi_sse_fast")
