"""Routes of our response class against the same routes of FastAPI's."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from types import ModuleType
from typing import Annotated, Any, Union

import fastapi.routing
import fastapi.sse
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    Header,
    Request,
    Response,
)
from fastapi.exceptions import ResponseValidationError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    alias_generators,
    computed_field,
    field_serializer,
    model_serializer,
    model_validator,
)
from typing_extensions import TypedDict

import fastapi_sse_fast
from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    ServerSentEvent,
    install,
    uninstall,
)

from .support import releases, values
from .support.asgi import Reply, fetch

MODULES = [fastapi.sse, fastapi_sse_fast]


class Item(BaseModel):
    name: str
    price: float = 1.5


class Aliased(BaseModel):
    model_config = ConfigDict(
        alias_generator=AliasGenerator(serialization_alias=alias_generators.to_camel)
    )
    long_name: str = "é"
    at: datetime.datetime = datetime.datetime(2026, 1, 1)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def full_text(self) -> str:
        return self.long_name * 2


class Serialized(BaseModel):
    amount: decimal.Decimal = decimal.Decimal("1.50")
    secret: int = Field(default=1, exclude=True)

    @field_serializer("amount")
    def dump_amount(self, amount: decimal.Decimal) -> str:
        return f"{amount}\n€"


class Wrapped(BaseModel):
    value: int = 1

    @model_serializer(mode="wrap")
    def dump(self, handler: Any) -> dict[str, Any]:
        return {"wrapped": handler(self)}


class Row(TypedDict):
    key: str


@dataclasses.dataclass
class Point:
    x: int
    y: float = float("nan")


class Attributes:
    """No model, but read by its attributes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.price = 2.0


ITEM_TYPES: list[tuple[Any, list[Any]]] = [
    (Item, [Item(name="a"), {"name": "b", "price": "3"}, Attributes("c")]),
    (Aliased, [Aliased(), Aliased(long_name="x")]),
    (Serialized, [Serialized()]),
    (Wrapped, [Wrapped(value=3)]),
    (RootModel[list[int]], [RootModel[list[int]]([1, 2]), [3]]),
    (Union[Item, Point], [Item(name="u"), Point(1), {"x": 5}]),  # noqa: UP007
    (Item | None, [None, Item(name="n")]),
    (Row, [{"key": "k"}, {"key": "l", "more": 1}]),
    (Point, [Point(1, 2.5), {"x": 3}]),
    (dict[str, Any], [{"a": [1, None, "é\n"]}]),
    (list[Item], [[Item(name="l")]]),
    (str, ["text", "a\nb", "é\u2028" if releases.LINES_ARE_THOSE_OF_SSE else "é"]),
    (int, [1, "2", True]),
    (float, [1.0, float("inf"), 1e300]),
    (Any, [{"a": 1}, None, Item(name="any")]),
    (bytes, [b"x"]),
    (datetime.datetime, [datetime.datetime(2026, 1, 2)]),
]


def app_of(
    module: ModuleType,
    endpoint: Callable[..., Any],
    *,
    method: str = "GET",
    **options: Any,
) -> FastAPI:
    app = FastAPI()
    options.setdefault("response_class", module.EventSourceResponse)
    app.api_route("/", methods=[method], **options)(endpoint)
    return app


def both(
    endpoint: Callable[..., Any], path: str = "/", **options: Any
) -> tuple[Reply, Reply]:
    request = {
        name: options.pop(name) for name in ("headers", "body") if name in options
    }
    method = options.get("method", "GET")
    theirs, ours = (
        fetch(app_of(module, endpoint, **options), path, method=method, **request)
        for module in MODULES
    )
    return theirs, ours


def assert_equal(
    endpoint: Callable[..., Any], path: str = "/", **options: Any
) -> Reply:
    theirs, ours = both(endpoint, path, **options)
    assert ours.body == theirs.body
    assert ours.status == theirs.status
    assert ours.headers == theirs.headers
    assert_same_error(theirs.error, ours.error)
    return ours


def assert_same_error(theirs: BaseException | None, ours: BaseException | None) -> None:
    while type(theirs).__name__ == "ExceptionGroup":  # of the task group in FastAPI
        (theirs,) = theirs.exceptions  # type: ignore[union-attr]
    if {type(ours), type(theirs)} == {TypeError, ValueError}:
        return  # of several wrong values not the same was found first: see test_json.py
    assert type(ours) is type(theirs)
    if isinstance(theirs, ResponseValidationError):
        assert isinstance(ours, ResponseValidationError)
        assert repr(ours.errors()) == repr(theirs.errors())
        assert ours.body is theirs.body
        assert str(ours) == str(theirs)


def stream_of(items: Iterable[Any], item_type: Any, kind: str) -> Callable[..., Any]:
    async def async_items():  # type: ignore[no-untyped-def]
        for item in items:
            yield item

    def sync_items():  # type: ignore[no-untyped-def]
        yield from items

    function: Any = async_items if kind == "async" else sync_items
    container: Any = AsyncIterable if kind == "async" else Iterable
    function.__annotations__ = {"return": container[item_type]}
    return function  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize(
    ("item_type", "items"), ITEM_TYPES, ids=lambda value: str(value)[:40]
)
def test_typed_items(item_type: Any, items: list[Any], kind: str) -> None:
    reply = assert_equal(stream_of(items, item_type, kind))
    assert reply.status == 200
    assert reply.complete
    assert reply.body.count(b"data: ") >= len(items)


@pytest.mark.parametrize(
    "options",
    [
        {"response_model_include": {"name"}},
        {"response_model_exclude": {"name"}},
        {"response_model_by_alias": False},
        {"response_model_exclude_unset": True},
        {"response_model_exclude_defaults": True},
        {"response_model_exclude_none": True},
        {"response_model_exclude_unset": True, "response_model_by_alias": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("item_type", [Item, Aliased, Item | None])
def test_response_model_options(item_type: Any, options: dict[str, Any]) -> None:
    items = [Aliased()] if item_type is Aliased else [Item(name="a"), Item(name="b")]
    assert_equal(stream_of(items, item_type, "async"), **options)


@pytest.mark.skipif(
    not releases.NON_FINITE_IS_NULL, reason="test_json.py compares to the reference"
)
@given(st.lists(values.ANY, max_size=3))
@values.examples(2)
def test_untyped_items(recipes: list[values.Recipe]) -> None:
    async def items():  # type: ignore[no-untyped-def]
        for recipe in recipes:
            yield recipe()

    theirs, ours = both(items)
    assert_same_error(theirs.error, ours.error)
    if theirs.error is None:
        assert ours.body == theirs.body
    else:  # FastAPI loses what was yielded just before an error, see the docs
        assert ours.body.startswith(theirs.body)


EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "event": st.text("ab é", max_size=3),
        "id": st.text("12", max_size=3),
        "retry": st.integers(0, 10**20),
        "comment": st.text("a\r\n:", max_size=5),
    },
)


@pytest.mark.skipif(
    not (releases.LINES_ARE_THOSE_OF_SSE and releases.NON_FINITE_IS_NULL),
    reason="test_event.py compares to the reference",
)
@given(
    st.lists(
        st.tuples(EVENTS, st.none() | st.text("a\r\n", max_size=4), values.ANY),
        max_size=4,
    ),
    st.booleans(),
)
@values.examples(2)
def test_events(events: list[Any], ours_yielded: bool) -> None:
    model = ServerSentEvent if ours_yielded else fastapi.sse.ServerSentEvent

    async def items():  # type: ignore[no-untyped-def]
        for fields, raw_data, recipe in events:
            if raw_data is None:
                yield model(data=recipe(), **fields)
            else:
                yield model(raw_data=raw_data, **fields)

    theirs, ours = both(items)
    assert_same_error(theirs.error, ours.error)
    if theirs.error is None:
        assert ours.body == theirs.body
        assert ours.headers == theirs.headers
    else:
        assert ours.body.startswith(theirs.body)


def test_events_of_all_kinds_in_one_typed_stream() -> None:
    class Token(ServerSentEvent):
        event: str | None = "token"

    class TheirToken(fastapi.sse.ServerSentEvent):
        event: str | None = "token"

    async def items() -> AsyncIterable[Item]:
        yield Item(name="a")
        yield ServerSentEvent(data={"free": "form"})  # type: ignore[misc]
        yield fastapi.sse.ServerSentEvent(raw_data="x", id="1")  # type: ignore[misc]
        yield Token(data=Item(name="t"))  # type: ignore[misc]
        yield TheirToken(comment="c")  # type: ignore[misc]
        yield Item(name="b")

    assert_equal(items)


def test_encoded_events_can_be_yielded_again_and_again() -> None:
    event = EncodedEvent(data={"n": 1}, id="1")

    async def items() -> AsyncIterable[Item]:
        yield event  # type: ignore[misc]
        yield Item(name="a")
        yield event  # type: ignore[misc]

    frame = b'data: {"n": 1}\nid: 1\n\n'
    item = b'data: {"name":"a","price":1.5}\n\n'
    for _ in range(2):
        assert fetch(app_of(fastapi_sse_fast, items)).body == frame + item + frame


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("annotation", [EncodedEvent, Item | EncodedEvent])
def test_encoded_events_may_be_annotated(annotation: Any, kind: str) -> None:
    events = [EncodedEvent(raw_data="x"), ServerSentEvent(raw_data="y")]
    app = app_of(fastapi_sse_fast, stream_of(events, annotation, kind))
    assert fetch(app).body == b"data: x\n\ndata: y\n\n"
    assert "'contentMediaType': 'application/json'" in str(app.openapi())
    app = app_of(fastapi_sse_fast, stream_of([object()], annotation, kind))
    assert isinstance(fetch(app).error, ResponseValidationError)


@pytest.mark.parametrize("annotation", [ServerSentEvent, fastapi.sse.ServerSentEvent])
def test_openapi_of_events(annotation: Any) -> None:
    documents = [
        app_of(module, stream_of([], annotation, "async")).openapi()
        for module in MODULES
    ]
    assert documents[0] == documents[1]


@pytest.mark.parametrize(("item_type", "items"), ITEM_TYPES, ids=str)
def test_openapi_of_items(item_type: Any, items: list[Any]) -> None:
    endpoint = stream_of(items, item_type, "sync")
    documents = [app_of(module, endpoint).openapi() for module in MODULES]
    assert documents[0] == documents[1]
    assert "text/event-stream" in str(documents[0])


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_every_method(method: str) -> None:
    reply = assert_equal(stream_of([1, 2], int, "async"), method=method)
    assert reply.body == b"data: 1\n\ndata: 2\n\n"


class Noted(BaseModel):
    """Counts how often it is validated as an item."""

    n: int

    @model_validator(mode="after")
    def note(self) -> Noted:
        VALIDATED.append(self.n)
        return self


class Again(BaseModel):
    model_config = ConfigDict(revalidate_instances="always")

    n: int


class Plain(BaseModel):
    n: int


class Sub(Plain):
    more: int = 1


VALIDATED: list[int] = []


def test_validators_of_a_model_see_every_item() -> None:
    reply = assert_equal(stream_of([Noted.model_construct(n=7)], Noted, "sync"))
    assert reply.body == b'data: {"n":7}\n\n'
    assert VALIDATED == [7, 7]


def test_items_are_validated_where_pydantic_would() -> None:
    wrong: Any = "x"
    # An instance is taken as it is, valid or not; unless the model says otherwise.
    for class_ in (Plain, Sub):
        with pytest.warns(UserWarning, match="Pydantic serializer warnings"):
            reply = assert_equal(
                stream_of([class_.model_construct(n=wrong)], Plain, "sync")
            )
        assert reply.body.startswith(b'data: {"n":"x"')
    again = [Again(n=1), Again.model_construct(n=wrong)]
    theirs, ours = both(stream_of(again, Again, "sync"))
    assert_same_error(theirs.error, ours.error)
    assert isinstance(ours.error, ResponseValidationError)


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


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_an_invalid_item_is_fastapis_error_and_loses_nothing(kind: str) -> None:
    items = [Item(name="a"), {"name": "b"}, {"nome": "c"}, Item(name="d")]
    theirs, ours = both(stream_of(items, Item, kind), "/")
    assert_same_error(theirs.error, ours.error)
    assert isinstance(ours.error, ResponseValidationError)
    assert "GET /" in str(ours.error)
    assert ours.body == (
        b'data: {"name":"a","price":1.5}\n\ndata: {"name":"b","price":1.5}\n\n'
    )
    assert not ours.complete


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_an_item_that_cannot_be_encoded_loses_nothing(kind: str) -> None:
    endpoint = stream_of([1, {"a": 2}, [object()], 4], Any, kind)
    endpoint.__annotations__ = {}
    theirs, ours = both(endpoint)
    assert_same_error(theirs.error, ours.error)
    assert ours.body == b'data: 1\n\ndata: {"a": 2}\n\n'
    assert not ours.complete


def test_the_path_of_an_error_names_the_mount() -> None:
    outer = FastAPI()
    app = app_of(fastapi_sse_fast, stream_of([Item(name="a"), 1], Item, "async"))
    outer.mount("/sub", app)
    reply = fetch(outer, "/sub/")
    assert "GET /sub/" in str(reply.error)


class Forward(BaseModel):
    later: Later


async def forward_items() -> AsyncIterable[Forward]:
    yield Forward.model_validate({"later": {"x": 1}})


FORWARD_APP = (
    app_of(fastapi_sse_fast, forward_items)
    if releases.TYPES_CAN_BE_COMPLETED_LATER
    else None
)


class Later(BaseModel):
    x: int


@pytest.mark.skipif(FORWARD_APP is None, reason="FastAPI refuses them")
def test_item_types_may_be_completed_after_the_route() -> None:
    assert FORWARD_APP is not None
    assert fetch(FORWARD_APP).body == b'data: {"later":{"x":1}}\n\n'


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

    app = app_of(fastapi_sse_fast, items)
    app.dependency_overrides[number] = lambda: 2
    assert fetch(app).body == b"data: 2\n\n"


def test_a_header_of_a_dependency_replaces_the_default() -> None:
    def set_headers(response: Response) -> None:
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Other"] = "1"

    endpoint = stream_of([1], int, "async")
    app = app_of(fastapi_sse_fast, endpoint, dependencies=[Depends(set_headers)])
    headers = fetch(app).headers
    assert [value for name, value in headers if name == b"cache-control"] == [
        b"no-store"
    ]
    assert (b"x-other", b"1") in headers
    assert (b"x-accel-buffering", b"no") in headers


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


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_returned_iterable_streams_as_if_yielded(kind: str) -> None:
    async def agen() -> AsyncIterator[Any]:
        yield "text"

    async def async_endpoint() -> Any:
        return agen()

    def sync_endpoint() -> Any:
        return ["text"]

    endpoint = async_endpoint if kind == "async" else sync_endpoint
    app = app_of(fastapi_sse_fast, endpoint, status_code=202)
    reply = fetch(app)
    assert reply.body == b'data: "text"\n\n'
    assert reply.status == 202


@pytest.mark.parametrize("kind", ["async", "sync"])
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
    reply = fetch(
        app_of(fastapi_sse_fast, endpoint, dependencies=[Depends(set_status)])
    )
    assert (reply.status, reply.body) == (202, b"data: 1\n\n")
    assert (b"x-dependency", b"yes") in reply.headers
    assert (b"set-cookie" in dict(reply.headers)) == asks


@pytest.mark.parametrize("returned", [None, "text", {"a": 1}, Item(name="a"), 5])
def test_an_endpoint_that_returns_no_stream_is_told_so(returned: Any) -> None:
    async def forgot_to_yield() -> Any:
        return returned

    reply = fetch(app_of(fastapi_sse_fast, forgot_to_yield))
    assert isinstance(reply.error, TypeError)
    assert str(reply.error).startswith("forgot_to_yield() has response_class=")
    assert "`yield` the events" in str(reply.error)


def test_a_subclass_may_make_a_stream_of_what_is_returned() -> None:
    class Topic(EventSourceResponse):
        def __init__(self, content: str, *args: Any, **kwargs: Any) -> None:
            super().__init__([content], *args, **kwargs)

    reply = fetch(app_of(fastapi_sse_fast, lambda: "news", response_class=Topic))
    assert reply.body == b'data: "news"\n\n'


def test_an_error_in_a_subclass_is_its_own() -> None:
    class Broken(EventSourceResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            raise TypeError("mine")

    reply = fetch(app_of(fastapi_sse_fast, lambda: [1], response_class=Broken))
    assert isinstance(reply.error, TypeError)
    assert str(reply.error) == "mine"


@pytest.mark.parametrize("declared", ["annotation", "argument"])
def test_a_response_model_that_would_not_apply_is_refused(declared: str) -> None:
    """It may be there to keep something from the client."""

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
    reply = fetch(app_of(fastapi_sse_fast, endpoint, **more))
    assert isinstance(reply.error, TypeError)
    assert "no response model applies: `yield` the items" in str(reply.error)
    reply = fetch(app_of(fastapi_sse_fast, annotated, response_model=None))
    assert b"password" in reply.body


def test_other_responses_may_be_returned() -> None:
    def endpoint() -> Response:
        return Response("gone", status_code=410)

    app = FastAPI()
    app.get("/", response_class=EventSourceResponse, response_model=None)(endpoint)
    reply = fetch(app)
    assert (reply.status, reply.body) == (410, b"gone")


# The seam


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
    names = set()
    while frame := frame.f_back:  # type: ignore[assignment]
        names.add(frame.f_globals.get("__name__"))
    return "fastapi_sse_fast._driver" in names


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
                names.add(frame.f_globals.get("__name__"))
            yield "fastapi_sse_fast._driver" in names

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


def test_a_body_middleware_hides_an_abort_as_it_always_does() -> None:
    """Known of Starlette's: its own response around ours ends cleanly."""

    async def items() -> AsyncIterable[int]:
        yield 1
        raise LookupError

    for module in MODULES:
        app = app_of(module, items)

        @app.middleware("http")
        async def pass_on(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        reply = fetch(app)
        assert reply.complete
        if module is fastapi_sse_fast:  # FastAPI's is lost with some releases of AnyIO
            assert isinstance(reply.error, LookupError)
