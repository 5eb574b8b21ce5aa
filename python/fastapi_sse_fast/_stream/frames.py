"""Frames that do not come from the source: `retry`, pings and final events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import EncodedEvent, encode_event
from ..options import is_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..options import Event, StreamOptions


def opening_line(options: StreamOptions) -> bytes:
    """Return the line that the stream begins with, such as `retry: 3000`.

    It is not followed by a blank line, because some clients would take that for the
    end of an empty event.
    """
    if options.retry is None:
        return b""
    return bytes(EncodedEvent(retry=options.retry)).removesuffix(b"\n")


def ping(options: StreamOptions) -> bytes:
    """Return the frame of a ping.

    Raises:
        TypeError: The function `ping` returned something other than an event.
    """
    if not isinstance(options.ping, str):
        return _frame_of("ping", options.ping, options)
    block = bytes(EncodedEvent(comment=options.ping))
    return block if options.ping_form == "block" else block.removesuffix(b"\n")


def farewell(options: StreamOptions) -> bytes:
    """Return the frame of the final event, if `farewell` is set.

    Raises:
        TypeError: The function `farewell` returned something other than an event.
    """
    if options.farewell is None:
        return b""
    return _frame_of("farewell", options.farewell, options)


def from_hook(name: str, event: object, options: StreamOptions) -> bytes:
    """Return the frame of an event that a hook returned.

    Raises:
        TypeError: The value is not an event.
    """
    if not is_event(event):
        raise TypeError(f"{name} must return an event, not {event!r}")
    return bytes(encode_event(event, json=options.json))


def _frame_of(
    name: str, event: Event | Callable[[], Event], options: StreamOptions
) -> bytes:
    return from_hook(name, event if is_event(event) else event(), options)
