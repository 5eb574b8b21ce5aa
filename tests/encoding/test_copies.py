"""Copies and pickles of events and templates."""

from __future__ import annotations

import contextlib
import copy
import datetime
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fastapi.sse
import pytest
from hypothesis import given
from pydantic import BaseModel, ConfigDict

from fastapi_sse_fast import EncodedEvent, EventTemplate, ServerSentEvent, Slot
from fastapi_sse_fast._bench.samples import chunk

from ..support import values


def pickled(protocol: int, value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": partial(pickled, protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}

copies = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


class Model(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")

    number: int = 0
    value: Any = None


class MyEvent(ServerSentEvent):
    more: int = 0


@copies
@given(values.FIELDS)
def test_an_encoded_event(copied: Any, fields: dict[str, Any]) -> None:
    event = EncodedEvent(**fields)
    other = copied(event)
    assert type(other) is EncodedEvent
    assert other == event
    assert hash(other) == hash(event)


@copies
@pytest.mark.parametrize(
    "event",
    [
        ServerSentEvent(data=[1], event="e", id="1", retry=2, comment="c"),
        ServerSentEvent(raw_data="x"),
        ServerSentEvent(),
        MyEvent(data={"a": 1}, more=5),
        fastapi.sse.ServerSentEvent(data=1, id="1"),
    ],
    ids=repr,
)
def test_an_event(copied: Any, event: Any) -> None:
    other = copied(event)
    assert type(other) is type(event)
    assert other == event
    assert other.model_fields_set == event.model_fields_set
    if isinstance(event, ServerSentEvent):
        assert other.encode() == event.encode()


@copies
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_template(copied: Any) -> None:
    a, b, event, id = Slot("a"), Slot("b"), Slot("event"), Slot("id")
    for template in (
        EventTemplate({"a": a, "b": ["é", b]}, json="compact"),
        EventTemplate([a, b], event=event, id=id, comment="c"),
        EventTemplate(Model(number=Slot("a", type=int), value=b)),
        EventTemplate([{"x": Model(value=[a, b])}], id=id),
    ):
        template(**dict.fromkeys(template.slots, "x"))
        other = copied(template)
        assert type(other) is EventTemplate
        assert other.slots == template.slots
        fields: dict[str, Any] = {"event": "e", "id": "7"}
        fields = {name: fields[name] for name in template.slots if name in fields}
        for x in (1, "é", b"x", datetime.timedelta(days=1), Model(), [None]):
            for y in (x, "x", None):
                whole = template(a=x, b=y, **fields)
                assert other(a=x, b=y, **fields) == whole
                assert other.partial(a=x)(b=y, **fields) == whole
                assert copied(template.partial(a=x))(b=y, **fields) == whole
                assert copied(other.partial(b=y))(a=x, **fields) == whole


@copies
def test_a_template_of_all_of_data(copied: Any) -> None:
    template = copied(EventTemplate(Slot("data"), event="e"))
    assert template(Model()) == EncodedEvent(data=Model(), event="e")
    assert copied(EventTemplate(None, event="done"))() == EncodedEvent(event="done")


def test_a_copy_of_a_template_is_the_template() -> None:
    template = EventTemplate([Slot("a")])
    assert copy.copy(template) is template
    assert copy.deepcopy([template])[0] is template


def test_a_template_in_another_process(tmp_path: Path) -> None:
    model = chunk(Slot("content"))
    model.created = Slot("created", type=int)
    file = tmp_path / "template"
    file.write_bytes(pickle.dumps(EventTemplate(model, id=Slot("id"))))
    code = (
        "import datetime, pickle, sys\n"
        "template = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "mine = template.partial(created=datetime.date(2026, 1, 2))\n"
        "sys.stdout.buffer.write(bytes(mine(content='é', id='7')))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(file)]
    run = subprocess.run(command, capture_output=True, check=True)
    whole = chunk("é").model_copy(update={"created": "2026-01-02"})
    with pytest.warns(UserWarning, match="serializer warnings"):
        assert run.stdout == bytes(EncodedEvent(data=whole, id="7"))


def test_data_that_cannot_be_pickled() -> None:
    class Local(BaseModel):
        value: Any

    template = EventTemplate(Local(value=Slot("a")))
    with pytest.raises((pickle.PicklingError, AttributeError), match="Local"):
        pickle.dumps(template)


def test_what_no_template_was_pickled_to() -> None:
    template: Any = EventTemplate(Model(value=Slot("a")), id=Slot("id"))
    restore, state = template.__reduce__()
    pieces, slots, spellings, data, bound = state
    for wrong in (
        (pieces[1:], slots, spellings, data, bound),
        (pieces, [("a", "id", None), slots[1]], spellings, data, bound),
        (pieces, [slots[0], ("id", "json", None)], spellings, data, bound),
        (pieces, [("a", "where", None), slots[1]], spellings, data, bound),
        (pieces, slots, ("fastapi", "other"), data, bound),
    ):
        with pytest.raises(ValueError, match=r"invalid state|json must be"):
            restore(*wrong)
    # These states cannot be recognized as wrong. They must not cause a panic.
    for wrong in (
        (pieces[::-1], slots, spellings, data, bound),
        ([b"", b"", b""], slots, spellings, data, bound),
        (pieces, slots, spellings, None, bound),
        (pieces, [("b", "json", True), slots[1]], spellings, data, {"c": 1}),
        (pieces, slots, spellings, [1], bound),
    ):
        with contextlib.suppress(ValueError):
            other = restore(*wrong)
        for value in ("x", b"x"):
            with contextlib.suppress(Exception):
                other(**dict.fromkeys(other.slots, value))
            with contextlib.suppress(Exception):
                other.partial(**{other.slots[0]: value})
