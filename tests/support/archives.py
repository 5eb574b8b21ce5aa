"""Source distributions of other projects, whose tests are run and not kept here."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

BUILD = Path("build/upstream")

UNCONFIGURED = ["-c", "/dev/null", "--rootdir", "."]
"""Has pytest not find our configuration."""


def unpacked(project: str) -> Path:
    """Returns the folder of the installed release's archive, from the package index."""
    release = version(project)
    root = BUILD / f"{project.replace('-', '_')}-{release}"
    if not root.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        download += ["--no-binary", project, "--dest", str(BUILD)]
        subprocess.run([*download, f"{project}=={release}"], check=True)
        with tarfile.open(BUILD / f"{root.name}.tar.gz") as archive:
            archive.extractall(BUILD, filter="data")
    return root


def copy_swapped(source: Path, target: Path, swaps: Iterable[tuple[str, str]]) -> int:
    """Copies a file with patterns replaced. Returns how often they were."""
    text, swapped = source.read_text(), 0
    for pattern, replacement in swaps:
        text, count = re.subn(pattern, replacement, text)
        swapped += count
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return swapped


def run_pytest(folder: Path, *arguments: str) -> int:
    """Runs tests in a folder of their own, and returns pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *arguments], check=False, cwd=folder).returncode
