"""The planner of examples/: a program that is a client and a server of MCP, and both are real."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent
from agentkit.mcp import stdio
from agentkit.testing import ChatServer, ScriptedModel, assert_trace, reply
from agentkit.trace import Trace
from tests.mcp.conftest import PYTHON_SERVERS, python_programs
from tests.support import CACHE, ROOT, child_environment, needs, tool_texts

pytestmark = [pytest.mark.anyio, needs("mcp")]
ZONES = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Kolkata"}


@pytest.mark.storm_only
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the example is a process either way
async def test_an_agent_uses_a_server_and_is_one(anyio_backend: str, tmp_path: Path) -> None:
    """Another agent asks the planner, the planner asks mcp-server-time; both are recorded."""
    clock = python_programs(CACHE / "mcp-python", PYTHON_SERVERS) / "mcp-server-time"

    def model(request: Any) -> Any:
        last = request.json["messages"][-1]
        if last["role"] != "tool":
            return reply(calls=[("convert_time", ZONES)])
        return reply(f"At {json.loads(last['content'])['target']['datetime'][11:16]} in Kolkata.")

    with ChatServer(model) as server:
        server_of_it = stdio(
            sys.executable,
            str(ROOT / "examples" / "planner.py"),
            *("--model", "openai:gpt-4o", "--clock", shlex.join([str(clock)])),
            name="planner",
            cwd=tmp_path,
            env=child_environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="k"),
        )
        script = [[("planner", {"prompt": "Noon UTC, in Kolkata?"})], "Half past five."]
        result = await Agent(ScriptedModel(script), tools=[server_of_it]).run("When do we meet?")
    assert tool_texts(result) == ["At 17:30 in Kolkata."]
    assert result.output == "Half past five."
    (file,) = list((tmp_path / "traces").iterdir())
    assert_trace(
        Trace.load(file), [("/mcp/m0/t0/planner/m0/t0", {"name": "convert_time", "status": "ok"})]
    )


def test_what_it_cannot_serve_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that does not exist; stdout is the wire's alone."""
    from examples import planner

    monkeypatch.setattr(sys, "argv", ["planner.py", "--model", "no:x"])
    with pytest.raises(SystemExit):
        planner.main()
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("UnknownModel: ")
