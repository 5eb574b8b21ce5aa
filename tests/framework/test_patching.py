"""Where the package replaces code of FastAPI, and where it does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from collections.abc import AsyncIterable
from typing import Any

import fastapi.routing
import fastapi.sse
import pytest
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
    assert printed.startswith("1 RuntimeWarning fastapi_sse_fast does not support")
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
        print(TestClient(app).get("/").text.strip(), seen.count("items"))
    """
    printed = run_python(textwrap.dedent(code))
    assert printed == "data: true 2\n"


def test_importing_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        run_python("import fastapi_sse_fast")


# Changes by later releases, and wrappers of applications

CHANGES = """
import builtins, functools, sys
import fastapi, fastapi._compat, fastapi.routing, starlette.requests
from fastapi.dependencies import models

def hide(class_, hidden):
    # Only this package must not see it: FastAPI would use its new name.
    get = class_.__getattribute__
    def getattribute(self, name):
        caller = sys._getframe(1).f_globals["__name__"]
        if name == hidden and caller.startswith("fastapi_sse_fast."):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return get(self, name)
    class_.__getattribute__ = getattribute

def rename(module, name):
    # FastAPI still finds it, as another global.
    setattr(builtins, name, getattr(module, name))
    delattr(module, name)

def replace(module, name, function):
    original = getattr(module, name)
    def replacement(*args, **kwargs):
        return function(original, *args, **kwargs)
    setattr(module, name, replacement)

def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
"""

STREAM = """
import asyncio, warnings
from collections.abc import AsyncIterable

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from fastapi import Depends, FastAPI, Response
    from fastapi_sse_fast import EncodedEvent, EventSourceResponse, ServerSentEvent
    from pydantic import BaseModel

    class Item(BaseModel):
        n: int

    def set_header(response: Response):
        response.headers["x-dependency"] = "yes"

    app = FastAPI()
    get = functools.partial(
        app.get,
        response_class=EventSourceResponse,
        dependencies=[Depends(set_header)],
    )

    @get("/typed")
    async def typed() -> AsyncIterable[Item]:
        yield Item(n=1)
        yield {"n": 2}
        yield ServerSentEvent(data=Item(n=3), event="e", id="3")

    @get("/plain")
    def plain():
        yield {"a": [1, None, "\u00fc"]}
        yield ServerSentEvent(raw_data="raw", retry=5)

    @get("/ready")
    async def ready():
        yield 1
        yield EncodedEvent(data=1)

def fetch(path):
    messages = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        messages.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b""}
    scope |= {"headers": [], "root_path": "", "http_version": "1.1"}
    asyncio.run(app(scope, receive, send))
    head, *body = messages
    assert (b"x-dependency", b"yes") in head["headers"], head
    assert (b"x-accel-buffering", b"no") in head["headers"], head
    return b"".join(message["body"] for message in body)

print(fetch("/typed"))
print(fetch("/plain"))
try:
    print(fetch("/ready"))
except Exception as error:
    while hasattr(error, "exceptions"):
        error = error.exceptions[0]
    print(f"{type(error).__name__}: {error}")
for w in caught:
    if "fastapi_sse_fast" in str(w.message):
        print(f"{w.category.__name__}: {w.message}")
"""

TYPED = b'data: {"n":1}\n\ndata: {"n":2}\n\nevent: e\ndata: {"n":3}\nid: 3\n\n'
PLAIN = b'data: {"a": [1, null, "\\u00fc"]}\n\ndata: raw\nretry: 5\n\n'


def streamed_after(change: str) -> list[str]:
    """Return the output of an application that makes a change before the import."""
    typed, plain, *printed = run_python(CHANGES + change + STREAM).splitlines()
    assert (typed, plain) == (repr(TYPED), repr(PLAIN))
    return printed


UNKNOWN = {
    "type adapter": 'hide(fastapi._compat.ModelField, "_type_adapter")',
    "path": 'hide(models.Dependant, "path")',
    "response": 'hide(models.Dependant, "response_param_name")',
    "call": 'hide(models.Dependant, "call")',
    "context": 'rename(fastapi.routing, "_extract_endpoint_context")',
    "classification": """
for name in ("is_gen_callable", "is_async_gen_callable", "is_coroutine_callable"):
    hide(models.Dependant, name)  # of older releases
    if hasattr(models, f"_{name}"):
        rename(models, f"_{name}")
""",
    "dataclass": """
import dataclasses
dataclasses.replace = None
""",
    "handler": """
handler = fastapi.routing.get_request_handler
del fastapi.routing.get_request_handler
builtins.get_request_handler = handler
""",
    "keyword": """
def respelled(original, *, item_field=None, **kwargs):
    return original(stream_item_field=item_field, **kwargs)
replace(fastapi.routing, "get_request_handler", respelled)

def get_route_handler(self):
    return fastapi.routing.get_request_handler(
        dependant=self.dependant,
        response_class=self.response_class,
        item_field=self.stream_item_field,
    )
get_route_handler.__module__ = "fastapi.routing"
fastapi.routing.APIRoute.get_route_handler = get_route_handler
""",
    "subset": """
def get_route_handler(self):
    return fastapi.routing.get_request_handler(
        dependant=self.dependant,
        response_class=self.response_class,
        stream_item_field=self.stream_item_field,
    )
fastapi.routing.APIRoute.get_route_handler = get_route_handler
""",
    "signature": """
class Handler:
    __signature__ = "none"
    original = staticmethod(fastapi.routing.get_request_handler)
    def __call__(self, *args, **kwargs):
        return self.original(*args, **kwargs)
fastapi.routing.get_request_handler = Handler()
""",
    "receive": """
class Request(starlette.requests.Request):
    receive = property(lambda self: self.__dict__["_receive"])
    def __setattr__(self, name, value):
        caller = sys._getframe(1).f_globals["__name__"]
        ours = caller.startswith("fastapi_sse_fast.")
        super().__setattr__("_received" if ours and name == "_receive" else name, value)
fastapi.routing.Request = Request
""",
}


@pytest.mark.parametrize("change", UNKNOWN.values(), ids=UNKNOWN)
def test_where_fastapi_is_unknown_it_streams_by_itself(change: str) -> None:
    ready, *warned = streamed_after(change)
    assert ready.startswith("TypeError: <EncodedEvent"), ready
    assert len(warned) == 1, warned
    assert warned[0].startswith("RuntimeWarning: fastapi_sse_fast does not support")


def test_a_route_that_passes_the_seam_by_is_told() -> None:
    """Otherwise FastAPI could call a function that is not replaced, without a sign."""
    change = """
def get_route_handler(self):
    return handler_of(self)
get_route_handler.__module__ = "fastapi.handlers"
builtins.handler_of = fastapi.routing.APIRoute.get_route_handler
fastapi.routing.APIRoute.get_route_handler = get_route_handler
"""
    _, *warned = streamed_after(change)
    assert len(warned) == 1, warned
    assert "APIRoute does not call get_request_handler" in warned[0]


WRAPPED = {
    "nothing": "",
    "helpers": """
for module, name in [
    (fastapi.routing, "_extract_endpoint_context"),
    (fastapi.routing, "get_request_handler"),
    (fastapi.routing, "run_endpoint_function"),
    (fastapi.routing.APIRoute, "get_route_handler"),
    (fastapi.routing.APIRoute, "__init__"),
    (starlette.requests.Request, "__init__"),
]:
    setattr(module, name, traced(getattr(module, name)))
for name in ("_is_gen_callable", "_is_async_gen_callable", "_is_coroutine_callable"):
    if hasattr(models, name):
        setattr(models, name, traced(getattr(models, name)))
""",
    "a class of routes": """
class Route(fastapi.routing.APIRoute):
    def get_route_handler(self):
        handle = super().get_route_handler()
        async def handled(request):
            return await handle(request)
        return handled
fastapi.routing.APIRoute = Route
""",
}


@pytest.mark.parametrize("change", WRAPPED.values(), ids=WRAPPED)
def test_what_is_wrapped_before_the_import_does_no_harm(change: str) -> None:
    assert streamed_after(change) == [repr(b"data: 1\n\ndata: 1\n\n")]


def test_the_seam_is_tried_once_by_many_threads() -> None:
    change = """
import threading
warnings = __import__("warnings")
from fastapi_sse_fast import EventSourceResponse
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    hide(fastapi._compat.ModelField, "_type_adapter")
    def add_route():
        app = fastapi.FastAPI()
        app.get("/", response_class=EventSourceResponse)(lambda: [1])
    threads = [threading.Thread(target=add_route) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len([w for w in caught if "fastapi_sse_fast" in str(w.message)]))
"""
    assert run_python(CHANGES + change) == "1\n"
