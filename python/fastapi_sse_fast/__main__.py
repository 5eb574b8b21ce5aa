"""The command line interface: `python -m fastapi_sse_fast demo` and `bench`."""

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
    """Run a command.

    Args:
        arguments: The command line arguments, by default those of the process.
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
        description="Watch Server-Sent Events in a demo, or measure their cost.",
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
        "and\nstreams that do not end as planned. Press Ctrl+C to quit.",
        epilog=f"Requires uvicorn:\n\n    {_pip_install('demo')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        help="the port to listen on (default: 8000, or a free port if it is in use)",
    )
    parser.set_defaults(command=_demo)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ._bench.command import ROWS

    parser = commands.add_parser(
        "bench",
        help="measure the cost of an event on this machine, compared with fastapi.sse",
        description="Measure the cost of an event on this machine, compared with "
        "fastapi.sse and\nother packages. Takes a minute or two.",
        epilog="Requires uvicorn. To compare with all other packages:\n\n"
        f"    {_pip_install('bench')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "rows",
        metavar="ROW",
        nargs="*",
        help=f"what to measure: {', '.join(ROWS)} (default: all)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="how often to measure each row; more rounds are more exact, but slower",
    )

    def check_and_run(options: argparse.Namespace) -> None:
        if unknown := sorted(set(options.rows) - set(ROWS)):
            rows = ", ".join(ROWS)
            parser.error(f"unknown row: {', '.join(unknown)} (choose from {rows})")
        if options.rounds is not None and options.rounds < 1:
            parser.error(f"--rounds must be at least 1, not {options.rounds}")
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
            f"Skipped, because not installed: {', '.join(missing)}. "
            f"To include them: {_pip_install('bench')}\n",
            file=sys.stderr,
        )
    command.run(options.rows, options.rounds)


def _need_uvicorn(extra: str) -> None:
    if not find_spec("uvicorn"):
        print(
            f"{PROGRAM} {extra} requires uvicorn, which is not installed. Run:\n\n"
            f"    {_pip_install(extra)}",
            file=sys.stderr,
        )
        sys.exit(2)


def _pip_install(extra: str) -> str:
    return f'pip install "fastapi_sse_fast[{extra}]"'


if __name__ == "__main__":
    main()
