"""One run of the benchmark: its servers, whose turn it is, and how far it has come."""

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
"""Characters of a full progress bar."""


class Contestant(NamedTuple):
    """A stream of an application in `apps.py`.

    Attributes:
        name: What the table calls it.
        app: Name of the application.
        path: Path of the stream.
        against: Name of our contestant that it is compared with.
        needs: A module that must be there, of a package that not everybody has.
    """

    name: str
    app: str
    path: str
    against: str = ""
    needs: str = ""


def present(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Those whose packages are installed."""
    return [one for one in contestants if not one.needs or find_spec(one.needs)]


class Row(NamedTuple):
    """What can be measured on its own.

    Attributes:
        section: Where its results belong.
        rounds: How many there are.
        seconds: About how long one of them takes.
        run: Measures it.
        quick: How many rounds there are when a minute or two must do; none by default.
        linux_only: Whether it needs to know what a process uses.
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
    """The rows of some modules that this system can measure, by their names."""
    return {
        name: row
        for module in modules
        for name, row in module.ROWS.items()
        if ON_LINUX or not row.linux_only
    }


class Bench:
    """Starts servers where they belong, and keeps them for the next rows.

    Args:
        cores: Where they run.
        file_limit: How many files and sockets a process may have.
        rounds_of: How many rounds a row has this time.
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
        """How many the present row has."""
        return self._rounds_of(self._rows[self._row])

    def server(self, app: str) -> Server:
        """The one that runs an application, from its first use to the end."""
        if app not in self._running:
            self._running[app] = self._servers.enter_context(self.fresh_server(app))
        return self._running[app]

    def fresh_server(self, app: str) -> AbstractContextManager[Server]:
        return serving(app, self.cores.server)

    def turns(
        self, contestants: Sequence[T], *, part: float = 0.0, of: int = 1
    ) -> Iterator[T]:
        """Whose turn it is, in every round of the present row.

        Args:
            contestants: Take turns.
            part: How many parts of the row have been done before.
            of: How many parts the row has.
        """
        done, rounds = 0, self.rounds
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
        # Getting ready takes about another round.
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
