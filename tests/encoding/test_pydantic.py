"""The fast paths through pydantic, after an application has changed pydantic."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRELUDE = """
import functools, warnings
import pydantic
import pydantic.main
from pydantic import BaseModel

calls = []

def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        calls.append(function.__name__)
        return function(*args, **kwargs)
    return wrapper

class Slot:
    def __get__(self, instance, owner):
        return self if instance is None else instance.__dict__

class Item(BaseModel):
    a: int = 1
"""

IMPORT = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from fastapi_sse_fast import EncodedEvent, ServerSentEvent, encode_event
    import fastapi_sse_fast

ours = [w for w in caught if "fastapi_sse_fast" in str(w.message)]
assert all(w.category is RuntimeWarning for w in ours)
print(*[str(w.message).partition(";")[0].split()[-1] for w in ours], sep=";")
assert bytes(EncodedEvent(data=Item())) == b'data: {"a":1}\\n\\n'
assert bytes(encode_event([Item()])) == b'data: [{"a": 1}]\\n\\n'
made = ServerSentEvent(data=1, id="x")
assert made == ServerSentEvent.model_validate({"data": 1, "id": "x"})
assert made.model_fields_set == {"data", "id"}
print(*calls, sep=";")
"""


def imported_after(change: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", PRELUDE + change + IMPORT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    return run.stdout.splitlines()


def test_an_unchanged_pydantic_needs_no_warning() -> None:
    assert imported_after("") == ["", ""]


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("model_dump_json", "model_dump_json"),
        ("model_dump", "model_dump"),
    ],
)
def test_a_method_that_was_wrapped_before_is_called(method: str, calls: str) -> None:
    """A tracer may wrap it. The wrapper does not have the function's defaults."""
    change = f"BaseModel.{method} = traced(BaseModel.{method})"
    warned, called = imported_after(change)
    assert warned == "serialized"
    assert called == calls


def test_without_the_slots_of_a_model_events_are_made_by_pydantic() -> None:
    change = """
fields_set = BaseModel.__dict__["__pydantic_fields_set__"]

class Unknown:
    def __get__(self, instance, owner):
        return self if instance is None else fields_set.__get__(instance, owner)

    def __set_name__(self, owner, name):
        pass

type.__setattr__(BaseModel, "__pydantic_fields_set__", Unknown())
"""
    assert imported_after(change) == ["constructed", ""]


@pytest.mark.parametrize("model", ["BaseModel", "fastapi.sse.ServerSentEvent"])
def test_a_constructor_that_was_wrapped_before_is_called(model: str) -> None:
    change = f"""
import fastapi.sse
{model}.__init__ = traced({model}.__init__)
"""
    warned, called = imported_after(change)
    assert warned == "constructed"
    assert "__init__" in called


def test_the_fields_that_were_set_have_to_be_known() -> None:
    """`==` of models ignores which fields were set, so a separate check finds this."""
    change = """
slot = BaseModel.__dict__["__pydantic_fields_set__"]

class Forgets:
    # As if pydantic set them in another way: what is looked up by name does nothing.
    def __init__(self):
        self.__set__ = lambda instance, value: slot.__set__(instance, set())
    def __get__(self, instance, owner):
        return self if instance is None else slot.__get__(instance, owner)
    def __set__(self, instance, value):
        slot.__set__(instance, value)

type.__setattr__(BaseModel, "__pydantic_fields_set__", Forgets())
"""
    assert imported_after(change) == ["constructed", ""]


PLUGIN = """
import pydantic.plugin._loader

class Handler:
    def on_enter(self, *args, **options):
        calls.append("validated")

class Plugin:
    def new_schema_validator(self, schema, type_, path, kind, config, settings):
        return (Handler() if {path.name, kind} & WATCHED else None), None, None

pydantic.plugin._loader._plugins = {"test": Plugin()}
"""


def test_a_plugin_of_pydantic_sees_what_it_asks_for() -> None:
    warned, called = imported_after("WATCHED = {'ServerSentEvent'}" + PLUGIN)
    assert warned == "constructed"
    assert "validated" in called


def test_a_plugin_that_asks_for_nothing_costs_nothing() -> None:
    assert imported_after("WATCHED = set()" + PLUGIN) == ["", ""]


def test_a_plugin_of_pydantic_sees_every_item() -> None:
    code = """
WATCHED = {'TypeAdapter'}

import fastapi_sse_fast
from collections.abc import AsyncIterable
from tests.support.comparison import both

async def items() -> AsyncIterable[Item]:
    calls.clear()
    yield Item(a=1)
    yield Item(a=2)
    print(len(calls), end=" ")

theirs, ours = both(items)
assert theirs.body == ours.body
"""
    watched, rest = code.split("\n\n", 1)
    run = subprocess.run(
        [sys.executable, "-c", PRELUDE + watched + PLUGIN + rest],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout == "2 2 "
