"""What the installed FastAPI, pydantic and Python do differently from the newest ones.

This package behaves as the newest FastAPI does on all of them.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import sysconfig
from asyncio import selector_events
from typing import Any

import fastapi
import pydantic
import pytest


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


FASTAPI = _numbers(fastapi.__version__)

ERRORS_IN_TEST_CLIENTS_ARE_THE_GENERATORS = FASTAPI >= (0, 136)
"""Before, an error of AnyIO may be raised in place of the one of a stream."""

INCLUDED_ROUTES_HAVE_ITEM_TYPES = FASTAPI >= (0, 140, 8)
"""Before, `include_router` drops the item type of a stream."""

LINES_ARE_THOSE_OF_SSE = FASTAPI >= (0, 140, 12)
"""Before, text is split by `str.splitlines`; an empty last line is lost."""

STREAMS_HAVE_A_STATUS = FASTAPI >= (0, 140, 13)
"""Before, `status_code` of a route of events is ignored."""

NON_FINITE_IS_NULL = FASTAPI >= (0, 143, 3)
"""Before, plain JSON has `NaN` and `Infinity`, which no browser parses."""

TYPES_CAN_BE_COMPLETED_LATER = _numbers(pydantic.VERSION) >= (2, 10)
"""Before, FastAPI refuses a route whose item type has open forward references."""

NON_FINITE_CAN_BE_STRINGS = _numbers(pydantic.VERSION) >= (2, 8)
"""Before, a model has no `ser_json_inf_nan="strings"`."""

IDLE_THREADS_LET_GO = _numbers(importlib.metadata.version("anyio")) >= (4, 9)
"""Before, a worker thread of AnyIO keeps what it called last until its next call."""

_transport: Any = vars(selector_events)["_SelectorSocketTransport"]
_writelines = vars(_transport).get("writelines")
LOSES_SOCKETS = (
    _writelines is not None and "_conn_lost" not in _writelines.__code__.co_names
)
"""Whether asyncio goes on to watch a socket that is written to after its loss.

The next connection with its number is never read. So it is from CPython 3.12 on, until
https://github.com/python/cpython/issues/136234 is fixed.
"""

NEEDS_TIMEOUT = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio.timeout is new in 3.11"
)

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""A dict is copied before it is walked, and granian does not end a failed response."""
