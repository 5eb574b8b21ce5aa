"""What the server keeps of a log: the operations of `log.lua`, one by one."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("redis")

import redis

from ..support.redis import LUA, RedisServer

MINUTE = 60_000
LEASE = 3000
OF_ALL_LOGS = ("sse:runs:server", "sse:runs:lock")
LOST = ("event: error\ndata: lost\n\n", "data: lost\n\n")
END = ("event: end\n\n", "data: [DONE]\n\n")


def frame(number: int) -> str:
    return f"data: {number}\n\n"


class Script:
    """Calls the script as processes do, which may be connected to several servers.

    Args:
        server: Runs the script.
        key: The key of a log.
    """

    def __init__(self, server: RedisServer, key: str = "sse:{a}") -> None:
        self._client = server.client()
        self._sha = self._client.script_load(LUA)
        self._tokens = itertools.count()
        self.key = key
        self.token = ""

    def close(self) -> None:
        self._client.close()

    def do(
        self, operation: str, *args: Any, server: str = "s1", again: str = ""
    ) -> Any:
        """Do an operation, or repeat the one with a token."""
        self.token = again or f"token{next(self._tokens)}"
        head = (operation, server, "1" if again else "0", self.token, "sse:runs")
        answer = self._client.evalsha(self._sha, 1, self.key, *head, *args)
        return decoded(answer)

    # Channels

    def append(
        self, *numbers: int, history: int = 100, key: str = "", **how: Any
    ) -> Any:
        frames = map(frame, numbers)
        return self.do("append", history, MINUTE, key, *frames, **how)

    def read(
        self,
        epoch: str = "",
        offset: int | str = "",
        *,
        run: str = "",
        most: int = 100,
        most_bytes: int = 10**6,
        **how: Any,
    ) -> dict[str, Any]:
        answer = self.do("read", MINUTE, run, epoch, offset, most, most_bytes, **how)
        fields = (
            *("epoch", "top", "length", "status", "is_settled", "earlier", "lease"),
            *("entries", "lost"),
        )
        return dict(zip(fields, answer, strict=True))

    # Runs

    def start(
        self, owner: str = "owner", mode: str = "reject", lease: int = LEASE, **how: Any
    ) -> Any:
        return self.do("start", owner, "worker", mode, lease, MINUTE, *LOST, **how)

    def write(
        self,
        run: str,
        first: int,
        *numbers: int,
        owner: str = "owner",
        known: int = 0,
        **how: Any,
    ) -> Any:
        frames = map(frame, numbers)
        return self.do("write", run, owner, known, first, *frames, **how)

    def finish(
        self,
        run: str,
        offset: int,
        status: str = "done",
        owner: str = "owner",
        **how: Any,
    ) -> Any:
        return self.do("finish", run, owner, offset, status, *END, **how)

    def restore(self, run: str, top: int, owner: str = "owner", **how: Any) -> Any:
        return self.do(
            "restore", run, owner, "worker", LEASE, MINUTE, *LOST, top, **how
        )

    def expire_lease(self) -> None:
        self._client.delete(f"{self.key}:l")

    def find_lost(self, operation: str = "status", *args: Any) -> Any:
        """Have a run ended whose owner is dead. Return the answer that says so."""
        self.expire_lease()
        self.do(operation, *args)
        self.expire_lease()
        return self.do(operation, *args)

    # The database

    @contextlib.contextmanager
    def no_memory(self) -> Iterator[None]:
        """Have the server refuse whatever takes memory."""
        self._client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            self._client.config_set("maxmemory", 0)

    @property
    def keys(self) -> list[str]:
        """The keys of logs, and the set of runs."""
        keys = sorted(key.decode() for key in self._client.scan_iter())
        return [key for key in keys if key not in OF_ALL_LOGS]

    def delete(self, *keys: str) -> None:
        assert self._client.delete(*keys) == len(keys)

    def ttl(self, key: str) -> int:
        return int(self._client.pttl(key))

    def contents(self) -> dict[str, Any]:
        """Return everything that is in the database."""
        return {key: self._value(key) for key in (*self.keys, *OF_ALL_LOGS)}

    def _value(self, key: str) -> Any:
        client = self._client
        kind = client.type(key).decode()  # type: ignore[union-attr]
        read: dict[str, Callable[[], Any]] = {
            "hash": lambda: client.hgetall(key),
            "stream": lambda: client.xrange(key),
            "string": lambda: client.get(key),
            "set": lambda: client.smembers(key),
            "zset": lambda: client.zrange(key, 0, -1, withscores=True),
            "none": lambda: None,
        }
        return read[kind]()


def decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [decoded(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


@pytest.fixture
def script(server: RedisServer) -> Iterator[Script]:
    script = Script(server)
    yield script
    script.close()


def offsets(answer: dict[str, Any]) -> list[int]:
    return [int(id.removesuffix("-0")) for id, _ in answer["entries"]]


def numbers(answer: dict[str, Any]) -> list[int]:
    """Return the numbers in the frames of an answer."""
    frames = [fields[1] for _, fields in answer["entries"]]
    return [int(each.removeprefix("data: ")) for each in frames]


# Operations that are repeated because the answer was lost


def given_nothing(script: Script) -> str:
    return ""


def given_events(script: Script) -> str:
    script.append(1, 2, 3, history=3, key=":k")
    return ""


def given_a_run(script: Script) -> str:
    run: str = script.start()[1]
    script.write(run, 1, 1, 2)
    return run


def given_an_ended_run(script: Script) -> str:
    run = given_a_run(script)
    script.finish(run, 3)
    return run


def given_a_suspect(script: Script) -> str:
    run = given_a_run(script)
    script.expire_lease()
    script.do("status")
    script.expire_lease()
    return run


OPERATIONS: dict[str, tuple[Callable[[Script], str], str, tuple[Any, ...]]] = {
    "append": (given_nothing, "append", (9, MINUTE, "", frame(1))),
    "append more": (given_events, "append", (3, MINUTE, "", frame(4), frame(5))),
    "append with a key": (given_events, "append", (3, MINUTE, ":l", frame(4))),
    "append with a known key": (given_events, "append", (3, MINUTE, ":k", frame(4))),
    "append nothing": (given_nothing, "append", (9, MINUTE, "")),
    "read nothing": (given_nothing, "read", (MINUTE, "", "", "", 9, 99)),
    "read": (given_events, "read", (MINUTE, "", "", 0, 9, 99)),
    "start": (given_nothing, "start", ("o", "w", "reject", LEASE, MINUTE, *LOST)),
    "start after another": (
        given_an_ended_run,
        "start",
        ("o", "w", "reject", LEASE, MINUTE, *LOST),
    ),
    "start after a lost one": (
        given_a_suspect,
        "start",
        ("o", "w", "reject", LEASE, MINUTE, *LOST),
    ),
    "replace": (given_a_run, "start", ("o", "w", "replace", LEASE, MINUTE, *LOST)),
    "attach": (given_a_run, "start", ("o", "w", "attach", LEASE, MINUTE, *LOST)),
    "write": (given_a_run, "write", ("RUN", "owner", 2, 3, frame(3), frame(4))),
    "write nothing": (given_a_run, "write", ("RUN", "owner", 2, 3)),
    "finish": (given_a_run, "finish", ("RUN", "owner", 3, "done", *END)),
    "restore": (
        given_nothing,
        "restore",
        ("RUN", "owner", "worker", LEASE, MINUTE, *LOST, 2),
    ),
    "abandon": (given_a_run, "abandon", ("owner",)),
    "cancel": (given_a_run, "cancel", ()),
    "status": (given_a_run, "status", ()),
    "status of a lost run": (given_a_suspect, "status", ()),
    "read a lost run": (given_a_suspect, "read", (MINUTE, "RUN", "", 0, 9, 99)),
    "cancel a lost run": (given_a_suspect, "cancel", ()),
}
"""What was there before, an operation and its arguments."""

operations = pytest.mark.parametrize(
    ("given", "operation", "args"), OPERATIONS.values(), ids=OPERATIONS
)


def with_run(args: tuple[Any, ...], run: str) -> list[Any]:
    return [(run or "run") if arg == "RUN" else arg for arg in args]


@operations
def test_a_repeated_operation_answers_the_same_and_changes_nothing(
    script: Script, given: Any, operation: str, args: tuple[Any, ...]
) -> None:
    arguments = with_run(args, given(script))
    answer = script.do(operation, *arguments)
    contents = script.contents()
    again = script.do(operation, *arguments, again=script.token)
    if operation == "read":  # but for the lease, which expires
        answer[6] = again[6] = ""
    assert again == answer
    assert script.contents() == contents


@operations
def test_everything_expires_after_every_operation(
    script: Script, given: Any, operation: str, args: tuple[Any, ...]
) -> None:
    script.do(operation, *with_run(args, given(script)))
    for key in set(script.keys) - {"sse:runs"}:
        assert 0 < script.ttl(key) <= MINUTE + LEASE, key


NEED_MEMORY = {
    *("append", "append more", "append with a key", "append nothing", "read nothing"),
    *("start", "start after another", "write", "restore"),
}
"""The other operations must be possible in any case: they keep runs, and end them."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_server_without_memory_refuses_an_operation_as_a_whole(
    script: Script, name: str
) -> None:
    given, operation, args = OPERATIONS[name]
    arguments = with_run(args, given(script))
    contents = script.contents()
    with script.no_memory():
        if name in NEED_MEMORY:
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                script.do(operation, *arguments)
            assert script.contents() == contents
        else:
            script.do(operation, *arguments)


def test_a_lease_is_renewed_and_given_up_without_memory(script: Script) -> None:
    run = given_a_run(script)
    with script.no_memory():
        time.sleep(0.02)
        before = script.ttl("sse:{a}:l")
        script.write(run, 3)
        assert script.ttl("sse:{a}:l") > before
        script.expire_lease()
        assert script.do("status")[0] == "wait"
        script.write(run, 3)
        assert script.do("status")[0] == "running"
        assert script.find_lost()[::4] == ["lost", "1"]


def test_runs_are_kept_and_ended_by_another_server_without_memory(
    script: Script,
) -> None:
    run = given_a_run(script)
    with script.no_memory():
        assert script.write(run, 3, known=2, server="s2")[0] == "ok"
        assert script.finish(run, 3, server="s3") == ["ended", "done"]


# Channels


def test_offsets_count_from_one(script: Script) -> None:
    epoch, offset = script.append(1)
    assert offset == "1"
    assert script.append(2, 3) == [epoch, "3"]
    answer = script.read(epoch, 1)
    assert (answer["top"], answer["length"]) == ("3", "3")
    assert (offsets(answer), numbers(answer)) == ([2, 3], [2, 3])


def test_old_events_are_dropped(script: Script) -> None:
    epoch, _ = script.append(*range(1, 8), history=3)
    answer = script.read(epoch, 1)
    assert (answer["top"], answer["length"]) == ("7", "3")
    assert numbers(answer) == [5, 6, 7]


def test_a_repeated_call_is_found_below_newer_events(script: Script) -> None:
    epoch, _ = script.append(1, 2)
    token = script.token
    for number in range(3, 60):
        script.append(number)
    assert script.append(1, 2, again=token) == [epoch, "2"]
    for number in range(60, 130):
        script.append(number)
    # It is not kept any more, so nobody knows.
    assert script.append(1, 2, again=token) == [epoch, "131"]


def test_a_call_that_was_never_done_is_done_when_it_is_repeated(script: Script) -> None:
    epoch, _ = script.append(*range(1, 50))
    assert script.append(50, again="another") == [epoch, "50"]


def test_the_newest_keys_of_publishers_are_known(script: Script) -> None:
    epoch, _ = script.append(1, history=3, key=":k1")
    for number in (2, 3, 4):
        script.append(number, history=3, key=f":k{number}")
    assert script.append(9, history=3, key=":k2") == [epoch, "2"]
    assert script.append(9, history=3, key=":k1") == [epoch, "5"]
    assert len(script.contents()["sse:{a}:d"]) == 3


def test_an_empty_key_is_a_key(script: Script) -> None:
    epoch, _ = script.append(1, key=":")
    assert script.append(2, key=":") == [epoch, "1"]


def test_another_server_begins_an_epoch(script: Script) -> None:
    first, _ = script.append(1, 2)
    second, offset = script.append(3, server="s2")
    assert (second != first, offset) == (True, "3")
    answer = script.read(server="s2")
    assert (answer["epoch"], answer["earlier"]) == (second, f"{first}:2")
    assert numbers(script.read(first, 1, server="s2")) == [2, 3]
    # That event is another one in the first epoch, or will be none.
    assert numbers(script.read(first, 3, server="s2")) == [1, 2, 3]


def test_a_read_begins_an_epoch_too(script: Script) -> None:
    first, _ = script.append(1)
    second = script.read(server="s2")["epoch"]
    assert second != first
    assert script.append(2, server="s2") == [second, "2"]


def test_eight_epochs_are_known(script: Script) -> None:
    epochs = [script.append(n, server=f"s{n}")[0] for n in range(1, 12)]
    earlier = script.read(server="s11")["earlier"].split(",")
    assert earlier == [f"{epochs[n - 1]}:{n}" for n in range(10, 2, -1)]


def test_a_channel_without_its_hash_begins_anew(script: Script) -> None:
    first, _ = script.append(1, 2, key=":k")
    script.delete("sse:{a}")
    second, offset = script.append(3, key=":k")
    assert (second != first, offset) == (True, "1")
    assert numbers(script.read(second, 0)) == [3]


def test_a_channel_without_its_events_goes_on(script: Script) -> None:
    epoch, _ = script.append(1, 2)
    script.delete("sse:{a}:s")
    answer = script.read(epoch, 0)
    assert (answer["top"], answer["length"], answer["entries"]) == ("2", "0", [])
    assert script.append(3) == [epoch, "3"]
    assert offsets(script.read(epoch, 0)) == [3]


def test_an_answer_has_so_many_events_at_most(script: Script) -> None:
    epoch, _ = script.append(*range(1, 101), history=1000)
    assert numbers(script.read(epoch, 10, most=50)) == [*range(11, 61)]
    assert numbers(script.read(epoch, 60, most=50)) == [*range(61, 101)]


def test_an_answer_has_not_many_bytes_more_than_asked_for(script: Script) -> None:
    epoch, _ = script.append(*range(1, 101), history=1000)
    small = numbers(script.read(epoch, 0, most_bytes=1))
    assert small == [*range(1, len(small) + 1)]
    assert len(small) < 20
    assert numbers(script.read(epoch, 100, most_bytes=1)) == []


# Runs


def test_a_run_is_written_by_its_owner(script: Script) -> None:
    kind, run, epoch, top, lost = script.start()
    assert (kind, epoch, top, lost) == ("new", run, "0", "0")
    assert script.write(run, 1, 1, 2) == ["ok", "2", ""]
    assert script.write(run, 3, 3) == ["ok", "3", ""]
    assert script.finish(run, 4) == ["ended", "done"]
    answer = script.read(epoch, 2, run=run)
    assert offsets(answer) == [3, 4]
    assert answer["entries"][1][1] == ["f", END[0], "w", END[1], "s", "done"]
    assert answer["status"] == "done"
    assert all(script.ttl(key) <= MINUTE for key in script.keys)
    assert script.keys == ["sse:{a}", f"sse:{{a}}:s:{run}"]


def test_frames_that_the_server_has_are_not_appended_again(script: Script) -> None:
    run = given_a_run(script)
    assert script.write(run, 1, 1, 2, 3) == ["ok", "3", ""]
    assert script.write(run, 2, 2, 3) == ["ok", "3", ""]
    assert numbers(script.read(run, 0, run=run)) == [1, 2, 3]


def test_frames_that_leave_a_hole_are_refused(script: Script) -> None:
    run = given_a_run(script)
    assert script.write(run, 4, 4) == ["behind", "2"]
    assert script.finish(run, 4) == ["behind", "2"]


@pytest.mark.parametrize("operation", ["write", "finish", "restore"])
def test_nobody_else_writes_a_run(script: Script, operation: str) -> None:
    run = given_a_run(script)
    do = getattr(script, operation)
    contents = script.contents()
    assert do(run, 3, owner="another") == ["ended", "lost"]
    assert do("another", 3) == ["ended", "lost"]
    assert script.contents() == contents


@pytest.mark.parametrize("operation", ["write", "finish", "restore"])
def test_nothing_follows_the_end_of_a_run(script: Script, operation: str) -> None:
    run = given_an_ended_run(script)
    do = getattr(script, operation)
    contents = script.contents()
    assert do(run, 4) == ["ended", "done"]
    script.start("another")
    contents = script.contents()
    assert do(run, 4) == ["ended", "lost"]
    assert script.contents() == contents


@pytest.mark.parametrize("operation", ["write", "finish"])
def test_a_run_that_the_server_does_not_know(script: Script, operation: str) -> None:
    assert getattr(script, operation)("run", 1) == ["missing"]
    assert script.keys == []


def test_a_running_run_is_not_started_again(script: Script) -> None:
    run = given_a_run(script)
    assert script.start("another") == ["exists"]
    assert script.start("another", "attach") == ["running", run, run, "2", "0"]
    assert script.start("another", "replace") == ["wait"]
    assert script.write(run, 3) == ["ok", "2", "1"]  # it was cancelled


def test_a_replaced_run_can_still_be_read(script: Script) -> None:
    first = given_an_ended_run(script)
    second = script.start()[1]
    assert script.do("status")[:2] == ["running", second]
    assert offsets(script.read("", 0, run=first)) == [1, 2, 3]
    assert script.read("", 0, run=second)["entries"] == []
    assert script.read("", 0, run="third")["epoch"] == ""


def test_a_cancelled_run_runs_until_its_owner_ends_it(script: Script) -> None:
    assert script.do("cancel") == ["0", "0"]
    run = given_a_run(script)
    assert script.do("cancel") == ["1", "0"]
    assert script.do("status")[0] == "running"
    assert script.write(run, 3, 3) == ["ok", "3", "1"]
    script.finish(run, 4, "cancelled")
    assert script.do("cancel") == ["0", "0"]
    assert script.do("status")[0] == "cancelled"


@pytest.mark.parametrize("operation", ["status", "cancel", "start", "read"])
def test_a_run_is_lost_if_its_owner_does_not_answer(
    script: Script, operation: str
) -> None:
    run = given_a_run(script)
    args = {
        "start": ("another", "worker", "reject", LEASE, MINUTE, *LOST),
        "read": (MINUTE, run, "", "", 9, 99),
    }.get(operation, ())
    script.expire_lease()
    suspect = script.do(operation, *args)
    assert operation == "read" or suspect[0] == "wait"
    assert suspect[-1] != "1"
    assert 0 < script.ttl("sse:{a}:l") <= 500
    script.expire_lease()
    assert script.do(operation, *args)[-1] == "1"  # and nobody else is told
    assert script.do(operation, *args)[-1] != "1"
    answer = script.read(run, 2, run=run)
    assert answer["entries"][0][1] == ["f", LOST[0], "w", LOST[1], "s", "lost"]
    assert script.write(run, 3, 3) == ["ended", "lost"]


def test_an_owner_that_answers_keeps_its_run(script: Script) -> None:
    run = given_a_run(script)
    for _ in range(3):
        script.expire_lease()
        assert script.do("status")[0] == "wait"
        assert script.write(run, 3) == ["ok", "2", ""]
        assert script.do("status")[0] == "running"


def test_a_lost_run_can_be_followed_by_another(script: Script) -> None:
    run = given_a_run(script)
    args = ("another", "worker", "reject", LEASE, MINUTE, *LOST)
    kind, second, *_, lost = script.find_lost("start", *args)
    assert (kind, lost) == ("new", "1")
    assert offsets(script.read("", 0, run=run)) == [1, 2, 3]
    assert script.do("status")[:2] == ["running", second]


def test_a_run_that_nobody_knows_of_is_ended(script: Script) -> None:
    script.start()
    script.do("abandon", "another")
    assert script.do("status")[0] == "running"
    script.do("abandon", "owner")
    assert script.do("status")[0] == "lost"
    assert script.do("status")[-1] == "0"


# Runs on a server that was restarted or promoted


def test_an_owner_has_its_lease_to_come_back(script: Script) -> None:
    run = given_a_run(script)
    script.expire_lease()
    assert script.do("status", server="s2")[0] == "running"
    assert 500 < script.ttl("sse:{a}:l") <= LEASE
    assert script.read("", "", run=run, server="s2")["is_settled"] == "0"
    assert script.write(run, 3, known=2, server="s2") == ["ok", "2", ""]
    assert script.read("", "", run=run, server="s2")["is_settled"] == "1"


def test_an_owner_that_does_not_come_back_is_dead(script: Script) -> None:
    run = given_a_run(script)
    script.expire_lease()
    script.do("status", server="s2")
    script.expire_lease()
    assert script.do("status", server="s2")[::4] == ["lost", "1"]
    # Clients may have events that this server has lost.
    answer = script.read(run, 2, run=run, server="s2")
    assert (answer["epoch"] != run, answer["earlier"]) == (True, f"{run}:2")
    assert offsets(answer) == [3]


def test_each_server_gives_the_owner_time(script: Script) -> None:
    given_a_run(script)
    for server in ("s2", "s3", "s4"):
        script.expire_lease()
        assert script.do("status", server=server)[0] == "running"


def test_a_run_is_settled_when_it_has_what_was_lost(script: Script) -> None:
    run = given_a_run(script)
    # Another server, which had four events before.
    assert script.write(run, 5, known=4, server="s2") == ["behind", "2"]
    assert script.write(run, 3, 3, known=4, server="s2") == ["ok", "3", ""]
    assert script.read("", "", run=run, server="s2")["is_settled"] == "0"
    assert script.write(run, 4, 4, known=4, server="s2") == ["ok", "4", ""]
    assert script.read("", "", run=run, server="s2")["is_settled"] == "1"


def test_a_missing_run_is_restored(script: Script) -> None:
    assert script.restore("run", 0) == ["ok", "0", ""]
    assert script.write("run", 1, 1, 2, known=2) == ["ok", "2", ""]
    assert script.do("status") == ["running", "run", "run", "2", "0"]
    assert numbers(script.read("run", 0, run="run")) == [1, 2]
    assert script.contents()["sse:runs"] == {b"sse:{a}"}


def test_a_run_is_restored_without_a_hole(script: Script) -> None:
    run = given_a_run(script)
    script.do("cancel")
    # The owner has only the events from the fifth one on.
    assert script.restore(run, 4) == ["ok", "4", ""]
    assert script.write(run, 5, 5) == ["ok", "5", "1"]
    answer = script.read(run, 0, run=run)
    assert (answer["top"], answer["length"], offsets(answer)) == ("5", "1", [5])


def test_a_run_that_was_started_meanwhile_stays(script: Script) -> None:
    second = script.start("another")[1]
    assert script.write("run", 3, 3) == ["ended", "lost"]
    assert script.restore("run", 2) == ["ended", "lost"]
    assert script.do("status")[1] == second


# The set of all runs


def test_running_runs_are_in_a_set(server: RedisServer) -> None:
    a, b = Script(server, "sse:{a}"), Script(server, "sse:{b}")
    runs = Script(server, "sse:runs")
    run = given_a_run(a)
    given_a_run(b)
    assert sorted(runs.do("sweep", "worker", MINUTE)) == ["sse:{a}", "sse:{b}"]
    assert runs.do("sweep", "another", MINUTE) == []
    a.finish(run, 3)
    b.find_lost()
    runs.delete("sse:runs:lock")
    assert runs.do("sweep", "another", MINUTE) == []
    for script in (a, b, runs):
        script.close()


def test_a_run_that_has_vanished_is_dropped_from_the_set(script: Script) -> None:
    run = given_a_run(script)
    script.delete("sse:{a}", f"sse:{{a}}:s:{run}", "sse:{a}:l")
    assert script.do("status")[0] == ""
    assert script.keys == []
