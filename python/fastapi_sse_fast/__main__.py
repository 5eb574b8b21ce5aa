"""The command line: `python -m fastapi_sse_fast demo` and `bench`."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAM = "python -m fastapi_sse_fast"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
        arguments: Those of the command line; by default what the process was given.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        PROGRAM,
        description="See Server-Sent Events stream, and measure what they cost here.",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"fastapi_sse_fast {version('fastapi_sse_fast')}",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_bench(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="serve a page that compares this package with fastapi.sse",
        description="Serve a page that compares this package with fastapi.sse: a race, "
        "and\nstreams that do not end as planned. Ctrl-C stops it.",
        epilog=f"It needs uvicorn:\n\n    {_installing('demo')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=int,
        help="default: 8000 or, where that is taken, any that is free",
    )
    parser.set_defaults(command=_demo)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ._bench.command import ROWS

    parser = commands.add_parser(
        "bench",
        help="measure on this machine what an event costs, beside other packages",
        description="Measures what an event costs a server on this machine, beside "
        "fastapi.sse and\nothers: the server benchmark in a minute or two.",
        epilog="It needs uvicorn; what others it has depends on their packages:\n\n"
        f"    {_installing('bench')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "rows",
        metavar="ROW",
        nargs="*",
        help=f"what to measure: {', '.join(ROWS)} (default: all of them)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="how often to measure each; more are more exact, and take longer",
    )

    def check_and_run(options: argparse.Namespace) -> None:
        if unknown := sorted(set(options.rows) - set(ROWS)):
            parser.error(f"no such row: {', '.join(unknown)}")
        if options.rounds is not None and options.rounds < 1:
            parser.error("there must be a round")
        _bench(options)

    parser.set_defaults(command=check_and_run)


def _demo(options: argparse.Namespace) -> None:
    _need_uvicorn("demo")
    from ._demo import server

    server.main(options.host, options.port)


def _bench(options: argparse.Namespace) -> None:
    _need_uvicorn("bench")
    from ._bench import command

    if missing := command.missing():
        print(
            f"Left out, for want of a package: {', '.join(missing)}. "
            f"All there is: {_installing('bench')}\n",
            file=sys.stderr,
        )
    command.run(options.rows, options.rounds)


def _need_uvicorn(extra: str) -> None:
    if not find_spec("uvicorn"):
        print(
            f"{PROGRAM} {extra} needs uvicorn, which is not installed. With pip:\n\n"
            f"    {_installing(extra)}",
            file=sys.stderr,
        )
        sys.exit(2)


def _installing(extra: str) -> str:
    return f'pip install "fastapi_sse_fast[{extra}]"'


if __name__ == "__main__":
    main()
