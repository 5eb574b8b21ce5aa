"""What clients see when a stream does not end as planned.

A scene runs on both contestants at the same time, and yields what happens.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from typing import Any, Literal

from .. import EncodedEvent
from .client import FAILURES, Response, request
from .contestant import PACKAGES, Contestant

PATIENCE = 5.0
"""Seconds that a server has to stop. Docker gives 10 s, Kubernetes 30 s."""

RETRY = 0.5
"""Seconds after which the client of `/ticks` reconnects, as an `EventSource` does."""

Outcome = Literal["good", "bad"]


class Script:
    """The record of a scene on one contestant."""

    def __init__(
        self, contestant: Contestant, queue: asyncio.Queue[EncodedEvent]
    ) -> None:
        self.contestant = contestant
        self.port = contestant.port
        self._queue = queue
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def say(self, text: str, outcome: Outcome | None = None) -> None:
        """Record what has happened just now."""
        self._put("line", {"seconds": self.seconds, "text": text, "outcome": outcome})

    def conclude(self, text: str, outcome: Outcome) -> None:
        """Record the result, in a few words."""
        self._put("result", {"text": text, "outcome": outcome})

    def _put(self, kind: str, data: dict[str, object]) -> None:
        data["package"] = self.contestant.package
        self._queue.put_nowait(EncodedEvent(event=kind, data=data))


Scene = Callable[[Script], Awaitable[None]]


async def play(
    scene: Scene, contestants: Collection[Contestant]
) -> AsyncGenerator[EncodedEvent, None]:
    """Yield a `line` for all that happens, and a `result` for each contestant."""
    await asyncio.gather(*(one.start() for one in contestants))
    queue: asyncio.Queue[EncodedEvent] = asyncio.Queue()
    done = EncodedEvent(event="done")

    async def run() -> None:
        try:
            await asyncio.gather(*(scene(Script(one, queue)) for one in contestants))
        finally:
            queue.put_nowait(done)

    task = asyncio.create_task(run())
    try:
        while (event := await queue.get()) is not done:
            yield event
        await task
        yield done
    finally:
        task.cancel()
        await asyncio.wait([task])


async def disconnect(script: Script) -> None:
    """Close the tab in the middle of a reply."""
    question = {"id": uuid.uuid4().hex, "tokens": 100}
    async with request(script.port, "POST", "/reply", question) as response:
        tokens = 0
        async for _ in response.events():
            tokens += 1
            if tokens == 1:
                script.say("first token")
            if tokens == 20:
                break
    script.say(f"client disconnects after {tokens} tokens")
    left = script.seconds
    while script.seconds < left + 1:
        async with request(script.port, "GET", f"/saved/{question['id']}") as response:
            if response.status == 200:
                passed = milliseconds(script.seconds - left)
                script.say("save() has completed", "good")
                script.conclude(f"Reply saved after {passed}", "good")
                return
        await asyncio.sleep(0.005)
    script.say("save() has not completed", "bad")
    script.conclude("Reply lost", "bad")


async def reload(script: Script) -> None:
    """Reload the page in the middle of a reply."""
    question = {"id": uuid.uuid4().hex, "tokens": 50}
    if script.contestant.package == PACKAGES[0]:
        await reload_reply(script, question)
    else:
        await reload_run(script, question)


async def reload_reply(script: Script, question: dict[str, Any]) -> None:
    """Read the reply to a POST. After the reload, look for what was saved."""
    async with request(script.port, "POST", "/reply", question) as response:
        await read_tokens(response, most=20)
    script.say("page is reloaded after 20 tokens")
    await asyncio.sleep(RETRY)
    async with request(script.port, "GET", f"/saved/{question['id']}") as response:
        if response.status == 200:
            text = json.loads(await response.text())
            script.say(f"the saved reply: {len(text)} characters", "bad")
            script.conclude("The reply has ended early", "bad")
        else:
            script.say("page is back: there is no reply", "bad")
            script.conclude("Reply lost", "bad")


async def reload_run(script: Script, question: dict[str, Any]) -> None:
    """Read a run. After the reload, read it again."""
    path = f"/answers/{question['id']}"
    async with request(script.port, "POST", "/answers", question):
        pass
    async with request(script.port, "GET", path) as response:
        await read_tokens(response, most=20)
    script.say("page is reloaded after 20 tokens")
    await asyncio.sleep(RETRY)
    async with request(script.port, "GET", path) as response:
        script.say("page is back: it reads the run")
        tokens = await read_tokens(response)
    if tokens == question["tokens"]:
        script.say(f"reply is complete, all {tokens} tokens", "good")
        script.conclude("The reply continued", "good")
    else:
        script.say(f"{tokens} of {question['tokens']} tokens", "bad")
        script.conclude("The reply is not complete", "bad")


async def read_tokens(response: Response, most: int | None = None) -> int:
    """Return the number of tokens, without the events that only a run has."""
    tokens = 0
    async for event in response.events():
        if "data: " in event and "event: " not in event:
            tokens += 1
        if tokens == most:
            break
    return tokens


async def restart(script: Script) -> None:
    """Stop the server while it streams, then start it again."""
    contestant = script.contestant
    stopping = asyncio.Event()
    resumed = asyncio.Event()
    running = True
    reply = asyncio.create_task(read_reply(script))
    ticks = asyncio.create_task(read_ticks(script, stopping, resumed))
    try:
        await asyncio.sleep(1)
        running = False
        script.say("SIGTERM to the server")
        began = script.seconds
        stopping.set()
        stopped = await contestant.terminate(PATIENCE)
        took = script.seconds - began
        if stopped:
            script.say(f"server has stopped, {took:.1f} s after SIGTERM", "good")
        else:
            script.say(f"still not stopped after {PATIENCE:.0f} s: SIGKILL", "bad")
            await contestant.kill()
        complete = await reply
        await contestant.start()
        running = True
        script.say("server is started again")
        await resumed.wait()
        if not stopped:
            script.conclude(f"Did not stop in {PATIENCE:.0f} s", "bad")
        elif not complete:
            script.conclude("The reply was cut off", "bad")
        else:
            script.conclude(f"Stopped in {took:.1f} s, nothing lost", "good")
    finally:
        for task in (reply, ticks):
            task.cancel()
        await asyncio.wait([reply, ticks])
        if not running:  # nobody watches any more
            await contestant.kill()


async def read_reply(script: Script) -> bool:
    """Return whether the reply is complete."""
    question = {"id": uuid.uuid4().hex, "tokens": 50}
    tokens = 0
    try:
        async with request(script.port, "POST", "/reply", question) as response:
            script.say("POST /reply: open")
            async for _ in response.events():
                tokens += 1
    except FAILURES:
        script.say(f"POST /reply: cut off after {tokens} of 50 tokens", "bad")
        return False
    script.say(f"POST /reply: complete, all {tokens} tokens", "good")
    return True


async def read_ticks(
    script: Script, stopping: asyncio.Event, resumed: asyncio.Event
) -> None:
    """Do what an `EventSource` does."""
    last = 0
    said = False
    while True:
        headers = {"Last-Event-ID": str(last)}
        with contextlib.suppress(*FAILURES):
            async with request(
                script.port, "GET", "/ticks", headers=headers
            ) as response:
                if not last:
                    script.say("GET /ticks: open")
                elif stopping.is_set():
                    script.say(f"GET /ticks: resumed after id {last}", "good")
                    resumed.set()
                async for event in response.events():
                    last = int(event.rpartition("id: ")[2])
        if stopping.is_set() and not said:
            said = True
            script.say(f"GET /ticks: connection closed after id {last}")
        await asyncio.sleep(RETRY)


async def fail(script: Script) -> None:
    """Have the model fail: before the first token, then in mid-stream."""
    status, _, _ = await ask_failing(script, at=0)
    if status == 200:
        script.say("busy model: 200, an empty reply", "bad")
    else:
        script.say(f"busy model: {status}", "good")
    _, tokens, complete = await ask_failing(script, at=20)
    if complete:
        script.say(f"failing model: {tokens} tokens, then a normal end", "bad")
    else:
        script.say(f"failing model: {tokens} tokens, then an error", "good")
    if status == 200 and complete:
        script.conclude("The client sees no error", "bad")
    elif status == 200 or complete:
        script.conclude("The client sees one of two errors", "bad")
    else:
        script.conclude("The client sees both errors", "good")


async def ask_failing(script: Script, at: int) -> tuple[int, int, bool]:
    """Return the status, the number of tokens, and whether the response is complete."""
    question = {"id": uuid.uuid4().hex, "tokens": 100, "fails_at": at}
    tokens = 0
    async with request(script.port, "POST", "/reply", question) as response:
        try:
            async for event in response.events():
                json.loads(event.removeprefix("data: "))
                tokens += 1
        except FAILURES:
            return response.status, tokens, False
        return response.status, tokens, True


def milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)} ms"


SCENES: dict[str, Scene] = {
    "disconnect": disconnect,
    "reload": reload,
    "restart": restart,
    "fail": fail,
}
