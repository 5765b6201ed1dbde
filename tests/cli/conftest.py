"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentkit import Agent, ChatModel
from agentkit.cli.console import ERR, OUT
from agentkit.errors import AgentKitError
from agentkit.testing import ChatServer, ScriptedModel, raw, reply
from tests.cli.support import TRAVEL, delete, double


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the consoles of this process a width, whatever the terminal's is."""
    for console in (OUT, ERR):
        monkeypatch.setattr(console, "width", 1000)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs: one with a failing call, one retried, one paused, one failed."""
    folder = tmp_path_factory.mktemp("folder")
    script = [[("double", {"number": 1}), ("double", {"number": 13})], "Two \u202eand no luck."]
    counting = Agent(ScriptedModel(script), tools=[double], instructions="Count.")
    counting.run_sync("Double these", trace=folder / "count.jsonl")
    busy = raw(429, {"error": {"message": "slow down"}}, headers={"retry-after": "0"})
    with ChatServer([busy, reply("Hello.")]) as server:
        model = ChatModel("small", base_url=server.base_url)
        Agent(model, name="polite").run_sync("word " * 60, trace=folder / "hello.jsonl")
    cleaner = Agent(ScriptedModel([[("delete", {"path": "/a"})]]), tools=[delete], name="cleaner")
    cleaner.run_sync("Clean up", trace=folder / "clean.jsonl")
    with pytest.raises(AgentKitError):
        Agent(ScriptedModel([])).run_sync("Fail", trace=folder / "fail.jsonl")
    return folder


@pytest.fixture
def travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an application, a run of its agent, and one that waits for a decision."""
    monkeypatch.setenv("AGENTKIT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("AGENTKIT_TRACE_DIR", raising=False)
    (tmp_path / "app.py").write_text(TRAVEL)
    monkeypatch.chdir(tmp_path)
    exec(compile(TRAVEL, "app.py", "exec"), {"__name__": "__main__"})
    return tmp_path
