"""Templates give the same bytes as encoding the whole data, for all values."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import fastapi.sse
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from fastapi_sse_fast import (
    EncodedEvent,
    EventSourceResponse,
    EventTemplate,
    ServerSentEvent,
    Slot,
    encode_event,
)

from ..support import values
from ..support.asgi import fetch
from ..support.eventsource import parse

WRONG: Any = 0

SPELLINGS = st.sampled_from(["fastapi", "compact"])


class Delta(BaseModel):
    content: str | None = None
    role: str = "é"


class Choice(BaseModel):
    index: int
    delta: Delta


class Chunk(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: str
    created: int
    choices: list[Choice]
    anything: Any = None


def chunk(id: Any, created: Any, content: Any, anything: Any = None) -> Chunk:
    choice = Choice(index=0, delta=Delta(content=content))
    return Chunk(id=id, created=created, choices=[choice], anything=anything)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(), items),
    max_leaves=8,
)


def around(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return functions that put a value into some data."""

    def in_list(inner: Any, before: list[Any], after: list[Any]) -> Any:
        return lambda filling: [*before, inner(filling), *after]

    def in_dict(inner: Any, key: str, others: dict[str, Any]) -> Any:
        others.pop(key, None)
        return lambda filling: {**others, key: inner(filling)}

    some = st.lists(value, max_size=2)
    key = st.text(max_size=5).filter(lambda text: not text.startswith("_sa"))
    return st.recursive(
        st.just(lambda filling: filling),
        lambda inner: (
            st.builds(in_list, inner, some, some)
            | st.builds(in_dict, inner, key, st.dictionaries(st.text(), value))
        ),
        max_leaves=4,
    )


def test_keywords_that_are_none_do_not_count() -> None:
    template = EventTemplate({"token": Slot("token")})
    assert template(*[1], **{}) == template(1) == template(token=1)


@given(around(JSON), values.ANY, SPELLINGS)
def test_a_filled_template_equals_the_encoded_whole(
    shape: Callable[[Any], Any], recipe: values.Recipe, json: Any
) -> None:
    template = EventTemplate(shape(Slot("slot")), json=json)

    def outcome(make: Callable[[Any], EncodedEvent]) -> bytes | type[Exception]:
        try:
            return bytes(make(recipe()))
        except Exception as error:
            return type(error)

    whole = outcome(lambda value: EncodedEvent(data=shape(value), json=json))
    assert outcome(template) == whole
    assert outcome(lambda value: template(slot=value)) == whole
    assert outcome(lambda value: template.partial(slot=value)()) == whole


@given(st.text(), st.integers(), st.text(), JSON)
def test_a_template_of_a_model_equals_the_model(
    id: str, created: int, content: str, anything: Any
) -> None:
    model = chunk(
        Slot("id"), Slot("created", type=int), Slot("content"), Slot("anything")
    )
    template = EventTemplate(model, event="chunk")
    assert template.slots == ("id", "created", "content", "anything")
    whole = EncodedEvent(data=chunk(id, created, content, anything), event="chunk")
    rest = {"created": created, "anything": anything}
    assert template(id=id, content=content, **rest) == whole
    bound = template.partial(**rest)
    assert bound.slots == ("id", "content")
    assert bound.partial(id=id)(content) == whole
    assert bound.partial(content=content)(id) == whole


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        chunk("1", 2, "3"),
        b"bytes",
        float("inf"),
        "\ud800",
        {1: "a"},
        (1, {2}),
    ],
    ids=repr,
)
def test_what_a_model_writes_itself_is_written_as_it_would(value: Any) -> None:
    template = EventTemplate(chunk("1", 2, "3", Slot("slot")))

    def outcome(make: Callable[[], EncodedEvent]) -> bytes | type[Exception]:
        try:
            return bytes(make())
        except Exception as error:
            return type(error)

    whole = outcome(lambda: EncodedEvent(data=chunk("1", 2, "3", value)))
    assert outcome(lambda: template(value)) == whole


def test_a_dataclass() -> None:
    @dataclasses.dataclass
    class Point:
        x: Any
        label: str

    template = EventTemplate(Point(Slot("x"), Slot("label")))
    whole = EncodedEvent(data=Point({"a": 1}, "é"))
    assert template(x={"a": 1}, label="é") == whole


def test_the_id_and_the_name_of_an_event() -> None:
    template = EventTemplate(
        [Slot("n")], event=Slot("event"), id=Slot("id"), retry=5, comment="c"
    )
    assert template.slots == ("event", "n", "id")
    whole = EncodedEvent(data=[1], event="e", id="7", retry=5, comment="c")
    assert template(n=1, event="e", id="7") == whole
    whole = EncodedEvent(data=[1], retry=5, comment="c")
    assert template(n=1, event=None, id=None) == whole
    for name in ("event", "id"):
        for text in ("a\n", "a\r"):
            with pytest.raises(ValueError, match=f"SSE '{name}' must be a single line"):
                template(**{"n": 1, "event": "e", "id": "7", name: text})
        with pytest.raises(TypeError, match=f"slot '{name}' must be a str, not int"):
            template(**{"n": 1, "event": "e", "id": "7", name: 1})
    with pytest.raises(ValueError, match="null characters"):
        template(n=1, event="e", id="\0")


@pytest.mark.parametrize("value", [None, "text", {"a": "é"}, Delta(content="é")])
def test_all_of_data(value: Any) -> None:
    template = EventTemplate(Slot("data"), event="e")
    assert template(value) == EncodedEvent(data=value, event="e")


def test_a_model_that_writes_several_lines() -> None:
    class Pretty(BaseModel):
        text: Any

        def model_dump_json(self, **options: Any) -> str:
            return super().model_dump_json(**{**options, "indent": 2})

    template = EventTemplate(Pretty(text=[Slot("a"), 1]))
    assert template("x") == EncodedEvent(data=Pretty(text=["x", 1]))


def test_what_fills_a_slot_is_never_searched_for_slots() -> None:
    a, b = Slot("a"), Slot("b")
    template = EventTemplate({"a": a, "b": b})
    assert template(a=b, b=a) == EncodedEvent(data={"a": b, "b": a})
    bound = template.partial(a=b)
    assert bound.slots == ("b",)
    assert bound("x") == EncodedEvent(data={"a": b, "b": "x"})


def test_a_template_without_slots() -> None:
    template = EventTemplate(None, event="done")
    assert template.slots == ()
    assert template() == EncodedEvent(event="done")
    assert template.partial()() == template()


@pytest.mark.parametrize(
    "event",
    [
        ServerSentEvent(data=1, id="1"),
        fastapi.sse.ServerSentEvent(raw_data="x"),
        EncodedEvent(data=1),
    ],
    ids=lambda event: type(event).__module__,
)
def test_an_event_is_no_data_of_one(event: Any) -> None:
    with pytest.raises(TypeError, match="takes the data of an event"):
        EventTemplate(event)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EventTemplate({Slot("a"): 1}), "slot 'a' is a key"),
        (lambda: EventTemplate({Slot("a"): 1}, json="compact"), "slot 'a' is a key"),
        (lambda: EventTemplate({Slot("a", type=int): 1}), "slot 'a' is part of a"),
        (lambda: EventTemplate([Slot("a"), Slot("a")]), "slot 'a' is used twice"),
        (lambda: EventTemplate(["to " + Slot("a")]), "slot 'a' is part of a longer"),
        (lambda: EventTemplate([Slot("a") + "."]), "slot 'a' is part of a longer"),
        (lambda: EventTemplate(['"' + Slot("a") + '"']), "slot 'a' is part of a"),
        (lambda: EventTemplate([str(Slot("a", type=int))]), "slot 'a' is part of a"),
        (lambda: EventTemplate([-Slot("a", type=int)]), "slot 'a' is part of a"),
        (lambda: EventTemplate(1, id="n" + Slot("a")), "slot 'a' is part of a longer"),
        (lambda: EventTemplate(1, event=Slot("a") + "!"), "slot 'a' is part of a"),
        (lambda: EventTemplate(1, comment=Slot("a")), "can only be in 'data', "),
        (lambda: EventTemplate(1, json=WRONG), "json must be 'fastapi' or"),
        (lambda: Slot("two words"), "must be an identifier, not 'two words'"),
        (lambda: Slot(WRONG), "must be an identifier, not 0"),
        (lambda: Slot("a", type=WRONG), "type must be str or int, not 0"),
    ],
)
def test_what_cannot_be_a_template(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


MARK = str(Slot("a")).removesuffix(".")
NUMBER = int(Slot("a", type=int))


class Written:
    """Data whose JSON is any text, valid or not."""

    def __init__(self, json: str) -> None:
        self.json = json

    def model_dump_json(self) -> str:
        return self.json


@pytest.mark.parametrize(
    "data",
    [
        Written(f'"{MARK}""{MARK}."'),
        Written(f'"{MARK}"'),
        Written(f'"{MARK}'),
        Written(MARK),
        Written(f'"{MARK}ff."'),
        Written(f'"{MARK}+f."'),
        Written(f"\n{MARK}"),
        Written(f'{{"{MARK}." : 1}}'),
        NUMBER * 10,
        NUMBER // 10,
        NUMBER + 5 * 10**60,
        Written(f"{NUMBER}.5"),
        Written(f"{NUMBER}e5"),
        Written(f"1e+{NUMBER}"),
    ],
    ids=lambda data: (
        str(getattr(data, "json", data))
        .replace(MARK, "…")
        .replace(str(NUMBER)[:-1], "…")
    ),
)
def test_what_is_left_of_a_slot_is_none(data: Any) -> None:
    with pytest.raises(ValueError, match=r"is part of a longer string|is a key"):
        EventTemplate(data)


def test_fields_are_those_of_an_event() -> None:
    with pytest.raises(ValueError, match="SSE 'id' must be a single line"):
        EventTemplate(1, id="a\n")
    with pytest.raises(TypeError, match="raw_data"):
        EventTemplate(1, raw_data="x")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda t: t(), "missing value for slots 'a', 'b'"),
        (lambda t: t(a=1), "missing value for slot 'b'"),
        (lambda t: t(a=1, b=2, c=3, d=4), "no slots 'c', 'd': the template has slots"),
        (lambda t: t(1), "only a template with one slot takes a positional value"),
        (lambda t: t.partial(c=1), "no slot 'c': the template has slots 'a', 'b'"),
        (lambda t: t.partial(1), "positional"),
        (lambda t: t.partial(a=1)(1, 2), "only a template with one slot"),
        (lambda t: t.partial(a=1)(1, b=2), "only a template with one slot"),
        (lambda t: t.partial(a=1, b=2)(1), "the template has no slots"),
    ],
)
def test_values_must_fit_the_slots(fill: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fill(EventTemplate([Slot("a"), Slot("b")]))


def test_an_error_while_filling_is_that_of_the_value() -> None:
    template = EventTemplate([Slot("a")])
    with pytest.raises(ValueError, match="object is not iterable"):
        template(values.Unencodable())
    assert template(1) == EncodedEvent(data=[1])


def test_a_slot_is_a_str_that_can_be_copied() -> None:
    slot = Slot("名")
    assert isinstance(slot, str)
    assert repr(slot) == "Slot('名')"
    copies = [copy.copy(slot), copy.deepcopy(slot)]
    copies += [pickle.loads(pickle.dumps(slot, protocol)) for protocol in range(6)]
    assert copies == [slot] * 8
    assert {type(other) for other in copies} == {Slot}
    template = EventTemplate([slot])
    assert template.slots == ("名",)
    assert template(名="x") == EncodedEvent(data=["x"])
    assert repr(template) == "<EventTemplate with slot '名'>"


def test_one_template_in_many_threads() -> None:
    template = EventTemplate({"id": Slot("id"), "text": Slot("text")})
    wrong: list[Any] = []

    def work(number: int) -> None:
        mine = template.partial(id=number)
        for turn in range(2000):
            event = mine(f"{number}-{turn}")
            if event != EncodedEvent(data={"id": number, "text": f"{number}-{turn}"}):
                wrong.append(event)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_template_that_was_not_called_says_so() -> None:
    template = EventTemplate({"text": Slot("text")})
    message = "<EventTemplate with slot 'text'> is not an event: call it with the"
    for item in (template, [template], ServerSentEvent(data=template)):
        with pytest.raises(TypeError, match=message):
            encode_event(item)


def test_a_route_that_streams_a_template() -> None:
    app = FastAPI()
    template = EventTemplate(chunk("chat-1", 5, Slot("content")), id=Slot("id"))

    @app.get("/", response_class=EventSourceResponse)
    async def tokens() -> AsyncIterator[Chunk]:
        for number, text in enumerate(["Hel", "lo\n", "!"]):
            yield template(content=text, id=str(number))  # type: ignore[misc]
        yield ServerSentEvent(raw_data="[DONE]")  # type: ignore[misc]

    reply = fetch(app)
    assert reply.complete
    *events, done = parse(reply.body).events
    assert [event.last_event_id for event in events] == ["0", "1", "2"]
    chunks = [Chunk.model_validate_json(event.data) for event in events]
    assert [item.choices[0].delta.content for item in chunks] == ["Hel", "lo\n", "!"]
    assert done.data == "[DONE]"
