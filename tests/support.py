"""Helpers that tests of several folders share: `from tests.support import tool_texts`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from agentkit import RunResult, tool
from agentkit.messages import ModelRequest, ToolMessage
from agentkit.trace import Trace

ROOT = Path(__file__).parents[1]
"""The project's folder."""


@tool
async def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def tool_texts(result: RunResult[Any] | ModelRequest | None) -> list[str]:
    """Return the texts that the model reads from its tools, in order."""
    assert result is not None
    return [message.text for message in result.messages if isinstance(message, ToolMessage)]


def events_of(trace: Trace | None, *kinds: str) -> list[Any]:
    """Return the events of these kinds, in order."""
    assert trace is not None
    return [event for event in trace.events if event["event"] in kinds]


def trace_lines(path: Path) -> list[dict[str, Any]]:
    """Return the decoded lines of a trace file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def child_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment for a child that imports from the same places."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end and check that it succeeds.

    Args:
        arguments: A program and its arguments, or `-c` and code.
        variables: Environment variables to set.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=child_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
