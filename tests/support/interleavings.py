"""Walks the orders in which tasks can go on that wait at gates."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from .logs import TIMEOUT

TURNS = 12
"""Turns of the event loop until nothing moves any more, but for what is at a gate."""

PAUSE = 0.003
"""Seconds until nothing moves any more, usually, if an answer comes from elsewhere."""


class Gates:
    """Holds tasks up where they ask for it, and lets them go one by one.

    Args:
        choose: Returns which one of so many tasks is to go on. They are in the order in
            which they have come.
        is_local: Whether turns of the event loop are all that other tasks need.

    Attributes:
        is_busy: Returns whether a task that is not held up will be, in a while.
    """

    def __init__(self, choose: Callable[[int], int], *, is_local: bool = True) -> None:
        self._choose = choose
        self._is_local = is_local
        self.is_busy: Callable[[], object] = lambda: False
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
            await self._settle()
            if not self._waiting:
                return
            index = self._choose(len(self._waiting)) if len(self._waiting) > 1 else 0
            self._waiting.pop(index).set()

    async def _settle(self) -> None:
        for _ in range(TURNS):
            await anyio.lowlevel.checkpoint()
        if not self._is_local:
            await anyio.sleep(PAUSE)
            while not self._waiting and self.is_busy():
                await anyio.sleep(PAUSE)
            if not self._waiting:
                await anyio.sleep(10 * PAUSE)

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
    scenario: Callable[[Gates], Awaitable[None]],
    *,
    backend: str,
    most: int,
    is_local: bool = True,
) -> int:
    """Run a scenario in all orders, or in so many that are drawn. Return how many.

    On trio they are drawn: it wakes tasks in any order, so no walk can be repeated. Nor
    can it be if answers come from elsewhere.
    """
    given: list[int] | None = []
    walks = most if backend == "trio" or not is_local else 0
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

            _run(scenario, Gates(choose, is_local=is_local), drawn, backend)
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
