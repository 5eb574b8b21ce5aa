"""The page on Redis: what its examples do in several workers, and its permissions."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..support.server import wait_until
from ..support.workers import Worker, worker
from .test_docs import PACKAGE, ROOT, sections_of

if TYPE_CHECKING:
    from ..support.redis import RedisServer

PAGE = ROOT / "docs" / "redis.md"

OPTIONS = {"count", "kill", "load", "maxlen"}
"""Words in capitals that are no commands of their own, or that a user need not have."""

Start = Callable[[], contextlib.AbstractContextManager[Worker]]


def code_of(title: str) -> str:
    """Return the first Python block of a section."""
    section = next(one for one in sections_of(PAGE) if one.title == title)
    return next(block.text for block in section.blocks if block.language == "python")


def replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.fixture
def start(tmp_path: Path, redis_url: str) -> Start:
    code = code_of("Runs over several workers")
    # The page has what an application needs, and a test has less time.
    code = replaced(code, "on_lost=", "lease=1.0, shutdown_grace=0.2, on_lost=")
    code += '\n\n@app.get("/status")\nasync def status(name: str) -> str | None:\n'
    code += "    return await runs.status(name)\n"
    return lambda: worker(tmp_path, code, REDIS_URL=redis_url)


def status(at: Worker, name: str) -> Any:
    return at.ask("GET", f"/status?name={name}").json()


def progress(body: str) -> list[int]:
    return [int(done) for done in re.findall(r'"done": (\d+)', body)]


def check_continues(done: list[int], again: list[int], rows: int) -> None:
    assert done == list(range(1, len(done) + 1))
    assert again == list(range(again[0], rows + 1))
    # A row may have been counted whose event was never sent.
    assert again[0] in (len(done) + 1, len(done) + 2)


def test_a_run_of_a_killed_worker_is_restarted_in_another(start: Start) -> None:
    with start() as one, start() as other:
        one.ask("POST", "/imports?rows=400")
        with other.stream("/imports/1/events") as read_until:
            read_until('"done": 5,')
            one.kill()
            body = read_until('event: error\ndata: {"code": "lost"}\n')
        done = progress(body)
        # Nobody asks for it.
        wait_until(lambda: status(other, "import:1") == "running")
        with other.stream("/imports/1/events") as read_until:
            again = progress(read_until("event: end"))
    check_continues(done, again, 400)


def test_a_run_that_a_deploy_has_ended_is_restarted_by_a_request(start: Start) -> None:
    with start() as other:
        with start() as one:
            one.ask("POST", "/imports?rows=300")
            with other.stream("/imports/1/events") as read_until:
                read_until('"done": 5,')
                one.terminate()
                body = read_until('event: error\ndata: {"code": "shutdown"}\n')
            last = re.findall("id: (.*)", body)[-1]
        assert status(other, "import:1") == "shutdown"
        with other.stream("/imports/1/events", last) as read_until:
            again = read_until("event: end")
        assert '"reason": "reset"' in again
    check_continues(progress(body), progress(again), 300)


def test_a_run_is_cancelled_from_another_worker(start: Start) -> None:
    with start() as one, start() as other:
        one.ask("POST", "/imports?rows=10000")
        with one.stream("/imports/1/events") as read_until:
            read_until('"done": 5,')
            began = time.monotonic()
            assert other.ask("POST", "/imports/1/stop").json() is True
            read_until('event: end\ndata: {"status": "cancelled"}\n')
            assert time.monotonic() - began < 5  # a bound for a busy machine
        assert other.ask("POST", "/imports/1/stop").json() is False


def test_an_application_answers_503_if_redis_refuses(
    own_server: RedisServer, tmp_path: Path
) -> None:
    code = code_of("When Redis is not available")
    with worker(tmp_path, code, REDIS_URL=own_server.url) as one:
        assert one.ask("POST", "/news/Rain").status_code == 200
        with one.stream("/news") as read_until, own_server.client() as client:
            read_until("id: ")
            client.config_set("maxmemory", "1")
            reply = one.ask("POST", "/news/Sun")
            assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
            client.config_set("maxmemory", "0")
            assert one.ask("POST", "/news/Sun").status_code == 200
            read_until('data: {"title": "Sun"}\n')
            client.config_set("min-replicas-to-write", "1")
            assert one.ask("POST", "/news/Snow").status_code == 503


def test_the_permissions_of_the_page_are_enough(
    own_server: RedisServer, tmp_path: Path
) -> None:
    [section] = [one for one in sections_of(PAGE) if one.title == "Change one line"]
    [block] = [one for one in section.blocks if one.text.startswith("user app ")]
    _, name, *rules = block.text.split()
    folder = PACKAGE / "stores" / "_redis"
    source = "".join(path.read_text() for path in folder.iterdir() if path.is_file())
    used = re.findall(r"""['"]([A-Z]{3,})['"]""", source)
    allowed = {rule.strip("+").partition("|")[0] for rule in rules}
    assert {command.lower() for command in used} - allowed <= OPTIONS
    with own_server.client() as client:
        client.execute_command("ACL", "SETUSER", name, *rules)
    url = own_server.url.replace("redis://", "redis://app:password@")
    code = replaced(
        code_of("Publish from other processes"), "def export(", "def export_rows("
    )
    code += """

from fastapi_sse_fast import RunExists


async def work():
    yield 1
    await anyio.sleep(3600)


@app.get("/all")
async def use_all() -> list:
    import anyio.to_thread

    await anyio.to_thread.run_sync(export_rows, 9, "ada")
    used = [await channels.publish("all", 1, dedupe="1") for _ in range(2)]
    run = await runs.start("run", work)
    used.append(await runs.cancel("run"))
    events = [event async for event in run.subscribe()]
    return [*used, await runs.status("run"), len(events)]
"""
    code = "import anyio\n" + code
    with worker(tmp_path, code, REDIS_URL=url) as one:
        with one.stream("/users/ada/events") as read_until:
            read_until("id: ")
            first, second, *others = one.ask("GET", "/all").json()
            assert first == second
            assert others[:2] == [True, "cancelled"]
            read_until("event: report")
