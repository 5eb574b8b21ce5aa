"""Why a stream ends and by when, on a clock that is made up."""

from __future__ import annotations

import math

import pytest

from fastapi_sse_fast._stream.ending import Ending
from fastapi_sse_fast._stream.limits import Limits

LIMITS = Limits(least_duration=0.1, last_send_timeout=0.5)


def ending(seconds_to_live: float = math.inf) -> Ending:
    """Return the ending of a stream that began at 1000."""
    return Ending(1000.0, seconds_to_live=seconds_to_live, limits=LIMITS)


def test_the_first_reason_counts() -> None:
    end = ending()
    assert end.reason is None
    end.note("disconnected")
    end.note("finished")
    assert end.reason == "disconnected"


@pytest.mark.parametrize(
    ("lives", "stopped_at", "grace", "ends_at", "ends_for"),
    [
        (60.0, None, 0.0, 1060.0, "max_duration"),
        (math.inf, 1005.0, 0.0, 1005.0, "shutdown"),
        (math.inf, 1005.0, 3.0, 1008.0, "shutdown"),
        # One that has just begun may go on for `least_duration`.
        (math.inf, 1000.02, 0.0, 1000.1, "shutdown"),
        (math.inf, 1000.02, 3.0, 1003.02, "shutdown"),
        # It would end before anyway.
        (4.0, 1003.0, 5.0, 1004.0, "max_duration"),
        (60.0, 1003.0, 5.0, 1008.0, "shutdown"),
    ],
)
def test_when_and_why_it_is_ended(
    lives: float, stopped_at: float | None, grace: float, ends_at: float, ends_for: str
) -> None:
    end = ending(lives)
    if stopped_at is not None:
        end.shut_down(stopped_at, grace=grace)
        end.shut_down(stopped_at + 1, grace=grace)  # the second Ctrl+C
    assert end.ends_at == pytest.approx(ends_at)
    assert end.ends_for == ends_for


@pytest.mark.parametrize(
    ("began_at", "stopped_at", "send_by", "reason"),
    [
        (1010.0, None, 1070.0, "send_timeout"),
        (1010.0, 1020.0, 1020.5, "shutdown"),
        # A send that begins after the end has as long.
        (1030.0, 1020.0, 1030.5, "shutdown"),
        # A stop does not give a client more time than it has.
        (1010.0, 1069.9, 1070.0, "shutdown"),
    ],
)
def test_how_long_a_client_may_hold_up_a_send(
    began_at: float, stopped_at: float | None, send_by: float, reason: str
) -> None:
    end = ending()
    if stopped_at is not None:
        end.shut_down(stopped_at, grace=0.0)
    assert end.send_by(began_at, 60.0) == pytest.approx(send_by)
    end.note_missed_send(send_by)
    assert end.reason == reason
