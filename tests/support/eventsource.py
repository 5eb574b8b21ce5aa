"""A parser of event streams, written from the WHATWG HTML standard.

The section is 9.2.6, "Interpreting an event stream". Bytes can be fed in pieces of any
size.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple


class Event(NamedTuple):
    """An event that a browser dispatches."""

    data: str
    type: str = "message"
    last_event_id: str = ""


def is_event_stream(content_type: str) -> bool:
    """Return whether a browser treats a response of this type as an event stream."""
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"


class EventSource:
    """The state of one connection.

    Args:
        last_event_id: Last event id of the previous connection, which browsers keep.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.events: list[Event] = []
        self.comments: list[str] = []
        self.reconnection_time: int | None = None
        self.last_event_id = last_event_id
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._after_cr = False
        self._line: list[str] = []
        self._data = ""
        self._type = ""
        self._id = last_event_id

    def feed(self, chunk: bytes) -> None:
        text = self._decoder.decode(chunk)
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        for character in text:
            if self._after_cr and character == "\n":
                self._after_cr = False
                continue
            self._after_cr = character == "\r"
            if character in "\r\n":
                line = "".join(self._line)
                self._line.clear()
                self._process(line)
            else:
                self._line.append(character)

    def _process(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:].removeprefix(" "))
        else:
            name, _, value = line.partition(":")
            self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._type = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.reconnection_time = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            data = self._data.removesuffix("\n")
            self.events.append(Event(data, self._type or "message", self._id))
        self._data = self._type = ""


def parse(body: bytes) -> EventSource:
    """Return the state after parsing a whole body."""
    source = EventSource()
    source.feed(body)
    return source
