"""One run of the benchmark: its servers, whose turn it is, and how far it has come."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from serving import Server, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from report import Result, Section
    from serving import Cores

T = TypeVar("T")

BAR = 30
"""Characters of a full progress bar."""


class Contestant(NamedTuple):
    """A stream of an application in `apps.py`.

    Attributes:
        name: What the table calls it.
        app: Name of the application.
        path: Path of the stream.
        against: Name of our contestant that it is compared with.
    """

    name: str
    app: str
    path: str
    against: str = ""


class Row(NamedTuple):
    """What can be measured on its own.

    Attributes:
        section: Where its results belong.
        seconds: About how long it takes.
        run: Measures it.
        linux_only: Whether it needs to know what a process uses.
    """

    section: Section
    seconds: float
    run: Callable[[Bench], Sequence[Result]]
    linux_only: bool = False


class Bench:
    """Starts servers where they belong, and keeps them for the next rows.

    Args:
        cores: Where they run.
        file_limit: How many files and sockets a process may have.
        rounds: At most so many for any row.
    """

    def __init__(self, cores: Cores, file_limit: int, rounds: int) -> None:
        self.cores = cores
        self.file_limit = file_limit
        self._most_rounds = rounds
        self._servers = ExitStack()
        self._running: dict[str, Server] = {}
        self._rows: dict[str, Row] = {}
        self._row = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._show_progress("")
        self._servers.close()

    def run(self, rows: dict[str, Row]) -> Iterator[tuple[Row, Sequence[Result]]]:
        self._rows = rows
        for self._row, row in rows.items():
            self._progress(0.0, "")
            results = row.run(self)
            self._show_progress("")
            yield row, results

    def rounds(self, usual: int) -> int:
        return min(usual, self._most_rounds)

    def server(self, app: str) -> Server:
        """The one that runs an application, from its first use to the end."""
        if app not in self._running:
            self._running[app] = self._servers.enter_context(self.fresh_server(app))
        return self._running[app]

    def fresh_server(self, app: str) -> AbstractContextManager[Server]:
        return serving(app, self.cores.server)

    def turns(
        self, contestants: Sequence[T], rounds: int, *, part: float = 0.0, of: int = 1
    ) -> Iterator[T]:
        """Whose turn it is.

        Args:
            contestants: Take turns.
            rounds: How many each of them has.
            part: How many parts of the row have been done before.
            of: How many parts the row has.
        """
        done = 0
        for turn in range(rounds):
            # To and fro: a machine that gets slower or faster does so for all alike.
            for one in contestants if turn % 2 == 0 else reversed(contestants):
                share = done / rounds / len(contestants)
                self._progress((part + share) / of, f"round {turn + 1}/{rounds}")
                yield one
                done += 1

    def _progress(self, share: float, text: str) -> None:
        """Shows how much of all rows has been done, given how much of this one."""
        names = list(self._rows)
        seconds = [row.seconds for row in self._rows.values()]
        at = names.index(self._row)
        done = (sum(seconds[:at]) + share * seconds[at]) / sum(seconds)
        bar = "#" * round(BAR * done)
        self._show_progress(f"[{bar:{BAR}}] {done:4.0%} {self._row} {text}")

    def _show_progress(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
