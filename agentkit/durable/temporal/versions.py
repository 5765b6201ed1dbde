"""Whether a run that older code began may go on with the agent as it is now.

The loop is replayed from the history each time a worker takes a run over. So what decided it
until then must decide the same again; what is only said to the model may be another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentkit.errors import ReplayDivergence
from agentkit.messages import JsonObject
from agentkit.redaction import Redactor
from agentkit.runtime.assemble import Program, program_hash
from agentkit.trace.compare import divergence
from agentkit.trace.naming import canonical, digest

FORMAT = 1
"""Of the inputs and histories of workflows: what another has written cannot be read."""


def described(program: Program[Any]) -> JsonObject:
    """Return what decides an agent's loop, to be kept with the run."""
    spec = program.spec
    output = [spec.output.schema, spec.output.instructions, spec.output.finishing]
    return {
        "hash": program_hash(program, Redactor(key="agentkit")),
        "tools": {
            one.definition.name: [one.approval, one.deferred, one.sequential, one.handoff]
            for one in spec.tools
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


def hosted(programs: Mapping[str, Program[Any]], name: str) -> Program[Any]:
    """Return the agent of a name.

    Raises:
        RuntimeError: This worker does not host it. That fails one attempt: another worker may.
    """
    if name not in programs:
        known = ", ".join(map(repr, programs))
        raise RuntimeError(f"This worker does not host the agent {name!r}; it has {known}.")
    return programs[name]


class Changes:
    """How the agent differs from the one that began the run."""

    def __init__(self, then: JsonObject, now: JsonObject) -> None:
        self._then, self._now = then["tools"], now["tools"]
        self._loop = next(
            (
                f"{name} was {value!r} and is {now['loop'].get(name)!r}"
                for name, value in then["loop"].items()
                if now["loop"].get(name) != value
            ),
            None,
        )

    def refused(self, at: str) -> ReplayDivergence | None:
        """Return why nothing of the recorded run may be gone through, if so."""
        return None if self._loop is None else _refused(at, self._loop)

    def refused_call(self, at: str, name: str) -> ReplayDivergence | None:
        """Return why a recorded call may not be gone through, if so."""
        then, now = self._then.get(name), self._now.get(name)
        if then == now:
            return None
        return _refused(at, f"the tool {name!r} {_difference(then, now)}")


def _difference(then: Any, now: Any) -> str:
    if now is None:
        return "is gone"
    if then is None:
        return "is new, and was called when there was none"
    names = ("approval", "deferred", "sequential", "handoff")
    changed: Mapping[str, Any] = {
        name: (a, b) for name, a, b in zip(names, then, now, strict=True) if a != b
    }
    return ", ".join(f"had {name}={a!r} and has {b!r}" for name, (a, b) in changed.items())


def _refused(at: str, what: str) -> ReplayDivergence:
    return divergence(
        "outcome_changed",
        at,
        text=f"the run was begun by another version of the agent: {what}.",
        advice="Run it on with workers that have the version which began it, or undo the change: "
        "it waits until then, and nothing is lost.",
    )
