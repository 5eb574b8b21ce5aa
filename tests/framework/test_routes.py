"""Routes: methods, parameters, dependencies, routers, and endpoints without `yield`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from types import ModuleType
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import fastapi.routing
import httpx
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Response,
)
from fastapi.exceptions import RequestValidationError, ResponseValidationError

from fastapi_sse_fast import EventSourceResponse

from ..support import releases
from ..support.apps import KINDS, app_of
from ..support.asgi import fetch
from ..support.comparison import (
    MODULES,
    Item,
    assert_equal,
    assert_same_error,
    both,
    stream_of,
)
from ..support.server import serve

# Requests


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_every_method(method: str) -> None:
    reply = assert_equal(stream_of([1, 2], int, "async"), method=method)
    assert reply.body == b"data: 1\n\ndata: 2\n\n"


def test_head_and_options_are_answered_as_fastapi_does() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    def replies(module: ModuleType) -> list[Any]:
        app = FastAPI()
        stream = functools.partial(
            app.api_route, response_class=module.EventSourceResponse
        )
        stream("/get", methods=["GET"])(items)
        stream("/all", methods=["GET", "HEAD", "OPTIONS"])(items)
        with serve(app, date_header=False) as port:
            return [
                httpx.request(method, f"http://127.0.0.1:{port}{path}")
                for path in ("/get", "/all")
                for method in ("HEAD", "OPTIONS")
            ]

    theirs, ours = (
        [
            (reply.status_code, reply.headers.raw, reply.content)
            for reply in replies(module)
        ]
        for module in MODULES
    )
    assert ours == theirs
    assert [status for status, _, _ in ours] == [405, 405, 200, 200]


CLOSED: list[str] = []


async def dependency(response: Response) -> AsyncIterator[str]:
    response.headers["x-dependency"] = "yes"
    response.set_cookie("cookie", "1")
    yield "dependency"
    CLOSED.append("dependency")


def number() -> int:
    return 1


def test_parameters_bodies_and_dependencies() -> None:
    async def items(  # type: ignore[no-untyped-def]
        n: int,
        item: Item,
        tag: Annotated[str, Body()],
        value: Annotated[str, Depends(dependency)],
        tasks: BackgroundTasks,
        last_event_id: Annotated[str | None, Header()] = None,
    ):
        tasks.add_task(CLOSED.append, "background")
        for index in range(n):
            yield [index, item, tag, value, last_event_id]

    status_code = 201 if releases.STREAMS_HAVE_A_STATUS else 200
    reply = assert_equal(
        items,
        "/?n=2",
        method="POST",
        status_code=status_code,
        body=b'{"item": {"name": "a"}, "tag": "t"}',
        headers=[
            (b"host", b"test"),
            (b"content-type", b"application/json"),
            (b"last-event-id", b"7"),
        ],
    )
    assert reply.status == status_code
    assert (b"x-dependency", b"yes") in reply.headers
    assert reply.body.count(b'"dependency", "7"]\n\n') == 2
    assert CLOSED == ["background", "dependency"] * 2


def test_invalid_parameters_are_fastapis_answer() -> None:
    async def items(n: int):  # type: ignore[no-untyped-def]
        yield n

    theirs, ours = both(items, "/?n=x")
    assert_same_error(theirs.error, ours.error)
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
    assert ours.status == 422


def test_routers_and_default_response_classes() -> None:
    frame = b'data: {"name":"a","price":1.5}\n\n'
    if not releases.INCLUDED_ROUTES_HAVE_ITEM_TYPES:
        frame = b'data: {"name": "a", "price": 1.5}\n\n'
    for module in MODULES:
        response_class = module.EventSourceResponse
        inner = APIRouter()
        inner.get("/items")(stream_of([Item(name="a")], Item, "async"))
        outer = APIRouter(default_response_class=response_class)
        outer.include_router(inner, prefix="/inner")
        app = FastAPI()
        app.include_router(outer, prefix="/api")
        default_app = FastAPI(default_response_class=response_class)
        default_app.include_router(inner)
        default_app.get("/json")(lambda: {"not": "a stream"})
        for application, path in [
            (app, "/api/inner/items"),
            (default_app, "/items"),
        ]:
            reply = fetch(application, path)
            assert reply.body == frame
            assert (b"cache-control", b"no-cache") in reply.headers


def test_a_class_with_a_generator_as_its_call() -> None:
    class Endpoint:
        async def __call__(self, n: int = 2) -> AsyncIterable[int]:
            for index in range(n):
                yield index

    assert_equal(Endpoint(), "/?n=3")


def test_dependency_overrides() -> None:
    async def items(n: Annotated[int, Depends(number)]):  # type: ignore[no-untyped-def]
        yield n

    app = app_of(items)
    app.dependency_overrides[number] = lambda: 2
    assert fetch(app).body == b"data: 2\n\n"


# Decorators


async def numbers(n: int = 2) -> AsyncIterable[Item]:
    for index in range(n):
        yield Item(name=str(index))


def sync_numbers(n: int = 2) -> Iterable[Item]:
    for index in range(n):
        yield Item(name=str(index))


def checked(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an endpoint as libraries do that retry, cache or check permissions."""

    @functools.wraps(endpoint)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return endpoint(*args, **kwargs)

    return wrapper


def counted(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return endpoint(*args, **kwargs)

    return wrapper


def mapped(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for item in endpoint(*args, **kwargs):
            yield item

    return wrapper


def with_a_token(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an endpoint in a function with one more parameter."""

    @functools.wraps(endpoint)
    async def wrapper(*args: Any, token: str, **kwargs: Any) -> Any:
        return endpoint(*args, **kwargs)

    signature = inspect.signature(endpoint)
    token = inspect.Parameter("token", inspect.Parameter.KEYWORD_ONLY, annotation=str)
    parameters = [*signature.parameters.values(), token]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapper


class View:
    async def __call__(self, n: int = 2) -> AsyncIterable[Item]:
        for index in range(n):
            yield Item(name=str(index))

    @checked
    async def checked(self, n: int = 2) -> AsyncIterable[Item]:
        for index in range(n):
            yield Item(name=str(index))

    def plain(self, n: int = 2) -> Iterable[Item]:
        yield from sync_numbers(n)


SYNCHRONOUS = {
    "function": numbers,
    "sync function": sync_numbers,
    "decorated": counted(numbers),
    "decorated sync function": counted(sync_numbers),
    "generator around it": mapped(numbers),
    "partial": functools.partial(numbers, n=3),
    "sync partial": functools.partial(sync_numbers, n=3),
    "object": View(),
    "decorated object": counted(View()),
    "method": View().plain,
}

ASYNCHRONOUS = {
    "decorated": checked(numbers),
    "decorated sync function": checked(sync_numbers),
    "twice": checked(checked(numbers)),
    "outside": checked(counted(numbers)),
    "inside": counted(checked(numbers)),
    "partial of it": functools.partial(checked(numbers), n=3),
    "around a partial": checked(functools.partial(numbers, n=3)),
    "around an object": checked(View()),
    "method": View().checked,
    "with a parameter more": with_a_token(numbers),
}


@pytest.mark.parametrize("endpoint", SYNCHRONOUS.values(), ids=SYNCHRONOUS)
def test_what_calls_a_generator_function_is_streamed(
    endpoint: Callable[..., Any],
) -> None:
    reply = assert_equal(endpoint, "/?n=1")
    assert reply.body == b'data: {"name":"0","price":1.5}\n\n'


@pytest.mark.parametrize("endpoint", ASYNCHRONOUS.values(), ids=ASYNCHRONOUS)
def test_what_an_async_decorator_returns_is_streamed(
    endpoint: Callable[..., Any],
) -> None:
    reply = fetch(app_of(endpoint), "/?n=1&token=t")
    assert (reply.status, reply.error) == (200, None)
    assert reply.body == b'data: {"name":"0","price":1.5}\n\n'
    assert reply.complete


def test_openapi_of_a_decorated_endpoint_is_fastapis() -> None:
    endpoints: list[Any] = [checked(numbers), with_a_token(numbers), View().checked]
    for endpoint in endpoints:
        theirs, ours = (app_of(endpoint, module=module).openapi() for module in MODULES)
        assert ours == theirs
        assert "itemSchema" in str(ours)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decorator_may_refuse(kind: str) -> None:
    def refused(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(endpoint)
        async def wrapper() -> Any:
            await anyio.sleep(0.2)  # This is longer than `error_window`.
            raise HTTPException(403, "not yours")

        return wrapper

    endpoint = stream_of([1], int, kind)
    reply = fetch(app_of(refused(endpoint)))
    assert (reply.status, reply.body) == (403, b'{"detail":"not yours"}')


@pytest.mark.parametrize("kind", KINDS)
def test_a_decorator_may_return_another_response(kind: str) -> None:
    done: list[str] = []

    def add_task(tasks: BackgroundTasks) -> None:
        tasks.add_task(done.append, "task")

    def cached(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        def response() -> Response:
            return Response("cached", 203)

        async def async_response() -> Response:
            return response()

        wrapper = async_response if kind == "async" else response
        return functools.wraps(endpoint)(wrapper)

    endpoint = cached(stream_of([1], int, kind))
    reply = fetch(app_of(endpoint, dependencies=[Depends(add_task)]))
    assert (reply.status, reply.body) == (203, b"cached")
    assert done == ["task"]


def test_what_is_set_on_the_response_in_a_decorator_counts() -> None:
    def set_header(response: Response) -> None:
        response.headers["x-dependency"] = "yes"

    async def items(response: Response) -> AsyncIterable[int]:
        yield 1

    @functools.wraps(items)
    async def wrapper(response: Response) -> Any:
        await anyio.lowlevel.checkpoint()
        response.headers["x-decorator"] = "yes"
        response.status_code = 203
        return items(response)

    reply = fetch(app_of(wrapper, dependencies=[Depends(set_header)], status_code=201))
    assert (reply.status, reply.body) == (203, b"data: 1\n\n")
    names = [name for name, _ in reply.headers]
    assert names.count(b"x-dependency") == names.count(b"x-decorator") == 1


def test_items_of_a_decorated_endpoint_are_validated() -> None:
    async def items() -> AsyncIterable[int]:
        yield "x"  # type: ignore[misc]

    reply = fetch(app_of(checked(items)))
    assert isinstance(reply.error, ResponseValidationError)


def test_a_decorator_that_returns_no_stream_is_told_so() -> None:
    async def items() -> AsyncIterable[int]:
        yield 1

    @functools.wraps(items)
    async def wrapper() -> Any:
        return 5

    reply = fetch(app_of(wrapper))
    assert str(reply.error).startswith("items() has response_class=")


def test_what_can_be_iterated_is_not_awaited() -> None:
    """The cursor of a database can be both iterable and awaitable."""

    class Cursor:
        def __aiter__(self) -> AsyncIterator[int]:
            return self.rows()

        async def rows(self) -> AsyncIterator[int]:
            yield 1

        def __await__(self) -> Any:
            raise AssertionError

    async def endpoint() -> Any:
        return Cursor()

    assert fetch(app_of(endpoint)).body == b"data: 1\n\n"


def test_what_a_sync_endpoint_returns_is_awaited() -> None:
    async def later() -> list[int]:
        return [1]

    assert fetch(app_of(lambda: later())).body == b"data: 1\n\n"


@pytest.mark.parametrize("name", ["self", "func", "call", "values"])
def test_a_parameter_may_have_any_name(name: str) -> None:
    for code in [
        f"async def endpoint({name}: int):\n    yield {name}",
        f"def endpoint({name}: int):\n    return [{name}]",
    ]:
        namespace: dict[str, Any] = {}
        exec(code, namespace)
        assert fetch(app_of(namespace["endpoint"]), f"/?{name}=1").body == (
            b"data: 1\n\n"
        )


def test_an_error_in_parameters_names_the_same_place() -> None:
    """This includes endpoints that are not functions, which have no place."""
    endpoints: list[Any] = [numbers, sync_numbers, View(), View().plain]
    for endpoint in endpoints:
        texts = []
        for module in MODULES:
            # FastAPI caches endpoints by `id`, which an earlier one may have had.
            getattr(fastapi.routing, "_endpoint_context_cache", {}).clear()
            app = app_of(endpoint, module=module)
            seen: list[str] = []

            async def note(
                request: Any, error: Exception, seen: list[str] = seen
            ) -> Response:
                seen.append(str(error))
                return Response(status_code=422)

            app.exception_handler(RequestValidationError)(note)
            assert fetch(app, "/?n=x").status == 422
            texts += seen
        assert texts[0] == texts[1]


# What dependencies set


def test_a_header_of_a_dependency_replaces_the_default() -> None:
    def set_headers(response: Response) -> None:
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Other"] = "1"

    endpoint = stream_of([1], int, "async")
    app = app_of(endpoint, dependencies=[Depends(set_headers)])
    headers = fetch(app).headers
    assert [value for name, value in headers if name == b"cache-control"] == [
        b"no-store"
    ]
    assert (b"x-other", b"1") in headers
    assert (b"x-accel-buffering", b"no") in headers


@pytest.mark.parametrize("kind", KINDS)
def test_what_dependencies_set_is_in_the_response_once(kind: str) -> None:
    def set_headers(response: Response) -> None:
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "yes"
        response.headers["Content-Type"] = "text/event-stream"
        response.set_cookie("a", "1")

    def set_status(response: Response) -> None:
        response.status_code = 203
        response.set_cookie("b", "2")

    async def items() -> AsyncIterator[int]:
        yield 1

    def sync_items() -> Iterator[int]:
        yield 1

    theirs, ours = (
        fetch(
            app_of(
                items if kind == "async" else sync_items,
                module=module,
                dependencies=[Depends(set_headers), Depends(set_status)],
            )
        )
        for module in MODULES
    )
    assert ours.status == 203
    assert sorted(ours.headers) == [
        (b"cache-control", b"no-store"),
        (b"content-type", b"text/event-stream"),
        (b"set-cookie", b"a=1; Path=/; SameSite=lax"),
        (b"set-cookie", b"b=2; Path=/; SameSite=lax"),
        (b"x-accel-buffering", b"yes"),
    ]
    assert set(ours.headers) < set(theirs.headers)  # Theirs adds the defaults.


# Endpoints without `yield`


@pytest.mark.parametrize("response_class", [None, EventSourceResponse])
def test_a_returned_response_streams(response_class: Any) -> None:
    async def agen() -> AsyncIterator[Any]:
        yield {"a": 1}
        yield Item(name="b")

    async def endpoint() -> EventSourceResponse:
        return EventSourceResponse(agen(), headers={"X-Mine": "1"})

    options = {} if response_class is None else {"response_class": response_class}
    app = FastAPI()
    app.get("/", **options)(endpoint)
    reply = fetch(app)
    assert reply.body == b'data: {"a": 1}\n\ndata: {"name": "b", "price": 1.5}\n\n'
    assert (b"x-mine", b"1") in reply.headers
    assert reply.complete


@pytest.mark.parametrize("kind", KINDS)
def test_a_returned_iterable_streams_as_if_yielded(kind: str) -> None:
    async def agen() -> AsyncIterator[Any]:
        yield "text"

    async def async_endpoint() -> Any:
        return agen()

    def sync_endpoint() -> Any:
        return ["text"]

    endpoint = async_endpoint if kind == "async" else sync_endpoint
    app = app_of(endpoint, status_code=202)
    reply = fetch(app)
    assert reply.body == b'data: "text"\n\n'
    assert reply.status == 202


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asks", [True, False])
def test_a_returned_iterable_has_what_dependencies_set(kind: str, asks: bool) -> None:
    def set_status(response: Response) -> None:
        response.status_code = 202
        response.headers["x-dependency"] = "yes"

    def sync_asking(response: Response) -> Any:
        response.set_cookie("own", "1")
        return [1]

    async def async_asking(response: Response) -> Any:
        response.set_cookie("own", "1")
        return iter([1])

    async def async_plain() -> Any:
        return [1]

    endpoints: dict[tuple[str, bool], Callable[..., Any]] = {
        ("async", True): async_asking,
        ("sync", True): sync_asking,
        ("async", False): async_plain,
        ("sync", False): lambda: [1],
    }
    endpoint = endpoints[kind, asks]
    reply = fetch(app_of(endpoint, dependencies=[Depends(set_status)]))
    assert (reply.status, reply.body) == (202, b"data: 1\n\n")
    assert (b"x-dependency", b"yes") in reply.headers
    assert (b"set-cookie" in dict(reply.headers)) == asks


@pytest.mark.parametrize("returned", [None, "text", {"a": 1}, Item(name="a"), 5])
def test_an_endpoint_that_returns_no_stream_is_told_so(returned: Any) -> None:
    async def forgot_to_yield() -> Any:
        return returned

    reply = fetch(app_of(forgot_to_yield))
    assert isinstance(reply.error, TypeError)
    assert str(reply.error).startswith("forgot_to_yield() has response_class=")
    assert "`yield` the events" in str(reply.error)


def test_a_subclass_may_make_a_stream_of_what_is_returned() -> None:
    class Topic(EventSourceResponse):
        def __init__(self, content: str, *args: Any, **kwargs: Any) -> None:
            super().__init__([content], *args, **kwargs)

    reply = fetch(app_of(lambda: "news", response_class=Topic))
    assert reply.body == b'data: "news"\n\n'


def test_an_error_in_a_subclass_is_its_own() -> None:
    class Broken(EventSourceResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            raise TypeError("mine")

    reply = fetch(app_of(lambda: [1], response_class=Broken))
    assert isinstance(reply.error, TypeError)
    assert str(reply.error) == "mine"


@pytest.mark.parametrize("declared", ["annotation", "argument"])
def test_a_response_model_that_would_not_apply_is_refused(declared: str) -> None:
    """The model may be there to hide fields from the client."""

    class Secret(Item):
        password: str

    def items() -> Any:
        return [Secret(name="a", password="b")]

    def annotated() -> list[Item]:
        return [Secret(name="a", password="b")]

    endpoint = annotated if declared == "annotation" else items
    more: dict[str, Any] = {"response_model": list[Item]}
    if declared == "annotation":
        more = {}
    reply = fetch(app_of(endpoint, **more))
    assert isinstance(reply.error, TypeError)
    assert "a response model cannot be applied to it: `yield` the" in str(reply.error)
    reply = fetch(app_of(annotated, response_model=None))
    assert b"password" in reply.body


def test_other_responses_may_be_returned() -> None:
    def endpoint() -> Response:
        return Response("gone", status_code=410)

    app = FastAPI()
    app.get("/", response_class=EventSourceResponse, response_model=None)(endpoint)
    reply = fetch(app)
    assert (reply.status, reply.body) == (410, b"gone")
