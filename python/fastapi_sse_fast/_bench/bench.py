"""A benchmark run: its servers, the order of measurements, and the progress bar."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from .serving import ON_LINUX, Server, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from .report import Result, Section
    from .serving import Cores

T = TypeVar("T")

BAR = 30
"""The width of the progress bar, in characters."""


class Contestant(NamedTuple):
    """A stream of an application in `apps.py`.

    Attributes:
        name: The name in the table.
        app: The name of the application.
        path: The path of the stream.
        against: The name of our contestant that it is compared with.
        needs: A module of an optional package that the application imports.
    """

    name: str
    app: str
    path: str
    against: str = ""
    needs: str = ""


def present(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Return the contestants whose packages are installed."""
    return [one for one in contestants if not one.needs or find_spec(one.needs)]


class Row(NamedTuple):
    """A measurement that can be run by itself.

    Attributes:
        section: The section of the report for its results.
        rounds: The number of rounds.
        seconds: About how many seconds a round takes.
        run: The function that measures it.
        quick: The number of rounds in the short version. If 0, it is left out there.
        linux_only: Whether it reads the CPU time or the memory of a process.
    """

    section: Section
    rounds: int
    seconds: float
    run: Callable[[Bench], Sequence[Result]]
    quick: int = 0
    linux_only: bool = False


class _HasRows(Protocol):
    @property
    def ROWS(self) -> dict[str, Row]: ...  # noqa: N802


def rows_of(*modules: _HasRows) -> dict[str, Row]:
    """Return the rows of modules that this system can measure, by name."""
    return {
        name: row
        for module in modules
        for name, row in module.ROWS.items()
        if ON_LINUX or not row.linux_only
    }


class Bench:
    """A benchmark run. It starts servers, and keeps them for further rows.

    Args:
        cores: The cores of the client and of the servers.
        file_limit: The number of files and sockets that a process may open.
        rounds_of: A function that returns the number of rounds of a row.
    """

    def __init__(
        self, cores: Cores, file_limit: int, rounds_of: Callable[[Row], int]
    ) -> None:
        self.cores = cores
        self.file_limit = file_limit
        self._rounds_of = rounds_of
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

    @property
    def rounds(self) -> int:
        """The number of rounds of the current row."""
        return self._rounds_of(self._rows[self._row])

    def server(self, app: str) -> Server:
        """Return the server of an application. It is started at its first use."""
        if app not in self._running:
            self._running[app] = self._servers.enter_context(self.fresh_server(app))
        return self._running[app]

    def fresh_server(self, app: str) -> AbstractContextManager[Server]:
        return serving(app, self.cores.server)

    def turns(
        self, contestants: Sequence[T], *, part: float = 0.0, of: int = 1
    ) -> Iterator[T]:
        """Yield the contestants in turn, in every round of the current row.

        Args:
            contestants: The contestants.
            part: The number of parts of the row that are done already.
            of: The number of parts of the row.
        """
        done, rounds = 0, self.rounds
        for turn in range(rounds):
            # The order alternates, so that a drift in the machine's speed affects all
            # contestants alike.
            for one in contestants if turn % 2 == 0 else reversed(contestants):
                share = done / rounds / len(contestants)
                self._progress((part + share) / of, f"round {turn + 1}/{rounds}")
                yield one
                done += 1

    def _progress(self, share: float, text: str) -> None:
        """Show the progress of all rows, given the progress of the current one."""
        names = list(self._rows)
        # The preparation of a row takes about as long as a round.
        seconds = [
            row.seconds * (1 + self._rounds_of(row)) for row in self._rows.values()
        ]
        at = names.index(self._row)
        done = (sum(seconds[:at]) + share * seconds[at]) / sum(seconds)
        bar = "#" * round(BAR * done)
        self._show_progress(f"[{bar:{BAR}}] {done:4.0%} {self._row} {text}")

    def _show_progress(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
