"""sse-starlette's events, encoded in Rust."""

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
    r"""An event whose `data` is sent as text.

    Args:
        data: The payload. `str(data)` is sent, with a `data` field for each line.
        event: The event name that `addEventListener` listens for. Line breaks are
            removed.
        id: The value that a browser sends back as `Last-Event-ID`. Line breaks are
            removed.
        retry: Milliseconds that a browser waits before it reconnects.
        comment: Text that clients ignore. Each of its lines is sent as a comment line.
        sep: The line separator: `"\r\n"`, `"\r"` or `"\n"`. The default is
            `DEFAULT_SEPARATOR`.

    Raises:
        ValueError: `sep` is not a line separator.

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
            TypeError: `event` or `id` is not a `str`, or `retry` is not an `int`.
        """
        return sse_starlette_frame(self)


class JSONServerSentEvent(ServerSentEvent):
    r"""An event whose `data` is sent as JSON.

    Args:
        data: The payload. It is written as JSON when the event is created, without
            spaces and as UTF-8.
        event: See `ServerSentEvent`.
        id: See `ServerSentEvent`.
        retry: See `ServerSentEvent`.
        comment: See `ServerSentEvent`.
        sep: See `ServerSentEvent`.

    Raises:
        TypeError: `data` is not JSON serializable.
        ValueError: `data` contains NaN, infinity or itself, or `sep` is not a line
            separator.

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
    r"""Return the bytes that are sent for an item.

    Args:
        data: The item: bytes, an event, a dict with the fields of an event, or any
            other object, whose `str()` becomes the data of an event.
        sep: The line separator. Events have their own.

    Raises:
        TypeError: A dict has an unknown field, or a field has a wrong type.
        ValueError: `sep` is not a line separator.

    Examples:
        >>> ensure_bytes({"data": "hi", "id": "1"}, "\n")
        b'id: 1\ndata: hi\n\n'
    """
    return sse_starlette_bytes(data, sep)
