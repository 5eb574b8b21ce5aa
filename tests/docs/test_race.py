"""What the demo's race is run by: servers, and a process that reads from them."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn")

from fastapi_sse_fast._demo import crowd, race


@pytest.mark.parametrize("package", ["fastapi_sse_fast", "fastapi.sse"])
def test_the_crowd_reads_every_event_of_every_stream(package: str) -> None:
    with race.contestants("127.0.0.1", package) as ports:
        received = list(
            crowd.progress(
                "127.0.0.1", ports[package][0], streams=30, number=20, pause=0.01
            )
        )
    assert received[0] == 0
    assert received == sorted(received)
    assert received[-1] == 30 * 20


def test_the_crowd_is_told_to_leave() -> None:
    with race.contestants("127.0.0.1", "fastapi_sse_fast") as ports:
        received = crowd.progress(
            "127.0.0.1",
            ports["fastapi_sse_fast"][0],
            streams=5,
            number=100_000,
            pause=0.05,
        )
        assert next(received) == 0
        assert next(received) >= 5
        received.close()
