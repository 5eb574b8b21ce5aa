"""A stream: everything from the generator to the server's `send`."""

from .hooks import call_on_close
from .limits import Limits
from .outlet import Head
from .stream import Stream

__all__ = ["Head", "Limits", "Stream", "call_on_close"]
