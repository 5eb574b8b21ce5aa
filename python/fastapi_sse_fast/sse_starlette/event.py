"""The events of sse-starlette, encoded in Rust."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from .._core import sse_starlette_bytes, sse_starlette_check, sse_starlette_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

_to_json = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


class ServerSentEvent:
    r"""One event, whose `data` is sent as text.

    Args:
        data: Payload: `str()` of it, a line for each of its lines.
        event: Name that `addEventListener` listens for. Line breaks in it are dropped.
        id: What a browser sends back as `Last-Event-ID`. Line breaks in it are dropped.
        retry: Milliseconds that a browser waits before it reconnects.
        comment: Lines that every client ignores.
        sep: What ends a line; `DEFAULT_SEPARATOR` unless it is set.

    Raises:
        ValueError: `sep` ends no line.

    Examples:
        >>> ServerSentEvent("hi", event="note").encode()
        b'event: note\r\ndata: hi\r\n\r\n'
    """

    DEFAULT_SEPARATOR: ClassVar[str] = "\r\n"

    def __init__(
        self,
        data: Any | None = None,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
        sep: str | None = None,
    ) -> None:
        if sep is None:
            sep = self.DEFAULT_SEPARATOR
        else:
            sse_starlette_check(sep)
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry
        self.comment = comment
        self._sep = sep

    def encode(self) -> bytes:
        """Return the frame.

        Raises:
            TypeError: `event` or `id` is no `str`, or `retry` no `int`.
        """
        return sse_starlette_frame(self)


class JSONServerSentEvent(ServerSentEvent):
    r"""One event, whose `data` is sent as JSON.

    Args:
        data: Payload, made JSON at once: without spaces, and as UTF-8.
        event: See `ServerSentEvent`.
        id: See `ServerSentEvent`.
        retry: See `ServerSentEvent`.
        comment: See `ServerSentEvent`.
        sep: See `ServerSentEvent`.

    Raises:
        TypeError: `data` is no JSON.
        ValueError: There is a number in `data` that JSON does not have, or `data`
            contains itself, or `sep` ends no line.

    Examples:
        >>> JSONServerSentEvent({"n": 1}).encode()
        b'data: {"n":1}\r\n\r\n'
    """

    def __init__(
        self,
        data: Any | None = None,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
        sep: str | None = None,
    ) -> None:
        super().__init__(
            None if data is None else _to_json(data),
            event=event,
            id=id,
            retry=retry,
            comment=comment,
            sep=sep,
        )


def ensure_bytes(
    data: bytes | Mapping[str, Any] | ServerSentEvent | Any, sep: str
) -> bytes:
    r"""Return what is sent for an item.

    Args:
        data: The item: bytes, an event, the fields of one as a dict, or any object,
            whose `str()` is the data of an event.
        sep: What ends a line; events have their own.

    Raises:
        TypeError: A dict has a field that there is not, or a field has a wrong type.
        ValueError: `sep` ends no line.

    Examples:
        >>> ensure_bytes({"data": "hi", "id": "1"}, "\n")
        b'id: 1\ndata: hi\n\n'
    """
    return sse_starlette_bytes(data, sep)
