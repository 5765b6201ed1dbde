"""A model for one run: whatever its form, and what a resumption and a replay make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, Session, tool
from agentkit.errors import ConfigurationError
from agentkit.testing import ScriptedModel

pytestmark = pytest.mark.anyio


@tool(approval=True)
def pay() -> str:
    """Pay."""
    return "paid"


def agent() -> Agent:
    """Return an agent whose own model is never to be asked."""
    return Agent(ScriptedModel([]), tools=[pay])


async def test_every_form_of_a_run_takes_a_model() -> None:
    """The agent's own is not asked, and stays the agent's."""
    asking = agent()
    own = asking.model
    assert (await asking.run("go", model=ScriptedModel(["a"]))).output == "a"
    assert asking.run_sync("go", model=ScriptedModel(["b"])).output == "b"
    async with asking.stream("go", model=ScriptedModel(["c"])) as run:
        assert "".join([text async for text in run.text()]) == "c"
    async with asking.iter("go", model=ScriptedModel(["d"])) as steps:
        assert [step async for step in steps]
    assert steps.result.output == "d"
    assert asking.model is own


async def test_a_session_takes_a_model() -> None:
    """For all its runs, or for one, which wins."""
    session = Session(agent(), model=ScriptedModel(["a", "c"]))
    assert (await session.run("go")).output == "a"
    assert (await session.run("go", model=ScriptedModel(["b"]))).output == "b"
    assert (await session.run("go")).output == "c"


async def test_a_run_with_a_model_is_resumed_with_one(tmp_path: Path) -> None:
    """Under the agent's own it would go on with another key, so that is refused."""
    path, asking = tmp_path / "run.jsonl", agent()
    paused = await asking.run("go", model=ScriptedModel([[("pay", "{}")]]), trace=path)
    assert paused.status == "paused"
    decisions = {paused.pending[0].at: True}
    with pytest.raises(ConfigurationError, match="The run was given model='scripted'"):
        await asking.resume(path, decisions=decisions)
    done = await asking.resume(path, decisions=decisions, model=ScriptedModel(["done"]))
    assert done.output == "done"
    assert (await asking.replay(path)).output == "done"


async def test_what_is_no_model_is_refused() -> None:
    """Before any I/O, and by name."""
    wrong: Any = 5
    with pytest.raises(ConfigurationError, match=r"model=5: expected None or a model string"):
        await agent().run("go", model=wrong)
