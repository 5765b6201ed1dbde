"""What the loop is given and what it returns: data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from agentkit.effects import Address, Failure, PendingCall
from agentkit.messages import JsonObject, Message, ToolChoice, ToolDefinition, Usage
from agentkit.output import OutputSpec
from agentkit.settings import Limits

__all__ = ["AgentSpec", "Finish", "OfferedTool", "RunStatus"]

OutputT = TypeVar("OutputT")
RunStatus: TypeAlias = Literal["ok", "error", "limit", "cancelled", "paused", "handoff"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferedTool:
    """A tool as the loop knows it.

    Attributes:
        definition: What the model sees.
        effect: What it does to the world.
        approval: Whether a person has to agree to a call: never, always, or as the
            tool's own function says.
        deferred: Its calls are answered from outside.
        handoff: The agent that takes the conversation over when this tool is called.
    """

    definition: ToolDefinition
    effect: Literal["read", "write"] = "write"
    approval: Literal["never", "always", "ask"] = "never"
    deferred: bool = False
    handoff: str | None = None

    def to_json(self) -> JsonObject:
        """The form in which a dynamic toolset's answer is recorded."""
        rest = (self.effect, self.approval, self.deferred, self.handoff)
        return {"definition": self.definition.to_json(), "facts": list(rest)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OfferedTool:
        """The reverse of `to_json`."""
        effect, approval, deferred, handoff = data["facts"]
        return cls(
            definition=ToolDefinition.from_json(data["definition"]),
            effect=effect,
            approval=approval,
            deferred=deferred,
            handoff=handoff,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentSpec(Generic[OutputT]):
    """What the loop decides by.

    Attributes:
        at: The address of this run of the agent.
        model: The model's name.
        output: How the output is asked for and checked.
        tools: What the model may call.
        toolsets: How many further toolsets are asked, at each step, for what they offer.
        instructions: The system text; `dynamic` says that it is computed instead.
        dynamic: Ask for the instructions through a `Compute` effect.
        settings: Sampling parameters under their chat-completions names.
        step_settings: Ask for those of each step, and its tool choice.
        tool_choice: What the model may or must call at first; after a call that this
            forced it is free again, so that the loop can end, unless `keep_tool_choice`.
        limits: Where the run ends; `repeats` is a number here.
        reasks: How often an output that does not fit is asked for again.
        validators: How many functions have to agree to the output.
        compact_above: Input tokens of a step above which the history is compacted
            before the next one.
    """

    at: Address
    model: str
    output: OutputSpec[OutputT]
    tools: tuple[OfferedTool, ...] = ()
    toolsets: int = 0
    instructions: str | None = None
    dynamic: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    step_settings: bool = False
    tool_choice: ToolChoice | None = None
    keep_tool_choice: bool = False
    limits: Limits = Limits()
    reasks: int = 1
    validators: int = 0
    compact_above: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish(Generic[OutputT]):
    """How a conversation ended.

    Attributes:
        status: How.
        messages: The whole valid history, without instructions.
        new: What this conversation has added to it, whatever was compacted since.
        usage: What it has used, what was used before it included.
        output: The output, when it ended well.
        error: Why it did not.
        pending: The calls that it waits for, when it is paused.
        final: It was ended by an `Interrupt` with an error, which ends a run of which this
            one is a part as well.
        at: The last effect before the end; None before there was one.
        handoff: The agent that goes on, and the address from which it does.
    """

    status: RunStatus
    messages: tuple[Message, ...]
    new: tuple[Message, ...]
    usage: Usage
    output: OutputT | None = None
    error: Failure | None = None
    pending: tuple[PendingCall, ...] = ()
    final: bool = False
    at: Address | None = None
    handoff: tuple[str, Address] | None = None
