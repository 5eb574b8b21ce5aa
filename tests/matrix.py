"""Run the tests on every installed Python, and with older releases of FastAPI.

Each combination has a virtual environment below `.venv-matrix`, which is kept, and a
wheel that pip builds. No Python is downloaded; the output names the missing ones. The
script needs only Python, Rust and a package index. Because of the last, it is a command
(`make test-matrix`) and not a test.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-matrix"
PACKAGE = "fastapi_sse_fast"

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.14t"]
"""`3.14t` is the free-threaded build."""

RELEASES = {
    # The oldest releases that `pyproject.toml` and FastAPI 0.135 allow.
    "oldest": [
        "anyio==4.2.0",
        "fastapi==0.135.0",
        "pydantic==2.7.0",
        "starlette==0.46.0",
    ],
    # Each release has some of the differences in `support/releases.py`.
    "fastapi-0.135.0": ["fastapi==0.135.0"],
    "fastapi-0.140.8": ["fastapi==0.140.8"],
    "fastapi-0.143.2": ["fastapi==0.143.2"],
    "fastapi-0.150.0": ["fastapi==0.150.0"],
    # The oldest release that the newest FastAPI allows.
    "pydantic-2.9": ["pydantic==2.9.0"],
}
"""Requirements that differ from the newest releases. They run on this Python."""


class Combination(NamedTuple):
    name: str
    version: str
    python: Path | None
    """`None` if this Python is not installed."""
    pins: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def group(self) -> str:
        """The dependency group. `openai` and `orjson` do not run on all of these."""
        special = self.name == "oldest" or self.version.endswith("t")
        return "test-core" if special else "test"

    @property
    def venv_python(self) -> Path:
        windows = sys.platform == "win32"
        return self.folder / ("Scripts/python.exe" if windows else "bin/python")


class Outcome(NamedTuple):
    name: str
    versions: list[str]
    seconds: str
    result: str
    failed: bool = False

    def __str__(self) -> str:
        columns = "".join(f"{version:10}" for version in self.versions)
        return f"{self.name:16} {columns:40} {self.seconds:>6}  {self.result}"


HEADER = Outcome("", ["Python", "FastAPI", "Starlette", "pydantic"], "", "")


def this_version() -> str:
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
    return f"{sys.version_info[0]}.{sys.version_info[1]}{'t' if free_threaded else ''}"


def find_python(version: str) -> Path | None:
    """Find the Python that runs this, or one of pyenv, or one on the `PATH`."""
    if version == this_version():
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    of_pyenv = sorted(pyenv.glob(f"versions/*/bin/python{version}"), reverse=True)
    on_path = shutil.which(f"python{version}")
    for found in [*of_pyenv, Path(on_path) if on_path else None]:
        # pyenv has a command on the `PATH` also for versions that are not enabled.
        if found and subprocess.run([found, "-V"], capture_output=True).returncode == 0:
            return found
    return None


def combinations() -> list[Combination]:
    here, python = this_version(), Path(sys.executable)
    pythons = dict.fromkeys([*PYTHONS, here])
    return [
        *(Combination(f"python-{v}", v, find_python(v)) for v in pythons),
        *(Combination(name, here, python, tuple(p)) for name, p in RELEASES.items()),
    ]


def run(combination: Combination, wheels: Path | None) -> Outcome:
    """Install the requirements and run the tests, with their output in a file."""
    if combination.python is None:
        return Outcome(combination.name, [], "", "no such Python here")
    started = time.monotonic()
    log = FOLDER / f"{combination.name}.log"
    with log.open("w", encoding="utf-8") as output:

        def call(*command: object) -> None:
            print("$", *command, file=output, flush=True)
            subprocess.run(
                [str(part) for part in command],
                check=True,
                cwd=ROOT,
                # With one build folder, each Python would build everything again.
                env={
                    **os.environ,
                    "CARGO_TARGET_DIR": str(FOLDER / "target" / combination.version),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )

        try:
            install(combination, wheels, call)
            pytest = ["pytest", "-q", "-rs", "-p", "no:cacheprovider"]
            call(combination.venv_python, "-m", *pytest)
        except subprocess.CalledProcessError:
            failed = True
        else:
            failed = False
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    return Outcome(
        combination.name,
        installed_versions(combination),
        f"{time.monotonic() - started:.0f} s",
        f"FAILED, see {log.relative_to(ROOT)}" if failed else text.splitlines()[-1],
        failed,
    )


def install(
    combination: Combination, wheels: Path | None, call: Callable[..., None]
) -> None:
    python = combination.venv_python
    if not python.exists():
        call(combination.python, "-m", "venv", combination.folder)
    call(python, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    if wheels is None:
        wheels = FOLDER / "wheels" / combination.version
        pip_wheel = [python, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        call(*pip_wheel, "--wheel-dir", wheels, ROOT)
    # pip picks the wheel for this Python.
    chosen = combination.folder / "wheel"
    shutil.rmtree(chosen, ignore_errors=True)
    pip_download = [python, "-m", "pip", "download", "--quiet", "--no-deps"]
    pip_download += ["--no-index", "--only-binary", ":all:", "--find-links", wheels]
    call(*pip_download, "--dest", chosen, PACKAGE)
    (wheel,) = chosen.iterdir()
    pip_install = [python, "-m", "pip", "install", "--quiet"]
    call(*pip_install, "--no-deps", "--force-reinstall", wheel)
    pip_install += ["--upgrade", "--upgrade-strategy", "eager"]
    call(*pip_install, "--group", combination.group, wheel, *combination.pins)


def installed_versions(combination: Combination) -> list[str]:
    code = (
        "import platform, importlib.metadata as m; print(platform.python_version(),"
        " *(m.version(p) for p in ('fastapi', 'starlette', 'pydantic')))"
    )
    command = [str(combination.venv_python), "-c", code]
    asked = subprocess.run(command, check=False, capture_output=True, text=True)
    return asked.stdout.split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "name",
        nargs="*",
        help="a combination; `current`: this Python as it is; `releases`: this Python"
        " with older releases; nothing: all there is",
    )
    parser.add_argument("--list", action="store_true", help="show what there is")
    parser.add_argument(
        "--wheels", type=Path, help="a folder of wheels to test instead of building one"
    )
    arguments = parser.parse_args()
    known = {combination.name: combination for combination in combinations()}
    if arguments.list:
        for combination in known.values():
            pins = " ".join(combination.pins)
            print(f"{combination.name:16}", pins or combination.python or "not here")
        return 0
    several = {"current": [f"python-{this_version()}"], "releases": list(RELEASES)}
    asked = [name for given in arguments.name for name in several.get(given, [given])]
    for name in asked:
        if name not in known or known[name].python is None:
            parser.error(f"{name} is not here; see --list")
    names = asked or list(known)
    wheels = arguments.wheels.resolve() if arguments.wheels else None
    FOLDER.mkdir(exist_ok=True)
    outcomes = [HEADER]
    print(HEADER, flush=True)
    for name in names:
        outcomes.append(run(known[name], wheels))
        print(outcomes[-1], flush=True)
    if len(names) > 1:
        print("", *outcomes, sep="\n")
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
