"""A typed output in a trace: where a model has written just that, it is not written again."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from agentkit import Agent, Handoff, Redactor
from agentkit.cli.view.describe import describe
from agentkit.errors import TraceCorrupt
from agentkit.replay import diff
from agentkit.testing import FunctionModel, ScriptedModel
from agentkit.trace import Trace
from agentkit.trace.summary import summary
from tests.support import trace_lines

pytestmark = pytest.mark.anyio
AT = "/agent/m0"


class Meal(BaseModel):
    """A model."""

    name: str
    price: float
    day: date | None = None
    tags: list[str] = Field(default_factory=list)


def ended(path: Path) -> dict[str, Any]:
    """What `agent.end` says of the output."""
    (end,) = [line for line in trace_lines(path) if line["event"] == "agent.end"]
    return {name: value for name, value in end.items() if name.startswith("output")}


WHOLE = '{"name":"soup","price":2.5,"day":"2026-01-31","tags":["hot"]}'
SOUP = {"name": "soup", "price": 2.5, "day": "2026-01-31", "tags": ["hot"]}
THERE: list[tuple[str, Any, str, dict[str, Any]]] = [
    ("as it is", Meal, WHOLE, {"output_at": AT}),
    ("with space", Meal, WHOLE.replace(",", ",\n "), {"output_at": AT}),
    ("in a fence", Meal, f"```json\n{WHOLE}\n```", {"output_at": AT}),
    ("escaped", Meal, WHOLE.replace("soup", r"s\u006fup"), {"output_at": AT}),
    ("wrapped", list[int], '{"value": [1, 2]}', {"output_at": AT, "output_key": "value"}),
    ("plain data", dict[str, int], '{"value": 1}', {"output_at": AT}),
]
ELSEWHERE: list[tuple[str, Any, str, Any]] = [
    ("a text", str, "soup", "soup"),
    ("a number", int, '{"value": 3}', 3),
    ("defaults", Meal, '{"name":"soup","price":2.5}', SOUP | {"day": None, "tags": []}),
    ("another number", Meal, WHOLE.replace("2.5", "2"), SOUP | {"price": 2.0}),
    ("a conversion", Meal, WHOLE.replace("2.5", '"2.5"'), SOUP),
    ("another order", Meal, '{"price":2.5,"day":null,"tags":[],"name":"x"}', None),
    ("bytes", dict[str, bytes], '{"a": "soup"}', {"a": {"$nonjson": "bytes", "value": "c291cA=="}}),
]


@pytest.mark.parametrize("mode", ["native", "tool"])
@pytest.mark.parametrize(("name", "type_", "text", "fields"), THERE)
async def test_what_a_model_has_written_is_referred_to(
    name: str, type_: Any, text: str, fields: dict[str, Any], mode: Any, tmp_path: Path
) -> None:
    """Every reader gets the output from the answer, or from the call that it came as."""
    del name
    path = tmp_path / "run.jsonl"
    script = [[("final_output", text)]] if mode == "tool" else [text]
    agent = Agent(ScriptedModel(script), output=type_, output_mode=mode)
    result = await agent.run("cook", trace=path)
    at = f"{AT}/t0" if mode == "tool" else AT
    assert ended(path) == fields | {"output_at": at}
    then, _ = agent.config.output_spec.check(text)
    assert result.output == then
    value = then.model_dump(mode="json") if isinstance(then, BaseModel) else then
    trace = Trace.load(path)
    assert repr(trace.effects["/agent"].output) == repr(value)
    assert summary(trace)["output"] == value
    assert describe(trace, "/agent")["output"] == value
    assert "output_at" not in describe(trace, "/agent")
    replayed = await agent.replay(path)
    assert replayed.output == then
    assert diff(path, replayed.trace).same


@pytest.mark.parametrize(("name", "type_", "text", "value"), ELSEWHERE)
async def test_what_no_model_has_written_so_is_recorded(
    name: str, type_: Any, text: str, value: Any, tmp_path: Path
) -> None:
    """An output that was completed or converted stands in the trace as it became."""
    path = tmp_path / "run.jsonl"
    agent = Agent(ScriptedModel([text]), output=type_)
    result = await agent.run("cook", trace=path)
    if value is None:
        value = result.output.model_dump(mode="json")
    assert ended(path) == {"output": value}
    assert repr(ended(path)["output"]) == repr(value)
    assert (await agent.replay(path)).output == result.output


async def test_the_value_of_an_output_function_is_recorded(tmp_path: Path) -> None:
    """It is no model's, even where it looks like what the model has written."""

    def cook(name: str) -> dict[str, str]:
        return {"name": name}

    path = tmp_path / "run.jsonl"
    await Agent(ScriptedModel(['{"name":"soup"}']), output=cook).run("cook", trace=path)
    assert ended(path) == {"output": {"name": "soup"}}


SECRETS: list[tuple[str, dict[str, Any], str]] = [
    ("sk-" + "a1B2" * 8, {}, "api_key"),
    ("C-123456", {"patterns": {"customer": "C-[0-9]{6}"}}, "customer"),
    ("soup", {"fields": ["name"]}, "field"),
]


@pytest.mark.parametrize(("secret", "rules", "kind"), SECRETS)
async def test_an_output_with_a_secret_is_recorded_without_it(
    secret: str, rules: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    """Placeholders in the answer's text are not what the output is."""
    path = tmp_path / "run.jsonl"
    text = WHOLE.replace("soup", secret)
    agent = Agent(ScriptedModel([text]), output=Meal, redact=Redactor(**rules, key="k"))
    await agent.run("cook", trace=path)
    assert ended(path)["output"]["name"].startswith(f"⟦{kind}:")
    assert secret.encode() not in path.read_bytes()
    assert (await agent.replay(path)).output.price == 2.5


async def test_the_agent_that_hands_over_has_the_output_of_the_last(tmp_path: Path) -> None:
    """The address leads to the agent that has answered."""
    last = Agent(ScriptedModel([WHOLE]), name="last", output=Meal)
    script = ScriptedModel([[("transfer_to_last", {})]])
    first = Agent(script, name="first", output=Meal, tools=[Handoff(last)])
    path = tmp_path / "run.jsonl"
    result = await first.run("cook", trace=path)
    ends = [line for line in trace_lines(path) if line["event"] == "agent.end"]
    (at,) = {line["output_at"] for line in ends}
    assert len(ends) == 2
    assert at.startswith("/first/m0/t0/last")
    assert Trace.load(path).effects["/first"].output == result.output.model_dump(mode="json")


async def test_below_full_capture_there_is_no_output(tmp_path: Path) -> None:
    """Nor an address of it."""
    path = tmp_path / "run.jsonl"
    await Agent(ScriptedModel([WHOLE]), output=Meal, capture="metadata").run("cook", trace=path)
    assert ended(path) == {}
    assert Trace.load(path).effects["/agent"].output is None


async def test_a_reference_compares_with_a_value(tmp_path: Path) -> None:
    """Two runs differ in their outputs, not in how these were recorded."""
    a, b, c = (tmp_path / f"{name}.jsonl" for name in "abc")
    same = '{"name":"soup","price":2.5,"day":null,"tags":[]}'
    await Agent(FunctionModel(lambda _: same), output=Meal).run("cook", trace=a)
    await Agent(FunctionModel(lambda _: '{"name":"soup","price":2.5}'), output=Meal).run(
        "cook", trace=b
    )
    await Agent(FunctionModel(lambda _: WHOLE), output=Meal).run("cook", trace=c)
    assert [one.kind for one in diff(a, b).differences] == ["response"]
    assert [one.kind for one in diff(a, c).differences] == ["response", "output"]
    found = diff(a, c).differences[1]
    assert (found.pointer, found.a, found.b) == ("/output/day", None, "2026-01-31")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"output_at": "/agent/m7"}, "'/agent/m7'"),
        ({"output_at": "/agent"}, "'/agent'"),
        ({"output_at": AT, "output_key": "nothing"}, f"'{AT}'"),
    ],
)
async def test_an_address_without_an_output_is_damage(
    fields: dict[str, str], named: str, tmp_path: Path
) -> None:
    """Whoever reads the output is told where the trace is wrong."""
    result = await Agent(ScriptedModel([WHOLE]), output=Meal).run("cook")
    lines = result.trace.kept or []
    old = b'"output_at":"/agent/m0"'
    new = ",".join(f'"{name}":"{value}"' for name, value in fields.items()).encode()
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(lines).replace(old, new))
    with pytest.raises(TraceCorrupt, match=f"has {named} as 'output_at'"):
        _ = Trace.load(path).effects["/agent"].output
