"""The scenarios of @modelcontextprotocol/conformance that a tool server and a client have."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mcp import conformance_server
from tests.mcp.conftest import served_by_http
from tests.support import child_environment

pytest.importorskip("mcp")
SERVER = """server-initialize ping tools-list tools-call-simple-text tools-call-image
    tools-call-audio tools-call-embedded-resource tools-call-mixed-content tools-call-error
    tools-call-with-progress tools-call-elicitation elicitation-sep1034-defaults
    elicitation-sep1330-enums server-sse-multiple-streams dns-rebinding-protection""".split()
"""Those of the runner's scenarios that are about tools; it has others for resources and prompts."""


def run(*command: str) -> str:
    """Return what the runner prints."""
    done = subprocess.run(
        command, env=child_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def test_our_server_conforms(conformance: list[str]) -> None:
    """Our server passes every scenario of a server that has tools."""
    with served_by_http(*conformance_server.TOOLS) as url:
        words = run(*conformance, "server", "--url", url)
        passed = re.findall(r"✓ ([\w-]+): \d+ passed, 0 failed", words)
        assert [one for one in SERVER if one not in passed] == [], words[-3000:]
        words = run(*conformance, "server", "--url", url, "--scenario", "json-schema-2020-12")
        assert ", 0 failed, 0 warnings" in words, words


@pytest.mark.parametrize(
    "scenario", ["tools_call", "elicitation-sep1034-client-defaults", "sse-retry"]
)
def test_our_client_conforms(conformance: list[str], scenario: str) -> None:
    """Our client passes the scenarios of a client, but for those of OAuth."""
    program = Path(__file__).parent / "conformance_client.py"
    command = f"{sys.executable} {program}"
    words = run(*conformance, "client", "--command", command, "--scenario", scenario)
    assert "OVERALL: PASSED" in words, words[-3000:]
