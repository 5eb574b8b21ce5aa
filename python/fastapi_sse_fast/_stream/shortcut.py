"""The shortest way for a part of the body, past wrappers that only pass it on.

Starlette wraps `send` three times, to know whether a response has begun. For each part
of a body, each of these wrappers is one more coroutine, which does nothing else.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from types import CodeType

    from starlette.types import Message, Send


def past_starlette(send: Send) -> Send:
    """Return what to send parts of the body with, once the response has begun.

    Only a function of Starlette's is passed by, and only if it does, byte code for byte
    code, what `_wrapper` does; else it is `send` itself that is returned. So it is
    behind any other middleware.
    """
    while (
        isinstance(send, FunctionType)
        and send.__module__.partition(".")[0] == "starlette"
        and _meaning(send.__code__) == _MEANING
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


def _meaning(code: CodeType) -> tuple[Any, ...]:
    """Return all of a function's code that makes a difference to what it does."""
    return (
        code.co_code,
        code.co_consts,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_flags & 0xFFFF,  # the others are of `from __future__ import`
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        getattr(code, "co_exceptiontable", None),  # since Python 3.11
    )


_MEANING = _meaning(_wrapper(cast("Send", None)).__code__)
