"""`agentkit test-from`: what it writes is code that passes at once with plain `pytest`."""

from __future__ import annotations

import os
import runpy
import subprocess
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import ChatModel, ChatSettings, Trace
from agentkit.cli.commands.test_from import plugin_arguments
from agentkit.cli.view.source import literal
from agentkit.errors import AgentKitError
from agentkit.testing import ChatServer, ScriptedModel, reply
from tests.cli.support import agentkit
from tests.forks import Forks
from tests.support import ROOT

APP = """
from pydantic import BaseModel
from agentkit import Agent, Limits, tool
from agentkit.testing import ScriptedModel

class Stop(BaseModel):
    name: str
    hour: int

class Plan(BaseModel):
    city: str
    stops: list[Stop]
    rain: bool

@tool
def get_weather(city: str) -> str:
    "Current weather in a city."
    return f"rain in {city}"

@tool(approval=True)
def pay(amount: int) -> str:
    "Pay."
    return "paid"

LOOK = [("get_weather", {"city": "Paris"})]
POEM = "Rain falls on Paris, and on the roofs of Paris, and on the \\"river\\" that runs by.\\n" * 2
PLAN = '{"city": "Paris", "stops": [{"name": "Louvre", "hour": 10}], "rain": true}'
agent = Agent(ScriptedModel([LOOK, "Take an umbrella."]), tools=[get_weather])
poet = Agent(ScriptedModel([POEM]))
planner = Agent(ScriptedModel([PLAN]), output=Plan, output_mode="json")
payer = Agent(ScriptedModel([[("pay", {"amount": 3})]]), tools=[pay])
limited = Agent(ScriptedModel([LOOK, "x"]), tools=[get_weather], limits=Limits(steps=1))
"""
PAID = """
paid = Agent(ScriptedModel([[("pay", {"amount": 3})], "Done."]), tools=[pay])
"""
ABOVE = """
below = Agent(ScriptedModel(["Sunny."]), name="weatherman", instructions="Be brief.")
asks = ScriptedModel([[("weatherman", {"prompt": "Sun?"})], "Yes."])
boss = Agent(asks, name="boss", tools=[below.as_tool()])
"""

PYTESTS = Forks("import _pytest.pytester, anyio, agentkit.testing, pytest, trio, unittest.mock")
"""Starts pytest where it and agentkit are loaded."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with an application."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "200")
    plugins = ("hypothesispytest", "inline_snapshot", "benchmark")  # slow to load
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"-p no:{name}" for name in plugins))
    monkeypatch.setenv("FORKS_EXECUTABLE", str(PYTESTS.executable()))
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def record(
    project: Path, name: str = "agent", prompt: Any = "Umbrella in Paris?", **options: Any
) -> None:
    """Run an agent of the application; its trace is `run.jsonl`."""
    agent = runpy.run_path(str(project / "app.py"))[name]
    with suppress(AgentKitError):  # some are to fail
        agent.run_sync(prompt, trace=project / "run.jsonl", **options)


def make(
    project: Path, *arguments: str, trace: str = "run.jsonl"
) -> subprocess.CompletedProcess[str]:
    """Call `agentkit test-from`."""
    return agentkit("test-from", trace, *arguments, cwd=project, columns=200)


def pytest_in(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call `pytest`."""
    return PYTESTS.run(["-m", "pytest", "-q", *plugin_arguments(), *arguments], project, os.environ)


def test_it_passes_at_once(project: Path) -> None:
    """The whole file, beside the application, and the recording beside it."""
    record(project)
    done = make(project, "--app", "app.py:agent")
    assert done.returncode == 0, done.stderr
    assert "The test passes: pytest test_umbrella_in_paris.py" in done.stdout
    written = (project / "test_umbrella_in_paris.py").read_text()
    assert written == dedent(
        '''\
        """A recorded run as a test. Record it anew: pytest --agentkit-record=all"""

        import pytest

        from app import agent


        @pytest.mark.agentkit_replay('traces/umbrella_in_paris.jsonl')
        def test_umbrella_in_paris() -> None:
            result = agent.run_sync('Umbrella in Paris?')

            assert result.output == 'Take an umbrella.'
        '''
    )
    fixture = project / "traces" / "umbrella_in_paris.jsonl"
    assert fixture.read_bytes() == (project / "run.jsonl").read_bytes()
    # Unlike a trace it is to be committed: a file like any other.
    assert fixture.stat().st_mode == (project / "app.py").stat().st_mode


def test_it_may_run_tools(project: Path) -> None:
    """With --live the test guards the tool, too."""
    record(project)
    made = make(project, "--app", "app.py:agent", "--live", "get_weather")
    assert made.returncode == 0, made.stderr
    written = (project / "test_umbrella_in_paris.py").read_text()
    assert ".jsonl', live=['get_weather']" in written
    app = project / "app.py"
    app.write_text(app.read_text().replace("rain in", "sun in"))
    failed = pytest_in(project)
    assert failed.returncode == 1
    assert "result_changed at /agent/m0/t0" in failed.stdout


def test_it_is_found_from_another_folder(project: Path) -> None:
    """In tests/, where pytest does not find the application by itself; and a typed output."""
    record(project, "planner", "Plan", settings=ChatSettings(temperature=0.5))
    done = make(project, "--app", "app.py:planner", "--to", "tests/test_plan.py")
    assert done.returncode == 0, done.stderr
    written = (project / "tests" / "test_plan.py").read_text()
    assert "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))" in written
    assert (
        dedent(
            """\
        @pytest.mark.agentkit_replay('traces/plan.jsonl')
        def test_plan() -> None:
            result = planner.run_sync('Plan', settings=ChatSettings(temperature=0.5))

            assert to_jsonable_python(result.output) == {'city': 'Paris',
                                                         'stops': [{'name': 'Louvre', 'hour': 10}],
                                                         'rain': True}
        """
        )
        in written
    )


def test_history_comes_from_the_recording(project: Path) -> None:
    """The prompt is in the test; what went before it would hide it. Long texts have lines."""
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    record(project, "poet", "A poem", history=earlier)
    assert make(project, "--app", "app.py:poet").returncode == 0
    assert (
        dedent(
            """\
        def test_a_poem() -> None:
            trace = Trace.load(Path(__file__).parent / 'traces/a_poem.jsonl')
            messages, earlier = trace.input()
            result = poet.run_sync('A poem', history=messages[:earlier])

            assert result.output == ('Rain falls on Paris, and on the roofs of Paris, and on '
                                     'the "river" that runs by.\\n'
                                     'Rain falls on Paris, and on the roofs of Paris, and on '
                                     'the "river" that runs by.\\n')
        """
        )
        in (project / "test_a_poem.py").read_text()
    )


def test_a_long_prompt_stays_in_the_recording(project: Path) -> None:
    """The test reads it from its copy of the trace."""
    record(project, "poet", "Sum up: " + "so much " * 10_000)
    done = make(project, "--app", "app.py:poet", "--to", "test_long.py")
    assert done.returncode == 0, done.stderr
    assert "run_sync(None, history=messages)" in (project / "test_long.py").read_text()
    copy = (project / "traces" / "long.jsonl").read_bytes()
    assert copy == (project / "run.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("payer", ['assert result.status == "paused"', "in result.pending] == ['pay']"]),
        ("limited", ["with pytest.raises(LimitExceeded):\n        limited.run_sync("]),
    ],
)
def test_a_run_that_did_not_end_well(project: Path, name: str, expected: list[str]) -> None:
    """The test expects exactly that."""
    record(project, name, "Go")
    done = make(project, "--app", f"app.py:{name}")
    assert done.returncode == 0, done.stderr
    written = (project / "test_go.py").read_text()
    assert [part for part in expected if part not in written] == []


def test_an_agent_that_differs_gets_no_test(project: Path) -> None:
    """The divergence is said, and nothing is written."""
    record(project)
    done = make(project, "--app", "app.py:poet")
    assert done.returncode == 1
    assert "at /agent/m0" in done.stderr
    assert {path.name for path in project.iterdir()} <= {"app.py", "run.jsonl", "__pycache__"}


def test_a_test_that_pytest_cannot_run_is_taken_back(project: Path) -> None:
    """What pytest said is shown: here, that the project's own settings stop it."""
    record(project)
    (project / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option")
    done = make(project, "--app", "app.py:agent")
    assert done.returncode == 1
    assert "--no-such-option" in done.stderr
    assert not (project / "test_umbrella_in_paris.py").exists()
    assert not (project / "traces" / "umbrella_in_paris.jsonl").exists()


def test_a_failure_leaves_no_folders(project: Path) -> None:
    """Those that were made for the test go with it."""
    record(project)
    source = (project / "app.py").read_text()
    broken = "import sys\nif 'pytest' in sys.modules:\n    raise ValueError('no env')\n"
    (project / "app.py").write_text(broken + source)
    done = make(project, "--app", "app.py:agent", "--to", "tests/deep/test_x.py")
    assert done.returncode == 1
    assert not (project / "tests").exists()


def test_a_trace_without_contents_is_refused(project: Path) -> None:
    """As a replay refuses it."""
    record(project, capture="metadata")
    done = make(project, "--app", "app.py:agent")
    assert done.returncode == 2
    assert "was recorded with capture='metadata'" in done.stderr
    assert "TraceCorrupt" not in done.stderr


def test_another_model(project: Path) -> None:
    """The run was made with a model that is not the agent's own: the test names it."""
    with ChatServer([reply("Yes.")]) as server:
        model = ChatModel("gpt-4o", base_url=server.base_url, profile="openai", api_key="k")
        agent = runpy.run_path(str(project / "app.py"))["agent"].with_(model=model)
        agent.run_sync("Umbrella?", trace=project / "run.jsonl")
    name = next(
        event["model"]
        for event in Trace.load(project / "run.jsonl").events
        if event["event"] == "model.start"
    )
    done = make(project, "--app", "app.py:agent", "--model", name)
    assert done.returncode == 0, done.stderr
    written = (project / "test_umbrella.py").read_text()
    assert f"agent.with_(model='{name}').run_sync('Umbrella?')" in written


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--app", "app.py:agent", "--to", "app.py"], "files named test_*.py"),
        (["--app", "app.py:agent", "--to", "test_there.py"], "exists already"),
        (["--app", "app.py:agent", "--to", "tests/test_there.py"], "there.jsonl' exists already"),
        (["--app", "app.py:none"], "has no 'none'"),
    ],
)
def test_wrong_input_writes_nothing(project: Path, arguments: list[str], says: str) -> None:
    """One clear line; what is there is never overwritten."""
    record(project)
    (project / "test_there.py").touch()
    (project / "tests" / "traces").mkdir(parents=True)
    (project / "tests" / "traces" / "there.jsonl").touch()
    done = make(project, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert (project / "test_there.py").read_bytes() == b""
    assert [*(project / "tests").rglob("*.py")] == []


@pytest.mark.parametrize("app", ["my-app.py", "my-app", "class.py"])
def test_a_file_that_cannot_be_imported(project: Path, app: str) -> None:
    """It is refused in one line that says what to do, and nothing is written."""
    record(project)
    name = app.removesuffix(".py")
    (project / "app.py").rename(project / f"{name}.py")
    there = {*project.rglob("*")}
    done = make(project, "--app", f"{app}:agent")
    assert done.returncode == 2
    assert f"cannot import {name!r}, which is not a name in Python. Rename it" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path for path in project.rglob("*") if "__pycache__" not in path.parts} <= there


def test_a_run_that_was_decided_about(project: Path) -> None:
    """To record it anew somebody has to decide again: it is said, and works."""
    (project / "app.py").write_text(f"{APP}{PAID}")
    record(project, "paid", "Pay", approver=lambda _: True)
    done = make(project, "--app", "app.py:paid")
    assert done.returncode == 0, done.stderr
    test = project / "test_pay.py"
    written = test.read_text()
    assert written.startswith(
        '"""A recorded run as a test.\n\n'
        "To record it anew, give the call below an approver=, and: pytest --agentkit-record=all\n"
        '"""\n'
    )
    test.write_text(written.replace("'Pay')", "'Pay', approver=lambda _: True)"))
    anew = pytest_in(project, "--agentkit-record=all")
    assert anew.returncode == 0, anew.stdout


def test_a_run_that_was_told_a_result(project: Path) -> None:
    """Of a fork with a changed result nobody is told to record it anew; of others they are."""
    record(project)
    agent = runpy.run_path(str(project / "app.py"))["agent"].with_(model=ScriptedModel(["Sun!"]))
    changed: Any
    for to, changed, anew in (
        ("told", {"at": "/agent/m0/t0", "result": "sun in Paris"}, ""),
        (
            "asked",
            {"at": "/agent/m1", "model": ScriptedModel(["Sun!"])},
            " Record it anew: pytest --agentkit-record=all",
        ),
    ):
        agent.fork_sync(project / "run.jsonl", record=project / f"{to}.jsonl", **changed)
        options = ("--app", "app.py:agent", "--to", f"test_{to}.py")
        done = make(project, *options, trace=f"{to}.jsonl")
        assert done.returncode == 0, done.stderr
        first = (project / f"test_{to}.py").read_text().partition("\n")[0]
        assert first == f'"""A recorded run as a test.{anew}"""'


def test_a_run_with_a_sub_agent(project: Path) -> None:
    """It is said that the test does not look inside it, and what does; then nothing is said."""
    (project / "app.py").write_text(f"{APP}{ABOVE}")
    record(project, "boss", "Ask")
    done = make(project, "--app", "app.py:boss")
    assert done.returncode == 0, done.stderr
    assert (
        "The test does not look inside weatherman, where agents run; --live weatherman does."
    ) in done.stdout
    options = ("--to", "test_inside.py", "--live", "weatherman")
    done = make(project, "--app", "app.py:boss", *options)
    assert done.returncode == 0, done.stderr
    assert "does not look inside" not in done.stdout
    app = project / "app.py"
    app.write_text(app.read_text().replace("Be brief.", "Be long."))
    failed = pytest_in(project)
    assert "1 failed, 1 passed" in failed.stdout
    assert "request_changed at /boss/m0/t0/weatherman/m0" in failed.stdout


def test_an_interrupted_run_is_refused(project: Path) -> None:
    """It has no end to expect."""
    record(project)
    lines = (project / "run.jsonl").read_bytes().splitlines(keepends=True)
    (project / "run.jsonl").write_bytes(b"".join(lines[:-2]))
    assert Trace.load(project / "run.jsonl").status == "interrupted"
    done = make(project, "--app", "app.py:agent")
    assert done.returncode == 2
    assert "is interrupted: it has no end" in done.stderr


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.integers(0, 88))
def test_a_literal_is_its_value(value: Any, used: int) -> None:
    """However it is broken into lines; and it shows every character."""
    written = literal(value, used=used)
    assert eval(written) == value
    assert written.replace("\n", "").isprintable()
