"""Every way to pass a value to the core, and objects that misbehave."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import fastapi.sse
from pydantic import BaseModel, TypeAdapter, model_serializer

from fastapi_sse_fast import (
    EncodedEvent,
    EventTemplate,
    ServerSentEvent,
    Slot,
    encode_event,
    format_sse_event,
)
from fastapi_sse_fast._core import ItemEncoder

from .buffers import buffer_of, taken, typed

Make = Callable[[Any], Any]


class Anything(BaseModel):
    value: Any = None


def push(item: Any, encoder: ItemEncoder | None = None) -> bytes:
    neighbour = EncodedEvent(data=1)
    buffer = buffer_of(encoder)
    buffer.push(neighbour)
    try:
        buffer.push(item)
    finally:
        buffer.push(neighbour)
        body = taken(buffer)
        frame = body[len(neighbour) : -len(neighbour)]
        assert body == bytes(neighbour) + frame + bytes(neighbour)
    return frame


WAYS: dict[str, Make] = {
    "push": push,
    "push_chunk": lambda value: push(value, ItemEncoder.chunks()),
    "push_typed": lambda value: push(value, typed(Any)),
    "encode_event": encode_event,
    "compact": lambda value: encode_event(value, json="compact"),
    "nested": lambda value: encode_event([1, {"a": (value,)}]),
    "data": lambda value: EncodedEvent(data=value),
    "event": lambda value: ServerSentEvent(data=value).encode(),
    "theirs": lambda value: encode_event(fastapi.sse.ServerSentEvent(data=value)),
    "slot": lambda value: EventTemplate([Slot("a")])(value),
    "data_slot": lambda value: EventTemplate(Slot("a"))(a=value),
    "partial": lambda value: EventTemplate([Slot("a")]).partial(a=value)(),
    "model_slot": lambda value: EventTemplate(Anything(value=Slot("a")))(value),
    "template": lambda value: EventTemplate({"a": value})(),
    "data_template": lambda value: EventTemplate(value)(),
    "raw_data": lambda value: EncodedEvent(raw_data=value),
    "id": lambda value: EncodedEvent(id=value),
    "id_slot": lambda value: EventTemplate(1, id=Slot("a"))(value),
    "retry": lambda value: EncodedEvent(retry=value),
    "comment": lambda value: ServerSentEvent(comment=value).encode(),
    "format_data": lambda value: format_sse_event(data_str=value),
    "format_event": lambda value: format_sse_event(event=value),
    "format_retry": lambda value: format_sse_event(retry=value),
    "json": lambda value: encode_event(1, json=value),
    "from_bytes": EncodedEvent.from_bytes,
    "constructed": lambda value: ServerSentEvent.model_construct(
        data=value, id=value, event=value
    ).encode(),
}
"""Every way to pass a value to the core."""

ENCODERS = list(WAYS)[: list(WAYS).index("raw_data")]
"""The ways that encode the value as JSON."""


def outcome(way: str, value: Any) -> bytes | BaseException:
    """Return the bytes or the error. A panic of our code fails the test."""
    try:
        return bytes(WAYS[way](value))
    except AssertionError:
        raise
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"
        assert not is_panic or type(error) in panics_of_pydantic()
        assert not isinstance(error, SystemError)
        return error


@functools.cache
def panics_of_pydantic() -> list[type[BaseException]]:
    """Return the panic class of pydantic, which is not the one of our module."""
    value: dict[str, Any] = {"a": 1}
    value["b"] = MeddlingModel(meddle=value.clear)
    try:
        TypeAdapter(Any).serializer.to_json(value)
    except BaseException as panic:
        return [type(panic)]
    return []


def every_outcome(make: Callable[[], Any]) -> dict[str, bytes | BaseException]:
    return {way: outcome(way, make()) for way in WAYS}


class Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise ZeroDivisionError

    def __subclasscheck__(cls, subclass: object) -> bool:
        raise ZeroDivisionError

    def __getattribute__(cls, name: str) -> Any:
        raise ZeroDivisionError(name)


class Faked(metaclass=Meta):
    pass


class Proxy:
    """Returns itself as every attribute and from every call."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self


class Rubbish:
    def __init__(self, value: Any) -> None:
        self.value = value

    def model_dump_json(self, **kwargs: Any) -> Any:
        return self.value

    def model_dump(self, **kwargs: Any) -> Any:
        return self.value


class Lying(str):
    """Reports a different class each time."""

    __slots__ = ()

    def __str__(self) -> str:
        return "a\nid: injected\n\n"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return str(self)

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        return b"\xff"

    def __len__(self) -> int:
        return 10**9

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __contains__(self, part: object) -> bool:
        return False

    def splitlines(self, *args: Any, **kwargs: Any) -> list[str]:
        return ["x", "\n\n"]

    split = splitlines


class LyingNumber(int):
    def __str__(self) -> str:
        return "1\nid: injected\n\n"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return str(self)

    def __int__(self) -> int:
        return 7

    __index__ = __int__

    def __lt__(self, other: object) -> bool:
        return False


class Meddler:
    def __init__(self, meddle: Callable[[], object]) -> None:
        self.meddle = meddle

    def __iter__(self) -> Any:
        self.meddle()
        yield "meddled", True


class MeddlingModel(BaseModel):
    meddle: Any

    @model_serializer
    def serialize(self) -> Any:
        self.meddle()
        return {"meddled": True}
