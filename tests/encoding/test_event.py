"""`ServerSentEvent` behaves as FastAPI's, and `EncodedEvent` holds its frame."""

from __future__ import annotations

import copy
import enum
import inspect
import pickle
import threading
import uuid
from typing import Any, Literal

import fastapi.sse
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError, field_validator

from fastapi_sse_fast import (
    EncodedEvent,
    EventTemplate,
    ServerSentEvent,
    Slot,
    encode_event,
    format_sse_event,
)

from ..support import reference, releases, values
from ..support.buffers import buffer_of, taken
from ..support.eventsource import parse

ANYTHING = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.text("a\r\n\0\ud800", max_size=3),
    st.integers(-2, 3),
    st.sampled_from([10**30, -(10**30), True, "5", "x", 1.5, 2.0, b"b", [1], {"a": 1}]),
    st.sampled_from([*values.Name, *values.Level, values.Text("t"), values.Number(3)]),
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["data", "raw_data", "event", "id", "retry", "comment", "unknown"], ANYTHING
    ),
)


def state(event: BaseModel) -> tuple[Any, ...]:
    fields = {name: (type(value), value) for name, value in event.__dict__.items()}
    return (
        list(fields.items()),
        event.model_fields_set,
        event.model_extra,
        event.__pydantic_private__,
    )


def errors(error: ValidationError) -> list[Any]:
    return [
        {**details, "input": repr(details["input"]), "ctx": repr(details.get("ctx"))}
        for details in error.errors()
    ]


def messages(error: ValidationError) -> list[Any]:
    return [(details["loc"], details["msg"]) for details in error.errors()]


def write(event: object) -> bytes:
    buffer = buffer_of()
    buffer.push(event)
    return taken(buffer)


@given(ARGUMENTS)
@values.examples(5)
def test_construction_is_fastapis(arguments: dict[str, Any]) -> None:
    try:
        expected = fastapi.sse.ServerSentEvent(**arguments)
    except ValidationError as error:
        with pytest.raises(ValidationError) as caught:
            ServerSentEvent(**arguments)
        assert errors(caught.value) == errors(error)
        assert str(caught.value) == str(error)
        if "unknown" not in arguments:
            with pytest.raises(ValidationError) as caught:
                EncodedEvent(**arguments)
            assert messages(caught.value) == messages(error)
    else:
        event = ServerSentEvent(**arguments)
        assert state(event) == state(expected)
        assert repr(event) == repr(expected)
        assert event.model_dump() == expected.model_dump()
        assert event.model_dump(exclude_unset=True) == expected.model_dump(
            exclude_unset=True
        )
        fields = {k: v for k, v in arguments.items() if k != "unknown"}
        if frame_of(expected) is not None:
            assert write(event) == write(expected) == frame_of(expected)
            assert bytes(EncodedEvent(**fields)) == frame_of(expected)
        else:
            for encode in (write, lambda event: EncodedEvent(**fields)):
                with pytest.raises((UnicodeEncodeError, TypeError, ValueError)):
                    encode(event)


def frame_of(event: fastapi.sse.ServerSentEvent) -> bytes | None:
    """Return the frame that FastAPI's router sends, or `None` if it raises an error."""
    if set("\r\n") & set((event.event or "") + (event.id or "")):
        return None  # FastAPI accepts it before 0.136.3.
    try:
        data = event.raw_data
        if data is None and event.data is not None:
            data = reference.dumps(event.data)
        fields: dict[str, Any] = {
            "event": event.event,
            "id": event.id,
            "retry": event.retry,
            "comment": event.comment,
        }
        if releases.LINES_ARE_THOSE_OF_SSE:
            return fastapi.sse.format_sse_event(data_str=data, **fields)
        return reference.frame(data=data, **fields)
    except Exception:
        return None


@given(ARGUMENTS)
def test_validation_is_fastapis(arguments: dict[str, Any]) -> None:
    def outcome(model: type[BaseModel]) -> Any:
        try:
            return state(model.model_validate(arguments))
        except ValidationError as error:
            return errors(error)

    assert outcome(ServerSentEvent) == outcome(fastapi.sse.ServerSentEvent)


def test_positional_arguments_are_refused() -> None:
    for make in (ServerSentEvent, EncodedEvent, fastapi.sse.ServerSentEvent):
        with pytest.raises(TypeError, match="positional"):
            make("data")  # type: ignore[call-arg]


def test_its_signature_is_that_of_its_fields() -> None:
    ours = inspect.signature(ServerSentEvent)
    assert ours == inspect.signature(fastapi.sse.ServerSentEvent)
    assert list(ours.parameters) == list(ServerSentEvent.model_fields)


def test_its_schema_is_fastapis() -> None:
    theirs = fastapi.sse.ServerSentEvent.model_json_schema()
    assert ServerSentEvent.model_json_schema() == theirs

    class Mine(ServerSentEvent):
        """My own."""

    assert Mine.model_json_schema()["description"] == "My own."


def test_equality_copies_and_pickles() -> None:
    event = ServerSentEvent(data={"a": [1]}, event="e", id="i", retry=1, comment="c")
    assert event == ServerSentEvent.model_validate(event.model_dump())
    assert event != ServerSentEvent(data={"a": [1]})
    for twin in (
        copy.copy(event),
        copy.deepcopy(event),
        event.model_copy(),
        pickle.loads(pickle.dumps(event)),
    ):
        assert type(twin) is ServerSentEvent
        assert twin == event
        assert state(twin) == state(event)
    assert event.model_copy(update={"id": "2"}).id == "2"
    assert copy.deepcopy(event).data is not event.data


def test_assignment_is_remembered_as_set() -> None:
    event = ServerSentEvent(data=1)
    event.comment = "later"
    assert event.model_fields_set == {"data", "comment"}
    assert write(event) == b": later\ndata: 1\n\n"


def test_events_do_not_share_their_defaults() -> None:
    one, other = ServerSentEvent(), ServerSentEvent()
    one.id = "1"
    assert other.id is None
    assert other.model_fields_set == set()


def test_it_can_be_the_type_of_a_field() -> None:
    class Envelope(BaseModel):
        event: ServerSentEvent

    envelope = Envelope.model_validate({"event": {"raw_data": "x", "retry": "5"}})
    assert type(envelope.event) is ServerSentEvent
    assert envelope.event.retry == 5
    event = ServerSentEvent(raw_data="x")
    assert Envelope(event=event).event is event
    events = TypeAdapter(list[ServerSentEvent]).validate_python([event, {"id": "1"}])
    assert [e.id for e in events] == [None, "1"]
    with pytest.raises(ValidationError, match="must not contain null characters"):
        Envelope.model_validate({"event": {"id": "a\0b"}})


def test_subclasses_have_pydantics_constructor() -> None:
    class Token(ServerSentEvent):
        event: str | None = "token"
        kind: Literal["a", "b"] = "a"

        @field_validator("comment")
        @classmethod
        def loud(cls, value: str | None) -> str | None:
            return value and value.upper()

    token = Token(raw_data="x", comment="hey")
    assert (token.event, token.kind, token.comment) == ("token", "a", "HEY")
    assert write(token) == b": HEY\nevent: token\ndata: x\n\n"
    assert Token(raw_data="x", kind="b").model_fields_set == {"raw_data", "kind"}
    with pytest.raises(ValidationError):
        Token(kind="c")  # type: ignore[arg-type]


def test_a_constructor_of_a_subclass_can_call_ours() -> None:
    class Ping(ServerSentEvent):
        def __init__(self, number: int) -> None:
            super().__init__(event="ping", data=number)

    assert write(Ping(3)) == b"event: ping\ndata: 3\n\n"


def test_properties_of_a_subclass_are_read() -> None:
    class Upper(fastapi.sse.ServerSentEvent):
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            return value.upper() if name == "raw_data" else value

    assert write(Upper(raw_data="x")) == b"data: X\n\n"


@pytest.mark.parametrize("model", [ServerSentEvent, fastapi.sse.ServerSentEvent])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("event", "a\nb", "SSE 'event' must be a single line"),
        ("id", "a\rb", "SSE 'id' must be a single line"),
        ("id", "\0", "SSE 'id' must not contain null characters"),
        ("retry", -1, "greater than or equal to 0"),
        ("retry", "soon", "valid integer"),
        ("event", 5, "valid string"),
        ("raw_data", ["x"], "valid string"),
        ("comment", 1.5, "valid string"),
    ],
)
def test_what_was_assigned_is_checked_when_encoded(
    model: type[fastapi.sse.ServerSentEvent], field: str, value: Any, message: str
) -> None:
    event = model(data=1)
    setattr(event, field, value)
    if field == "raw_data":
        event.data = None
    with pytest.raises(ValueError, match=message):
        write(event)


def test_what_was_assigned_is_coerced_when_encoded() -> None:
    event = ServerSentEvent(data=1)
    event.retry = "5"  # type: ignore[assignment]
    assert write(event) == b"data: 1\nretry: 5\n\n"
    event.retry = True
    assert write(event) == b"data: 1\nretry: 1\n\n"


def test_data_is_not_used_up_when_another_field_is_refused() -> None:
    event = ServerSentEvent(data=(n for n in range(2)))
    event.id = 5  # type: ignore[assignment]
    with pytest.raises(ValidationError):
        write(event)
    event.id = "5"
    assert write(event) == b"data: [0, 1]\nid: 5\n\n"


class Item(BaseModel):
    text: str


class Custom(Item):
    def model_dump_json(self, **kwargs: Any) -> str:
        return '{\n"custom": true\n}'


class NoModel:
    def model_dump_json(self) -> str:
        return "mine"


class WrongDump:
    def model_dump_json(self) -> bytes:
        return b"{}"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (Item(text="é\n"), 'data: {"text":"é\\n"}\n\n'.encode()),
        (Custom(text=""), b'data: {\ndata: "custom": true\ndata: }\n\n'),
        (NoModel(), b"data: mine\n\n"),
        (values.Inner(), 'data: {"value":1,"text":"é"}\n\n'.encode()),
        ([Item(text="é")], b'data: [{"text": "\\u00e9"}]\n\n'),
        ("text", b'data: "text"\n\n'),
        (None, b"\n"),
    ],
)
def test_data_is_always_json(data: Any, expected: bytes) -> None:
    assert write(ServerSentEvent(data=data)) == expected
    assert write(fastapi.sse.ServerSentEvent(data=data)) == expected
    assert bytes(EncodedEvent(data=data)) == expected


def test_model_dump_json_must_return_text() -> None:
    with pytest.raises(TypeError, match="must return a str"):
        EncodedEvent(data=WrongDump())


def test_errors_of_a_serializer_are_its_own() -> None:
    class Broken(BaseModel):
        value: Any

    with pytest.raises(Exception, match="Unable to serialize") as caught:
        EncodedEvent(data=Broken(value=object()))
    assert type(caught.value).__name__ == "PydanticSerializationError"


def test_an_encoded_event_is_its_bytes() -> None:
    event = EncodedEvent(raw_data=" tok", event="token")
    same = EncodedEvent(event="token", raw_data=" tok")
    assert bytes(event) == b"event: token\ndata:  tok\n\n"
    assert len(event) == len(bytes(event))
    assert event == same
    assert not event != same
    assert hash(event) == hash(same)
    assert len({event, same, EncodedEvent(raw_data="other")}) == 2
    assert event != EncodedEvent(raw_data="other")
    assert event != bytes(event)
    assert event is not None
    assert repr(event) == r"<EncodedEvent b'event: token\ndata:  tok\n\n'>"
    with pytest.raises(TypeError):
        assert event < same  # type: ignore[operator]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_encoded_event_can_be_pickled_and_copied(protocol: int) -> None:
    event = EncodedEvent(data={"a": 1}, id="1")
    assert pickle.loads(pickle.dumps(event, protocol)) == event
    assert copy.copy(event) == copy.deepcopy(event) == event


@pytest.mark.parametrize("frame", [b"rubbish", b"id: 1\n", b"data: \xff\n\n", "text"])
def test_a_pickle_of_something_else_is_refused(frame: Any) -> None:
    restore, _ = EncodedEvent().__reduce__()
    with pytest.raises((ValueError, TypeError)):
        restore(frame)


def test_an_encoded_event_refuses_unknown_arguments() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'evnt'"):
        EncodedEvent(evnt="x")  # type: ignore[call-arg]


def test_an_encoded_event_cannot_be_changed_or_subclassed() -> None:
    with pytest.raises(AttributeError):
        EncodedEvent().raw_data = "x"  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (EncodedEvent,), {})


def test_events_can_be_made_in_many_threads() -> None:
    failed: list[BaseException] = []

    def make() -> None:
        try:
            for number in range(2000):
                event = ServerSentEvent(data=number, id=str(number))
                assert write(event) == bytes(EncodedEvent(data=number, id=str(number)))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_fields_of_a_subclass_may_have_other_types() -> None:
    class Numbered(ServerSentEvent):
        id: int | None = None  # type: ignore[assignment]
        event: uuid.UUID | None = None  # type: ignore[assignment]
        retry: str | None = None  # type: ignore[assignment]

    key = uuid.UUID(int=1)
    event = Numbered(data=1, id=5, event=key, retry="7")
    expected = f"event: {key}\ndata: 1\nid: 5\nretry: 7\n\n".encode()
    assert write(event) == expected
    event.retry = "soon"
    with pytest.raises(ValueError, match="'retry' must be an integer"):
        write(event)


def test_text_of_a_subclass_may_be_of_a_kind_of_str() -> None:
    class Markup(str):
        __slots__ = ()

    class Word(str, enum.Enum):
        HELLO = "hello"

    class Loose(ServerSentEvent):
        raw_data: Any = None
        comment: Any = None

    for text in (Markup("a\nb"), Word.HELLO):
        event = Loose(raw_data=text, comment=text)
        assert write(event) == bytes(EncodedEvent(raw_data=text, comment=text))
    with pytest.raises(TypeError, match="'raw_data' has an unsupported type"):
        write(Loose(raw_data=5))


def test_a_replaced_model_dump_json_is_honoured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BaseModel, "model_dump_json", lambda self: "mine")
    assert bytes(EncodedEvent(data=Item(text="x"))) == b"data: mine\n\n"


def test_our_events_are_read_the_fast_way() -> None:
    """The fast path compares field names by identity, so they must be interned."""
    ours, theirs = ServerSentEvent(id="1"), fastapi.sse.ServerSentEvent(id="1")
    assert [id(name) for name in ours.__dict__] == [
        id(name) for name in theirs.__dict__
    ]


def test_an_event_encodes_itself() -> None:
    event = ServerSentEvent(data={"a": "é"}, event="e", id="1", retry=2, comment="c")
    fields: Any = event.model_dump(exclude_none=True)
    assert event.encode() == EncodedEvent(**fields)
    assert event.encode(json="compact") == EncodedEvent(**fields, json="compact")
    assert event.encode() == encode_event(event) != event.encode(json="compact")
    event.id = "a\nb"
    with pytest.raises(ValueError, match="SSE 'id' must be a single line"):
        event.encode()


FRAMES = st.text(alphabet="\r\n\ufeff:ad é") | st.lists(
    st.sampled_from(["data: x", ": c", "id: 1", "event", "\n", "\r", "\r\n", "\n\n"])
).map("".join)


@given(FRAMES)
def test_frames_that_are_taken_end_before_the_next_one(text: str) -> None:
    frames = text.encode()
    try:
        event = EncodedEvent.from_bytes(frames)
    except ValueError:
        return
    assert bytes(event) == frames
    stream = b"data: before\n\n"
    alone = [event.data for event in parse(stream + frames).events]
    followed = [event.data for event in parse(stream + frames + stream).events]
    assert followed == [*alone, "before"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (b"", "must not be empty"),
        (b"data: x\n", "must end with a blank line"),
        (b"data: x\n\ndata: y", "must end with a blank line"),
        (b"data: x\r\n", "must end with a blank line"),
        (b"data: \xff\n\n", "must be UTF-8"),
        (b"\xef\xbb\xbfdata: x\n\n", "must not begin with a byte order mark"),
    ],
)
def test_bytes_that_are_no_events_are_refused(frames: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncodedEvent.from_bytes(frames)


def test_only_bytes_are_taken_for_frames() -> None:
    for wrong in ("data: x\n\n", bytearray(b"data: x\n\n"), None):
        with pytest.raises(TypeError):
            EncodedEvent.from_bytes(wrong)  # type: ignore[arg-type]


class Blank(type):
    """A metaclass of classes whose name cannot be shown."""

    def __str__(cls) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class Nameless(metaclass=Blank):
    def model_dump_json(self) -> Nameless:
        return self


@pytest.mark.parametrize(
    "make",
    [
        lambda value: EncodedEvent(data=value),
        lambda value: EventTemplate(1, id=Slot("id"))(value),
        lambda value: format_sse_event(comment=value),
    ],
)
def test_errors_name_a_class_without_its_help(make: Any) -> None:
    with pytest.raises(TypeError, match=r"must return|must be a str") as caught:
        make(Nameless())
    assert str(caught.value).endswith(", not Nameless")


def test_a_class_that_is_not_finished_is_no_event(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Before:
        pass

    raised: list[BaseException] = []

    class Meta(type):
        def mro(cls) -> list[type]:
            value: Any = Before()
            try:
                value.__class__ = cls
            except TypeError:  # Since Python 3.14, and without the GIL.
                pytest.skip("no object gets such a class here")
            with pytest.raises(ValueError, match="not iterable") as caught:
                encode_event(value)
            raised.append(caught.value)
            with pytest.raises(ValueError, match="not iterable") as caught:
                EncodedEvent(data=value)
            raised.append(caught.value)
            return super().mro()

    Meta("Unfinished", (), {})
    assert len(raised) == 2
    assert capfd.readouterr().err == ""  # Rust prints a panic, even if caught.
