"""One browser for the tests of the viewer, and the runs that it shows."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agentkit import Trace
from agentkit.viewer import write
from tests.viewer.recorded import RUNS

T = TypeVar("T")
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("AGENTKIT_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Browser:
    """A headless Chromium in a thread of its own: its client keeps an event loop running there.

    Tests that use it run in that thread, too; see `pytest_pyfunc_call`.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser")
        self._end = ExitStack()
        self.chromium: Any = None

    def start(self) -> None:
        """Start it, or skip the test where there is none."""
        sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
        if (path := _chromium()) is None:
            pytest.skip("there is no Chromium on this machine")
        playwright = self._end.enter_context(sync_api.sync_playwright())
        arguments = ["--no-sandbox", "--disable-background-networking"]
        self.chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        self._end.callback(self.chromium.close)

    def do(self, work: Callable[[], T]) -> T:
        """Do something in its thread."""
        return self.thread.submit(work).result()

    def stop(self) -> None:
        """End it."""
        self.do(self._end.close)
        self.thread.shutdown()


@pytest.fixture(scope="session")
def browser() -> Generator[Browser]:
    """A headless Chromium, one for all tests."""
    browser = Browser()
    try:
        browser.do(browser.start)
        yield browser
    finally:
        browser.stop()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that uses the browser in the browser's thread."""
    browser = pyfuncitem.funcargs.get("browser")
    if not isinstance(browser, Browser):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    values = {name: pyfuncitem.funcargs[name] for name in names}
    browser.do(lambda: pyfuncitem.obj(**values))
    return True


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[[str], Trace]]:
    """Return a run of `RUNS` by its name, recorded once, in a thread without an event loop."""
    folder = tmp_path_factory.mktemp("runs")
    done: dict[str, Trace] = {}
    with ThreadPoolExecutor(max_workers=1) as thread:

        def recorded(name: str) -> Trace:
            if name not in done:
                done[name] = thread.submit(RUNS[name], folder / f"{name}.jsonl").result()
            return done[name]

        yield recorded


@dataclass
class Opened:
    """A page in the browser, and what went wrong in it."""

    page: Any
    problems: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that a selector finds."""
        return self.page.locator(selector).all_inner_texts()

    def text(self, selector: str) -> str:
        """Return the text of the one element that a selector finds."""
        return self.page.locator(selector).inner_text()

    def drawn(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
            self.drawn()

    def until(self, selector: str, right: Callable[[str], bool]) -> None:
        """Wait until the text of an element is right; the page lets nobody wait in it."""
        self._until(lambda: self.text(selector), right)

    def until_at(self, address: str) -> None:
        """Wait until the page shows what is at an address, or below it."""
        place = f"#at={address}"
        self._until(lambda: self.evaluate("location.hash"), lambda at: at.startswith(place))

    def _until(self, read: Callable[[], str], right: Callable[[str], bool]) -> None:
        end = time.monotonic() + 60
        while not right(found := read()):
            assert time.monotonic() < end, found
            self.page.wait_for_timeout(20)
        self.drawn()

    def tab(self, name: str) -> str:
        """Look at a tab; return what it shows."""
        self.page.get_by_role("tab", name=name).click()
        self.drawn()
        return self.text(".panel")


@pytest.fixture
def open_page(
    browser: Browser, run: Callable[[str], Trace], tmp_path: Path
) -> Generator[Callable[..., Opened]]:
    """Return what opens the page of a run, by name; at the end nothing may have gone wrong."""
    contexts: list[Any] = []
    opened: list[Opened] = []

    def opens(
        name: str | Trace,
        other: str | None = None,
        *,
        at: str = "",
        phone: bool = False,
        **more: Any,
    ) -> Opened:
        trace = run(name) if isinstance(name, str) else name
        file = tmp_path / f"page{len(opened)}.html"
        write(file, trace, other and run(other), **more)
        size = PHONE if phone else WIDE
        context = browser.chromium.new_context(viewport=size, has_touch=phone, offline=True)
        contexts.append(context)
        one = Opened(context.new_page())
        url = file.as_uri()
        one.page.on("console", lambda message: one.problems.append(f"console: {message.text}"))
        one.page.on("pageerror", lambda error: one.problems.append(f"error: {error}"))
        one.page.on("dialog", lambda dialog: one.problems.append("a dialog was opened"))
        one.page.on("popup", lambda _: one.problems.append("a window was opened"))
        one.page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((url, "data:"))
                else one.problems.append(f"request: {asked.url[:200]}")
            ),
        )
        one.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => "
            "console.error('policy: ' + e.violatedDirective + ' ' + e.blockedURI))"
        )
        one.page.goto(url + (f"#at={at}" if at else ""))
        one.page.wait_for_selector("[data-ready]", state="attached")
        one.drawn()
        opened.append(one)
        return one

    yield opens
    browser.do(lambda: [context.close() for context in contexts])
    assert [problem for one in opened for problem in one.problems] == []
