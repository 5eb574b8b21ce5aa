"""Names of cases that are the same in every process, as pytest-xdist wants them."""

from __future__ import annotations

import re
from typing import Any

OWN = re.compile(r" at 0x[0-9a-f]+|slot-[0-9a-f]{32}-")
"""Addresses, and what is drawn for the slots of a process."""


def stable_id(value: Any) -> str:
    """Return the text of a value, but for what is another in every process."""
    return OWN.sub("", str(value))
