"""Differences of the installed FastAPI, pydantic and Python to the newest releases.

On all of them this package behaves as the newest FastAPI.
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
"""Before, an error of AnyIO can replace the error of a stream."""

INCLUDED_ROUTES_HAVE_ITEM_TYPES = FASTAPI >= (0, 140, 8)
"""Before, `include_router` drops the item type of a stream."""

LINES_ARE_THOSE_OF_SSE = FASTAPI >= (0, 140, 12)
"""Before, text is split by `str.splitlines`, which drops an empty last line."""

STREAMS_HAVE_A_STATUS = FASTAPI >= (0, 140, 13)
"""Before, the `status_code` of a route with a stream is ignored."""

NON_FINITE_IS_NULL = FASTAPI >= (0, 143, 3)
"""Before, plain JSON can contain `NaN` and `Infinity`, which browsers reject."""

TYPES_CAN_BE_COMPLETED_LATER = _numbers(pydantic.VERSION) >= (2, 10)
"""Before, FastAPI rejects an item type with unresolved forward references."""

NON_FINITE_CAN_BE_STRINGS = _numbers(pydantic.VERSION) >= (2, 8)
"""Before, there is no `ser_json_inf_nan="strings"`."""

IDLE_THREADS_LET_GO = _numbers(importlib.metadata.version("anyio")) >= (4, 9)
"""Before, an idle worker thread of AnyIO keeps the function that it called last."""

_transport: Any = vars(selector_events)["_SelectorSocketTransport"]
_writelines = vars(_transport).get("writelines")
LOSES_SOCKETS = (
    _writelines is not None and "_conn_lost" not in _writelines.__code__.co_names
)
"""Whether asyncio keeps watching a lost socket when something is written to it.

Then a new connection with the same descriptor is never read. CPython has this bug since
3.12: https://github.com/python/cpython/issues/136234.
"""

NEEDS_TIMEOUT = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio.timeout is new in 3.11"
)

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""Whether there is no GIL. Then granian does not abort a failed response."""
