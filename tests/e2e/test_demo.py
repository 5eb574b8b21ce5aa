"""The demo page in a real browser.

`DEMO_PICTURES=docs/images` in the environment saves pictures of the page there.
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

from ..support.demo import REPLY, running_demo
from .clients import HERE, needed

LONGEST = 240.0
"""The timeout of a scenario, which may race with `fastapi.sse` on a busy machine."""

Page = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_demo() as demo:
        yield demo.url
        assert demo.stop()[:2] == (0, "")


@pytest.fixture
def see(url: str, tmp_path: Path) -> Page:
    """Run a scenario of `demo.mjs` in a new browser."""
    if not (HERE / "node_modules").exists():
        pytest.skip("npm's playwright-core IS MISSING: npm ci --prefix tests/e2e")

    def see(scenario: str) -> dict[str, Any]:
        pictures = os.environ.get("DEMO_PICTURES", str(tmp_path))
        done = subprocess.run(
            [needed("node"), str(HERE / "demo.mjs"), url, scenario, pictures],
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
"""The browser's message about an aborted response."""


def test_the_page_loads_without_an_error(see: Page) -> None:
    seen = see("page")
    assert seen["errors"] == []
    assert seen["title"] == "fastapi_sse_fast: demo"
    assert re.fullmatch(
        r"fastapi_sse_fast [\d.]+, FastAPI [\d.]+, uvicorn [\d.]+, Python [\d.]+",
        seen["versions"],
    )


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
        "replay-busy": "Error 429, before the first token: The model is busy.",
        "replay-broken": "Error after 10 tokens: The model has failed.",
    }


def test_the_race_is_finished_and_ours_is_ahead(see: Page) -> None:
    seen = see("race")
    assert seen["errors"] == []
    for pace in ("burst", "paced"):
        ours, theirs = seen[pace]["lanes"]
        assert (ours["package"], ours["received"]) == ("fastapi_sse_fast", 1)
        assert (theirs["package"], theirs["received"]) == ("fastapi.sse", 1)
        assert 0 < ours["microseconds"] < theirs["microseconds"]
    ours, theirs = seen["burst"]["lanes"]
    assert ours["seconds"] < theirs["seconds"]
    assert seen["burst"]["verdict"].startswith("fastapi_sse_fast finished in 1/")


def test_a_connection_that_is_cut_resumes_without_a_lost_or_doubled_event(
    see: Page,
) -> None:
    seen = see("resume")
    figures = seen["figures"]
    assert figures["reconnects"] == 3
    assert (figures["lost"], figures["doubled"]) == (0, 0)
    assert figures["pings"] == seen["frames"].count(": ping")
    ids = [match[1] for match in map(ID.search, seen["frames"]) if match]
    assert ids == [str(number) for number in range(1, figures["events"] + 1)]
    requests = [frame for frame in seen["frames"] if frame.startswith("GET")]
    assert requests[0] == "GET /count"
    for request in requests[1:]:
        before = seen["frames"][: seen["frames"].index(request)]
        last = [match[1] for match in map(ID.search, before) if match][-1]
        assert request == f"GET /count  Last-Event-ID: {last}"
    assert seen["errors"] == [LOST] * 3


ID = re.compile(r"^id: (\d+)$", re.MULTILINE)


def test_every_route_of_the_tutorial_shows_its_frames(see: Page) -> None:
    seen = see("tutorial")
    assert seen["errors"] == []
    assert len(seen["frames"]) == 8
    assert all(frames.endswith("\n\n") for frames in seen["frames"])
    assert seen["frames"][0].startswith('data: {"name":"pencil","price":0.5}\n\n')


def test_the_page_can_be_used_by_keyboard(see: Page) -> None:
    seen = see("keyboard")
    assert seen["prompt"] == "By keyboard"
    assert seen["focused"] == "cut"
    assert seen["errors"] == [LOST]


def test_everything_to_use_or_to_read_has_a_label(see: Page) -> None:
    assert see("unlabelled") == {"nameless": [], "errors": []}


def test_text_can_be_read_in_light_and_dark(see: Page) -> None:
    seen = see("contrast")
    assert seen["light"]["ground"] != seen["dark"]["ground"]
    # WCAG requires this ratio for text of this size.
    assert seen["light"]["least"] >= 4.5
    assert seen["dark"]["least"] >= 4.5


def test_a_narrow_screen_does_not_scroll_sideways(see: Page) -> None:
    assert see("narrow") == {"scrolled": 360, "visible": 360, "errors": []}


def test_pictures_of_the_page(see: Page, tmp_path: Path) -> None:
    assert see("pictures")["errors"] == [LOST]
    directory = Path(os.environ.get("DEMO_PICTURES", tmp_path))
    for name in ("demo-light.png", "demo-dark.png", "demo-phone.png"):
        assert (directory / name).read_bytes().startswith(b"\x89PNG")
