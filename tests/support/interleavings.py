"""Walks the orders in which tasks can go on that wait at gates."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from .logs import TIMEOUT

TURNS = 12
"""Turns of the event loop until nothing moves any more, but for what is at a gate."""


class Gates:
    """Holds tasks up where they ask for it, and lets them go one by one.

    Args:
        choose: Returns which one of so many tasks is to go on. They are in the order in
            which they have come.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self._choose = choose
        self._waiting: list[anyio.Event] = []
        self.is_open = False

    async def __call__(self) -> None:
        if not self.is_open:
            event = anyio.Event()
            self._waiting.append(event)
            await event.wait()

    async def work(self) -> None:
        """Let tasks go on until none is held up."""
        while True:
            for _ in range(TURNS):
                await anyio.lowlevel.checkpoint()
            if not self._waiting:
                return
            index = self._choose(len(self._waiting)) if len(self._waiting) > 1 else 0
            self._waiting.pop(index).set()

    def open(self) -> None:
        """Hold nothing up from now on."""
        self.is_open = True
        while self._waiting:
            self._waiting.pop().set()


class _Path:
    """The choices of one walk: those given, then always the first one."""

    def __init__(self, given: list[int]) -> None:
        self._given = given
        self.taken: list[tuple[int, int]] = []

    def choose(self, count: int) -> int:
        at = len(self.taken)
        choice = self._given[at] if at < len(self._given) else 0
        choice = min(choice, count - 1)
        self.taken.append((choice, count))
        return choice

    def next(self) -> list[int] | None:
        """Return the choices of the next walk."""
        taken = self.taken[:]
        while taken:
            choice, count = taken.pop()
            if choice + 1 < count:
                return [*(each for each, _ in taken), choice + 1]
        return None


def walk(
    scenario: Callable[[Gates], Awaitable[None]], *, backend: str, most: int
) -> int:
    """Run a scenario in all orders, or in so many that are drawn. Return how many.

    On trio they are drawn: it wakes tasks in any order, so no walk can be repeated.
    """
    given: list[int] | None = []
    walks = most if backend == "trio" else 0
    while given is not None and walks < most:
        path = _Path(given)
        _run(scenario, Gates(path.choose), path, backend)
        walks += 1
        given = path.next()
    if given is not None:  # there are more, and the first ones are much alike
        draw = random.Random(7)
        for _ in range(most):
            drawn: list[int] = []

            def choose(count: int, drawn: list[int] = drawn) -> int:
                drawn.append(draw.randrange(count))
                return drawn[-1]

            _run(scenario, Gates(choose), drawn, backend)
            walks += 1
    return walks


def _run(
    scenario: Callable[[Gates], Awaitable[None]],
    gates: Gates,
    path: object,
    backend: str,
) -> None:
    async def main() -> None:
        with anyio.fail_after(TIMEOUT):
            await scenario(gates)

    try:
        anyio.run(main, backend=backend)
    except BaseException:
        choices = getattr(path, "taken", path)
        print(f"in the order {choices}")  # noqa: T201 - pytest shows it
        raise
