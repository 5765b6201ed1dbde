"""Live pages: a real server that follows real files, asked by a browser and by raw requests."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from agentkit import Agent, Trace, tool
from agentkit.testing import ScriptedModel
from agentkit.viewer.follow import FollowedRun
from tests.support import LOADED, child_environment, run_loaded, sized
from tests.viewer.conftest import WIDE, Browser
from tests.viewer.recorded import long

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends by SIGINT")
COMMAND = (sys.executable, "-c", "from agentkit.cli import main; main()")
APP = '''
from agentkit import Agent, tool
from agentkit.testing import FunctionModel


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    with open("deleted.txt", "a") as file:
        print(path, file=file)
    return f"deleted {path}"


def answer(request):
    done = [one.text for one in request.messages if one.to_json()["role"] == "tool"]
    return " and ".join(done) if done else [("delete", {"path": "/a"}), ("delete", {"path": "/b"})]


agent = Agent(FunctionModel(answer), tools=[delete], name="cleaner")

if __name__ == "__main__":
    agent.run_sync("Clean up", trace="paused.jsonl")
'''


@tool(effect="read")
def look(place: str) -> str:
    """Look at a place."""
    return f"It is {place}."


def recorded(path: Path, prompt: str = "go") -> bytes:
    """The lines of a run that is over."""
    script = [[("look", {"place": "near"})], "There."]
    Agent(ScriptedModel(script), tools=[look]).run_sync(prompt, trace=path)
    return path.read_bytes()


class Server:
    """A server of live pages: where it is, and its process."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self._open: list[HTTPConnection | HTTPResponse] = []
        parts = urlsplit(url)
        self.port, self.base = parts.port or 0, parts.path

    def ask(
        self, path: str = "", method: str = "GET", body: str | None = None, **headers: str
    ) -> HTTPResponse:
        """Send one request, with the right host unless another is named."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"{self.base}{path}", body, named)
        answer = connection.getresponse()
        self._open += [answer, connection]
        return answer

    def hang_up(self) -> None:
        """Close all connections."""
        for one in self._open:
            one.close()

    def decide(self, name: str, **decision: str) -> tuple[int, str]:
        """Decide as a page of the server does."""
        origin = f"http://127.0.0.1:{self.port}"
        answer = self.ask(f"decide/{name}", "POST", json.dumps(decision), Origin=origin)
        return answer.status, answer.read().decode()

    def end(self) -> int:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)


@contextmanager
def serving(folder: Path, *arguments: str, python: Path | None = None) -> Generator[Server]:
    """Run `agentkit view --live`."""
    process = subprocess.Popen(
        [python or LOADED.executable(), *COMMAND[1:], "view", "--live", *arguments],
        cwd=folder,
        env=child_environment(AGENTKIT_STATE_DIR=str(folder / "state")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+/[\w-]+/)", line)
        assert found is not None, line + process.stderr.read()
        server = Server(process, found[1])
        until(lambda: server.ask().status == 200)
        try:
            yield server
        finally:
            server.hang_up()
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)
        process.kill()


def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(ConnectionError):
            if holds():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def events(answer: HTTPResponse, count: int) -> list[tuple[str, Any]]:
    """Read so many events of a stream: their names and their data."""
    found: list[tuple[str, Any]] = []
    name = "message"
    while len(found) < count:
        line = answer.readline().decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            found.append((name, json.loads(line[6:] or "null")))
            name = "message"
    return found


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    recorded(folder / "done.jsonl")
    recorded(tmp_path / "late.jsonl", "a late one")
    return folder


@pytest.fixture
def opened(browser: Browser) -> Generator[Callable[[str], Any]]:
    """Return what opens an address; at the end nothing may have gone wrong in it."""
    contexts: list[Any] = []
    problems: list[str] = []

    def opens(url: str) -> Any:
        context = browser.chromium.new_context(viewport=WIDE)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda one: problems.append(one.text) if one.type == "error" else None)
        page.goto(url)
        return page

    yield opens
    browser.do(lambda: [context.close() for context in contexts])
    assert problems == []


# Who is let in


def test_only_who_has_the_token_by_the_right_name(runs: Path) -> None:
    """Nothing else is said to others, and no other page may ask or decide."""
    with serving(runs.parent, "runs") as server:
        page = server.ask()
        headers = {name.lower(): value for name, value in page.getheaders()}
        assert page.status == 200
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"] == "frame-ancestors 'none'"
        assert "access-control-allow-origin" not in headers
        right, server.base = server.base, "/" + "x" * 32 + "/"
        assert [server.ask(one).status for one in ("", "runs", "events/done.jsonl")] == [404] * 3
        server.base = right[:-2] + "/"
        assert server.ask().status == 404
        server.base = "/"
        assert server.ask().status == 404
        server.base = right
        port = server.port
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}"):
            assert server.ask(Host=host).status == 421
        assert server.ask(Host=f"localhost:{port}").status == 200
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}"):
            assert server.ask("runs", Origin=origin).status == 403
            assert server.ask("decide/done.jsonl", "POST", "{}", Origin=origin).status == 403
        assert server.ask("decide/done.jsonl", "POST", "{}").status == 403
        same = {"Origin": f"http://127.0.0.1:{port}", "Sec_Fetch_Site": "cross-site"}
        assert server.ask("decide/done.jsonl", "POST", "{}", **same).status == 403
        for name in ("..%2Fsecret.jsonl", "../secret.jsonl", "other.jsonl", "%00.jsonl"):
            assert server.ask(f"run/{name}").status == 404
        with pytest.raises(OSError, match="refused"):  # another address of this machine
            socket.create_connection(("127.0.0.2", port), timeout=60)


def test_ctrl_c_leaves_nothing(runs: Path) -> None:
    """Not even while pages listen: no process, no port, no file."""
    before = sorted(runs.parent.rglob("*"))
    with serving(runs.parent, "runs", python=Path(sys.executable)) as server:
        stream = server.ask("runs")
        assert events(stream, 1)[0][0] == "message"
        assert server.end() == 130
        with pytest.raises(ProcessLookupError):
            os.killpg(server.process.pid, 0)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", server.port), timeout=60)
    assert sorted(runs.parent.rglob("*")) == before


def test_what_live_refuses(runs: Path) -> None:
    """Before anything listens."""
    for arguments, text in (
        (["nothing.jsonl", "--live"], "no folder and no trace"),
        (["runs", "runs", "--live"], "takes one trace or folder"),
        (["runs/done.jsonl", "--port", "3"], "are for --live"),
        ([], "Name a trace"),
    ):
        done = run_loaded(*COMMAND[1:], "view", *arguments, cwd=runs.parent)
        assert done.returncode == 2
        assert text in done.stderr


# What is followed


def test_a_file_is_followed_whatever_becomes_of_it(runs: Path) -> None:
    """It grows, is torn, is replaced by another run, is no trace, and is gone."""
    lines = recorded(runs / "grows.jsonl").splitlines(keepends=True)
    path = runs / "grows.jsonl"
    middle = next(n for n, line in enumerate(lines) if b'"tool.start"' in line) + 1
    path.write_bytes(b"".join(lines[:middle]) + lines[middle][:9])
    with serving(runs.parent, "runs/grows.jsonl") as server:
        stream = server.ask("events/grows.jsonl")
        (_, first), *_ = events(stream, 1)
        effects = {one["at"]: one["status"] for one in first if one["type"] == "effect"}
        assert effects == {"/agent": "in_flight", "/agent/m0": "ok", "/agent/m0/t0": "in_flight"}
        assert first[0]["type"] == "page"
        path.write_bytes(b"".join(lines[:-1]))
        more = events(stream, 1)[0][1]
        assert {one["at"] for one in more if one["type"] == "effect"} >= {"/agent/m0/t0"}
        assert "page" not in {one["type"] for one in more}
        path.write_bytes(b"not a trace\n")
        name, text = events(stream, 1)[0]
        assert name == "problem"
        assert "does not begin with a trace.open event" in text
        path.unlink()
        assert "was removed" in events(stream, 1)[0][1]
        recorded(path, "another")
        until(lambda: events(stream, 1)[0][0] == "reset")
        again = server.ask("events/grows.jsonl")
        assert [name for name, _ in events(again, 2)] == ["message", "end"]


def test_of_a_file_that_grows_only_what_is_new_is_read(tmp_path: Path) -> None:
    """Its first and its last line apart; one that was replaced is read as a whole."""
    long(tmp_path / "long.jsonl", steps=8)
    lines = (tmp_path / "long.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "grows.jsonl"
    path.write_bytes(b"".join(lines[:-40]) + lines[-40][:5])
    followed = FollowedRun(path, {"type": "page"}, None)
    followed.look()
    size = followed.lines.read
    assert size == path.stat().st_size
    contents = sum(b'"event":"blob"' in line for line in lines[:-40])
    shown = [line for line in followed.feed.since(0) if '"type":"blob"' in line]
    assert len(shown) == contents
    version = followed.feed.version
    with path.open("r+b") as file:
        file.truncate(size - 5)  # as a resumed run cuts off what is torn
        file.seek(0, os.SEEK_END)
        file.write(lines[-40] + lines[-39])
    followed.look()
    assert followed.lines.read - size == sum(
        map(len, (lines[0], lines[-41], lines[-40], lines[-39]))
    )
    assert len(followed.feed.since(version)) < 10
    path.write_bytes(b"".join(lines))
    followed.look()
    whole = FollowedRun(path, {"type": "page"}, None)
    whole.look()
    assert {*whole.feed.since(0)} == {*followed.feed.since(0)}
    before = followed.lines.read
    long(tmp_path / "another.jsonl", steps=9)
    content = (tmp_path / "another.jsonl").read_bytes()
    path.write_bytes(content)
    followed.look()
    assert followed.lines.read - before == len(lines[0]) + len(lines[-1]) + len(content)
    assert followed.generation == 1


@pytest.mark.storm
def test_a_thousand_runs_and_slow_readers(runs: Path) -> None:
    """All are listed; who does not read holds up nobody."""
    content, many = (runs / "done.jsonl").read_bytes(), sized(100, 1000)
    for number in range(many - 1):
        (runs / f"run{number}.jsonl").write_bytes(content)
    (runs / "broken.jsonl").write_bytes(content[:50])
    with serving(runs.parent, "runs") as server:
        slow = [server.ask("runs") for _ in range(5)]
        stream, rows = server.ask("runs"), dict[str, Any]()
        while len(rows) < many + 1:
            rows |= {row["name"]: row for row in events(stream, 1)[0][1]}
        assert rows["run7.jsonl"]["status"] == "ok"
        assert "trace.open" in rows["broken.jsonl"]["problem"]
        (runs / "run7.jsonl").unlink()
        assert events(stream, 1)[0][1] == [{"name": "run7.jsonl", "gone": True}]
        for one in slow:
            one.close()


# Decisions


def test_a_decision_lets_the_run_go_on_in_the_server(tmp_path: Path) -> None:
    """One call after the other; what cannot be is said, and nothing runs twice."""
    (tmp_path / "app.py").write_text(APP)
    assert run_loaded("app.py", cwd=tmp_path).returncode == 0
    with serving(tmp_path, "paused.jsonl", "--app", "app.py:agent") as server:
        for body, status in (("{", 400), ("[]", 400), ('{"at":1}', 400), ("x" * (1 << 21), 413)):
            origin = f"http://127.0.0.1:{server.port}"
            answer = server.ask("decide/paused.jsonl", "POST", body, Origin=origin)
            assert answer.status == status
        status, text = server.decide("paused.jsonl", at="/cleaner/m0/t0", kind="edit", text="{")
        assert (status, "not JSON" in text) == (422, True)
        status, text = server.decide("paused.jsonl", at="/cleaner/m9/t9", kind="approve")
        assert status == 409
        assert "/cleaner/m9/t9" in text
        assert not (tmp_path / "deleted.txt").exists()
        status, text = server.decide("paused.jsonl", at="/cleaner/m0/t0", kind="approve")
        assert (status, text) == (202, "")
        status, text = server.decide("paused.jsonl", at="/cleaner/m0/t1", kind="deny", text="no")
        assert (status, text) == (202, "")
    trace = Trace.load(tmp_path / "paused.jsonl")
    assert trace.status == "ok"
    assert (tmp_path / "deleted.txt").read_text() == "/a\n"


# In a browser


def test_the_list_and_a_run_in_two_browsers(
    browser: Browser, runs: Path, opened: Callable[[str], Any]
) -> None:
    """A run that goes on grows in both pages, and a new one comes into the list."""
    lines = (runs / "done.jsonl").read_bytes().splitlines(keepends=True)
    growing = runs / "growing.jsonl"
    middle = next(n for n, line in enumerate(lines) if b'"tool.start"' in line) + 1
    growing.write_bytes(b"".join(lines[:middle]))
    with serving(runs.parent, "runs") as server:
        one, two = opened(server.url), opened(server.url)
        for page in (one, two):
            page.get_by_role("link", name="growing").click()
            page.get_by_role("treeitem").nth(2).wait_for()
            assert page.get_by_role("treeitem").count() == 3
            assert page.locator(".status").first.inner_text().endswith("broken off")
        growing.write_bytes(b"".join(lines))
        for page in (one, two):
            page.get_by_role("treeitem").nth(3).wait_for()
            page.locator(".run-line .status.t-green").wait_for()
        one.get_by_role("link", name="All runs").click()
        (runs.parent / "late.jsonl").rename(runs / "late.jsonl")
        one.get_by_role("link", name="late").wait_for()
        one.get_by_role("searchbox", name="Filter").fill("a late")
        one.get_by_text("1 run", exact=True).wait_for()
        assert one.evaluate("document.referrer") == ""
        for page in (one, two):
            page.close()


def test_a_call_is_approved_from_the_page(
    browser: Browser, tmp_path: Path, opened: Callable[[str], Any]
) -> None:
    """With --app; without, the page has the command instead."""
    (tmp_path / "app.py").write_text(APP)
    assert run_loaded("app.py", cwd=tmp_path).returncode == 0
    with serving(tmp_path, "paused.jsonl") as server:
        page = opened(f"{server.url}#at=/cleaner/m0/t0")
        page.get_by_text("This call waits").first.wait_for()
        assert page.get_by_role("button", name="Approve").count() == 0
        page.close()
    with serving(tmp_path, "paused.jsonl", "--app", "app.py:agent") as server:
        page = opened(f"{server.url}#at=/cleaner/m0/t0")
        text = "The step goes on when all its waiting calls are decided. Also waiting: "
        page.locator(".panel", has_text=f"{text}/cleaner/m0/t1.").wait_for()
        page.get_by_role("button", name="Approve").click()
        page.get_by_role("button", name="Approve").wait_for(state="detached")
        assert not (tmp_path / "deleted.txt").exists()  # the other call waits still
        page.goto(f"{server.url}#at=/cleaner/m0/t1")
        page.get_by_role("button", name="Deny").click()
        page.locator(".run-line .status.t-green").wait_for()
        page.goto(f"{server.url}#at=/cleaner/m0/t0")
        page.get_by_text("deleted /a").first.wait_for()
        page.close()
    assert (tmp_path / "deleted.txt").read_text() == "/a\n"
