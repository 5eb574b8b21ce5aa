"""Items and events, with and without a type, compared with `fastapi.sse`."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
from collections.abc import AsyncIterable
from typing import Any, Union

import fastapi.routing
import fastapi.sse
import pytest
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

from fastapi_sse_fast import EncodedEvent, ServerSentEvent

from ..support import releases, values
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
from ..support.ids import stable_id


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
    """Not a model. FastAPI reads its attributes."""

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


@pytest.mark.parametrize("kind", KINDS)
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
def test_untyped_items(recipes: list[values.Recipe]) -> None:
    async def items():  # type: ignore[no-untyped-def]
        for recipe in recipes:
            yield recipe()

    theirs, ours = both(items)
    assert_same_error(theirs.error, ours.error)
    if theirs.error is None:
        assert ours.body == theirs.body
    else:  # FastAPI can lose items that come just before an error.
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
        assert fetch(app_of(items)).body == frame + item + frame


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("annotation", [EncodedEvent, Item | EncodedEvent])
def test_encoded_events_may_be_annotated(annotation: Any, kind: str) -> None:
    events = [EncodedEvent(raw_data="x"), ServerSentEvent(raw_data="y")]
    app = app_of(stream_of(events, annotation, kind))
    assert fetch(app).body == b"data: x\n\ndata: y\n\n"
    assert "'contentMediaType': 'application/json'" in str(app.openapi())
    app = app_of(stream_of([object()], annotation, kind))
    assert isinstance(fetch(app).error, ResponseValidationError)


@pytest.mark.parametrize("annotation", [ServerSentEvent, fastapi.sse.ServerSentEvent])
def test_openapi_of_events(annotation: Any) -> None:
    documents = [
        app_of(stream_of([], annotation, "async"), module=module).openapi()
        for module in MODULES
    ]
    assert documents[0] == documents[1]


@pytest.mark.parametrize(("item_type", "items"), ITEM_TYPES, ids=stable_id)
def test_openapi_of_items(item_type: Any, items: list[Any]) -> None:
    endpoint = stream_of(items, item_type, "sync")
    documents = [app_of(endpoint, module=module).openapi() for module in MODULES]
    assert documents[0] == documents[1]
    assert "text/event-stream" in str(documents[0])


# Validation


class Noted(BaseModel):
    """Records each validation."""

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
    # pydantic does not validate instances, unless the model's configuration says so.
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


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_cannot_be_encoded_loses_nothing(kind: str) -> None:
    endpoint = stream_of([1, {"a": 2}, [object()], 4], Any, kind)
    endpoint.__annotations__ = {}
    theirs, ours = both(endpoint)
    assert_same_error(theirs.error, ours.error)
    assert ours.body == b'data: 1\n\ndata: {"a": 2}\n\n'
    assert not ours.complete


class Forward(BaseModel):
    later: Later


async def forward_items() -> AsyncIterable[Forward]:
    yield Forward.model_validate({"later": {"x": 1}})


FORWARD_APP = app_of(forward_items) if releases.TYPES_CAN_BE_COMPLETED_LATER else None


class Later(BaseModel):
    x: int


@pytest.mark.skipif(FORWARD_APP is None, reason="FastAPI refuses them")
def test_item_types_may_be_completed_after_the_route() -> None:
    assert FORWARD_APP is not None
    assert fetch(FORWARD_APP).body == b'data: {"later":{"x":1}}\n\n'
