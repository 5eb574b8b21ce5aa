"""JSON without an item type: `json.dumps(jsonable_encoder(value))`, byte for byte."""

from __future__ import annotations

import datetime
import importlib.util
import json
import math
import struct
import sys
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fastapi_sse_fast import encode_event

from ..support import reference, releases, values
from ..support.apps import no_collector
from ..support.buffers import buffer_of, taken
from ..support.ids import stable_id


def encode(value: Any) -> bytes:
    """Return the frame of a plain item."""
    buffer = buffer_of()
    buffer.push(value)
    return taken(buffer)


REFUSALS = (TypeError, ValueError)
"""Errors for a wrong value. If there are several, either may be found first."""


def outcome(make: Any, value: Any) -> bytes | str:
    try:
        return make(value)  # type: ignore[no-any-return]
    except REFUSALS:
        return "refused"


def expected(value: Any) -> bytes:
    return reference.frame(data=reference.dumps(value))


@given(values.PLAIN)
@values.examples(3)
def test_builtins_equal_the_reference(recipe: values.Recipe) -> None:
    assert outcome(encode, recipe()) == outcome(expected, recipe())


@given(values.ANY)
@values.examples(3)
def test_every_kind_of_value_equals_the_reference(recipe: values.Recipe) -> None:
    assert outcome(encode, recipe()) == outcome(expected, recipe())


@pytest.mark.parametrize(
    "value",
    [values.Unencodable(), 1j, values.Color.DATE, object, {(1, 2): 3}],
    ids=stable_id,
)
@pytest.mark.parametrize("inside", [lambda value: value, lambda value: [1, value]])
def test_errors_are_those_of_the_reference(value: Any, inside: Any) -> None:
    with pytest.raises(REFUSALS) as theirs:
        expected(inside(value))
    with pytest.raises(theirs.type) as ours:
        encode(inside(value))
    assert str(ours.value) == str(theirs.value)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=200))
def test_floats_of_any_bits_equal_repr(patterns: list[int]) -> None:
    numbers = [struct.unpack("<d", struct.pack("<Q", bits))[0] for bits in patterns]
    assert encode(numbers) == expected(numbers)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ([math.nan, math.inf, -math.inf], "[null, null, null]"),
        ([1e16, 1e-7, -0.0, 1e15], "[1e+16, 1e-07, -0.0, 1000000000000000.0]"),
        (10**40, "1" + "0" * 40),
        ({"_sa_state": 1, "a": 2}, '{"a": 2}'),
        ({"_sa": 1}, "{}"),
        ({2: "a", None: "b", True: "c"}, '{"2": "a", "null": "b", "true": "c"}'),
        ({1: "a", "1": "b"}, '{"1": "a", "1": "b"}'),
        ({math.nan: 1, math.inf: 2}, '{"NaN": 1, "Infinity": 2}'),
        ("\x7f\u2028é😀", r'"\u007f\u2028\u00e9\ud83d\ude00"'),
        ("\ud800", r'"\ud800"'),
        ([], "[]"),
        ({}, "{}"),
        (((),), "[[]]"),
    ],
)
def test_the_traps_of_fastapis_encoder(value: Any, text: str) -> None:
    assert encode(value) == f"data: {text}\n\n".encode() == expected(value)


def test_keys_that_become_one_keep_the_place_of_the_first() -> None:
    key = uuid.UUID(int=1)
    value = {key: iter(()), "between": 1, str(key): [2], "_sa": 3}
    value[key] = (number for number in range(2))  # It can be read only once.
    text = f'{{"{key}": [2], "between": 1}}'
    assert encode(value) == f"data: {text}\n\n".encode()


def test_a_generator_before_an_odd_key_is_not_lost() -> None:
    def value() -> dict[Any, Any]:
        return {"a": (number for number in range(2)), uuid.UUID(int=1): 1}

    assert encode(value()) == expected(value())


@pytest.mark.parametrize("depth", [90, 95, 96, 97, 98, 200, 400])
def test_deep_values_equal_the_reference(depth: int) -> None:
    value: Any = "end"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    assert encode(value) == expected(value)


@pytest.mark.parametrize(
    "levels", [10_000, pytest.param(1_000_000, marks=pytest.mark.heavy)]
)
def test_recursion_is_bounded_by_pythons_limit(levels: int) -> None:
    value: list[Any] = []
    with no_collector():
        for _ in range(levels):
            value = [value]
    with pytest.raises(RecursionError):
        encode(value)
    while value:  # Freeing the whole list at once would recurse too.
        value = value.pop()


def test_circular_values_are_recursion_errors() -> None:
    circular: list[Any] = []
    circular.append({"self": [circular, circular]})
    with pytest.raises(RecursionError):
        encode(circular)


def test_integers_beyond_pythons_limit_are_its_error() -> None:
    if not hasattr(sys, "get_int_max_str_digits"):
        pytest.skip("this Python has no limit")
    for make in (encode, expected):
        with pytest.raises(ValueError, match="Exceeds the limit"):
            make(10 ** (sys.get_int_max_str_digits() + 1))


class Meddler:
    """Calls a function while it is being encoded."""

    def __init__(self, meddle: Any) -> None:
        self.meddle = meddle

    def __iter__(self) -> Any:
        self.meddle()
        yield "meddled", True


def test_a_dict_that_grows_while_it_is_walked_is_an_error() -> None:
    value: dict[str, Any] = {"a": 1}
    value["b"] = Meddler(lambda: value.update(c=1))
    value["d"] = 1
    if releases.FREE_THREADED:
        assert encode(value) == b'data: {"a": 1, "b": {"meddled": true}, "d": 1}\n\n'
        return
    with pytest.raises(RuntimeError, match="dictionary changed size"):
        encode(value)


def test_a_dict_whose_keys_change_while_it_is_walked_is_an_error_or_complete() -> None:
    value: dict[str, Any] = {}

    def replace_key() -> None:
        del value["a"]
        value["z"] = 1

    value.update(a=1, b=Meddler(replace_key), c=3)
    try:
        data = encode(value)
    except RuntimeError as error:
        assert "dictionary" in str(error)
    else:
        assert json.loads(data[6:])["b"] == {"meddled": True}


def test_a_list_that_shrinks_while_it_is_walked_is_no_crash() -> None:
    value: list[Any] = [1, None, 3, 4]
    value[1] = Meddler(lambda: value.__delitem__(slice(2, None)))
    assert encode(value) == b'data: [1, {"meddled": true}]\n\n'


@pytest.mark.parametrize("size", [1, 1000])
def test_an_odd_key_that_appears_while_encoding_is_an_error(size: int) -> None:
    inner: dict[Any, Any] = {"x": 1}
    value = [Meddler(lambda: inner.update({b"odd": 1})), inner] * size
    with pytest.raises(RuntimeError, match="changed while it was being encoded"):
        encode(value)


class NoModel:
    """Has the attributes of a model, but is not a model."""

    model_dump = BaseModel.model_dump
    __pydantic_serializer__ = None


class Endless(BaseModel):
    """A model that dumps to itself, endlessly."""

    def __init__(self) -> None:
        super().__init__()


class Serializer:
    def to_python(self, value: object, **options: object) -> object:
        return [value]


def test_what_only_looks_like_a_model_is_none() -> None:
    assert encode(NoModel()) == expected(NoModel())


def test_a_serializer_that_never_ends_is_a_recursion_error() -> None:
    serializer = Endless.__pydantic_serializer__
    try:
        Endless.__pydantic_serializer__ = Serializer()  # type: ignore[assignment]
        for make in (expected, encode):
            with pytest.raises(RecursionError):
                make([Endless()])
    finally:
        Endless.__pydantic_serializer__ = serializer


def encode_compact(value: Any) -> bytes:
    return bytes(encode_event(value, json="compact"))


ORJSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(),
    lambda items: (
        st.lists(items, max_size=5)
        | st.lists(items, max_size=5).map(tuple)
        | st.dictionaries(st.text().filter(lambda k: not k.startswith("_sa")), items)
    ),
    max_leaves=20,
)


needs_orjson = pytest.mark.skipif(
    importlib.util.find_spec("orjson") is None, reason="no build for this Python"
)


@needs_orjson
@given(ORJSON)
@values.examples(3)
def test_compact_json_equals_orjsons(value: Any) -> None:
    import orjson

    assert encode_compact(value) == b"data: " + orjson.dumps(value) + b"\n\n"


@needs_orjson
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=200))
def test_compact_floats_of_any_bits_equal_orjsons(patterns: list[int]) -> None:
    import orjson

    numbers = [struct.unpack("<d", struct.pack("<Q", bits))[0] for bits in patterns]
    assert encode_compact(numbers) == b"data: " + orjson.dumps(numbers) + b"\n\n"


@given(values.ANY)
@values.examples(5)
def test_compact_json_is_the_same_value(recipe: values.Recipe) -> None:
    def decoded(make: Any) -> Any:
        frame = outcome(make, recipe())
        return json.loads(frame[len("data: ") :]) if isinstance(frame, bytes) else frame

    assert decoded(encode_compact) == decoded(encode)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None], "b": True}, '{"a":[1,2.5,null],"b":true}'),
        ("中文 é 😀 \u2028", '"中文 é 😀 \u2028"'),
        ('"\\/\n\r\t\x00\x1f\x7f', '"\\"\\\\/\\n\\r\\t\\u0000\\u001f\x7f"'),
        ("é\ud800", '"é\\ud800"'),
        (
            {"\ud800é": "\x7f", "_sa\ud800": 1, "x": 1e-7},
            '{"\\ud800é":"\x7f","x":1e-7}',
        ),
        (
            {"when": datetime.date(2026, 1, 2), "x": ["é"]},
            '{"when":"2026-01-02","x":["é"]}',
        ),
        ({1e-07: 1e-07, 1e16: 1e16}, '{"1e-07":1e-7,"1e+16":1e+16}'),
        (
            [{uuid.UUID(int=0): "é", values.Text("k"): 1e-7}, 1e-7, "\ud800"],
            '[{"00000000-0000-0000-0000-000000000000":"é","k":1e-7},1e-7,"\\ud800"]',
        ),
    ],
)
def test_compact_json(value: Any, text: str) -> None:
    assert encode_compact(value) == f"data: {text}\n\n".encode()
