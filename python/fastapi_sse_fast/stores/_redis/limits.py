"""Limits of the store in Redis that are not options."""

from __future__ import annotations

from typing import NamedTuple


class RedisLimits(NamedTuple):
    """Times in seconds, sizes in bytes, and numbers."""

    connect_timeout: float = 5.0
    """How long an attempt to connect may take, and the first connection of a store."""

    answer_timeout: float = 5.0
    """How long the server may take to answer before the connection is replaced."""

    longest_backoff: float = 1.0
    """How long to wait at most between two attempts to connect."""

    probe_interval: float = 2.0
    """How often an idle connection is checked, and that messages arrive."""

    confirm_timeout: float = 2.0
    """How long a log waits for its subscription before it is read without messages."""

    deaf_interval: float = 0.5
    """After what time a log whose messages do not arrive is compared again."""

    patience: float = 10.0
    """How long a command is tried before it fails."""

    write_patience: float = 30.0
    """How long events of a run may be refused, or the server away, before it fails."""

    batch_calls: int = 256
    """How many commands are sent together at most."""

    batch_bytes: int = 1024 * 1024
    """How many bytes are sent together at most, unless a single command is larger."""

    page_events: int = 1000
    """How many events the server returns at most in one answer."""

    page_bytes: int = 1024 * 1024
    """How many bytes it returns, unless a few events are larger."""

    tick: float = 0.2
    """How often the store looks for what is due."""

    compare_interval: float = 10.0
    """After what time a log is compared with the server, whatever was heard of it."""

    mirror_unused: float = 10.0
    """How long a log is kept in this process after its last reader."""

    last_read: float = 1.0
    """How long streams of runs wait for their last events when the store is closed."""

    unserved: float = 30.0
    """How long streams wait if the server refuses their log, or has lost their run.

    If the process of the run is alive, it restores the run.
    """

    sweep_interval: float = 15.0
    """How often any of the processes looks for runs whose process has died."""

    wait_interval: float = 0.05
    """How often a run is looked at that has to end, or that may be lost."""

    pending_bytes: int = 4 * 1024 * 1024
    """How many bytes of a run wait for the server before its generator has to wait."""

    kept_bytes: int = 4 * 1024 * 1024
    """How many bytes of a run to keep that the server has, in case it loses them."""

    write_events: int = 512
    """How many events of a run are sent in one command at most."""


def milliseconds(seconds: float) -> int:
    """Return a time as the server expects it, which has no infinity and no 0."""
    return max(1, round(min(seconds, 2**31) * 1000))
