"""`agentkit tools`, `models` and `doctor`, as a user runs them: real processes and servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, ChatModel, tool
from agentkit.models import PROFILES
from agentkit.models.local.server import EmbeddedServer, Startup
from agentkit.models.local.weights import fetch
from agentkit.testing import ChatServer, ServerRequest, drop, raw, reply

APP = '''
from typing import Any

from pydantic import BaseModel

from agentkit import Agent, Handoff, Tool, Toolset, tool
from agentkit.tools.tool import FunctionToolset

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

KEY = "sk-0123456789abcdef"


def agentkit(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the console script's entry point, in an environment without keys."""
    command = [sys.executable, "-c", "from agentkit.cli import main; main()", *arguments]
    inherited = {name: v for name, v in os.environ.items() if not name.endswith("_API_KEY")}
    own = {"COLUMNS": "160", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        command,
        cwd=cwd,
        env=inherited | own | (environment or {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files of tools."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "bad.py").write_text(BAD)
    return tmp_path


# tools


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


def test_tools_says_what_it_could_not_list(folder: Path) -> None:
    """A toolset that wants a run's dependencies is named; the file's own output stays apart."""
    done = agentkit("tools", "app.py", cwd=folder)
    assert "other has a Later that says only in a run what it offers" in done.stderr
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


# models


def test_models_lists_providers_and_never_keys(folder: Path) -> None:
    """Name, URL, whether the key is set, tools and output modes; never the key."""
    done = agentkit("models", cwd=folder, environment={"GROQ_API_KEY": KEY})
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert rows["groq"][1:5] == ["https://api.groq.com/openai/v1", "GROQ_API_KEY", "yes", "native"]
    assert rows["mistral"][2:4] == ["MISTRAL_API_KEY", "no"]
    assert "constrained" in rows["local"]
    assert rows.keys() >= PROFILES.keys()
    assert KEY not in done.stdout + done.stderr


def test_models_as_json(folder: Path) -> None:
    """The same as data."""
    done = agentkit("models", "--json", cwd=folder, environment={"GROQ_API_KEY": KEY})
    (groq,) = [one for one in json.loads(done.stdout) if one["name"] == "groq"]
    assert groq == {
        "name": "groq",
        "base_url": "https://api.groq.com/openai/v1",
        "url_variable": None,
        "key_variable": "GROQ_API_KEY",
        "key_set": True,
        "tool_calling": "native",
        "output_modes": ["native", "tool", "json", "prompt"],
    }
    assert KEY not in done.stdout


@pytest.mark.parametrize("name", ["openai", "azure", "local", "compatible"])
def test_models_shows_every_profile(folder: Path, name: str) -> None:
    """Every field of a profile has a value and a meaning."""
    done = agentkit("models", "--profile", name, cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[:1].isalpha()]
    assert lines[1].split()[:2] == ["name", name]
    assert [line for line in lines if len(line.split()) < 4] == [lines[0]]


def test_models_shows_a_profile_in_words(folder: Path) -> None:
    """Sets, mappings and ranges are readable, and JSON has them as they are."""
    done = agentkit("models", "--profile", "mistral", cwd=folder)
    for words in ("seed: random_seed", "temperature: 0 … 1.5", "alnum9"):
        assert words in done.stdout
    as_json = json.loads(agentkit("models", "--profile", "mistral", "--json", cwd=folder).stdout)
    assert as_json["ranges"] == {"temperature": [0, 1.5]}
    assert as_json["drops"] == sorted(PROFILES["mistral"].drops)


# doctor


def able(request: ServerRequest) -> Any:
    """Answers for a server that can do everything and has one model."""
    if request.method == "GET":
        return raw(200, {"data": [{"id": "m1"}]})
    body = request.json
    if tools := body.get("tools"):
        cities = ["Paris", "Rome"] if "Rome" in body["messages"][-1]["content"] else ["Paris"]
        choice = body.get("tool_choice")
        name = choice["function"]["name"] if isinstance(choice, dict) else None
        return reply(calls=[(name or tools[0]["function"]["name"], {"city": c}) for c in cities])
    if form := body.get("response_format"):
        value = {"code": "zx-81"} if form["type"] == "json_schema" else {"legs": 4}
        return reply(json.dumps(value))
    if body.get("logprobs"):
        choice = {"message": {"content": "Hi"}, "logprobs": {"content": [{"token": "Hi"}]}}
        return raw(200, {"choices": [choice]})
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return reply("one two three", finish="length" if limit else "stop")


def without_tools(request: ServerRequest) -> Any:
    """Answers for a server that refuses tools, in hostile words."""
    if request.json.get("tools"):
        return raw(400, {"error": {"message": "tools: \x1b[31mnot supported"}})
    return able(request)


def formless(request: ServerRequest) -> Any:
    """Answers for a server that ignores response_format, as one that does not know it does."""
    if "response_format" in request.json and "tools" not in request.json:
        return reply("Hello!")
    return able(request)


def seen(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """The table that was printed: by feature, whether it works and what was seen."""
    table, _, _ = done.stdout.partition("\n\n")
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def pasted(done: subprocess.CompletedProcess[str]) -> ChatModel:
    """The model of the program that was printed, by running it."""
    _, _, program = done.stdout.partition("\n\n")
    names: dict[str, Any] = {}
    exec(program, names)
    return names["model"]


def test_doctor_of_a_server_that_can_do_everything(folder: Path) -> None:
    """All is yes, and the program that is printed makes a model that works."""
    with ChatServer(able) as server:
        done = agentkit("doctor", "--base-url", server.base_url, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert {row[0] for row in seen(done).values()} == {"yes"}
        assert seen(done)["parallel calls"] == ["yes", "called get_weather, get_weather"]
        model = pasted(done)
        assert model.profile.forced_tool == "named"
        assert Agent(model).run_sync("Hello").output == "one two three"


def test_doctor_of_a_server_that_refuses_tools(folder: Path) -> None:
    """The server's words are shown, harmless, and the profile asks for calls through schemas."""
    with ChatServer(without_tools) as server:
        done = agentkit("doctor", "--base-url", server.base_url, "--model", "m", cwd=folder)
    assert done.returncode == 0, done.stderr
    table = seen(done)
    for feature in ("tools", "required tool_choice", "named tool_choice", "parallel calls"):
        assert table[feature][0] == "no"
        assert r"400 Bad Request: tools: \x1b[31mnot supported" in table[feature][1]
    assert table["json_schema"][0] == "yes"
    assert "\x1b" not in done.stdout
    profile = pasted(done).profile
    assert profile.tool_calling == "constrained"
    assert profile.output_modes == ("native", "json", "prompt")


def test_doctor_of_a_server_that_ignores_response_format(folder: Path) -> None:
    """An answer that does not follow the schema is no support for it."""
    with ChatServer(formless) as server:
        done = agentkit("doctor", "--base-url", server.base_url, "--model", "m", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert seen(done)["json_schema"] == ["no", "answered 'Hello!'"]
    assert seen(done)["json_object"] == ["no", "answered 'Hello!'"]
    assert pasted(done).profile.output_modes == ("tool", "prompt")


def test_doctor_begins_with_the_nearest_profile(folder: Path) -> None:
    """The program changes a known profile, and the key is asked for and sent but not shown."""
    with ChatServer(without_tools) as server:
        done = agentkit(
            *("doctor", "--base-url", server.base_url, "--model", "m"),
            *("--profile", "vllm", "--api-key-env", "MY_KEY"),
            cwd=folder,
            environment={"MY_KEY": KEY},
        )
        assert {one.headers["authorization"] for one in server.requests} == {f"Bearer {KEY}"}
    assert "replace(\n    PROFILES['vllm'],\n    key_variable='MY_KEY'," in done.stdout
    assert pasted(done).profile.single_system
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("answer", "arguments", "status", "says"),
    [
        (drop(), ["--model", "m"], 1, "ModelUnreachable"),
        (drop(), [], 1, "Nobody answers at http://127.0.0.1"),
        (raw(401, {"error": "no such key"}), ["--model", "m"], 1, "no such key"),
        (raw(404, {"error": "no such model"}), ["--model", "m"], 1, "no such model"),
        (raw(200, {"data": [{"id": "m1"}, {"id": "m2"}]}), [], 2, "has 2 models"),
        (raw(404), [], 2, "does not say which models it has"),
        (drop(), ["--profile", "vlm"], 2, "'vlm' is not a known profile"),
        (drop(), ["--api-key-env", "NO_KEY"], 2, "--api-key-env names 'NO_KEY'"),
    ],
)
def test_doctor_without_a_diagnosis(
    folder: Path, answer: Any, arguments: list[str], status: int, says: str
) -> None:
    """One message, nothing on stdout: 1 where the server fails, 2 where the call is wrong."""
    with ChatServer(lambda request: answer) as server:
        done = agentkit("doctor", "--base-url", server.base_url, *arguments, cwd=folder)
    assert done.returncode == status
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_doctor_of_a_server_that_is_down(folder: Path) -> None:
    """Nobody listens there: the exit code is 1 and the address is named."""
    done = agentkit("doctor", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:9" in done.stderr


@pytest.mark.local
def test_doctor_of_the_embedded_server(folder: Path) -> None:
    """llama.cpp with a template that knows no tools: schemas are kept to, tools are not called."""
    pytest.importorskip("xllamacpp")
    server = EmbeddedServer(fetch(), "small", 512, Startup())
    try:
        done = agentkit(
            *("doctor", "--base-url", f"{server.address}/v1", "--api-key-env", "LOCAL_KEY"),
            *("--profile", "llamacpp"),
            cwd=folder,
            environment={"LOCAL_KEY": server.key},
        )
    finally:
        server.stop()
    assert done.returncode == 0, done.stderr
    works = {feature: row[0] for feature, row in seen(done).items()}
    assert works.items() >= {
        ("chat", "yes"),
        ("json_schema", "yes"),
        ("streaming", "yes"),
        ("usage in streams", "yes"),
    }


# Wrong calls


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tools"], "requires an argument"),
        (["tools", "none.py"], "There is no file 'none.py'"),
        (["tools", "app.py:agnt"], "app.py has no 'agnt'; it has the agents agent, other"),
        (["tools", "app.py:look_up"], "'look_up' in app.py is a Tool, not an Agent"),
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
