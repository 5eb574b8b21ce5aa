"""Slots: the places of an `EventTemplate` that are filled for every event."""

from __future__ import annotations

import secrets  # noqa: F401 -- as for `_fallback`
from typing import TYPE_CHECKING, overload

from . import _slotted  # noqa: F401 -- as for `_fallback`
from ._core import slot_digits, slot_text

if TYPE_CHECKING:
    from typing_extensions import Self


class Slot(str):
    """Stands in an `EventTemplate` for a value that every event has its own of.

    It is a `str`, so that it can be where pydantic wants one, and is recognized in
    what the template was encoded to. Its text means nothing otherwise.

    Args:
        name: The keyword that the value is passed by.
        type: What it has to be while the template is made: `str`, or `int` for fields
            that take nothing else. The value that fills it can be of any type.

    Raises:
        ValueError: `name` is not an identifier, or there is no slot of that `type`.

    Examples:
        >>> Slot("content")
        Slot('content')
    """

    __slots__ = ("name",)

    name: str

    @overload
    def __new__(cls, name: str, *, type: type[str] = ...) -> Self: ...

    @overload
    def __new__(cls, name: str, *, type: type[int]) -> int: ...  # type: ignore[misc]

    def __new__(  # type: ignore[misc]
        cls, name: str, *, type: type[str | int] = str
    ) -> Self | int:
        """Returns the slot, or the number that stands for it."""
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"a slot's name must be an identifier, not {name!r}")
        if type is int:
            return int(slot_digits(name))
        if type is not str:
            raise ValueError(f"a slot's type must be str or int, not {type!r}")
        slot = super().__new__(cls, slot_text(name))
        slot.name = name
        return slot

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Lets a slot be copied and pickled; in another process its text is another."""
        return type(self), (self.name,)

    def __repr__(self) -> str:
        """As it was made."""
        return f"Slot({self.name!r})"
