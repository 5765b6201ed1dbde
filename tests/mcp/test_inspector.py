"""Our MCP server and the inspector's command line, a foreign client that checks what it gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mcp import served
from tests.mcp.conftest import served_by_http
from tests.support import child_environment, from_npm, needs

pytestmark = [pytest.mark.storm_only, needs("mcp")]
PACKAGES = {"@modelcontextprotocol/inspector": "2.12.0"}
SERVED = str(Path(__file__).parent / "served.py")
LIST = ["--method", "tools/list", "--strict"]
NAMES = ["add", "wipe", "slow", "picture", "helper"]
FAILED_TOOL = 5
"""The inspector's exit status where the result of a tool is an error."""


@pytest.fixture(scope="module")
def inspector() -> list[str]:
    """Return the command of the inspector's command line."""
    node, packages = from_npm("mcp-inspector", PACKAGES)
    folder = packages / "@modelcontextprotocol" / "inspector" / "clients"
    return [node, str(folder / "launcher" / "build" / "index.js"), "--cli"]


def inspect(command: list[str], home: Path, *arguments: str) -> tuple[int, Any]:
    """Return the inspector's exit status, and what it prints as JSON."""
    done = subprocess.run(
        [*command, *arguments],
        cwd=home,
        env=child_environment(HOME=str(home), USERPROFILE=str(home)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def call(name: str, *arguments: str) -> list[str]:
    """Return the arguments that call a tool."""
    given = ["--tool-arg", *arguments] if arguments else []
    return ["--method", "tools/call", "--tool-name", name, *given]


def test_the_inspector_starts_our_server(inspector: list[str], tmp_path: Path) -> None:
    """It lists what a command serves, and calls an agent by stdio."""
    command = [*inspector, sys.executable, "-m", "agentkit", "mcp", f"{SERVED}:ALL"]
    status, listed = inspect(command, tmp_path, *LIST)
    assert (status, [one["name"] for one in listed["tools"]]) == (0, NAMES)
    status, answer = inspect(command, tmp_path, *call("helper", "prompt=40 + 2"))
    assert (status, answer["content"][0]["text"]) == (0, "The sum is 42.")


def test_the_inspector_reaches_our_server(inspector: list[str], tmp_path: Path) -> None:
    """By HTTP: portable schemas, text and images; errors and refusals are results."""
    with served_by_http(*served.ALL) as url:
        command = [*inspector, url]
        status, listed = inspect(command, tmp_path, *LIST)
        assert (status, [one["name"] for one in listed["tools"]]) == (0, NAMES)
        status, pair = inspect(command, tmp_path, *call("picture"))
        assert (status, pair["isError"]) == (0, False)
        assert pair["content"] == [
            {"type": "text", "text": "A pixel."},
            {"type": "image", "data": "iVBORw==", "mimeType": "image/png"},
        ]
        status, wrong = inspect(command, tmp_path, *call("add", "a=many"))
        assert (status, wrong["isError"]) == (FAILED_TOOL, True)
        assert "a: expected an integer" in wrong["content"][0]["text"]
        status, refused = inspect(command, tmp_path, *call("wipe", "path=/x"))
        assert status == FAILED_TOOL
        assert "this client cannot ask for it" in refused["content"][0]["text"]
