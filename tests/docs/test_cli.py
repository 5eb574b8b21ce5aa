"""The command line as a process: its output and its exit code."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from importlib.metadata import version

import pytest

DEADLINE = 60.0
COMMAND = (sys.executable, "-W", "error", "-m", "fastapi_sse_fast")

on_unix = pytest.mark.skipif(sys.platform == "win32", reason="stopped with SIGINT")


def run(
    *arguments: str, without: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a command, as if some packages were not installed."""
    command = COMMAND
    if without:
        program = (
            "import runpy, sys\n"
            f"sys.modules.update(dict.fromkeys({without!r}))\n"
            "runpy.run_module('fastapi_sse_fast', run_name='__main__')\n"
        )
        command = (sys.executable, "-W", "error", "-c", program)
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_help_tells_of_both_commands() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search("^    demo ", done.stdout, re.M)
    assert re.search("^    bench ", done.stdout, re.M)


@pytest.mark.parametrize(
    ("command", "option"), [("demo", "--port"), ("bench", "--rounds")]
)
def test_help_of_a_command_tells_what_it_needs(command: str, option: str) -> None:
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert option in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert f'\n    pip install "fastapi_sse_fast[{command}]"\n' in done.stdout


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout == f"fastapi_sse_fast {version('fastapi_sse_fast')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["bench", "nothing"], "unknown row: nothing (choose from paced, awaited,"),
        (["bench", "--rounds", "0"], "--rounds must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m fastapi_sse_fast")
    assert message in done.stderr


@pytest.mark.parametrize("command", ["demo", "bench"])
def test_without_uvicorn_a_command_says_what_to_install(command: str) -> None:
    done = run(command, without=("uvicorn",))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"python -m fastapi_sse_fast {command} requires uvicorn, which is not "
        f'installed. Run:\n\n    pip install "fastapi_sse_fast[{command}]"\n'
    )


def test_a_port_that_is_taken_is_an_error_to_who_asked_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("demo", "--port", str(taken.getsockname()[1]))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Cannot listen there: ")
    assert done.stderr.count("\n") == 1


ROW = re.compile(r"^  (\S.*?)  +([\d.]+)(?: +([\d.]+)x)?$", re.M)
"""A contestant, its cost per event, and the ratio to our cost."""


def test_bench_measures_what_can_be_measured() -> None:
    done = run("bench", "dict", "--rounds", "1", without=("orjson", "sse_starlette"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "Skipped, because not installed: orjson, sse-starlette. "
        'To include them: pip install "fastapi_sse_fast[bench]"\n\n'
    )
    assert f"fastapi_sse_fast {version('fastapi_sse_fast')}, " in done.stdout
    ours, theirs = ROW.findall(done.stdout)
    assert (ours[0], theirs[0]) == ("fastapi_sse_fast", "fastapi.sse")
    assert float(theirs[2]) == pytest.approx(float(theirs[1]) / float(ours[1]), rel=0.1)


def test_bench_has_a_row_of_one_event_per_await() -> None:
    done = run("bench", "awaited", "--rounds", "1", without=("sse_starlette",))
    assert done.returncode == 0, done.stderr
    assert [name for name, *_ in ROW.findall(done.stdout)] == [
        "fastapi_sse_fast, model",
        "StreamingResponse, model_dump_json",
        "fastapi.sse, model",
        "fastapi_sse_fast, pre-encoded event",
        "FastAPI route, pre-encoded bytes",
        "plain ASGI, pre-encoded bytes",
    ]


@on_unix
def test_ctrl_c_ends_bench_and_its_servers() -> None:
    with subprocess.Popen(
        [*COMMAND, "bench", "typed", "--rounds", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # It names the machine.
        process.send_signal(signal.SIGINT)
        # Reading ends when no server process has the pipes open any more.
        stdout, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert re.sub(r"^Skipped, .*\n\n", "", stderr) == ""
    assert "pydantic model" not in stdout
