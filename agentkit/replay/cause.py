"""Where a difference comes from: the first cause further up, and the user's line of code."""

from __future__ import annotations

import inspect
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from agentkit.core.effects import Effect, ModelCall, ToolInvocation
from agentkit.errors import ReplayDivergence
from agentkit.replay.answers import Recording
from agentkit.tools.tool import Tool
from agentkit.trace.compare import ABSENT, with_cause

_OURS = Path(__file__).parent.parent


def explained(
    found: ReplayDivergence,
    effect: Effect,
    recorded: Recording,
    tools: Mapping[str, Tool[..., Any]],
) -> ReplayDivergence:
    """Return a divergence with its first cause and the line of code behind it."""
    tool = _tool(found, effect)
    function = tools[tool].function if tool is not None and tool in tools else None
    source = _called_from(sys._getframe()) if function is None else _defined(function)  # pyright: ignore[reportPrivateUsage]  # the inspect module's own way is slow
    return with_cause(found, cause=_cause(found, effect, tool, recorded), source=source)


def _tool(found: ReplayDivergence, effect: Effect) -> str | None:
    """Return the name of the tool that a difference is about."""
    if isinstance(effect, ToolInvocation):
        return effect.call.name
    if not isinstance(effect, ModelCall):
        return None
    offered = effect.request.tools
    match (found.pointer or "").split("/"), found.expected:
        # Of a tool that is gone the place is another's by now.
        case ["", "tools", _], {"function": {"name": str(name)}} if found.actual == ABSENT:
            return name
        case ["", "tools", index, *_], _ if index.isdigit() and int(index) < len(offered):
            return offered[int(index)].name
        case _:
            return None


def _cause(
    found: ReplayDivergence, effect: Effect, tool: str | None, recorded: Recording
) -> str | None:
    """Return what a request's difference comes from: an effect before, or a part of the agent."""
    if not isinstance(effect, ModelCall):
        return None
    match (found.pointer or "").split("/"):
        case ["", "messages", index, *_] if index.isdigit():
            return _origin(effect, int(index), recorded)
        case ["", "tools", *_] if tool is not None:
            return f"the tool {tool}"
        case ["", "params", "output", *_]:
            return "the agent's output type"
        case ["", "params", name, *_]:
            return f"the setting {name}"
        case ["", "model", *_]:
            return "the agent's model"
        case _:
            return None


def _origin(call: ModelCall, index: int, recorded: Recording) -> str | None:
    """Return what a request's message comes from."""
    agent, then = call.at.parent, recorded.trace.effects.get(call.at)
    names = then.messages if then is not None else ()
    if index < len(names) and (at := recorded.origin(names[index])) is not None:
        return at
    now = [message.to_json()["role"] for message in call.request.messages[index : index + 1]]
    before = [recorded.trace.blob(name)["role"] for name in names[index : index + 1]]
    if "system" in (*now, *before):
        computed = agent.child("instructions")
        return computed if recorded.begun(computed) else f"the instructions of {agent}"
    return "the prompt or the history that the run began with" if "user" in now else None


def _called_from(frame: FrameType | None) -> str | None:
    """Return the innermost line on the stack that belongs neither to us nor to a library."""
    libraries = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))
    while frame is not None:
        file = frame.f_code.co_filename
        ours = Path(file).is_relative_to(_OURS) or not file.endswith(".py")
        if not ours and not file.startswith(libraries):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _defined(function: Any) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else None
