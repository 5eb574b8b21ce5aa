"""Freezes an application with PyInstaller, and runs it: its streams are to be the same.

Building takes minutes, so this is a command (`make test-frozen`) and no test.
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
"""What others import where it is there, and takes long to freeze."""


def main() -> int:
    app = ROOT / "tests" / "support" / "frozen_app.py"
    freeze = [sys.executable, "-m", "PyInstaller", "--log-level", "ERROR"]
    freeze += ["--noconfirm", "--onedir", "--name", NAME, "--paths", str(ROOT)]
    freeze += [f"--exclude-module={name}" for name in UNUSED]
    freeze += [f"--{kind}path={BUILD / kind}" for kind in ("dist", "work", "spec")]
    shutil.rmtree(BUILD, ignore_errors=True)
    subprocess.run([*freeze, str(app)], check=True, cwd=ROOT)
    expected = streams_of(sys.executable, "-m", "tests.support.frozen_app")
    with tempfile.TemporaryDirectory() as elsewhere:
        # Away from the sources, so that nothing is found there.
        frozen = Path(shutil.copytree(BUILD / "dist" / NAME, Path(elsewhere, NAME)))
        actual = streams_of(str(frozen / NAME))
    differ = [pair for pair in zip(expected, actual, strict=True) if len({*pair}) > 1]
    for pair in differ:
        print("expected: {}\nfrozen:   {}".format(*pair))
    print(f"{len(expected)} streams of a frozen application, {len(differ)} differ")
    return int(bool(differ))


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
