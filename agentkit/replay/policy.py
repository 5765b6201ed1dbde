"""What a replay answers from the recording, what it does for real, and how strictly it compares."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, TypedDict, get_args, get_type_hints

from agentkit.errors import ConfigurationError
from agentkit.trace.compare import Strictness

__all__ = ["PRESETS", "Policy", "PolicyName", "PolicyOptions", "policy_of"]

PolicyName: TypeAlias = Literal["exact", "tools_live", "model_live"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How a recorded run is run again.

    Attributes:
        model: Whether models answer from the recording or are asked.
        tools: Whether tools answer from the recording or run; `by_effect` runs those that
            only read.
        live_tools: The names of tools that run, and no others: an allow-list.
        compute: Whether the agent's own functions (instructions, validators, …) answer from
            the recording or run.
        order: Effects begin and end in the order of the recording, or as they come.
        timing: How long recorded effects take, as a multiple of what they took then.
        strictness: What has to be the same; see `agentkit.trace.compare`.
        on_divergence: At the first difference: end with a `ReplayDivergence`, note it in
            `result.divergences` and go on, or do for real what comes from there on.
    """

    model: Literal["recorded", "live"] = "recorded"
    tools: Literal["recorded", "live", "by_effect"] = "recorded"
    live_tools: Collection[str] = ()
    compute: Literal["recorded", "live"] = "recorded"
    order: Literal["recorded", "free"] = "recorded"
    timing: float = 0
    strictness: Strictness = "exact"
    on_divergence: Literal["raise", "warn", "go_live"] = "raise"

    def __post_init__(self) -> None:
        """Check the values before anything is read."""
        for name, hint in get_type_hints(Policy).items():
            allowed = get_args(hint)
            value = getattr(self, name)
            if name == "live_tools":
                if isinstance(value, str):
                    raise ConfigurationError(f"live_tools={value!r}: expected a list of names.")
            elif name == "timing":
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if not number or not 0 <= value < float("inf"):
                    raise ConfigurationError(f"timing={value!r}: expected a number >= 0.")
            elif value not in allowed:
                raise ConfigurationError(f"{name}={value!r}: expected one of {allowed}.")

    @property
    def acts(self) -> bool:
        """Whether anything may be done for real, and take its own time."""
        recorded = self.model == self.tools == self.compute == "recorded"
        return not recorded or bool(self.live_tools) or self.on_divergence == "go_live"

    def runs(self, tool: str, effect: str) -> bool:
        """Whether calls of this tool run for real."""
        if self.live_tools:
            return tool in self.live_tools
        return self.tools == "live" or (self.tools == "by_effect" and effect == "read")


class PolicyOptions(TypedDict, total=False):
    """What `replay` may be told besides the name of a policy; see `Policy`."""

    model: Literal["recorded", "live"]
    tools: Literal["recorded", "live", "by_effect"]
    live_tools: Collection[str]
    compute: Literal["recorded", "live"]
    order: Literal["recorded", "free"]
    timing: float
    strictness: Strictness
    on_divergence: Literal["raise", "warn", "go_live"]


PRESETS: Mapping[str, Policy] = {
    "exact": Policy(),
    "tools_live": Policy(tools="by_effect", strictness="structural", on_divergence="warn"),
    "model_live": Policy(model="live", compute="live", order="free", strictness="request"),
}


def policy_of(policy: PolicyName | Policy, options: Mapping[str, Any]) -> Policy:
    """A policy by its name, or given, with changes.

    Raises:
        ConfigurationError: There is no such policy, or a value cannot be meant.
        TypeError: There is no option of this name.
    """
    known = PRESETS.get(policy) if isinstance(policy, str) else policy
    if not isinstance(known, Policy):
        names = ", ".join(map(repr, PRESETS))
        raise ConfigurationError(f"policy={policy!r} is unknown; there are {names}, and Policy(…).")
    if unknown := options.keys() - {field.name for field in fields(Policy)}:
        raise TypeError(f"A replay has no option {', '.join(sorted(unknown))}")
    return replace(known, **options)
