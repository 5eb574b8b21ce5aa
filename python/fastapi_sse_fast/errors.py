"""Exceptions of channels and runs."""

from __future__ import annotations


class RunExists(Exception):  # noqa: N818 - as `FileExistsError` would be, of runs
    """`Runs.start` was called with the name of a run that is running.

    Attributes:
        name: Name of the run.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the run {name!r} is running already")
        self.name = name


class StoreError(Exception):
    """A store could not do what it was asked to.

    The server of the store is not available, refuses the command, or has lost data that
    is needed.
    """
