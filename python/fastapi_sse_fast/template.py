"""Slots, the placeholders of an `EventTemplate`."""

from __future__ import annotations

import secrets  # noqa: F401 -- imported by Rust, see `_fallback`
from typing import TYPE_CHECKING, overload

from ._core import slot_digits, slot_text

if TYPE_CHECKING:
    from typing_extensions import Self

    # Rust imports it when a template needs it. A tool that freezes applications finds
    # it here.
    from . import _slotted  # noqa: F401


class Slot(str):
    """A placeholder in an `EventTemplate` for a value that differs per event.

    A slot is a `str` with a random text, so that pydantic accepts it as a field of a
    model and the template finds it in the encoded data.

    Args:
        name: The keyword argument that fills the slot.
        type: The type of the placeholder: `str`, or `int` for a field that only accepts
            an `int`. The value that fills the slot may have any type.

    Raises:
        ValueError: `name` is not an identifier, or `type` is neither `str` nor `int`.

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
        """Return the slot, or the number that represents it."""
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
        """Support copying and pickling: in another process the text is a new one."""
        return type(self), (self.name,)

    def __repr__(self) -> str:
        """Return the expression that creates the slot."""
        return f"Slot({self.name!r})"
