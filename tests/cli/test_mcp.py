"""`agentkit mcp`: what it serves, and what it refuses. How it serves is in tests/mcp."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.support import ROOT, needs, run_loaded

pytestmark = needs("mcp")
AGENTS = """
from agentkit import Agent, tool
from agentkit.testing import ScriptedModel

@tool
def add(a: int) -> int:
    '''Add.'''
    return a

one = Agent(ScriptedModel(["1"]), tools=[add], name="one")
two = Agent(ScriptedModel(["2"]), name="two")
"""


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run_loaded("-m", "agentkit", *arguments, cwd=folder, typed="")


def test_it_ends_with_its_client(tmp_path: Path) -> None:
    """Where stdin ends, the server ends well, and stdout was the wire alone."""
    file = tmp_path / "app.py"
    file.write_text(AGENTS + "\nprint('loaded')\n")
    done = run("mcp", "app.py:one", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "loaded" in done.stderr


def test_it_says_what_it_cannot_serve(tmp_path: Path) -> None:
    """A file with several agents, a name that is not there, and a bad address are refused."""
    file = tmp_path / "app.py"
    file.write_text(AGENTS)
    done = run("mcp", "app.py", folder=tmp_path)
    assert done.returncode == 2
    assert "write app.py:NAME. It has add, one, two." in " ".join(done.stderr.split())
    done = run("mcp", "app.py:three", folder=tmp_path)
    assert "has no 'three'; it has add, one, two." in " ".join(done.stderr.split())


def test_it_says_that_a_port_is_used_before_it_says_that_it_serves(tmp_path: Path) -> None:
    """One line with the address and the reason."""
    (tmp_path / "app.py").write_text(AGENTS)
    with socket.create_server(("127.0.0.1", 0)) as used:
        address = f"127.0.0.1:{used.getsockname()[1]}"
        done = run("mcp", "app.py:one", "--http", address, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Cannot listen at {address}: Address already in use." in " ".join(done.stderr.split())
    assert "Serving" not in done.stderr


def test_tools_lists_those_of_a_server(tmp_path: Path) -> None:
    """`agentkit tools` starts an MCP server that an agent uses, and says who described them."""
    file, server = tmp_path / "app.py", ROOT / "tests" / "mcp" / "scripted_server.py"
    file.write_text(
        "import sys\nfrom agentkit import Agent\nfrom agentkit.mcp import stdio\n"
        "from agentkit.testing import ScriptedModel\n"
        f"tools = stdio(sys.executable, {str(server)!r}, {str(tmp_path)!r}, name='s')\n"
        "agent = Agent(ScriptedModel(['1']), tools=[tools])\n"
    )
    done = run("tools", "app.py", folder=tmp_path)
    assert done.returncode == 0
    assert "described by mcp:s" in " ".join(done.stdout.split())
