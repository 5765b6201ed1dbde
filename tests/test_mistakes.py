"""What callers and models get wrong: an error of ours, and never the end of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentkit import (
    Agent,
    Decision,
    JsonSchema,
    ModelResponse,
    RunResult,
    Session,
    Tool,
    Toolset,
    tool,
)
from agentkit.errors import AgentKitError
from agentkit.messages import (
    AssistantMessage,
    ToolCall,
    dump_messages,
    load_messages,
    message_from_json,
)
from agentkit.testing import ScriptedModel

pytestmark = pytest.mark.anyio
NESTED: Any = []
for _ in range(3000):
    NESTED = [NESTED]


class Sulking:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


JUNK: dict[str, Any] = {
    "number": 5,
    "text": "x",
    "None": None,
    "list": [5],
    "dict": {"a": 1},
    "bytes": b"x",
    "function": lambda: 1,
    "class": Exception,
    "deep": NESTED,
    "sulking": Sulking(),
}


@tool
def look(q: Any = None) -> Any:
    """Look."""
    return q


class Shelf(Toolset):
    """A toolset that returns what it was made of."""

    def __init__(self, tools: Any) -> None:
        self._tools = tools

    def tools(self, context: Any) -> Any:
        """Return it."""
        return self._tools


def run(answer: Any = "ok", tools: Any = (), **options: Any) -> RunResult[Any]:
    """Run an agent with these options."""
    return Agent(ScriptedModel([answer, "ok"]), tools=tools, **options).run_sync("go")


def asking(**options: Any) -> RunResult[Any]:
    """Run an agent that has to ask."""
    made = Agent(ScriptedModel([[("look", "{}")], "ok"]), tools=[look.with_(approval=True)])
    return made.run_sync("go", **options)


USES: dict[str, Callable[[Any], Any]] = {
    "tools": lambda junk: run(tools=junk),
    "a tool": lambda junk: run(tools=[junk]),
    "a toolset": lambda junk: run(tools=[Shelf(junk)]),
    "a tool of a toolset": lambda junk: run(tools=[Shelf([junk])]),
    "a filter": lambda junk: run(tools=[Shelf([look]).filter(junk)]),
    "names": lambda junk: run(tools=[Shelf([look]).rename(junk)]),
    "a prefix": lambda junk: run(tools=[Shelf([look]).prefix(junk)]),
    "an output": lambda junk: run(output=junk),
    "a schema": lambda junk: run(output=JsonSchema(junk)),
    "a property": lambda junk: JsonSchema({"type": "object", "properties": {"a": junk}}),
    "a function": lambda junk: Tool(junk).definition,
    "a name": lambda junk: Tool(look.function, name=junk).definition,
    "a description": lambda junk: Tool(look.function, description=junk).definition,
    "parameters": lambda junk: Tool.from_schema("a", "b", junk, None).definition,
    "instructions": lambda junk: run(instructions=junk),
    "middleware": lambda junk: run(middleware=[lambda inner: junk]),
    "settings": lambda junk: run(settings=junk),
    "a validator": lambda junk: run(output_validators=[junk]),
    "a prompt": lambda junk: Agent(ScriptedModel(["ok"])).run_sync(junk),
    "a part": lambda junk: Agent(ScriptedModel(["ok"])).run_sync([junk]),
    "a history": lambda junk: Session(Agent(ScriptedModel([])), history=junk),
    "an approver": lambda junk: asking(approver=lambda pending: junk),
    "decisions": lambda junk: Agent(ScriptedModel(["ok"]), tools=[look]).resume_sync(
        asking().trace,  # type: ignore[arg-type]
        decisions=junk,
    ),
    "a decision": Decision.deny,
    "an answer": Decision.answer,
    "an edit": Decision.edit,
    "a kind": Decision,
    "arguments": look.parse,
    "an output text": JsonSchema({"type": "object"}).check,
    "a message": message_from_json,
    "messages": dump_messages,
    "a stored history": load_messages,
}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("use", USES)
def test_a_callers_mistake_is_ours_or_a_type_or_value_error(use: str, junk: str) -> None:
    """Never an AttributeError, an AssertionError or a RecursionError."""
    with contextlib.suppress(AgentKitError, TypeError, ValueError):
        USES[use](JUNK[junk])


TEXTS = {
    "half a surrogate pair": '{"n": "\ud800"}',
    "an escaped one": r'{"n": "\ud800"}',
    "one in a key": r'{"\ud800": 1}',
    "a huge integer": '{"n": 1' + "0" * 6000 + "}",
    "a big integer": '{"n": 123456789012345678901234567890}',
    "a huge number": '{"n": 1e999}',
    "a long fraction": '{"n": 0.' + "1" * 5000 + "}",
    "very deep": '{"n": ' + "[" * 5000 + "]" * 5000 + "}",
    "deep": '{"n": ' + "[" * 200 + "]" * 200 + "}",
    "as deep as it may be": '{"n": ' + "[" * 120 + "]" * 120 + "}",
    "deep objects": '{"n":' * 2000 + "1" + "}" * 2000,
    "half a pair in text that is an array": r'{"n": "[\"\\ud800\"]"}',
    "a deep array in text": '{"n": "' + "[" * 500 + "]" * 500 + '"}',
    "a NUL": '{"n": "\\u0000"}',
    "not a number": '{"n": NaN}',
    "cut off": '{"n": "',
}


class Out(BaseModel):
    """An output."""

    n: int


class Outs(BaseModel):
    """An output with an array, which some models send as text."""

    n: int | list[str]


def replayed(made: Agent[Any], path: Path) -> RunResult[Any]:
    """Run an agent, and check that its run can be replayed and its history kept."""
    result = made.run_sync("go", trace=path)
    assert result.status == "ok"
    assert made.replay_sync(path) == result
    assert load_messages(dump_messages(result.messages)) == result.messages
    return result


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("approval", [False, lambda context, args: False])
def test_no_arguments_end_a_run(name: str, approval: Any, tmp_path: Path) -> None:
    """They run, or the model reads why they do not."""
    parameters = {"type": "object", "properties": {"n": {}}}
    raw = Tool.from_schema("raw", "Take anything.", parameters, lambda n=None: n)
    calls = [
        (one.name, TEXTS[name].replace('"n"', f'"{key}"')) for one, key in ((look, "q"), (raw, "n"))
    ]
    tools = [one.with_(approval=approval) for one in (look, raw)]
    made = Agent(ScriptedModel([calls, "done"]), tools=tools)
    assert replayed(made, tmp_path / "run.jsonl").output == "done"


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("mode", ["native", "tool"])
def test_no_output_ends_a_run(name: str, mode: Any, tmp_path: Path) -> None:
    """The model is asked again, and its history can be kept."""
    texts = [TEXTS[name], '{"n": 1}']
    answers: Any = [[("final_output", text)] for text in texts] if mode == "tool" else texts
    for number, type_ in enumerate((Out, Outs)):
        made = Agent(ScriptedModel(answers), output=type_, output_mode=mode)
        output = replayed(made, tmp_path / f"{number}.jsonl").output
        assert output.n in (1, 123456789012345678901234567890, ["\x00"], "\x00")


@pytest.mark.parametrize("name", ["\ud800", "", "a.b", "x" * 9999, "look\x00", "../..", "\u202e"])
@pytest.mark.parametrize("approval", [False, True])
def test_no_name_and_no_id_ends_a_run(name: str, approval: bool, tmp_path: Path) -> None:
    """A tool that does not exist is named, whatever its name."""
    calls = (
        ToolCall(id=name, name="look", arguments="{}"),
        ToolCall(id="b", name=name, arguments=""),
    )
    message = AssistantMessage(tool_calls=calls if not approval else calls[1:])
    first = ModelResponse(message=message, finish="tool_calls")
    made = Agent(ScriptedModel([first, "done"]), tools=[look.with_(approval=approval)])
    assert replayed(made, tmp_path / "run.jsonl").output == "done"


@pytest.mark.parametrize(
    "name", ["tools", "output_validators", "middleware", "settings", "limits", "redact"]
)
def test_none_is_the_default_where_the_pages_say_so(name: str) -> None:
    """Of an agent's options, and of a run's listener and history."""
    agent: Agent[Any, Any] = Agent(ScriptedModel(["Hello."] * 3), **{name: None})
    given: dict[str, Any] = {"on_event": None, "history": None, "settings": None}
    result = agent.run_sync("Hi", **given)
    assert result.output == "Hello."
    assert agent.replay_sync(result.trace, on_event=None).output == "Hello."  # type: ignore[arg-type]
    assert agent.fork_sync(result.trace, at="/agent/m0", on_event=None).output == "Hello."  # type: ignore[arg-type]
