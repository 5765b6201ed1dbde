"""Says what has changed in an agent since a run of it was recorded.

A trace has the hash of what decides its agent's behaviour, and the requests show what it was:
instructions, tools and the type of the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentkit.core.spec import AgentSpec
from agentkit.errors import ReplayDivergence
from agentkit.messages import JsonObject, ModelRequest, ToolDefinition
from agentkit.redaction import Redactor
from agentkit.replay.answers import Recording
from agentkit.runtime.assemble import Program, program_hash
from agentkit.trace.compare import ABSENT, Found, differences, excerpt, without_digests
from agentkit.trace.effects import RecordedEffect
from agentkit.trace.naming import Namer, packed, request_params

_LINES = 10
"""Changes beyond this many are counted only."""
_ADVICE = (
    "Resume with the agent as it was. To go on with the agent as it is now, pass force=True "
    "(on the command line --force): what is recorded stays, and the rest follows the new one."
)


def program_change(
    recorded: Recording, program: Program[Any], redact: Redactor
) -> ReplayDivergence | None:
    """Return how the agent differs from the one that recorded the run last; None if it does not.

    Args:
        recorded: The run.
        program: The agent as it is now.
        redact: Takes secrets out of both.
    """
    if recorded.program == program_hash(program, redact):
        return None
    call = recorded.last_request
    changes = [] if call is None else list(_changes(recorded, call, program.spec, redact))
    lines = [f"  {what}: {_line(found)}" for what, found in changes[:_LINES]]
    if len(changes) > _LINES:
        lines.append(f"  and {len(changes) - _LINES} more")
    if not changes:
        lines = ["  what, its trace does not show: it ends before that was asked for."]
    first = changes[0][1] if changes else None
    at = program.spec.at
    return ReplayDivergence(
        "\n".join([f"program_changed at {at}: the agent is not as it was:", *lines, _ADVICE]),
        kind="program_changed",
        at=str(at),
        pointer=first.pointer if first else None,
        expected=first.expected if first else None,
        actual=first.actual if first else None,
        position=first.position if first else None,
        cause=changes[0][0] if changes else None,
        suppressed=len(changes) - 1 or None if changes else None,
        advice=_ADVICE,
    )


def _line(found: Found) -> str:
    then, now = (excerpt(one, found.position, 80) for one in (found.expected, found.actual))
    return f"{found.pointer}: {then} → {now}"


def _changes(
    recorded: Recording, call: RecordedEffect, spec: AgentSpec[Any], redact: Redactor
) -> Iterator[tuple[str, Found]]:
    """Yield which part of the agent has changed, and how, as a request shows it."""
    namer, trace, start = Namer(redact), recorded.trace, call.start or {}
    sides = [without_digests] if recorded.other_key else []

    def between(then: Any, now: Any, pointer: str) -> Iterator[Found]:
        for side in sides:
            then, now = side(then), side(now)
        return differences(then, now, pointer)

    if not spec.dynamic:
        texts = (spec.instructions, spec.output.instructions)
        text = "\n\n".join(one for one in texts if one)
        now = packed(text, redact) if text else ABSENT
        first: JsonObject = trace.blob(call.messages[0])
        then = first["content"] if first.get("role") == "system" else ABSENT
        for found in between(then, now, "/messages/0/content"):
            yield "the instructions", found
    definitions = tuple(tool.definition for tool in spec.tools)
    if spec.output.tool is not None:
        definitions = (*definitions, spec.output.tool)
    yield from _tools(recorded, start, namer, definitions, between)
    request = ModelRequest(messages=(), output=spec.output.format)
    now = request_params(request, redact).get("output", ABSENT)
    then = start["params"].get("output", ABSENT)
    then = then if then == ABSENT else trace.blob(then)
    for found in between(then, now, "/params/output"):
        yield "the output type", found


def _tools(
    recorded: Recording,
    start: JsonObject,
    namer: Namer,
    definitions: tuple[ToolDefinition, ...],
    between: Any,
) -> Iterator[tuple[str, Found]]:
    """Yield the changes of tools, by name; what toolsets offer is listed anew at each step."""
    then: dict[str, Any] = {
        one["function"]["name"]: one for one in recorded.trace.blob(start["tools"])
    }
    now: dict[str, Any] = {one["function"]["name"]: one for one in namer.tools(definitions)[1]}
    listed = recorded.listed(recorded.trace.agent_start.get("at", ""))
    for name in [*then, *(name for name in now if name not in then)]:
        if name in listed and name not in now:
            continue
        pointer = f"/tools/{name}"
        if name not in now:
            yield f"the tool {name} is gone", Found(pointer, then[name]["function"], ABSENT)
        elif name not in then:
            yield f"the tool {name} is new", Found(pointer, ABSENT, now[name]["function"])
        else:
            for found in between(then[name], now[name], pointer):
                yield f"the tool {name}", found
