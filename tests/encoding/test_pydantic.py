"""The fast paths through pydantic, where an application has changed it first."""

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
print(*[str(w.message).split()[1] for w in ours], sep=";")
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
    """By a tracer, say; it need not show the defaults of the function."""
    change = f"BaseModel.{method} = traced(BaseModel.{method})"
    warned, called = imported_after(change)
    assert warned == "BaseModel"
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
    warned, called = imported_after(change)
    assert warned == "BaseModel"
    assert called == ""
