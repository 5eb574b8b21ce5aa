"""Values of every kind that FastAPI's encoder knows, as functions that create them.

A function creates a new value each time, because encoding exhausts some of them.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import pathlib
import re
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretBytes, SecretStr

Recipe: TypeAlias = Callable[[], Any]


def examples(times: int) -> settings:
    """Multiply the number of examples of the profile for a property."""
    return settings(max_examples=times * settings().max_examples)


class Color(enum.Enum):
    RED = "red"
    NUMBER = 1
    FLOAT = float("nan")
    PAIR = (1, float("inf"))
    HIDDEN = "_sa_hidden"
    DATE = datetime.date(2026, 1, 1)


class Name(str, enum.Enum):
    ONE = "one"
    HIDDEN = "_sa_name"


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Items(list[Any]):
    pass


class Mapping(dict[Any, Any]):
    pass


class Inner(BaseModel):
    value: int = Field(default=1, alias="the-value")
    text: str = "é"


class Outer(BaseModel):
    model_config = ConfigDict(extra="allow")

    inner: Inner = Inner()
    when: datetime.datetime = datetime.datetime(2026, 1, 2, 3, 4, 5)
    ratio: float = float("nan")


@dataclasses.dataclass
class Point:
    x: Any = 1
    y: Any = None


class Plain:
    def __init__(self) -> None:
        self.a = 1
        self._sa_state = 2


class Unencodable:
    __slots__ = ()


TEXT = st.text() | st.text('\x00\x1f"\\/\x7fé中😀\ud800\udfff\u2028 _sa')

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.sampled_from([1e15, 1e16, 1e17, 1e-4, 1e-5, -0.0, 0.1, 5e-324, 123456789.0]),
    TEXT,
    st.builds(lambda text: "_sa" + text, st.text(max_size=2)),
)

OTHERS: st.SearchStrategy[Any] = st.one_of(
    st.builds(decimal.Decimal, st.sampled_from(["1", "1.50", "NaN", "1E+2", "-0.0"])),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from(
        [
            *Color,
            *Name,
            Level.LOW,
            Text("t\n"),
            Number(7),
            Real(1.5),
            Real("nan"),
            b"bytes",
            b"\xff",
            bytearray(b"x"),
            pathlib.PurePosixPath("/a/b"),
            ipaddress.ip_address("127.0.0.1"),
            re.compile("a+"),
            SecretStr("secret"),
            SecretBytes(b"secret"),
            uuid.UUID(int=0),
            1j,
            Plain(),
            Unencodable(),
            object,
            range(3),
        ]
    ),
)

KEYS = st.one_of(
    TEXT,
    st.integers(),
    st.none(),
    st.booleans(),
    st.floats(),
    st.uuids(),
    st.sampled_from(
        [*Color, *Name, Level.LOW, Text("t"), Text("_sa"), Number(1), Real(1.0)]
    ),
    st.sampled_from([b"k", (1, 2), datetime.date(2026, 1, 1), decimal.Decimal("1")]),
)


def constant(value: Any) -> Recipe:
    return lambda: value


def collection(make: Callable[[list[Any]], Any]) -> Callable[[list[Recipe]], Recipe]:
    return lambda recipes: lambda: make([recipe() for recipe in recipes])


def mapping(
    make: Callable[[dict[Any, Any]], Any],
) -> Callable[[dict[Any, Recipe]], Recipe]:
    return lambda recipes: (
        lambda: make({key: recipe() for key, recipe in recipes.items()})
    )


def containers(recipes: st.SearchStrategy[Recipe]) -> st.SearchStrategy[Recipe]:
    lists = st.lists(recipes, max_size=4)
    plain_keys = st.dictionaries(st.text(max_size=5), recipes, max_size=4)
    odd_keys = st.dictionaries(KEYS, recipes, max_size=4)
    return st.one_of(
        lists.map(collection(list)),
        lists.map(collection(tuple)),
        lists.map(collection(Items)),
        lists.map(collection(collections.deque)),
        lists.map(collection(lambda items: (item for item in items))),
        lists.map(collection(lambda items: Point(items))),
        lists.map(collection(lambda items: Outer.model_construct(extra=items))),
        plain_keys.map(mapping(dict)),
        plain_keys.map(mapping(Mapping)),
        plain_keys.map(mapping(collections.OrderedDict)),
        odd_keys.map(mapping(dict)),
        st.sets(SCALARS, max_size=1).map(constant),
        st.frozensets(st.text(max_size=2), max_size=1).map(constant),
        st.builds(Inner).map(constant),
        st.builds(Point, SCALARS).map(constant),
    )


PLAIN = st.recursive(
    SCALARS.map(constant),
    lambda recipes: st.one_of(
        st.lists(recipes, max_size=4).map(collection(list)),
        st.lists(recipes, max_size=4).map(collection(tuple)),
        st.dictionaries(TEXT, recipes, max_size=4).map(mapping(dict)),
        st.dictionaries(
            st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
            recipes,
            max_size=4,
        ).map(mapping(dict)),
    ),
    max_leaves=20,
)
"""Builtins only, which the Rust core writes without Python code."""

ANY = st.recursive((SCALARS | OTHERS).map(constant), containers, max_leaves=12)
"""All values, nested in any way."""

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))

FIELDS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["data", "comment"],
        st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n:")),
    )
    | {
        "event": LINE,
        "id": LINE.filter(lambda text: "\0" not in text),
        "retry": st.integers(0, 10**25),
    },
)
"""All fields of an event that can be sent."""
