"""The pytest plugin, in pytest processes of its own: no key, no model, no network."""

from __future__ import annotations

import json
import os
import runpy
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

from agentkit import Trace
from agentkit.testing import ChatServer, ServerRequest, reply
from agentkit.testing.replies import ChatReply
from tests.forks import Forks
from tests.support import ROOT

APP = """
from agentkit import Agent, RunContext, tool

@tool
def get_weather(city: str) -> str:
    "Current weather in a city."
    return f"rain in {city}, and the key is sk-12345678901234567890"

agent = Agent("openai:gpt-4o", tools=[get_weather], instructions="Be brief.")
"""
HEAD = """
import anyio, pytest, socket
from agentkit import Session
from app import agent

PROMPT = "Umbrella in Paris?"
"""

PYTESTS = Forks(
    "import _pytest.pytester, httpx2, pytest, trio, unittest.mock\n"
    "import anyio._backends._asyncio, anyio.from_thread, anyio.lowlevel, anyio.to_thread\n"
    "import pydantic.json_schema, pydantic.plugin._schema_validator, pydantic.root_model"
)
"""Starts pytest where it is loaded, and agentkit is not."""


def answer(request: ServerRequest) -> ChatReply:
    """Looks at the weather, then says what to take."""
    messages = request.json["messages"]
    if messages[-1]["role"] == "tool":
        return reply("Take an umbrella.")
    if messages[-1]["content"] == "Hi":
        return reply("Hello.")
    return reply(calls=[("get_weather", {"city": "Paris"})])


class Project:
    """A project of somebody who has agentkit installed."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.patch = patch
        (path / "app.py").write_text(APP)
        (path / "pytest.ini").write_text(
            "[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = --strict-markers\n"
        )

    def test(self, body: str, **files: str) -> None:
        """Write its tests, and other files."""
        for name, text in {"test_app": HEAD + dedent(body), **files}.items():
            (self.path / f"{name}.py").write_text(text)

    def record(self, name: str = "umbrella.jsonl", prompt: str = "Umbrella in Paris?") -> Path:
        """A recording of its agent, made by a program of its own."""
        with ChatServer(answer) as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", "sk-none")
            patch.setenv("OPENAI_BASE_URL", server.base_url)
            agent = runpy.run_path(str(self.path / "app.py"))["agent"]
            agent.run_sync(prompt, trace=self.path / name)
        return self.path / name

    def run(self, *arguments: str, folder: str = ".") -> pytest.RunResult:
        """Run pytest, offline, in one of its folders."""
        others = ("hypothesispytest", "inline_snapshot", "benchmark")  # slow to load
        without = [part for name in others for part in ("-p", f"no:{name}")]
        # Not pytester's: it forgets what was imported here meanwhile, and that breaks others.
        command = ["-m", "pytest", *without, *arguments]
        done = PYTESTS.run(command, self.path / folder, os.environ)
        sys.stdout.write(done.stdout + done.stderr)
        return pytest.RunResult(
            done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0
        )

    def run_live(self, *arguments: str) -> pytest.RunResult:
        """Run pytest where a model answers."""
        with ChatServer(answer) as server, self.patch.context() as patch:
            patch.setenv("OPENAI_API_KEY", "sk-none")
            patch.setenv("OPENAI_BASE_URL", server.base_url)
            return self.run(*arguments)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder in which pytest finds agentkit and its plugin, as after an installation."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [(name, module)] = told["project"]["entry-points"]["pytest11"].items()
    installed = tmp_path / "site" / "agentkit_replay-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: agentkit-replay\nVersion: 0\n"
    )
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    path = os.pathsep.join(map(str, (installed.parent, ROOT)))
    monkeypatch.setenv("PYTHONPATH", path)
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENTKIT_TRACE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project", monkeypatch)


def test_runs_are_answered_wherever_they_are_called(project: Project) -> None:
    """Each way to run, both backends, both async plugins, threads, and the test's fixtures."""
    project.record()
    project.test(
        """
        pytestmark = pytest.mark.agentkit_replay("umbrella.jsonl")

        def test_sync():
            assert agent.run_sync(PROMPT).output == "Take an umbrella."

        def test_in_a_thread():
            with anyio.from_thread.start_blocking_portal() as portal:
                def call():
                    return portal.call(agent.run, PROMPT)
                assert anyio.run(anyio.to_thread.run_sync, call).output == "Take an umbrella."

        def test_inside_a_loop():
            async def main():
                return agent.run_sync(PROMPT)
            assert anyio.run(main).output == "Take an umbrella."

        @pytest.mark.anyio
        async def test_run():
            assert (await agent.run(PROMPT)).output == "Take an umbrella."

        @pytest.mark.anyio
        async def test_stream():
            async with agent.stream(PROMPT) as run:
                names = [type(event).__name__ async for event in run]
            assert "ToolCallFinished" in names
            assert run.result.output == "Take an umbrella."

        @pytest.mark.anyio
        async def test_iter():
            async with agent.iter(PROMPT) as steps:
                addresses = [step.effect.at async for step in steps]
            assert addresses == ["/agent/m0", "/agent/m0", "/agent/m1"]
            assert steps.result.output == "Take an umbrella."

        @pytest.mark.asyncio
        async def test_session():
            session = Session(agent)
            assert (await session.run(PROMPT)).output == "Take an umbrella."
            assert len(session.messages) == 4

        @pytest.fixture
        def answered():
            return agent.run_sync(PROMPT)

        def test_fixture(answered):
            assert answered.output == "Take an umbrella."
        """
    )
    project.run().assert_outcomes(passed=11)


def test_missing_recordings_are_made_by_real_runs(project: Project) -> None:
    """`missing` goes live once; the file is committed as it is, and serves offline from then on."""
    project.test(
        """
        @pytest.mark.agentkit_replay("traces/umbrella.jsonl")
        def test_umbrella():
            assert agent.run_sync(PROMPT).output == "Take an umbrella."
        """
    )
    done = project.run()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(
        [
            "There is no recording '*traces*umbrella.jsonl'. To record it: "
            "pytest --agentkit-record=all test_app.py::test_umbrella"
        ]
    )
    done = project.run_live("--agentkit-record=missing")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines([f"recorded traces{os.sep}umbrella.jsonl"])
    recording = project.path / "traces" / "umbrella.jsonl"
    assert Trace.load(recording).status == "ok"
    assert [*recording.parent.iterdir()] == [recording]
    # Unlike a trace it is to be committed: a file like any other.
    assert recording.stat().st_mode == (project.path / "app.py").stat().st_mode
    project.run("--agentkit-record=missing").assert_outcomes(passed=1)


def test_secrets_are_numbered_and_stay_the_same(project: Project) -> None:
    """No key could be tried against a fixture, and recording it anew changes no message."""
    project.test(
        """
        @pytest.mark.agentkit_replay("umbrella.jsonl")
        def test_umbrella():
            agent.run_sync(PROMPT)
        """
    )
    blobs: list[list[object]] = []
    for _ in range(2):
        project.run_live("--agentkit-record=all").assert_outcomes(passed=1)
        text = (project.path / "umbrella.jsonl").read_text(encoding="utf-8")
        assert "sk-1234" not in text
        assert "the key is ⟦api_key:00000001⟧" in text
        lines = map(json.loads, text.splitlines())
        blobs.append([line["h"] for line in lines if line["event"] == "blob"])
    assert blobs[0] == blobs[1]


def test_a_failing_test_replaces_no_recording(project: Project) -> None:
    """With `all` the old file is replaced when the test has passed, and not before."""
    recording = project.record()
    before = recording.read_bytes()
    project.test(
        """
        @pytest.mark.agentkit_replay("umbrella.jsonl")
        def test_umbrella():
            assert agent.run_sync(PROMPT).output == "Nothing."
        """
    )
    done = project.run_live("--agentkit-record=all")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*A test that fails records nothing*"])
    assert recording.read_bytes() == before
    project.test(
        """
        @pytest.mark.agentkit_replay("umbrella.jsonl")
        def test_umbrella():
            agent.run_sync(PROMPT)
        """
    )
    project.run_live("--agentkit-record=all").assert_outcomes(passed=1)
    assert recording.read_bytes() != before


def test_the_divergence_is_shown_first(project: Project) -> None:
    """Above the traceback, with what to do, also where the application caught it."""
    project.record()
    project.test(
        """
        @pytest.mark.agentkit_replay("umbrella.jsonl")
        def test_raised():
            agent.with_(instructions="Be polite.").run_sync(PROMPT)

        @pytest.mark.agentkit_replay("umbrella.jsonl")
        def test_caught():
            try:
                output = agent.with_(instructions="Be polite.").run_sync(PROMPT).output
            except Exception:
                output = "Sorry."
            assert output == "Take an umbrella."
        """
    )
    done = project.run()
    done.assert_outcomes(failed=2)
    for name, then in (("raised", "*def test_raised*"), ("caught", "*def test_caught*")):
        done.stdout.fnmatch_lines(
            [
                f"*_ test_{name} _*",
                "ReplayDivergence: request_changed at /agent/m0, /messages/0/content*",
                "*Be brief.*",
                "*Be polite.*",
                f"To record it: pytest --agentkit-record=all test_app.py::test_{name}",
                then,
            ]
        )
    # How agentkit came to find it is left out.
    done.stdout.no_fnmatch_line("*run_blocking*")


def test_a_failure_names_the_ways_out(project: Project) -> None:
    """Looser, the model of now, and a new recording; looser only where that lets the run pass."""
    project.record()
    project.test(
        """
        @pytest.mark.agentkit_replay("umbrella.jsonl")
        def test_exact():
            agent.with_(instructions="Be polite.").run_sync(PROMPT)

        @pytest.mark.agentkit_replay("umbrella.jsonl", strictness="structural")
        def test_structural():
            agent.with_(instructions="Be polite.").run_sync(PROMPT)

        @pytest.mark.agentkit_replay("umbrella.jsonl", strictness="structural")
        def test_renamed():
            agent.with_(name="weather").run_sync(PROMPT)
        """
    )
    done = project.run()
    done.assert_outcomes(passed=1, failed=2)
    looser = '*agentkit_replay(…, strictness="structural").'
    live = '*agent.replay(path, plan="model_live"), without the marker.'
    for name, ways in (("exact", [looser, live]), ("renamed", [live])):
        new = f"To record it: pytest --agentkit-record=all test_app.py::test_{name}"
        done.stdout.fnmatch_lines([f"*_ test_{name} _*", *ways, new])
    assert sum("strictness=" in line and "fine here" in line for line in done.outlines) == 1


def test_a_renamed_agent_is_told_first(project: Project) -> None:
    """With the recording's file, whether the error is raised, or caught and forgotten."""
    project.record()
    project.test(
        """
        pytestmark = pytest.mark.agentkit_replay("umbrella.jsonl")
        renamed = agent.with_(name="weather")

        def caught():
            try:
                return renamed.run_sync(PROMPT).output
            except Exception:
                return "Sorry."

        def test_raised():
            renamed.run_sync(PROMPT)

        def test_caught():
            assert caught() == "Take an umbrella."

        def test_passed():
            caught()

        def test_before_another():
            caught()
            agent.run_sync("Something else")
        """
    )
    done = project.run()
    done.assert_outcomes(failed=4)
    for name in ("raised", "caught", "passed", "before_another"):
        done.stdout.fnmatch_lines(
            [
                f"*_ test_{name} _*",
                "ReplayDivergence: unexpected_call at /weather: the trace is a run of the agent "
                "'agent', and this one is 'weather'.",
                "The recording is '*umbrella.jsonl'.",
                f"To record it: pytest --agentkit-record=all test_app.py::test_{name}",
            ]
        )


def test_the_advice_is_a_command_where_pytest_was_called(project: Project) -> None:
    """In a subfolder it names the file as seen from there, and not from the root of the tests."""
    (project.path / "inner").mkdir()
    project.test(
        "",
        **{
            "inner/test_inner": "import pytest\n"
            "@pytest.mark.agentkit_replay('new.jsonl')\ndef test_new(): pass\n"
        },
    )
    done = project.run(folder="inner")
    done.stdout.fnmatch_lines(
        ["*To record it: pytest --agentkit-record=all test_inner.py::test_new"]
    )
    done = project.run()
    done.stdout.fnmatch_lines(
        ["*To record it: pytest --agentkit-record=all inner/test_inner.py::test_new"]
    )


def test_no_test_replaces_what_another_has_just_recorded(project: Project) -> None:
    """The same run on another backend is answered by it; another run fails, and says why."""
    project.test(
        """
        @pytest.mark.anyio
        @pytest.mark.agentkit_replay("same.jsonl")
        async def test_same():
            assert (await agent.run("Hi")).output == "Hello."

        @pytest.mark.parametrize("prompt", ["Hi", PROMPT], ids=["hi", "umbrella"])
        @pytest.mark.agentkit_replay("case.jsonl")
        def test_case(prompt):
            agent.run_sync(prompt)
        """
    )
    told = [
        "ReplayDivergence: request_changed at /agent/m0, /messages/1/content:",
        "  recorded: 'Hi'",
        "'*case.jsonl' is also the recording of test_app.py::test_case[[]hi], which has passed. "
        "Where the runs are to differ, name another file for each test, and for each case: "
        "pytest.param(…, "
        'marks=pytest.mark.agentkit_replay("…")).',
        "To record it: pytest --agentkit-record=all 'test_app.py::test_case[[]umbrella]'",
    ]
    done = project.run_live("--agentkit-record=all")
    done.assert_outcomes(passed=3, failed=1)
    done.stdout.fnmatch_lines(told)
    assert [line for line in done.outlines if line.startswith("recorded")] == [
        "recorded same.jsonl",
        "recorded case.jsonl",
    ]
    done = project.run()
    done.assert_outcomes(passed=3, failed=1)
    done.stdout.fnmatch_lines(told)


def test_what_does_not_fit_fails_a_test_that_passes(project: Project) -> None:
    """A divergence that was swallowed, a recording without a run, a run without a recording."""
    project.record()
    project.test(
        """
        import unittest

        pytestmark = pytest.mark.agentkit_replay("umbrella.jsonl")

        def test_swallowed():
            try:
                agent.run_sync("Something else")
            except Exception:
                pass

        def test_unused():
            pass

        def test_one_more():
            agent.run_sync(PROMPT)
            agent.run_sync("Another one")

        class TestCase(unittest.TestCase):
            def test_of_unittest(self):
                pass

            def test_that_fails_itself(self):
                self.fail("by itself")
        """
    )
    done = project.run("-rf")
    done.assert_outcomes(failed=5)
    done.stdout.fnmatch_lines(
        [
            "*_ test_swallowed _*",
            "ReplayDivergence: request_changed at /agent/m0, /messages/1/content*",
            "*_ test_unused _*",
            "ReplayDivergence: missing_call: no run of the test has used *umbrella.jsonl*",
            "*_ test_one_more _*",
            "ReplayDivergence: unexpected_call at /agent: the test makes one run more than its 1 "
            "recording: 'agent' with 'Another one'. *To record it: pytest --agentkit-record=all *",
            "*_ TestCase.test_of_unittest _*",
            "ReplayDivergence: missing_call*",
            "*_ TestCase.test_that_fails_itself _*",
            "*AssertionError: by itself*",
        ]
    )


def test_the_network_is_blocked_meanwhile(project: Project) -> None:
    """Sync and async, by name and by number; with the marker's word it stays open."""
    project.record()
    project.test(
        """
        from agentkit.testing import ChatServer
        from urllib.request import urlopen

        replayed = pytest.mark.agentkit_replay("umbrella.jsonl")

        @replayed
        def test_sync():
            agent.run_sync(PROMPT)
            with pytest.raises(RuntimeError, match=r"'127.0.0.1:9'.*agentkit_replay"):
                socket.create_connection(("127.0.0.1", 9))
            with pytest.raises(RuntimeError, match=r"'example.com:80'.*agentkit_replay"):
                urlopen("http://example.com")

        @replayed
        @pytest.mark.anyio
        async def test_async():
            await agent.run(PROMPT)
            with pytest.raises(RuntimeError, match="'example.com:80'"):
                await anyio.connect_tcp("example.com", 80)

        def test_afterwards():
            with ChatServer([]) as server:
                socket.create_connection(("127.0.0.1", int(server.base_url[17:-3]))).close()

        @pytest.mark.agentkit_replay("umbrella.jsonl", network=True)
        def test_open():
            test_afterwards()
            agent.run_sync(PROMPT)

        @replayed
        def test_that_fails():
            agent.run_sync(PROMPT)
            try:
                socket.create_connection(("127.0.0.1", 9))
            except Exception:
                pass
            assert False, "something else"
        """
    )
    done = project.run()
    done.assert_outcomes(passed=5, failed=1)
    done.stdout.fnmatch_lines(
        ["NetworkBlocked: No connection to '127.0.0.1:9'*", "*something else*"]
    )


def test_several_runs_find_their_recordings(project: Project) -> None:
    """By what they begin with, in whatever order they come; equal ones by their order."""
    project.record("umbrella.jsonl")
    project.record("hello.jsonl", "Hi")
    project.test(
        """
        @pytest.mark.agentkit_replay("umbrella.jsonl", "hello.jsonl")
        def test_in_another_order():
            assert agent.run_sync("Hi").output == "Hello."
            assert agent.run_sync(PROMPT).output == "Take an umbrella."

        @pytest.mark.agentkit_replay("umbrella.jsonl", "new.jsonl")
        def test_of_which_one_is_new():
            assert agent.run_sync("Hi").output == "Hello."
            assert agent.run_sync(PROMPT).output == "Take an umbrella."
        """
    )
    done = project.run_live("--agentkit-record=missing")
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["recorded new.jsonl"])
    done.stdout.no_fnmatch_line("recorded umbrella.jsonl")
    project.run().assert_outcomes(passed=2)


def test_a_run_inside_a_tool_is_part_of_its_run(project: Project) -> None:
    """A replay does not run the tool, so what that ran itself needs no recording."""
    project.test(
        """
        from app import outer

        @pytest.mark.agentkit_replay("outer.jsonl")
        def test_outer():
            assert outer.run_sync("Umbrella?").output == "Take an umbrella."
        """,
        app=APP
        + """
inner = agent

def get_weather(city: str) -> str:
    "Current weather in a city."
    return inner.run_sync("Hi").output

outer = Agent("openai:gpt-4o", tools=[get_weather], name="outer")
""",
    )
    project.run_live("--agentkit-record=all").assert_outcomes(passed=1)
    project.run().assert_outcomes(passed=1)


def test_a_marker_that_cannot_be_meant_is_refused(project: Project) -> None:
    """Without a path, with one twice, or with an option that does not exist."""
    project.test(
        """
        @pytest.mark.agentkit_replay
        def test_nothing(): pass

        @pytest.mark.agentkit_replay("a.jsonl", "a.jsonl")
        def test_twice(): pass

        @pytest.mark.agentkit_replay("a.jsonl", netwrk=True)
        def test_option(): pass
        """
    )
    done = project.run()
    done.assert_outcomes(errors=3)
    done.stdout.fnmatch_lines(["agentkit_replay('a.jsonl', netwrk=True): expected the path*"])


def test_it_costs_nothing_where_it_is_not_used(project: Project) -> None:
    """Without a marked test agentkit is not even imported; and the plugin can be left out."""
    project.test(
        "",
        test_app="def test_plain(): pass",
        conftest=dedent(
            """
            import sys

            def pytest_unconfigure():
                print("loaded", *(name for name in sys.modules if name.startswith("agentkit")))
            """
        ),
    )
    done = project.run()
    done.assert_outcomes(passed=1)
    assert done.outlines[-1] == "loaded agentkit_pytest"
    project.run("-p", "no:agentkit").assert_outcomes(passed=1)


def test_live_tools_have_to_come_to_what_was_recorded(project: Project) -> None:
    """Tools of `live` run, so a test of a recording guards them, too."""
    project.record()
    project.test(
        """
        @pytest.mark.agentkit_replay("umbrella.jsonl", live=["get_weather"])
        def test_umbrella():
            assert agent.run_sync(PROMPT).output == "Take an umbrella."
        """
    )
    project.run().assert_outcomes(passed=1)
    app = (project.path / "app.py").read_text()
    (project.path / "app.py").write_text(app.replace("rain in", "sun in"))
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*result_changed at /agent/m0/t0, /content:*"])
    (project.path / "app.py").write_text(app.replace("@tool", "@tool(name='weather')"))
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*tool_schema_changed at /agent/m0*"])


def test_an_unknown_live_tool_is_told_first(project: Project) -> None:
    """It is the marker's mistake: the error names the file, and no recording would help."""
    project.record()
    project.test(
        """
        @pytest.mark.agentkit_replay("umbrella.jsonl", live=["weather"])
        def test_umbrella():
            agent.run_sync(PROMPT)
        """
    )
    done = project.run()
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*_ test_umbrella _*",
            "ConfigurationError: live= names 'weather', which the agent does not have; "
            "its tools: 'get_weather'.",
            "The recording is '*umbrella.jsonl'.",
            ">*agent.run_sync(PROMPT)",
        ]
    )
    done.stdout.no_fnmatch_line("*run_blocking*")
    done.stdout.no_fnmatch_line("*To record it*")


def test_what_no_recording_answers_is_refused(project: Project) -> None:
    """To resume or to fork a run would ask models and run tools for real."""
    project.record()
    project.test("""
        from agentkit.errors import ConfigurationError

        @pytest.mark.agentkit_replay("umbrella.jsonl")
        @pytest.mark.parametrize("way", ["resume", "fork", "replay"])
        def test_it(way):
            trace = agent.run_sync(PROMPT).trace
            options = {"fork": {"at": "/agent/m1"}, "replay": {"plan": "model_live"}}
            with pytest.raises(ConfigurationError, match="this test is answered from recordings"):
                getattr(agent, way + "_sync")(trace, **options.get(way, {}))
            agent.replay_sync(trace)
    """)
    project.run().assert_outcomes(passed=3)


def test_fixtures_for_tests_without_recordings(project: Project) -> None:
    """A server, a script that has to be used up, the traces, and no network."""
    project.test(
        """
        from agentkit import ChatModel
        from agentkit.testing import assert_trace, reply

        async def forecast(model):
            return await agent.with_(model=model).run(PROMPT)

        CALL = [("get_weather", {"city": "Paris"})]

        @pytest.mark.anyio
        async def test_server(chat_server, trace):
            server = chat_server([reply(calls=CALL), reply("Rain.")])
            model = ChatModel("any", base_url=server.base_url, api_key="none")
            assert (await forecast(model)).output == "Rain."
            assert_trace(trace(), ["m0", ("m0/t0", "get_weather"), "m1"], only=True)

        @pytest.mark.anyio
        async def test_script(scripted_model, trace, no_network):
            await forecast(scripted_model([CALL, "Rain."]))
            await forecast(scripted_model(["Sun."]))
            assert_trace(trace(1), [("m0", {"result": "Sun."})])

        @pytest.mark.anyio
        async def test_left(scripted_model):
            await forecast(scripted_model(["Sun.", "Rain."]))

        @pytest.mark.anyio
        async def test_which(scripted_model, trace):
            trace()

        def test_network(no_network):
            try:
                socket.create_connection(("127.0.0.1", 9))
            except RuntimeError:
                pass

        def test_server_without_a_request(chat_server):
            assert chat_server([reply("x")]).requests == ()
        """
    )
    done = project.run()
    done.assert_outcomes(passed=8, failed=2, errors=3)
    done.stdout.fnmatch_lines(
        [
            "*1 of 2 answers of 'scripted' were not used: the next is 'Rain.'.",
            "*NetworkBlocked: No connection to '127.0.0.1:9'*",
            "*trace(): this test has 0 runs; name one by its index.",
        ]
    )


def test_a_replay_asks_no_real_model(project: Project) -> None:
    """Also where the network is open."""
    project.record()
    project.test(
        """
        from agentkit import ChatModel, ModelRequest, UserMessage
        from agentkit.testing import ModelCallBlocked

        @pytest.mark.anyio
        @pytest.mark.agentkit_replay("umbrella.jsonl", network=True)
        async def test_umbrella():
            assert (await agent.run(PROMPT)).output == "Take an umbrella."
            model = ChatModel("any", base_url="http://127.0.0.1:9/v1", api_key="none")
            with pytest.raises(ModelCallBlocked):
                await model.request(ModelRequest(messages=(UserMessage(content="Hi"),)))
        """
    )
    project.run().assert_outcomes(passed=2)
