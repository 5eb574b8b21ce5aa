"""Slots in every place: a value is encoded as it would be in the whole data."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import functools
import pickle
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.alias_generators import to_camel

from fastapi_sse_fast import EncodedEvent, EventTemplate, Slot

from ..support import values
from ..support.ids import stable_id
from ..support.releases import NON_FINITE_CAN_BE_STRINGS
from ..support.values import Recipe, constant

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")

Shape: TypeAlias = Callable[[Any], Any]
"""A function that puts a value into some data."""


def first(value: Any) -> Any:
    return value[:100] if isinstance(value, str) else type(value).__name__


class Anything(BaseModel):
    value: Any
    after: str = "é"


class Spelled(BaseModel):
    model_config = ConfigDict(
        ser_json_bytes="base64",
        ser_json_inf_nan="strings" if NON_FINITE_CAN_BE_STRINGS else "constants",
        ser_json_timedelta="float",
        alias_generator=to_camel,
    )

    the_value: Any


class Constants(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="hex")

    value: Any


class Aliased(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    value: Any = Field(alias="the-value")


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")


class Typed(BaseModel):
    """Fields whose serializers write values differently than fields without a type."""

    text: str | None = None
    number: float | None = None
    size: int | None = None
    amount: decimal.Decimal | None = None
    time: datetime.timedelta | None = None
    raw: bytes | None = None
    colour: values.Color | None = None
    inner: values.Inner | None = None
    many: Sequence[Any] = ()
    one_of: int | float | str | None = None


class Tree(BaseModel):
    value: Any = None
    inner: Tree | None = None


class Root(RootModel[Any]):
    pass


class AnyConfigured(BaseModel):
    """A field without a type. The model inside decides how it is serialized."""

    model_config = ConfigDict(ser_json_timedelta="float", ser_json_inf_nan="constants")

    inner: Any


class Declared(BaseModel):
    model_config = ConfigDict(ser_json_bytes="hex", ser_json_timedelta="float")

    inner: list[Spelled | Constants | Anything]


class Base(BaseModel):
    value: Any


class Derived(Base):
    value: Annotated[Any, pydantic.PlainSerializer(lambda v: [first(v)])]


class AsBase(BaseModel):
    inner: Base
    as_any: pydantic.SerializeAsAny[Base] | None = None


class Trimmed(BaseModel):
    value: Any

    @pydantic.field_serializer("value")
    def trim(self, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value


class TrimmedItems(BaseModel):
    items: list[Annotated[Any, pydantic.PlainSerializer(lambda v: first(v))]]


class Wrapped(BaseModel):
    value: Any

    @pydantic.model_serializer(mode="wrap")
    def wrap(self, serialize: Callable[[Any], Any]) -> Any:
        return {"whole": serialize(self), "kind": type(self.value).__name__}


class Counted(BaseModel):
    value: Any

    @pydantic.computed_field
    def size(self) -> int:
        return len(str(self.value))


class Sparse(BaseModel):
    value: Any

    def model_dump_json(self, **options: Any) -> str:
        return super().model_dump_json(**{**options, "exclude_none": True})

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return super().model_dump(**{**options, "exclude_none": True})


@dataclasses.dataclass
class Point:
    x: Any
    label: str = "é"


@dataclasses.dataclass(frozen=True)
class Frozen:
    __slots__ = ("x",)

    x: Any


@pydantic.dataclasses.dataclass
class Checked:
    x: Any


class Pair(NamedTuple):
    first: Any
    second: Any


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value


def field(model: type[BaseModel], name: str, **others: Any) -> Shape:
    return lambda value: model.model_construct(**others, **{name: value})


FIELDS: dict[str, Shape] = {
    "anything": field(Anything, "value"),
    "configured": field(Spelled, "the_value"),
    "constants": field(Constants, "value"),
    "alias": lambda value: Aliased(**{"the-value": value}),
    "extra": field(Extra, "more"),
    **{f"typed {name}": field(Typed, name) for name in Typed.model_fields},
    "sequence": lambda value: Typed.model_construct(many=[value]),
    "recursive": lambda value: Tree(inner=Tree(inner=Tree(value=value))),
    "root": lambda value: Root.model_construct(value),
    "root list": lambda value: Root.model_construct([1, {"a": value}]),
    "any, configured": lambda value: AnyConfigured(
        inner=Spelled.model_construct(the_value=value)
    ),
    "any, dataclass": lambda value: AnyConfigured(inner=Point(value)),
    "any, checked": lambda value: AnyConfigured(inner=Checked(value)),
    "any, tuple": lambda value: AnyConfigured(inner=(1, [value])),
    "any, named tuple": lambda value: AnyConfigured(inner=Pair(1, value)),
    "declared": lambda value: Declared(
        inner=[Spelled.model_construct(the_value=value)]
    ),
    "declared plain": lambda value: Declared(inner=[Anything(value=value)]),
    "subclass": lambda value: AsBase(inner=Derived(value=value)),
    "as any": lambda value: AsBase(inner=Base(value=1), as_any=Derived(value=value)),
}
"""Shapes of models that pydantic serializes without any user code."""

CODE: dict[str, Shape] = {
    "field serializer": field(Trimmed, "value"),
    "serializer of items": lambda value: TrimmedItems.model_construct(items=[value]),
    "model serializer": field(Wrapped, "value"),
    "computed field": field(Counted, "value"),
    "methods": field(Sparse, "value"),
}

AROUND: dict[str, Callable[[Shape], Shape]] = {
    "in list": lambda inner: lambda value: [1, inner(value), "é"],
    "in dict": lambda inner: lambda value: {"a": inner(value), "_sa": 1, None: 2},
    "in deque": lambda inner: lambda value: collections.deque([inner(value)]),
    "in named tuple": lambda inner: lambda value: Pair(inner(value), 1),
    "in dict subclass": lambda inner: lambda value: values.Mapping(a=inner(value)),
    "in dataclass": lambda inner: lambda value: Point([inner(value)]),
    "in frozen": lambda inner: lambda value: Frozen({"a": inner(value)}),
    "in checked": lambda inner: lambda value: Checked(inner(value)),
    "in object": lambda inner: lambda value: Plain(inner(value)),
    "in model": lambda inner: lambda value: Anything(value=[inner(value)]),
}

SHAPES = FIELDS | CODE | {"itself": lambda value: value}

RECIPES: st.SearchStrategy[Recipe] = st.one_of(
    values.SCALARS.map(constant),
    values.ANY,
    st.sampled_from(
        [
            values.Inner(),
            [values.Outer()],
            {None: 1, values.Level.LOW: decimal.Decimal("1.50")},
            {"model": Spelled.model_construct(the_value=b"\xff")},
            Aliased(**{"the-value": float("inf")}),
            datetime.timedelta(days=1.5),
            datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
            values.Color.RED,
            values.Color.PAIR,
            Point({"a": values.Inner()}),
            " padded ",
            10**30,
            float("nan"),
        ]
    ).map(lambda value: lambda: copy.deepcopy(value)),
)


def outcome(make: Callable[[], EncodedEvent]) -> bytes | type[Exception]:
    try:
        return bytes(make())
    except Exception as error:
        return type(error)


def is_iterator_in(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception as error:
        return "generator" in str(error)
    return False


@values.examples(5)
@example("alias", [], [lambda: 0.5, lambda: 1e16, lambda: 1e-7], "fastapi")
@given(
    st.sampled_from(sorted(SHAPES)),
    st.lists(st.sampled_from(sorted(AROUND)), max_size=2),
    st.lists(RECIPES, min_size=1, max_size=3),
    st.sampled_from(["fastapi", "compact"]),
)
def test_a_value_is_written_as_in_the_whole(
    place: str, around: list[str], recipes: list[Recipe], json: Any
) -> None:
    shape = SHAPES[place]
    for name in around:
        shape = AROUND[name](shape)
    if isinstance(outcome(lambda: EncodedEvent(data=shape("text"))), type):
        reject()  # Pydantic cannot serialize this object in a model.
    template = EventTemplate(shape(Slot("slot")), json=json)
    # Each value comes twice, because the template learns from the first one.
    for recipe in recipes * 2:

        def whole(recipe: Recipe = recipe) -> EncodedEvent:
            return EncodedEvent(data=shape(recipe()), json=json)

        def partial(recipe: Recipe = recipe) -> EncodedEvent:
            return template.partial(slot=recipe())()

        assert outcome(lambda: template(recipe())) == outcome(whole)  # noqa: B023
        assert outcome(lambda: template(slot=recipe())) == outcome(whole)  # noqa: B023
        if not is_iterator_in(recipe()):
            assert outcome(partial) == outcome(whole)


@given(
    st.sampled_from(sorted(FIELDS)),
    st.sampled_from(sorted(SHAPES)),
    st.lists(st.tuples(RECIPES, RECIPES), min_size=1, max_size=3),
    st.sampled_from(sorted(AROUND)),
)
def test_each_of_several_slots_is_filled_by_whoever_writes_it(
    first: str, second: str, pairs: list[tuple[Recipe, Recipe]], around: str
) -> None:
    def data(a: Any, b: Any, c: Any) -> Any:
        shape = AROUND[around](lambda a: [SHAPES[first](a), c, SHAPES[second](b)])
        return shape(a)

    if isinstance(outcome(lambda: EncodedEvent(data=data("a", "b", "c"))), type):
        reject()
    template = EventTemplate(
        data(Slot("a"), Slot("b"), Slot("c")), event=Slot("e"), id=Slot("i"), retry=5
    )
    assert template.slots == ("e", "a", "c", "b", "i")
    for a, b in pairs * 2:
        for event, id in (("name", "7"), (None, None)):
            whole = outcome(
                lambda: EncodedEvent(
                    data=data(a(), b(), 1.5),  # noqa: B023
                    event=event,  # noqa: B023
                    id=id,  # noqa: B023
                    retry=5,
                )
            )
            fields: dict[str, Any] = {"e": event, "i": id}
            filled = outcome(lambda: template(a=a(), b=b(), c=1.5, **fields))  # noqa: B023
            assert filled == whole
            if is_iterator_in([a(), b()]) or isinstance(whole, type):
                continue
            assert bytes(template.partial(a=a(), **fields)(b=b(), c=1.5)) == whole
            assert bytes(template.partial(b=b())(a=a(), c=1.5, **fields)) == whole
            rest = template.partial(c=1.5).partial(b=b()).partial(e=event)
            assert rest.slots == ("a", "i")
            assert bytes(rest(a=a(), i=id)) == whole


def test_a_number_in_a_field_of_another_type() -> None:
    template = EventTemplate(Typed.model_construct(number=Slot("n")))
    for number in (1, 1.5, 1, True, 10**400, "1", 2):
        whole = outcome(lambda: EncodedEvent(data=Typed.model_construct(number=number)))  # noqa: B023
        assert outcome(lambda: template(number)) == whole  # noqa: B023


@pytest.mark.parametrize("place", CODE)
@pytest.mark.parametrize("around", [*AROUND, None])
def test_what_code_makes_of_one_value_says_nothing_about_the_next(
    place: str, around: str | None
) -> None:
    shape = AROUND[around](SHAPES[place]) if around else SHAPES[place]
    template = EventTemplate(shape(Slot("slot")))
    for value in ("plain", "x" * len(str(Slot("slot"))), " padded ", "x" * 200, None):
        whole = EncodedEvent(data=shape(value))
        assert template(value) == template(slot=value) == whole
        assert template.partial(slot=value)() == whole


def test_what_was_learned_holds_for_the_templates_made_of_it() -> None:
    template = EventTemplate(Anything(value=[Slot("a"), Slot("b")]))
    for a, b in (("x", 1), (1, "x"), (None, 1.5), ("y", None), (b"1", "y")):
        whole = EncodedEvent(data=Anything(value=[a, b]))
        bound = template.partial(a=a)
        assert bound(b) == template.partial(b=b)(a) == template(a=a, b=b) == whole
        assert bound.partial(b=b)() == whole


def test_data_that_changes_later() -> None:
    items = [Slot("a"), 1]
    model = Anything(value=items)
    template = EventTemplate(model)
    whole = [EncodedEvent(data=Anything(value=[a, 1])) for a in ("x", b"x")]
    items.append(2)
    model.after = "changed"
    assert [template("x"), template(b"x"), template("x")] == [whole[0], *whole]


def test_a_value_that_changes_later() -> None:
    value = [1]
    template = EventTemplate(Anything(value=[Slot("a"), Slot("b")])).partial(a=value)
    value.append(2)
    for b in ("x", b"x"):
        assert template(b) == EncodedEvent(data=Anything(value=[[1], b]))


def test_a_property_that_was_cached() -> None:
    class Cached(BaseModel):
        value: Any

        @functools.cached_property
        def size(self) -> int:
            return len(str(self.value))

        @pydantic.model_serializer
        def sized(self) -> Any:
            return {"value": self.value, "size": self.size}

    template = EventTemplate(Cached(value=Slot("a")))
    assert template("four") == EncodedEvent(data=Cached(value="four"))


class NotAsItWas(BaseModel):
    value: str = ""
    hidden: str = Field(default="", exclude=True)

    @pydantic.field_serializer("value")
    def upper(self, value: str) -> str:
        return value.upper()


class Iterates:
    def __iter__(self) -> Any:
        return iter([("a", Slot("a"))])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NotAsItWas(value=Slot("a")), "slot 'a' is missing from the encoded data"),
        (NotAsItWas(hidden=Slot("a")), "slot 'a' is missing from"),
        ({"_sa_a": Slot("a")}, "slot 'a' is missing from"),
        ({"a": pydantic.SecretStr(Slot("a"))}, "slot 'a' is missing from"),
        ([{Slot("a")}], "slot 'a' is in an iterator, a set or an object that encodes"),
        ((item for item in [Slot("a")]), "slot 'a' is in an iterator"),
        ([Iterates()], "slot 'a' is in an iterator, a set or an object"),
        (Anything(value=[{Slot("a")}]), "slot 'a' is in an iterator"),
        (Anything(value=[Slot("a"), iter([1])]), "contains an iterator, which can"),
        (Point([Slot("a"), Slot("a")]), "slot 'a' is used twice"),
    ],
    ids=stable_id,
)
def test_a_slot_that_no_value_can_be_put_into(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EventTemplate(data)


def test_a_value_that_can_be_encoded_only_once() -> None:
    template = EventTemplate(Anything(value=[Slot("a"), Slot("b")]))
    whole = EncodedEvent(data=Anything(value=[[1], 2]))
    assert template(a=iter([1]), b=2) == whole
    with pytest.raises(ValueError, match="slot 'a' contains an iterator, which can be"):
        template.partial(a=[iter([1])])


def test_a_value_that_leaves_out_another_slot() -> None:
    class Either(BaseModel):
        value: Any
        other: Any

        @pydantic.model_serializer
        def either(self) -> Any:
            return {"value": self.value} if self.value else {"": "", "o": self.other}

    with pytest.raises(ValueError, match="slot 'b' is missing from"):
        EventTemplate(Either(value=Slot("a"), other=Slot("b")))

    class Both(BaseModel):
        value: Any
        other: Any

        @pydantic.model_serializer
        def both(self) -> Any:
            return [self.value, self.other] if self.value else []

    template = EventTemplate(Both(value=Slot("a"), other=Slot("b")))
    assert template(a="", b=1) == EncodedEvent(data=Both(value="", other=1))
    with pytest.raises(ValueError, match="the encoded data has other slots than"):
        template.partial(a="")
    assert template.partial(b="")(1) == EncodedEvent(data=Both(value=1, other=""))


def test_a_slot_as_a_value_is_text() -> None:
    template = EventTemplate(Anything(value=[Slot("a"), Slot("b")]))
    whole = EncodedEvent(data=Anything(value=[Slot("c"), 1]))
    assert template(a=Slot("c"), b=1) == whole
    with pytest.raises(ValueError, match="the encoded data has other slots"):
        template.partial(a=Slot("c"))


def test_a_model_that_is_not_built_yet() -> None:
    class Late(BaseModel):
        model_config = ConfigDict(defer_build=True)

        value: Any

    class Outside(BaseModel):
        inner: Any

    for shape in (
        lambda v: Late.model_construct(value=v),
        lambda v: Outside(inner=Late(value=v)),
    ):
        template = EventTemplate(shape(Slot("a")))
        for value in ("x", 1, b"x", "y"):
            assert template(value) == EncodedEvent(data=shape(value))
