"""A run in a few fields: what a list of runs, the head of a page and a tree show of it."""

from __future__ import annotations

import sys
import time
from typing import Any

from agentkit.errors import AgentKitError
from agentkit.messages import JsonObject
from agentkit.trace.reader import Trace


def summary(trace: Trace) -> JsonObject:
    """Return what a list of runs shows of one. Times are in seconds."""
    effects = [*trace.effects.values()]
    root = next((one for one in effects if one.kind == "agent"), None)
    end = (root.end if root is not None else None) or {}
    steps = [one for one in effects if one.kind == "model"]
    usage = trace.effects.usage
    return {
        "file": None if trace.path is None else str(trace.path),
        "run": trace.run,
        "wall": trace.header.get("wall"),
        "status": state_of(trace),
        "fork": trace.header.get("fork"),
        "agent": trace.agent_start.get("agent"),
        "prompt": prompt_of(trace),
        "steps": len(steps),
        "tool_calls": sum(one.kind == "tool" and one.begun for one in effects),
        "usage": usage.to_json(),
        "cost": usage.cost,
        "seconds": trace.events[-1]["t"] / 1e6,
        "output": root.packed_output if root is not None else None,
        "error": end.get("error"),
    }


def prompt_of(trace: Trace) -> Any:
    """Return the content of the last message that the run began with; None without one."""
    try:
        messages, _ = trace.input()
    except AgentKitError:
        return None  # no agent has started, or its input is not in the trace
    return messages[-1].to_json()["content"] if messages else None


def state_of(trace: Trace) -> str:
    """Return how the run ended; `running` if a process is known to be writing it still."""
    if trace.status != "interrupted" or trace.path is None or sys.platform == "win32":
        return trace.status
    import fcntl  # there is none on Windows

    try:
        with trace.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # until it is closed, at once
    except BlockingIOError:
        return "running"
    except OSError:
        pass  # a file system without locks
    return trace.status


def now_in(trace: Trace) -> float:
    """Return until when what is open in a run has lasted, in seconds since its trace was opened.

    Of a run that is over, that is its last line; of one that goes on, that and the time since.
    """
    recorded = trace.t / 1e6
    if trace.path is None or state_of(trace) != "running":
        return recorded
    try:
        return recorded + max(0, time.time() - trace.path.stat().st_mtime)
    except OSError:  # it was removed meanwhile
        return recorded
