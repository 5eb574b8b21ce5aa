"""Check that the streams of an application are the same after freezing it.

It is frozen with PyInstaller and with cx_Freeze. Building takes minutes, so this is a
command (`make test-frozen`) and not a test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "frozen"
NAME = "streams"
UNUSED = ["hypothesis", "numpy", "pygments", "pytest", "tkinter"]
"""Optional imports of other packages that take long to freeze."""


def with_pyinstaller(app: Path, target: Path) -> None:
    freeze = ["PyInstaller", "--log-level", "ERROR", "--noconfirm", "--onedir"]
    freeze += ["--name", NAME, "--paths", str(ROOT), "--distpath", str(target.parent)]
    freeze += [f"--exclude-module={name}" for name in UNUSED]
    freeze += [f"--{kind}path={BUILD / kind}" for kind in ("work", "spec")]
    run(*freeze, str(app))
    (target.parent / NAME).rename(target)


def with_cx_freeze(app: Path, target: Path) -> None:
    freeze = ["cx_Freeze", "build_exe", "--silent", "--script", str(app)]
    freeze += ["--target-name", NAME, "--build-exe", str(target)]
    # AnyIO imports it by a computed name, which cx_Freeze cannot see.
    freeze += ["--includes", "anyio._backends._trio", "--excludes", ",".join(UNUSED)]
    run(*freeze)


FREEZERS = {"PyInstaller": with_pyinstaller, "cx_Freeze": with_cx_freeze}


def run(*module: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", *module],
        check=True,
        cwd=BUILD,
        env=environment,
        stdout=subprocess.DEVNULL,
    )


def main() -> int:
    app = ROOT / "tests" / "support" / "frozen_app.py"
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    expected = streams_of(sys.executable, "-m", "tests.support.frozen_app")
    failed = False
    for name, freeze in FREEZERS.items():
        freeze(app, BUILD / name)
        with tempfile.TemporaryDirectory() as elsewhere:
            # The copy is away from the sources, so that it cannot import from there.
            frozen = Path(shutil.copytree(BUILD / name, Path(elsewhere, NAME)))
            actual = streams_of(str(frozen / NAME))
        pairs = zip(expected, actual, strict=True)
        differ = [pair for pair in pairs if len({*pair}) > 1]
        for pair in differ:
            print("expected: {}\nfrozen:   {}".format(*pair))
        print(f"{len(expected)} streams frozen by {name}, {len(differ)} differ")
        failed |= bool(differ)
    return int(failed)


def streams_of(*command: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT if command[0] == sys.executable else Path(command[0]).parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed")
    return done.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
