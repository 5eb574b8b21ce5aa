"""Ids of test cases that are the same in every process, as pytest-xdist requires."""

from __future__ import annotations

import re
from typing import Any

OWN = re.compile(r" at 0x[0-9a-f]+|slot-[0-9a-f]{32}-")
"""Addresses of objects, and the random part of slots."""


def stable_id(value: Any) -> str:
    """Return the text of a value without the parts that differ between processes."""
    return OWN.sub("", str(value))
