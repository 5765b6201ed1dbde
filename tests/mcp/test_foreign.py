"""Toolsets of real MCP servers, from the Python package index and from npm."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, Decision, ImagePart, RunContext, ToolMessage
from agentkit.events import ToolProgress
from agentkit.mcp import McpToolset, stdio
from agentkit.testing import ScriptedModel
from tests.support import tool_texts

pytestmark = [pytest.mark.anyio, pytest.mark.storm_only]


async def called(
    toolset: McpToolset, *calls: tuple[str, dict[str, Any]], **options: Any
) -> list[str]:
    """Make these calls in one run; return what the model reads. The run replays without it."""
    agent = Agent(ScriptedModel([*([call] for call in calls), "Done."]), tools=[toolset])
    result = await agent.run("x", **options)
    gone = stdio("/nowhere", name=toolset.name)
    replayed = await agent.with_(tools=[gone]).replay(result.trace)
    assert tool_texts(replayed) == tool_texts(result)
    return tool_texts(result)


async def test_time(python_servers: Path) -> None:
    """mcp-server-time converts a time; its error is the model's to read."""
    toolset = stdio(python_servers / "mcp-server-time", "--local-timezone", "UTC")
    zones = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Kolkata"}
    converted, wrong = await called(
        toolset, ("convert_time", zones), ("get_current_time", {"timezone": "Mars/Olympus"})
    )
    assert json.loads(converted)["time_difference"] == "+5.5h"
    assert "Mars/Olympus" in wrong


async def test_git(python_servers: Path, git_repository: Path) -> None:
    """mcp-server-git reads a repository."""
    toolset = stdio(python_servers / "mcp-server-git", "--repository", str(git_repository))
    here = {"repo_path": str(git_repository)}
    status, log = await called(toolset, ("git_status", here), ("git_log", {**here, "max_count": 1}))
    assert "nothing to commit" in status
    assert "First" in log


async def test_sqlite(sqlite_server: Path, tmp_path: Path) -> None:
    """mcp-server-sqlite, of the SDK's first version, writes and reads a database."""
    toolset = stdio(sqlite_server, "--db-path", str(tmp_path / "a.db"))
    _, _, rows = await called(
        toolset,
        ("create_table", {"query": "CREATE TABLE t (x INTEGER)"}),
        ("write_query", {"query": "INSERT INTO t VALUES (42)"}),
        ("read_query", {"query": "SELECT x FROM t"}),
    )
    assert rows == "[{'x': 42}]"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/page" else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html><body><h1>Opening hours</h1><p>Nine to five.</p></body></html>")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def page() -> Generator[str]:
    """Serve a page on this machine."""
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/page"
        server.shutdown()


async def test_fetch(python_servers: Path, page: str) -> None:
    """mcp-server-fetch reads a page."""
    toolset = stdio(
        python_servers / "mcp-server-fetch", "--ignore-robots-txt", "--allow-private-ips"
    )
    (text,) = await called(toolset, ("fetch", {"url": page, "raw": True}))
    assert "Nine to five." in text


async def test_filesystem(node_servers: Callable[[str], list[str]], tmp_path: Path) -> None:
    """server-filesystem reads and writes in its folder, and nowhere else."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    toolset = stdio(*node_servers("server-filesystem"), str(folder), name="files")
    read, written, refused = await called(
        toolset,
        ("read_text_file", {"path": str(folder / "a.txt")}),
        ("write_file", {"path": str(folder / "b.txt"), "content": "two"}),
        ("read_text_file", {"path": "/etc/passwd"}),
    )
    assert "one" in read
    assert "Successfully wrote" in written
    assert (folder / "b.txt").read_text() == "two"
    assert "denied" in refused


async def test_memory(node_servers: Callable[[str], list[str]], tmp_path: Path) -> None:
    """server-memory keeps what it is told, in structured results."""
    file = {"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")}
    toolset = stdio(*node_servers("server-memory"), name="memory", env=file)
    ann = {"name": "Ann", "entityType": "person", "observations": ["likes tea"]}
    _, graph = await called(toolset, ("create_entities", {"entities": [ann]}), ("read_graph", {}))
    assert json.loads(graph)["entities"] == [ann]


async def test_everything(node_servers: Callable[[str], list[str]]) -> None:
    """server-everything: text, images, structured content, progress, resources and prompts."""
    toolset = stdio(*node_servers("server-everything"), name="everything", resources=True)
    seen: list[Any] = []
    work = {"duration": 1, "steps": 2}
    agent = Agent(
        ScriptedModel(
            [
                [("echo", {"message": "hello"}), ("get-tiny-image", {})],
                [("get-structured-content", {"location": "New York"})],
                [("trigger-long-running-operation", work)],
                "Done.",
            ]
        ),
        tools=[toolset],
    )
    async with toolset:
        result = await agent.run(
            "x", on_event=lambda e: isinstance(e, ToolProgress) and seen.append(e.value)
        )
        assert len(await toolset.resources()) > 0
        assert "simple-prompt" in {one.name for one in await toolset.prompts()}
        assert len(await toolset.prompt("simple-prompt")) == 1
        tools = {one.name for one in await toolset.tools(RunContext())}
    echo, image, weather, long = (
        one.content for one in result.messages if isinstance(one, ToolMessage)
    )
    assert echo == "Echo: hello"
    assert any(isinstance(part, ImagePart) for part in image)
    assert "temperature" in json.loads(str(weather))
    assert "completed" in str(long)
    assert [one["progress"] for one in seen] == [1, 2]
    assert "list_resources" in tools


async def test_everything_asks(node_servers: Callable[[str], list[str]]) -> None:
    """server-everything asks through the approver, and reads the answer."""
    toolset = stdio(*node_servers("server-everything"), name="everything")
    (text,) = await called(
        toolset,
        ("trigger-elicitation-request", {}),
        approver=lambda call: Decision.edit({"name": "Ann", "check": True}),
    )
    assert "Ann" in text
