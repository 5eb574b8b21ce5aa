"""The documentation as it is built: no page is hard to read or to reach."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from .clients import HERE, needed

ROOT = Path(__file__).parents[2]


def test_no_page_violates_a_rule_of_accessibility(tmp_path: Path) -> None:
    chromium, node = needed("chromium"), needed("node")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path],
        check=True,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    pages = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tmp_path)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_port}"
        urls = [f"{site}/" if page == "index" else f"{site}/{page}/" for page in pages]
        printed = subprocess.run(
            [node, "site.mjs", *urls],
            check=True,
            cwd=HERE,
            env={**os.environ, "CHROMIUM": chromium},
            stdout=subprocess.PIPE,
        ).stdout
        server.shutdown()
    assert json.loads(printed) == {}
