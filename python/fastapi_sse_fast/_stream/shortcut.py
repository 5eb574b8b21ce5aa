"""A shortcut for body messages, past Starlette's wrappers of `send`.

Starlette wraps `send` three times, to know whether a response has started. A body
message passes through each wrapper unchanged, but each costs another coroutine.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from types import CodeType

    from starlette.types import Message, Send


def unwrap_starlette(send: Send) -> Send:
    """Return the `send` to use for body messages once the response has started.

    A wrapper is skipped only if it is a function of Starlette with exactly the byte
    code of `_wrapper`. Any other function is returned as it is, so other middleware
    still sees every message.
    """
    while (
        isinstance(send, FunctionType)
        and send.__module__.partition(".")[0] == "starlette"
        and _code_key(send.__code__) == _WRAPPER_KEY
    ):
        _, inner = send.__closure__ or ()
        send = inner.cell_contents
    return send


def _wrapper(send: Send) -> Send:
    response_started = False

    async def sender(message: Message) -> None:
        nonlocal response_started

        if message["type"] == "http.response.start":
            response_started = True
        await send(message)

    return sender


def _code_key(code: CodeType) -> tuple[Any, ...]:
    """Return every attribute of a code object that affects its behavior."""
    return (
        code.co_code,
        code.co_consts,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_flags & 0xFFFF,  # The higher bits are `from __future__` features.
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        getattr(code, "co_exceptiontable", None),  # since Python 3.11
    )


_WRAPPER_KEY = _code_key(_wrapper(cast("Send", None)).__code__)
