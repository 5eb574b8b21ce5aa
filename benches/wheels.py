"""Measure the cost of the stable ABI: one wheel for each Python, or one for all.

    python benches/wheels.py

The script builds both wheels for this Python and measures them in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from encoder import calibrated, calls, pushes, typed
from fastapi_sse_fast import EncodedEvent, EventTemplate, ServerSentEvent, Slot
from fastapi_sse_fast._bench.report import number
from fastapi_sse_fast._bench.samples import DICTS, MODELS, TOKENS, chunk
from fastapi_sse_fast._core import ItemEncoder

ROOT = Path(__file__).parents[1]
ROUNDS = 7
REPEATS = 5
KINDS = {"per version": (), "abi3": ("--features", "abi3")}


def main() -> None:
    if sys.argv[1:] == ["measure"]:
        json.dump(measure(), sys.stdout)
        return
    with TemporaryDirectory() as directory:
        places = {kind: built(kind, Path(directory) / kind) for kind in KINDS}
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for turn in range(ROUNDS):
            for kind in list(KINDS)[:: 1 if turn % 2 == 0 else -1]:
                found[kind].append(measured(places[kind]))
    print("| ns | per version | abi3 | |")
    print("|---|--:|--:|--:|")
    for name in found["abi3"][0]:
        ours, stable = (
            statistics.median(values[name] for values in found[kind]) for kind in KINDS
        )
        print(f"| {name} | {number(ours)} | {number(stable)} | {stable / ours:.2f} |")


def built(kind: str, place: Path) -> Path:
    """Build and unpack a wheel, and return its folder."""
    command = [
        sys.executable,
        "-m",
        "maturin",
        "build",
        "--release",
        "--quiet",
        "--out",
        str(place),
    ]
    interpreter = ["--interpreter", sys.executable]
    subprocess.run([*command, *interpreter, *KINDS[kind]], cwd=ROOT, check=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def measured(place: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "measure"],
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure() -> dict[str, float]:
    """Return the nanoseconds of one call, the minimum of some turns."""
    event = ServerSentEvent(data=MODELS[0], event="chunk", id="1")
    work = {
        "push of a pre-encoded event": pushes(
            ItemEncoder(), EncodedEvent(data=DICTS[0])
        ),
        "push of a dict": pushes(ItemEncoder(), DICTS[0]),
        "push of a model, typed": pushes(typed(), MODELS[0]),
        "push of a ServerSentEvent with a model": pushes(ItemEncoder(), event),
        "push of 100 ints": pushes(ItemEncoder(), list(range(100))),
        "making a ServerSentEvent": calls(
            lambda token: ServerSentEvent(raw_data=token), TOKENS[0]
        ),
        "making an EncodedEvent": calls(
            lambda token: EncodedEvent(raw_data=token), TOKENS[0]
        ),
        "filling a template": calls(EventTemplate(chunk(Slot("content"))), TOKENS[0]),
    }
    found = {}
    for name, seconds in work.items():
        count = calibrated(seconds)
        found[name] = min(1e9 * seconds(count) / count for _ in range(REPEATS))
    return found


if __name__ == "__main__":
    main()
