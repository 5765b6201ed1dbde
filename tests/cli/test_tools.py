"""`agentkit tools`, as a user runs it: real processes, real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentkit import Agent, ChatModel, tool
from agentkit.testing import ChatServer, reply
from tests.cli.support import agentkit

APP = '''
from typing import Any

from pydantic import BaseModel

from agentkit import Agent, Handoff, Tool, Toolset, tool
from agentkit.tools import FunctionToolset

print("while it is imported")


class Answer(BaseModel):
    number: int


@tool(effect="read")
def look_up(city: str, days: int = 3) -> str:
    """Look \\x1b[31mit\\u202e up.

    Args:
        city: The [bold]city[/bold].
    """


@tool(approval=True)
def remove(options: dict[str, Any]) -> None:
    "Remove it."


def helper(number: int) -> None:
    "Help."


def alone(number: int) -> None:
    "Nobody has this function."


class Later(Toolset):
    def tools(self, context):
        return [Tool(context.deps.function)]


agent = Agent("openai:gpt-4o", tools=[look_up, helper], output=Answer, output_mode="tool")
other = Agent("local", tools=[look_up, FunctionToolset([helper]), Later(), Handoff(agent)])
'''

BAD = """
from agentkit import tool

@tool
def good(number: int) -> int:
    "Good."

@tool
def bad(number: "Missing") -> int:
    "Bad."
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files of tools."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "bad.py").write_text(BAD)
    return tmp_path


def test_tools_shows_what_the_model_will_see(folder: Path) -> None:
    """Each tool once: description, schema, strictness and why, effect, approval, agents, tokens."""
    done = agentkit("tools", "app.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    heads = [line for line in done.stdout.splitlines() if line[:1].isalnum()]
    assert heads == [
        "look_up  strict, effect read, approval never, about 84 tokens, in agent, other",
        "helper  strict, effect write, approval never, about 53 tokens, in agent, other",
        "final_output  strict, the typed output, about 67 tokens, in agent",
        "transfer_to_agent  strict, hands over to agent, about 54 tokens, in other",
        "remove  not strict, effect write, approval always, about 58 tokens",
        "agent: 3 tools, about 204 tokens in each request",
        "other: 3 tools, about 191 tokens in each request",
        "5 tools, about 316 tokens",
    ]
    assert "! Tool 'remove' cannot be strict: options takes keys of any name." in done.stdout
    assert '"description": "The [bold]city[/bold]."' in done.stdout
    assert "alone" not in done.stdout


def test_tools_makes_hostile_text_visible(folder: Path) -> None:
    """Control and bidirectional characters of a docstring do not reach the terminal."""
    done = agentkit("tools", "app.py", cwd=folder)
    assert r"Look \x1b[31mit\u202e up." in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_tools_lists_toolsets_of_the_file_and_one_by_its_name(folder: Path) -> None:
    """A file that has no agent may have toolsets; each tool names the one it is in."""
    (folder / "sets.py").write_text(
        "from agentkit import tool\n"
        "from agentkit_tools.math import math_tools\n"
        "from agentkit_tools.time import time_tools\n"
        "math, clock = math_tools(), time_tools().prefix('t_')\n"
        "@tool\ndef double(number: int) -> int:\n    'Double a number.'\n"
    )
    done = agentkit("tools", "sets.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "in math\n" in done.stdout
    assert "in clock\n" in done.stdout
    assert "double  strict, effect write" in done.stdout
    one = agentkit("tools", "sets.py:clock", "--json", cwd=folder)
    names = [tool["function"]["name"] for tool in json.loads(one.stdout)]
    assert len(names) > 1
    assert all(name.startswith("t_") for name in names)
    double = agentkit("tools", "sets.py:double", "--json", cwd=folder)
    assert [tool["function"]["name"] for tool in json.loads(double.stdout)] == ["double"]


def test_tools_says_what_it_could_not_list(folder: Path) -> None:
    """A toolset that wants a run's dependencies is named; the file's own output stays apart."""
    done = agentkit("tools", "app.py", cwd=folder)
    assert "The tools of other's Later are known only in a run" in done.stderr
    assert "while it is imported" in done.stderr
    assert "while it is imported" not in done.stdout


def test_tools_as_json_is_what_is_sent(folder: Path) -> None:
    """The array is the one of the agent's own request."""

    @tool
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    (folder / "double.py").write_text(
        "from agentkit import Agent, tool\n"
        "@tool\ndef double(number: int) -> int:\n    'Double a number.'\n"
        "agent = Agent('openai:gpt-4o', tools=[double], output=int, output_mode='tool')\n"
    )
    done = agentkit("tools", "double.py:agent", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    with ChatServer([reply(calls=[("final_output", {"value": 4})])]) as server:
        model = ChatModel("m", base_url=server.base_url)
        Agent(model, tools=[double], output=int, output_mode="tool").run_sync("2?")
        (request,) = server.requests
    assert json.loads(done.stdout) == request.json["tools"]


def test_a_tool_that_cannot_be_made_is_shown_among_the_others(folder: Path) -> None:
    """The others are there, the reason is given, and the exit code is 2."""
    done = agentkit("tools", "bad.py", cwd=folder)
    assert done.returncode == 2
    assert "good  strict" in done.stdout
    assert "✗ Parameter 'number' of bad (bad.py:8)" in done.stdout
    assert "InvalidTool: Parameter 'number' of bad" in done.stderr
    as_json = agentkit("tools", "bad.py", "--json", cwd=folder)
    assert (as_json.returncode, as_json.stdout) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tools"], "requires an argument"),
        (["tools", "none.py"], "There is no file 'none.py'"),
        (["tools", "app.py:agnt"], "app.py has no 'agnt'; it has the agents agent, other"),
        (
            ["tools", "empty.py:count"],
            "'count' in empty.py gives a value of type int; expected an Agent",
        ),
        (["tools", "empty.py"], "empty.py has no tools"),
        (
            ["tools", "leaves.py"],
            "leaves.py fails while it is imported: leaves.py:1: SystemExit: bye",
        ),
        (["models", "--profile", "opnai"], "There is no profile 'opnai'; there are openai"),
        (["doctor"], "--base-url"),
        (["doctor", "--base-url", "localhost:8000", "--model", "m"], "'http://' or 'https://'"),
        (["doctor", "--base-url", "http://[", "--model", "m"], "'http://['"),
    ],
)
def test_wrong_calls_are_one_clear_message(folder: Path, arguments: list[str], says: str) -> None:
    """No traceback, exit code 2, and a message that names the mistake."""
    (folder / "empty.py").write_text("count = 1\n")
    (folder / "leaves.py").write_text("raise SystemExit('bye')\n")
    done = agentkit(*arguments, cwd=folder)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
