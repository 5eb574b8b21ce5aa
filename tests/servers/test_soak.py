"""The soak test finds leaks. `make soak` runs the soak test itself."""

from __future__ import annotations

import random
import re
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the soak reads /proc", allow_module_level=True)

from ..soak.__main__ import WARM_UP_ROUNDS, end_in_every_way, run
from ..soak.visits import FINISHES, PATIENCE
from ..soak.watch import LIMITS, MEASURED, Faults, Growth, Watch, growth
from ..support import releases

STREAMS = [1000 * number for number in range(MEASURED)]
NOISE = [0, 900, 300, 1000, 200, 800, 100, 600, 0]


def grown(by: float) -> Growth:
    """Return the growth of memory with a leak of some bytes per stream, and noise."""
    sizes = [
        round(1e6 + by * streams + noise)
        for streams, noise in zip(STREAMS, NOISE, strict=True)
    ]
    return growth(STREAMS, sizes)


def test_noise_is_no_growth() -> None:
    assert grown(0).at_most < 1
    assert growth(STREAMS, [1_000_000] * MEASURED) == (0, 0)


def test_growth_is_told_from_noise() -> None:
    per_stream, error = grown(20)
    assert per_stream - error < 20 < per_stream + error
    assert error < 1


def test_a_step_is_taken_for_growth() -> None:
    step = [1_000_000] * 5 + [1_200_000] * 4
    assert growth(STREAMS, step).at_most > LIMITS["traced_bytes"]


def test_too_little_says_nothing() -> None:
    with pytest.raises(ValueError, match="8 sizes"):
        growth(STREAMS[1:], [0] * (MEASURED - 1))


def soaked(leaks: list[str], patience: float) -> tuple[str, Watch]:
    """Return the faults of a short soak in which every stream leaks."""
    faults = Faults()
    watches = []

    async def part(watch: Watch) -> None:
        watches.append(watch)
        connects = 10 * (WARM_UP_ROUNDS + MEASURED - 1)
        await end_in_every_way(watch, connects, random.Random(1), [FINISHES])

    run(part, "uvicorn-h11", faults, leaks, patience)
    return "\n".join(faults), watches[0]


def test_what_streams_leave_behind_is_found() -> None:
    # These leaks are permanent, so there is no need to wait.
    leaks = ["object", "cycle", "future", "task", "thread", "file"]
    faults, _ = soaked(leaks, patience=0)
    for pattern in [
        r"after 0 seconds: .* tasks instead of",
        r"after 0 seconds: .* threads instead of",
        r"after 0 seconds: .* descriptors instead of",
        r"that need the collector: .* events",
        r"that are never collected: .*_asyncio.Future",
        r"that are never collected: .* events",
    ]:
        assert re.search(pattern, faults), pattern


def test_memory_that_streams_leave_behind_is_found() -> None:
    faults, watch = soaked(["bytes", "native"], PATIENCE)
    for name in ("traced_bytes", "native_bytes"):
        per_stream, error = watch.growth[name]
        assert per_stream + error > 1000
        assert per_stream - error > LIMITS[name]
        assert f"{name} may grow" in faults
    assert "instead of" not in faults
    if releases.IDLE_THREADS_LET_GO:
        assert "objects" not in faults
