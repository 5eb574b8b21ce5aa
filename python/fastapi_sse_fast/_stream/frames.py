"""Frames that are no items of the source: the opening line, pings, last words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import EncodedEvent, encode_event
from ..options import is_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..options import Event, StreamOptions


def opening_line(options: StreamOptions) -> bytes:
    """Return what the stream begins with: `retry: 3000`.

    A line without the blank one behind it, which some clients take for an event.
    """
    if options.retry is None:
        return b""
    return bytes(EncodedEvent(retry=options.retry)).removesuffix(b"\n")


def ping(options: StreamOptions) -> bytes:
    """Return what one ping sends.

    Raises:
        TypeError: `ping` has made something else than an event.
    """
    if not isinstance(options.ping, str):
        return _made("ping", options.ping, options)
    block = bytes(EncodedEvent(comment=options.ping))
    return block if options.ping_form == "block" else block.removesuffix(b"\n")


def farewell(options: StreamOptions) -> bytes:
    """Return what the stream ends with when the server stops.

    Raises:
        TypeError: `farewell` has made something else than an event.
    """
    if options.farewell is None:
        return b""
    return _made("farewell", options.farewell, options)


def of_hook(name: str, event: object, options: StreamOptions) -> bytes:
    """Return the frame of an event that an option has made.

    Raises:
        TypeError: It is not an event.
    """
    if not is_event(event):
        raise TypeError(f"{name} must make an event, not {event!r}")
    return bytes(encode_event(event, json=options.json))


def _made(
    name: str, event: Event | Callable[[], Event], options: StreamOptions
) -> bytes:
    return of_hook(name, event if is_event(event) else event(), options)
