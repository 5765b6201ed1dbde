"""Resuming with an agent that has changed: what changed is named, and `force` goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentkit import Agent, Handoff, RunContext, Tool, Toolset, Trace, tool
from agentkit.errors import ReplayDivergence
from agentkit.testing import ScriptedModel
from tests.support import events_of, tool_texts

pytestmark = pytest.mark.anyio


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


@tool(name="delete", approval=True)
def delete_all(path: str, recursive: bool = False) -> str:
    """Delete a file or a folder."""
    return f"deleted {path}, {recursive}"


@tool(name="delete", approval=True)
def delete_for_good(path: str) -> str:
    """Delete a file for good."""
    return f"deleted {path} for good"


@tool
def look() -> str:
    """Look around."""
    return "nothing"


class City(BaseModel):
    """A typed output."""

    name: str


AT = "/agent/m0/t0"


def agent(*script: Any, **options: Any) -> Agent[Any]:
    """An agent that may delete files."""
    options = {"tools": [delete], "instructions": "Be brief.", **options}
    return Agent(ScriptedModel(list(script)), **options)


async def paused(path: Path, **options: Any) -> Path:
    """A run that waits for a decision."""
    result = await agent([("delete", {"path": "a"})], **options).run("Go.", trace=path)
    assert result.status == "paused"
    return path


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (
            {},
            {"instructions": "Be long."},
            ["the instructions: /messages/0/content: 'Be brief.' → 'Be long.'"],
        ),
        ({}, {"tools": [delete, look]}, ["the tool look is new: /tools/look: (absent) → {"]),
        ({"tools": [delete, look]}, {}, ["the tool look is gone: /tools/look: {", "→ (absent)"]),
        (
            {},
            {"tools": [delete_all], "instructions": None},
            [
                "the instructions: /messages/0/content: 'Be brief.' → (absent)",
                "the tool delete: /tools/delete/function/description: 'Delete a file.' → "
                "'Delete a file or a folder.'",
                "the tool delete: /tools/delete/function/parameters/properties/recursive: "
                "(absent) → {",
            ],
        ),
        ({}, {"output": City}, ["the output type: /params/output: (absent) → {"]),
    ],
    ids=["instructions", "new tool", "tool is gone", "several", "output"],
)
async def test_what_has_changed_is_named(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], lines: list[str]
) -> None:
    """Each part of the agent that is not as it was, and nothing is written."""
    path = await paused(tmp_path / "run.jsonl", **before)
    written = path.read_bytes()
    with pytest.raises(ReplayDivergence) as changed:
        await agent("Done.", **after).resume(path, decisions={AT: True})
    error = changed.value
    assert error.kind == "program_changed"
    assert error.message.startswith("program_changed at /agent: the agent is not as it was:\n  ")
    for line in lines:
        assert line in error.message
    assert "force=True" in error.message
    assert path.read_bytes() == written
    assert (await agent("Done.", **before).resume(path, decisions={AT: True})).output == "Done."


async def test_force_goes_on_with_the_changed_agent(tmp_path: Path) -> None:
    """What is recorded stays, what follows is the new agent's, and a warning says what changed."""
    path = await paused(tmp_path / "run.jsonl")
    changed = agent("Done.", tools=[delete_for_good, look], instructions="Be long.")
    result = await changed.resume(path, decisions={AT: True}, force=True)
    assert result.output == "Done."
    assert tool_texts(result) == ["deleted a for good"]
    (request,) = changed.model.requests  # type: ignore[union-attr]
    assert request.messages[0].text == "Be long."
    assert [one.code for one in result.warnings] == ["program_changed"]
    assert "the tool look is new" in result.warnings[0].text
    (warning,) = events_of(Trace.load(path), "warning")
    assert warning["code"] == "program_changed"


async def test_a_run_that_was_forced_is_the_changed_agents(tmp_path: Path) -> None:
    """It resumes and replays with that agent as it is, and no more with the old one."""
    path = await paused(tmp_path / "run.jsonl")
    new: dict[str, Any] = {"tools": [delete_for_good], "instructions": "Be long."}
    again = [("delete", {"path": "b"})]
    result = await agent(again, **new).resume(path, decisions={AT: True}, force=True)
    assert result.status == "paused"
    with pytest.raises(ReplayDivergence, match=r"'Be long.' → 'Be brief.'"):
        await agent().resume(path)
    result = await agent("Done.", **new).resume(path, decisions={"/agent/m1/t0": True})
    assert tool_texts(result) == ["deleted a for good", "deleted b for good"]
    assert await agent(**new).replay(path) == result


async def test_what_was_approved_is_what_runs(tmp_path: Path) -> None:
    """A tool that adds a parameter to the approved call does not run, forced or not."""
    path = await paused(tmp_path / "run.jsonl")
    changed = agent("Done.", tools=[delete_all])
    result = await changed.resume(path, decisions={AT: True}, force=True)
    (text,) = tool_texts(result)
    assert text.startswith("The tool was not run: it reads the arguments in another way")


async def test_a_tool_that_is_gone_is_no_more_called(tmp_path: Path) -> None:
    """A forced run with an approved call of it tells the model which tools there are."""
    path = await paused(tmp_path / "run.jsonl")
    changed = agent("Done.", tools=[look])
    result = await changed.resume(path, decisions={AT: True}, force=True)
    assert tool_texts(result) == ["There is no tool 'delete'. The tools are: look."]


async def test_an_agent_that_changed_before_its_first_answer_is_noticed(tmp_path: Path) -> None:
    """No answer depends on the old one yet, but somebody has changed what runs."""
    path = tmp_path / "run.jsonl"
    await agent("Done.").run("Go.", trace=path)
    lines = path.read_bytes().splitlines(keepends=True)
    start = next(at for at, line in enumerate(lines) if b'"model.start"' in line)
    for kept, what in ((start + 1, "the instructions"), (start, "its trace does not show")):
        path.write_bytes(b"".join(lines[:kept]))
        with pytest.raises(ReplayDivergence, match=what):
            await agent("Done.", instructions="Be long.").resume(path)
    result = await agent("Done.", instructions="Be long.").resume(path, force=True)
    assert result.output == "Done."


class Tools(Toolset):
    """Offers what it is given."""

    def __init__(self, *tools: Tool[..., Any]) -> None:
        self.offered = tools

    def tools(self, context: RunContext[Any]) -> Any:
        """The tools."""
        return self.offered


async def test_what_a_toolset_offers_is_no_part_of_the_agent(tmp_path: Path) -> None:
    """It is listed anew at each step; only the fixed tools are compared."""
    path = await paused(tmp_path / "run.jsonl", tools=[delete, Tools(look)])
    with pytest.raises(ReplayDivergence) as changed:
        await agent(tools=[delete_all, Tools()]).resume(path)
    assert "look" not in changed.value.message
    result = await agent("Done.", tools=[delete, Tools()]).resume(path, decisions={AT: True})
    assert result.output == "Done."


async def test_force_goes_on_with_a_changed_sub_agent(tmp_path: Path) -> None:
    """The hash is of the outermost agent; a difference below it is named, too."""
    path = tmp_path / "run.jsonl"

    def front(inner: Any, *script: Any, **options: Any) -> Agent[Any]:
        helper = agent(*inner, name="helper", **options)
        return Agent(ScriptedModel(list(script)), tools=[helper.as_tool()])

    call = [("delete", {"path": "a"})]
    await front([call], [("helper", {"prompt": "Clean up."})]).run("Go.", trace=path)
    at = "/agent/m0/t0/helper/m0/t0"
    changed: dict[str, Any] = {"instructions": "Be long."}
    with pytest.raises(ReplayDivergence, match="Be long"):
        await front([], **changed).resume(path, decisions={at: True})
    result = await front(["Clean."], "Done.", **changed).resume(
        path, decisions={at: True}, force=True
    )
    assert result.output == "Done."


async def test_force_is_true_or_false(tmp_path: Path) -> None:
    """A path, say, is refused before anything is read."""
    with pytest.raises(Exception, match="force='yes'"):
        await agent().resume(tmp_path / "no", force="yes")  # type: ignore[arg-type]


async def test_a_handoff_is_a_tool(tmp_path: Path) -> None:
    """An agent that may hand over since has changed."""
    path = await paused(tmp_path / "run.jsonl")
    other = Agent(ScriptedModel([]), name="other")
    with pytest.raises(ReplayDivergence, match="the tool transfer_to_other is new"):
        await agent(tools=[delete, Handoff(other)]).resume(path)
