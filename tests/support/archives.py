"""Source distributions of other projects, to run their tests without a copy here."""

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
"""Options that keep pytest from using our configuration."""


def unpacked(project: str) -> Path:
    """Download the archive of the installed release and return its folder."""
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
    """Copy a file with patterns replaced, and return the number of replacements."""
    text, swapped = source.read_text(), 0
    for pattern, replacement in swaps:
        text, count = re.subn(pattern, replacement, text)
        swapped += count
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return swapped


def run_pytest(folder: Path, *arguments: str) -> int:
    """Run tests in a folder and return the exit code of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *arguments], check=False, cwd=folder).returncode
