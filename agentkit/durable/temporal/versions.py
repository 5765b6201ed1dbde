"""Whether a run that older code began may go on with the agent as it is now.

The loop is replayed from the history each time a worker takes a run over. So what decided it
until then must decide the same again; what is only said to the model may be another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentkit.errors import ReplayDivergence
from agentkit.messages import JsonObject
from agentkit.runtime.assemble import Program
from agentkit.trace.compare import divergence
from agentkit.trace.naming import canonical, digest

FORMAT = 2
"""Of the inputs and histories of workflows: what another has written cannot be read."""


def described(program: Program[Any]) -> JsonObject:
    """Return what decides an agent's loop, to be kept with the run."""
    spec = program.spec
    output = [spec.output.schema, spec.output.instructions, spec.output.finishing]
    names = ("approval", "deferred", "sequential", "handoff")
    return {
        "tools": {
            one.definition.name: {name: getattr(one, name) for name in names} for one in spec.tools
        },
        "loop": {
            "output": digest(canonical(output)),
            "output_retries": spec.reasks,
            "output_validators": spec.validators,
            "toolsets": spec.toolsets,
            "dynamic instructions": spec.dynamic,
            "step_settings": spec.step_settings,
            "compact_above": spec.compact_above,
        },
    }


def check_unchanged(
    then: JsonObject, now: JsonObject, at: str, calls: Iterable[tuple[str, str]]
) -> None:
    """Refuse to go through an effect that the agent as it was has decided differently.

    Args:
        then: The agent that began the run, as `described`.
        now: The agent here.
        at: The effect.
        calls: The addresses and tools of the calls that it is about.

    Raises:
        ReplayDivergence: The run has to go on with workers that have the agent as it was.
    """
    for name, value in then["loop"].items():
        if (new := now["loop"].get(name)) != value:
            raise _refused(at, f"{name} was {value!r} and is {new!r}")
    for call, name in calls:
        old, new = then["tools"].get(name), now["tools"].get(name)
        if old == new:
            continue
        what = "is gone" if new is None else "is new, and was called when there was none"
        if old is not None and new is not None:
            changed = [one for one in old if old[one] != new[one]]
            what = ", ".join(f"had {one}={old[one]!r} and has {new[one]!r}" for one in changed)
        raise _refused(call, f"the tool {name!r} {what}")


def _refused(at: str, what: str) -> ReplayDivergence:
    return divergence(
        "outcome_changed",
        at,
        text=f"the run was begun by another version of the agent: {what}.",
        advice="Run it on with workers that have the version which began it, or undo the change: "
        "it waits until then, and nothing is lost.",
    )
