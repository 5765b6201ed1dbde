"""The input of the loop and its result: data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from agentkit.core.effects import Address, Failure, OnCrash, PendingCall
from agentkit.errors import InvalidArguments
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    OutputFormat,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    Usage,
)
from agentkit.settings import Limits

__all__ = [
    "Accepted",
    "AgentSpec",
    "Finish",
    "OfferedTool",
    "OutputSpec",
    "PartialReader",
    "Place",
    "Rejected",
    "RunStatus",
]

OutputT = TypeVar("OutputT")
RunStatus: TypeAlias = Literal["ok", "error", "limit", "cancelled", "paused", "handoff"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferedTool:
    """A tool as the loop knows it.

    Attributes:
        definition: What the model sees.
        effect: What it does to the world.
        on_crash: What becomes of a call that is interrupted; None goes by `effect`.
        approval: Whether a person has to agree to a call: never, always, or as the
            tool's own function says.
        deferred: Its calls are answered from outside.
        sequential: Its calls run alone.
        handoff: The agent that takes the conversation over when this tool is called.
        source: Who wrote the definition, if the program's author did not.
    """

    definition: ToolDefinition
    effect: Literal["read", "write"] = "write"
    approval: Literal["never", "always", "ask"] = "never"
    deferred: bool = False
    sequential: bool = False
    handoff: str | None = None
    on_crash: OnCrash | None = None
    source: str | None = None

    def to_json(self) -> JsonObject:
        """Return the JSON form in which the tools of a toolset are recorded."""
        rest = (self.effect, self.approval, self.deferred, self.sequential, self.handoff)
        data = {"definition": self.definition.to_json(), "facts": [*rest, self.on_crash]}
        return data if self.source is None else {"source": self.source, **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OfferedTool:
        """Rebuild a tool from `to_json`."""
        effect, approval, deferred, sequential, handoff, on_crash = data["facts"]
        return cls(
            definition=ToolDefinition.from_json(data["definition"]),
            effect=effect,
            approval=approval,
            deferred=deferred,
            sequential=sequential,
            handoff=handoff,
            on_crash=on_crash,
            source=data.get("source"),
        )


class PartialReader(Protocol):
    """Reads the beginning of an output while it is being written."""

    def feed(self, piece: str) -> Any:
        """Take a piece of text; return the value so far, or None if nothing new can be seen."""
        ...


Place: TypeAlias = tuple[str, ...] | None
"""The property of a JSON text that is just the output, to the type of each number.

`()` is the whole text; None where nobody has compared them.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted(Generic[OutputT]):
    """The message holds an output of the right type; `call` if it came as a call."""

    value: OutputT
    text: str = ""
    call: ToolCall | None = None
    place: Place = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Where a model has written an output: an answer, or a call, and the JSON text there."""

    at: Address
    text: str
    place: Place = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """The message holds no valid output. `problem` is what the model reads."""

    text: str = ""
    problem: str = ""
    call: ToolCall | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSpec(Generic[OutputT]):
    """How one agent's output is asked for and checked.

    Attributes:
        check: Text to value, and its place there; raises InvalidArguments or ValueError.
        format: The `response_format`, in the native and json modes.
        tool: The tool through which the output comes, in the tool mode.
        instructions: What the system message says of it, in the json and prompt modes.
        schema: The JSON Schema of the output; None for plain text.
        finishing: A function of the user's gets the output as its arguments, and its value
            is the result.
        effect: What that function does to the world.
        on_crash: What becomes of a call of it that is interrupted; None goes by `effect`.
        revive: The value of that function from what was recorded of it.
        partial: Makes a reader of the output while it is written; None if there is nothing
            to be seen before its end.
    """

    check: Callable[[str], tuple[OutputT, Place]]
    format: OutputFormat | None = None
    tool: ToolDefinition | None = None
    instructions: str | None = None
    schema: JsonObject | None = None
    finishing: bool = False
    effect: Literal["read", "write"] = "write"
    on_crash: OnCrash | None = None
    revive: Callable[[Any], Any] = lambda value: value
    partial: Callable[[], PartialReader] | None = None

    def read(self, message: AssistantMessage) -> Accepted[OutputT] | Rejected:
        """Look for the output in what the model said."""
        if self.tool is None:
            if message.tool_calls or not message.text:
                return Rejected()
            return self._verdict(message.text, None)
        for call in message.tool_calls:
            if call.name == self.tool.name:
                return self._verdict(call.arguments, call)
        problem = f"Give your final answer by calling the tool {self.tool.name}."
        return Rejected(text=message.text, problem=problem)

    def _verdict(self, text: str, call: ToolCall | None) -> Accepted[OutputT] | Rejected:
        try:
            value, place = self.check(text)
            return Accepted(value=value, text=text, call=call, place=place)
        except InvalidArguments as error:
            problem = error.message
        except ValueError as error:
            problem = f"The output does not fit:\n{error}"
        return Rejected(
            text=text, problem=f"{problem}\nGive the whole corrected output.", call=call
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
        written: Where a model has written the output; None for one that a function returned.
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
    written: Written | None = None
    error: Failure | None = None
    pending: tuple[PendingCall, ...] = ()
    final: bool = False
    at: Address | None = None
    handoff: tuple[str, Address] | None = None
