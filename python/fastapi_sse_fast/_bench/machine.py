"""What is measured, and on what: for the head of a table of results."""

from __future__ import annotations

import platform
import timeit
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import fastapi.sse

from .. import _core, format_sse_event

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = (
    "fastapi_sse_fast",
    "fastapi",
    "starlette",
    "pydantic",
    "sse-starlette",
    "orjson",
    "uvicorn",
    "uvloop",
    "httptools",
    "h11",
    "granian",
    "hypercorn",
)

DEBUG_BUILD = "This is a debug build of fastapi_sse_fast; `make build` makes another."


def is_debug_build() -> bool:
    """Whether the extension was compiled for anything but speed."""
    debug = getattr(_core, "DEBUG", None)
    return _is_slow() if debug is None else bool(debug)


def _is_slow() -> bool:
    """Whether Rust is slower than Python, as it is unless it was optimized.

    For an extension that does not say how it was built. Measured: 0.13 of Python's time
    optimized, 3.2 not.
    """
    text = "x\n" * 20_000

    def seconds(make_frame: object) -> float:
        return min(
            timeit.repeat(
                "make_frame(data_str=text)",
                globals={"make_frame": make_frame, "text": text},
                number=1,
                repeat=5,
            )
        )

    return seconds(format_sse_event) > seconds(fastapi.sse.format_sse_event)


def description() -> list[str]:
    # Of the kernel no more than its version: the rest is its builder's.
    kernel = platform.release().partition("-")[0]
    return [
        f"{platform.system()} {kernel} {platform.machine()}, {cpu()}",
        f"{platform.python_implementation()} {platform.python_version()}, "
        + ", ".join(_versions()),
    ]


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def cpu() -> str:
    """Name the processor, and how many of it there are."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        if names:
            return f"{len(names)} x {names[0]}"
    return platform.processor() or "unknown CPU"
