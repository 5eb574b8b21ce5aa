"""The demo page in a real browser.

With `DEMO_PICTURES=docs/images` in the environment the pictures of the page go there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.demo import PACKAGES, REPLY, running_demo
from .clients import HERE, needed

LONGEST = 240.0
"""Seconds for a scenario, on a busy machine."""

Page = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_demo() as demo:
        yield demo.url
        assert demo.stop()[:2] == (0, "")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get("DEMO_PICTURES", tmp_path))


@pytest.fixture
def see(url: str, pictures: Path) -> Page:
    """Runs a scenario of `demo.mjs` in a browser of its own."""
    if not (HERE / "node_modules").exists():
        pytest.skip("npm's playwright-core IS MISSING: npm ci --prefix tests/e2e")

    def see(scenario: str) -> dict[str, Any]:
        done = subprocess.run(
            [needed("node"), str(HERE / "demo.mjs"), url, scenario, str(pictures)],
            env={**os.environ, "CHROMIUM": needed("chromium")},
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    return see


LOST = "Failed to load resource: net::ERR_INCOMPLETE_CHUNKED_ENCODING"
"""What the browser says of a connection that was cut."""


TIMES = "\N{MULTIPLICATION SIGN}"


# What the page does by itself


def check(seen: dict[str, Any]) -> None:
    """Check a page on which nobody has clicked."""
    assert re.fullmatch(
        rf"[\d.]+{TIMES} (less|more) CPU per token", seen["race"]["large"]
    )
    for package in PACKAGES:
        assert f"{package} delivered " in seen["race"]["detail"]
    theirs, ours = seen["race"]["lanes"]
    assert [theirs["package"], ours["package"]] == PACKAGES
    assert 0 < number(ours["cost"]) < number(theirs["cost"])
    assert number(ours["speed"]) > 0
    verdicts = {
        (one["scene"], one["package"]): one["verdict"] for one in seen["scenes"]
    }
    assert len(verdicts) == 8
    assert re.fullmatch(
        r"✓ Reply saved after \d+ ms", verdicts["disconnect", "fastapi_sse_fast"]
    )
    assert verdicts["reload", "fastapi_sse_fast"] == "✓ The reply continued"
    assert re.fullmatch(
        r"✓ Stopped in [\d.]+ s, nothing lost", verdicts["restart", "fastapi_sse_fast"]
    )
    assert verdicts["fail", "fastapi_sse_fast"] == "✓ The client sees both errors"
    assert all(text[:2] in ("✓ ", "✗ ") for text in verdicts.values())
    assert seen["reply"] == REPLY
    counts = seen["counts"]
    assert (counts["events"], counts["reconnects"]) == (11, 1)
    assert (counts["lost"], counts["doubled"]) == (0, 0)
    assert re.fullmatch(
        r"fastapi_sse_fast [\d.]+, FastAPI [\d.]+, uvicorn [\d.]+, "
        r"Python [\d.]+, CPU cores: \d+",
        seen["machine"],
    )
    assert seen["shifted"] <= 0.01
    assert seen["errors"] == [LOST]


def number(text: str) -> float:
    return float(text.replace(",", "").split()[0])


def test_the_page_runs_all_by_itself(see: Page, pictures: Path) -> None:
    seen = see("desktop")
    check(seen)
    assert seen["title"] == "fastapi_sse_fast: demo"
    assert seen["sizes"] == {"scrolled": 1200, "visible": 1200}
    # By axe-core: contrast, names, roles, what the keyboard reaches.
    assert seen["light"] == []
    assert seen["dark"] == []
    for name in ("demo-light.png", "demo-dark.png"):
        assert (pictures / name).read_bytes().startswith(b"\x89PNG")


def test_the_page_on_a_phone(see: Page, pictures: Path) -> None:
    seen = see("phone")
    check(seen)
    assert seen["sizes"] == {"scrolled": 360, "visible": 360}
    assert seen["dark"] == []
    assert (pictures / "demo-phone.png").read_bytes().startswith(b"\x89PNG")


def test_two_pages_see_the_same_race(see: Page) -> None:
    one, other = see("twoPages")["pages"]
    assert one == other


def test_a_page_that_nobody_sees_does_nothing(see: Page) -> None:
    seen = see("nothing")
    assert seen["large"] == "Measuring …"
    assert seen["wire"] == "Not connected"


# The race


def test_a_burst(see: Page) -> None:
    seen = see("burst")
    assert seen["errors"] == []
    assert seen["streams"] == "20"
    assert re.fullmatch(rf"[\d.]+{TIMES} less CPU per token", seen["large"])
    for lane in seen["lanes"]:
        assert lane["lag"] == "\N{EN DASH}"
        assert number(lane["speed"]) > 0


def test_a_race_can_be_stopped(see: Page) -> None:
    assert see("stoppedRace") == {"large": "Stopped", "errors": []}


# The chat and the wire


def test_the_tokens_of_a_chat_appear(see: Page) -> None:
    seen = see("chat")
    assert seen["errors"] == []
    assert seen["reply"] == REPLY
    said = r"(\d+) tokens in [\d.]+ s, the first after \d+ ms"
    done = re.fullmatch(said, seen["done"])
    assert done is not None
    assert int(done[1]) > len(REPLY) / 6


def test_a_chat_can_be_stopped(see: Page) -> None:
    seen = see("stoppedChat")
    assert seen["errors"] == []
    tokens = re.fullmatch(r"Stopped after (\d+) tokens", seen["idle"])
    assert tokens is not None
    assert 0 < int(tokens[1]) < len(REPLY) / 6


def test_errors_of_a_chat_are_shown(see: Page) -> None:
    assert see("brokenChats")["said"] == {
        "replay-busy": "Error before the first token: The model is busy.",
        "replay-broken": "Error after 10 tokens: The model has failed.",
    }


def test_a_reply_continues_when_the_page_is_reloaded(see: Page) -> None:
    seen = see("reloadedChat")
    assert seen["after"].startswith(seen["before"])
    assert len(seen["after"]) > len(seen["before"])
    assert seen["reply"] == REPLY
    assert re.fullmatch(r"\d+ tokens, asked before this page was loaded", seen["said"])
    assert len(seen["posts"]) == 1
    assert seen["errors"] == []


def test_two_tabs_have_the_same_reply_and_either_stops_it(see: Page) -> None:
    seen = see("twoChats")
    one, other = seen["pages"]
    assert one == other
    assert one["said"].startswith("Stopped after ")
    assert REPLY.startswith(one["reply"])
    assert len(one["reply"]) < len(REPLY)
    ask, stop = seen["posts"]
    assert stop == f"{ask}/stop"


def test_a_new_prompt_replaces_the_reply_of_another_tab(see: Page) -> None:
    seen = see("replacedChat")
    assert seen["old"]["said"].startswith("Stopped after ")
    assert seen["reply"] == REPLY
    assert re.search(r" tokens in [\d.]+ s, the first after ", seen["said"])


def test_a_reply_continues_after_a_sleep(see: Page) -> None:
    seen = see("sleepingChat")
    assert seen["lost"].startswith("Connection lost after ")
    assert seen["refused"] >= 1
    assert seen["reply"] == REPLY
    assert len(seen["posts"]) == 1


def test_a_connection_that_is_cut_resumes_without_a_lost_or_doubled_event(
    see: Page,
) -> None:
    seen = see("resume")
    counts = seen["counts"]
    assert counts["reconnects"] == 3
    assert (counts["lost"], counts["doubled"]) == (0, 0)
    assert counts["pings"] == seen["frames"].count(": ping")
    ids = [match[1] for match in map(ID.search, seen["frames"]) if match]
    assert ids == [str(number) for number in range(1, counts["events"] + 1)]
    requests = [frame for frame in seen["frames"] if frame.startswith("GET")]
    assert requests[0] == "GET /count"
    for request in requests[1:]:
        before = seen["frames"][: seen["frames"].index(request)]
        last = [match[1] for match in map(ID.search, before) if match][-1]
        assert request == f"GET /count  Last-Event-ID: {last}"
    assert seen["errors"] == [LOST] * 3


ID = re.compile(r"^id: (\d+)$", re.MULTILINE)


def test_the_page_can_be_used_by_keyboard(see: Page) -> None:
    seen = see("keyboard")
    assert seen["verdict"] == "✓ The client sees both errors"
    assert seen["prompt"] == "By keyboard"
    assert 'name="cut"' in seen["focused"]
    assert seen["rings"] == ["2px"]
    assert seen["errors"] == [LOST]
