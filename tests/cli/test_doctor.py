"""`agentkit doctor`, as a user runs it, and its probing, of real servers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, ChatModel
from agentkit.cli.commands import doctor as module
from agentkit.cli.commands.doctor import Check, probe
from agentkit.errors import AuthenticationFailed, ConfigurationError, ModelUnreachable
from agentkit.models import PROFILES
from agentkit.models.local.server import EmbeddedServer, Startup
from agentkit.models.local.weights import fetch
from agentkit.models.profiles import LOCAL
from agentkit.testing import HOLD, ChatServer, ServerRequest, drop, raw, reply
from tests.cli.support import agentkit, here

KEY = "sk-0123456789abcdef"


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


def seen(printed: str) -> dict[str, list[str]]:
    """The table that was printed: by feature, whether it works and what was seen."""
    table, _, _ = printed.partition("\n\n")
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[2:]]
    assert all(len(row) > 1 for row in rows), printed
    return {row[0]: row[1:] for row in rows}


def pasted(done: subprocess.CompletedProcess[str]) -> ChatModel:
    """The model of the program that was printed, by running it."""
    _, _, program = done.stdout.partition("\n\n")
    names: dict[str, Any] = {}
    exec(program, names)
    return names["model"]


def test_doctor_of_a_server_that_can_do_everything(tmp_path: Path) -> None:
    """All is yes, and the program that is printed makes a model that works."""
    with ChatServer(able) as server:
        done = agentkit("doctor", "--base-url", server.base_url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert {row[0] for row in seen(done.stdout).values()} == {"yes"}
        assert seen(done.stdout)["parallel calls"] == ["yes", "called get_weather, get_weather"]
        model = pasted(done)
        assert model.profile.forced_tool == "named"
        assert Agent(model).run_sync("Hello").output == "one two three"


def test_doctor_of_a_server_that_refuses_tools(tmp_path: Path) -> None:
    """The server's words are shown, harmless, and the profile asks for calls through schemas."""
    with ChatServer(without_tools) as server:
        done = agentkit("doctor", "--base-url", server.base_url, "--model", "m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = seen(done.stdout)
    for feature in ("tools", "required tool_choice", "named tool_choice", "parallel calls"):
        assert table[feature][0] == "no"
        assert r"400 Bad Request: tools: \x1b[31mnot supported" in table[feature][1]
    assert table["json_schema"][0] == "yes"
    assert "\x1b" not in done.stdout
    profile = pasted(done).profile
    assert profile.tool_calling == "constrained"
    assert profile.output_modes == ("native", "json", "prompt")
    assert profile.repeats == LOCAL.repeats == 0
    assert "repeats=0," in done.stdout


def test_doctor_of_a_server_that_ignores_response_format(tmp_path: Path) -> None:
    """An answer that does not follow the schema is no support for it."""
    with ChatServer(formless) as server:
        done = agentkit("doctor", "--base-url", server.base_url, "--model", "m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert seen(done.stdout)["json_schema"] == ["no", "answered 'Hello!'"]
    assert seen(done.stdout)["json_object"] == ["no", "answered 'Hello!'"]
    assert pasted(done).profile.output_modes == ("tool", "prompt")


def test_doctor_begins_with_the_nearest_profile(tmp_path: Path) -> None:
    """The program changes a known profile, and the key is asked for and sent but not shown."""
    with ChatServer(without_tools) as server:
        done = agentkit(
            *("doctor", "--base-url", server.base_url, "--model", "m"),
            *("--profile", "vllm", "--api-key-env", "MY_KEY"),
            cwd=tmp_path,
            MY_KEY=KEY,
        )
        assert {one.headers["authorization"] for one in server.requests} == {f"Bearer {KEY}"}
    assert "replace(\n    PROFILES['vllm'],\n    key_variable='MY_KEY'," in done.stdout
    assert pasted(done).profile.single_system
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("answer", "arguments", "status", "says"),
    [
        (drop(), ["--model", "m"], 1, "ModelUnreachable"),
        (drop(), [], 1, "There is no answer from http://127.0.0.1"),
        (raw(401, {"error": "no such key"}), ["--model", "m"], 1, "no such key"),
        (raw(404, {"error": "no such model"}), ["--model", "m"], 1, "no such model"),
        (raw(200, {"data": [{"id": "m1"}, {"id": "m2"}]}), [], 2, "has 2 models"),
        (raw(404), [], 2, "does not list its models"),
        (drop(), ["--profile", "vlm"], 2, "'vlm' is not a known profile"),
        (drop(), ["--api-key-env", "NO_KEY"], 2, "--api-key-env names 'NO_KEY'"),
    ],
)
def test_doctor_without_a_diagnosis(
    tmp_path: Path, answer: Any, arguments: list[str], status: int, says: str
) -> None:
    """One message, nothing on stdout: 1 where the server fails, 2 where the call is wrong."""
    with ChatServer(lambda request: answer) as server:
        done = agentkit("doctor", "--base-url", server.base_url, *arguments, cwd=tmp_path)
    assert done.returncode == status
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_doctor_of_a_server_that_is_down(tmp_path: Path) -> None:
    """Nobody listens there: the exit code is 1 and the address is named."""
    done = agentkit("doctor", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:9" in done.stderr


@pytest.mark.storm_only
@pytest.mark.local
def test_doctor_of_the_embedded_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """llama.cpp with a template that knows no tools: schemas are kept to, tools are not called."""
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(module, "_ANSWER_TOKENS", 50)  # cuts what it says without end
    server = EmbeddedServer(fetch(), "small", 256, Startup())
    monkeypatch.setenv("LOCAL_KEY", server.key)
    try:
        where = ("--base-url", f"{server.address}/v1", "--api-key-env", "LOCAL_KEY")
        here("doctor", *where, "--profile", "llamacpp")
    finally:
        server.stop()
    works = {feature: row[0] for feature, row in seen(capsys.readouterr().out).items()}
    assert works.items() >= {
        ("chat", "yes"),
        ("json_schema", "yes"),
        ("streaming", "yes"),
        ("usage in streams", "yes"),
    }


# Probing


def unable(request: ServerRequest) -> Any:
    """Answers for a server with chat, schemas and max_tokens, and nothing else."""
    body = request.json
    form = body.get("response_format")
    if body.get("tools") or body.get("logprobs") or (form and form["type"] == "json_object"):
        return raw(400, {"error": "not supported"})
    if form:
        return reply('{"code": "zx-81"}')
    return reply("one two", finish="length" if "max_tokens" in body else "stop", usage=None)


@pytest.mark.anyio
async def test_a_server_that_can_do_everything() -> None:
    """All checks pass, the model is the only one that is listed, and the profile is native."""
    told: list[Check] = []
    with ChatServer(able) as server:
        found = await probe(server.base_url, report=told.append)
    assert [check.name for check in found.checks if not check.ok] == []
    assert found.model == "m1"
    assert tuple(told) == found.checks
    assert found.profile.tool_calling == "native"
    assert found.profile.output_modes == ("native", "tool", "json", "prompt")
    assert found.profile.renames == {}
    assert found.profile.forced_tool == "named"


@pytest.mark.anyio
async def test_a_server_that_can_do_little() -> None:
    """What it refuses is in the profile, with its words in the table."""
    with ChatServer(unable) as server:
        found = await probe(server.base_url, model="m")
    failed = {check.name: check.detail for check in found.checks if not check.ok}
    assert failed.keys() == {
        "max_completion_tokens",
        "tools",
        "required tool_choice",
        "named tool_choice",
        "parallel calls",
        "json_object",
        "json_schema with tools",
        "usage in streams",
        "logprobs",
    }
    assert "not supported" in failed["tools"]
    assert found.profile.tool_calling == "constrained"
    assert found.profile.output_modes == ("native", "prompt")
    assert found.profile.renames == {"max_completion_tokens": "max_tokens"}
    assert found.profile.drops == {"logprobs", "top_logprobs"}
    assert not found.profile.stream_usage


@pytest.mark.anyio
async def test_nobody_and_a_wrong_key() -> None:
    """Without any answer there is no diagnosis."""
    with pytest.raises(ModelUnreachable):
        await probe("http://127.0.0.1:9/v1", model="m")
    with ChatServer([raw(401)]) as server, pytest.raises(AuthenticationFailed):
        await probe(server.base_url, model="m")


@pytest.mark.anyio
async def test_what_is_not_answered_stays_as_it_was() -> None:
    """Too many requests and answers that never come say nothing about a server."""

    def busy(request: ServerRequest) -> Any:
        if request.json.get("tools"):
            return raw(429, headers={"retry-after": "60"})
        if request.json.get("response_format"):
            return reply("late", delay=HOLD)
        return able(request)

    with ChatServer(busy) as server:
        found = await probe(server.base_url, model="m", profile="vllm", seconds=0.3)
    unknown = {check.name for check in found.checks if check.ok is None}
    assert unknown == {
        "tools",
        "required tool_choice",
        "named tool_choice",
        "parallel calls",
        "json_schema",
        "json_object",
        "json_schema with tools",
    }
    assert found.profile == PROFILES["vllm"]


@pytest.mark.anyio
async def test_answers_are_bounded() -> None:
    """Every question says how long the answer may be, as the server takes it."""
    with ChatServer(unable) as server:
        await probe(server.base_url, model="m")
    _, _, *bounds = [request.json.get("max_tokens") for request in server.requests]
    assert set(bounds) == {512}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (raw(200, {"data": [{"id": "m1"}, {"id": "m2"}]}), "has 2 models.*m1, m2"),
        (raw(404), "does not list its models"),
        (raw(200, {"data": []}), "does not list its models"),
    ],
)
@pytest.mark.anyio
async def test_the_model_has_to_be_plain(answer: Any, says: str) -> None:
    """Without a name, the only model of the server is taken; otherwise one has to be named."""
    with ChatServer([answer]) as server, pytest.raises(ConfigurationError, match=says):
        await probe(server.base_url)
