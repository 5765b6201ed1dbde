"""`--app` and `--deps`: what an application has, as every command takes it."""

from __future__ import annotations

import runpy
from pathlib import Path

import anyio
import pytest

from agentkit import Trace
from tests.cli.support import agentkit, ran
from tests.support import LOADED

APP = '''
import asyncio
from dataclasses import dataclass

from agentkit import Agent, RunContext, tool
from agentkit.testing import FunctionModel


def calling(name):
    def answer(request):
        last = request.messages[-1].to_json()
        return "Done." if last["role"] == "tool" else [(name, {})]

    return FunctionModel(answer)


@dataclass
class Deps:
    name: str
    loop: object = None


@tool(effect="read")
def look(context: RunContext[Deps]) -> str:
    """Look."""
    with open("ran.txt", "a") as file:
        print(context.deps.name, isinstance(context.deps, Deps), file=file)
    return f"seen by {context.deps.name}"


@tool(effect="read")
async def loops(context: RunContext[Deps]) -> str:
    """Compare the event loops."""
    return str(context.deps.loop is asyncio.get_running_loop())


def build():
    return Agent(calling("look"), tools=[look])


async def connect():
    return Agent(calling("loops"), tools=[loops])


agent = build()
deps = Deps("value")


def make():
    return Deps("function")


async def open_deps():
    return Deps("coroutine", asyncio.get_running_loop())


def broken():
    raise KeyError("DATABASE_URL")


def needs(city):
    return city
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An application, and a run of its agent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text(APP)
    names = runpy.run_path("app.py")
    names["agent"].run_sync("go", deps=names["deps"], trace="run.jsonl")
    (tmp_path / "ran.txt").unlink()
    return tmp_path


@pytest.mark.parametrize(
    ("app", "deps", "name"),
    [
        ("app.py", "app.py:deps", "value"),
        ("app.py:build", "app.py:make", "function"),
        ("app:build", "app:deps", "value"),
        ("app.py:agent", "app.py:open_deps", "coroutine"),
    ],
)
def test_agents_and_deps(folder: Path, app: str, deps: str, name: str) -> None:
    """Values, functions and coroutines; of one file, which is imported once."""
    done = agentkit("fork", "run", "--app", app, "--at", "m0/t0", "--deps", deps, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert ran(folder) == [f"{name} True"]


def test_an_async_function_returns_the_agent(folder: Path) -> None:
    """In the event loop of the run, where the deps are made, too."""
    done = agentkit(
        *("trace", "doctor", "--app", "app.py:connect", "--deps", "app.py:open_deps", "go"),
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = agentkit("tools", "app.py:connect", cwd=folder)
    assert done.stdout.startswith("loops  strict, effect read")


def test_deps_are_in_the_printed_commands(folder: Path) -> None:
    """A fork that pauses names everything that a resume needs."""
    source = (folder / "app.py").read_text()
    (folder / "app.py").write_text(source.replace('effect="read"', "approval=True"))
    names = runpy.run_path("app.py")
    names["agent"].run_sync("go", deps=names["deps"], trace="paused.jsonl")
    app = ("--app", "app.py:build", "--deps", "app.py:make")
    done = agentkit("fork", "paused", *app, "--prompt", "Look", "--trace", "new.jsonl", cwd=folder)
    (command,) = (line for line in done.stdout.splitlines() if "agentkit resume" in line)
    assert command.split()[1:] == [
        "resume",
        str(folder / "new.jsonl"),
        *app,
        "--approve",
        "/agent/m0/t0",
    ]
    done = agentkit(*command.split()[1:], cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert ran(folder) == ["function True"]
    assert Trace.load(folder / "new.jsonl").status == "ok"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--app", "app.py"], "has none: give --deps FILE.py:NAME, the deps or a function that"),
        (
            ["--app", "app.py:needs"],
            "'needs' in app.py is called without arguments: missing a required",
        ),
        (
            ["--app", "app.py:broken"],
            "'broken' in app.py fails: app.py:58: KeyError: 'DATABASE_URL'",
        ),
        (
            ["--app", "app.py:make"],
            "'make' in app.py gives a value of type Deps; expected an Agent",
        ),
        (["--app", "app.py", "--deps", "app.py"], "names no value: write --deps app.py:NAME"),
        (["--app", "app.py", "--deps", "app.py:dep"], "--deps 'app.py:dep': app.py has no 'dep'"),
        (["--app", "app.py", "--deps", "none.py:x"], "There is no file 'none.py'"),
        (["--app", "app.py", "--deps", "app.py:broken"], "--deps 'app.py:broken' fails: app.py:58"),
    ],
)
def test_wrong_input(folder: Path, arguments: list[str], says: str) -> None:
    """One message before anything runs."""
    done = agentkit("fork", "run", "--at", "m0/t0", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert ran(folder) == []


def test_an_exact_replay_needs_no_deps(folder: Path) -> None:
    """No tool runs; a replay that runs tools says what is missing."""
    done = agentkit("replay", "run", "--app", "app.py", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    done = agentkit("replay", "run", "--app", "app.py", "--plan", "tools_live", cwd=folder)
    assert done.returncode == 2
    assert "the run has none: give --deps FILE.py:NAME" in " ".join(done.stderr.split())


def test_a_written_test_calls_the_functions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the options name them."""
    monkeypatch.setenv("FORKS_EXECUTABLE", str(LOADED.executable()))
    options = ("--app", "app.py:build", "--deps", "app.py:make", "--live", "look")
    source = (folder / "app.py").read_text()
    (folder / "app.py").write_text(source.replace('Deps("function")', 'Deps("value")'))
    done = agentkit("test-from", "run", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    written = (folder / "test_go.py").read_text()
    assert "\nfrom app import build, make\n" in written
    assert "result = build().run_sync('go', deps=make())" in written
    options = ("--app", "app.py:connect", "--deps", "app.py:open_deps", "--to", "test_loops.py")
    names = runpy.run_path("app.py")
    agent = anyio.run(names["connect"])
    agent.run_sync("go", deps=names["deps"], trace="loops.jsonl")
    done = agentkit("test-from", "loops", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    written = (folder / "test_loops.py").read_text()
    assert "import anyio\nimport pytest\n\nfrom app import connect, open_deps\n" in written
    assert "anyio.run(connect).run_sync('go', deps=anyio.run(open_deps))" in written
