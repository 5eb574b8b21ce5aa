"""The machine and the versions that a table of results starts with."""

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

DEBUG_BUILD = "This is a debug build of fastapi_sse_fast. Run `make build` first."


def is_debug_build() -> bool:
    """Return whether the extension was compiled without optimization."""
    debug = getattr(_core, "DEBUG", None)
    return _is_slow() if debug is None else bool(debug)


def _is_slow() -> bool:
    """Return whether Rust is slower than Python, as it is without optimization.

    This is for an extension that does not say how it was built. An optimized build was
    measured to take 0.13 of Python's time, another one 3.2 times as much.
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
    # The release of the kernel may contain a suffix of its builder, which is dropped.
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
    """Return the number and the name of the processors."""
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
