"""Makes the pictures of the documentation: `make screenshots`, or `python -m` with a folder.

They show a run that is recorded for them, in the browser that the tests use.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentkit.viewer import write
from tests.viewer.conftest import PHONE, WIDE, Browser
from tests.viewer.recorded import other, plain, rich

DARK, TWICE = {"color_scheme": "dark"}, {"device_scale_factor": 2}
PICTURES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "viewer": ("lisbon.html", "#at=/planner/m1/t1", {"viewport": WIDE}),
    "viewer-context": ("lisbon.html", "#at=/planner/m1", {"viewport": WIDE, **DARK}),
    "viewer-two": ("two.html", "", {"viewport": WIDE}),
    "viewer-phone": ("lisbon.html", "", {"viewport": PHONE, **TWICE}),
}
"""For each picture a page, what it looks at, and how."""


def main(folder: Path) -> None:
    """Make all pictures."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)  # so that the pages name files and not their folder
        write("lisbon.html", rich(Path("lisbon.jsonl")))
        write("two.html", plain(Path("a.jsonl")), other(Path("b.jsonl")))
        browser = Browser()
        try:
            browser.do(browser.start)
            browser.do(lambda: _take(browser.chromium, folder))
        finally:
            browser.stop()
            os.chdir(folder)


def _take(chromium: Any, folder: Path) -> None:
    for name, (file, at, options) in PICTURES.items():
        context = chromium.new_context(**options)
        page = context.new_page()
        page.goto(Path(file).absolute().as_uri() + at)
        page.wait_for_selector("[data-ready]", state="attached")
        page.wait_for_timeout(300)
        page.screenshot(path=folder / f"{name}.png")
        context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
