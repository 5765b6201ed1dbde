"""What an agent and a run may be told, and what is said of values that cannot be meant.

Type checkers see most mistakes; who has none reads these messages, before any I/O.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeAlias, TypedDict, TypeVar, cast, get_args

from agentkit.errors import ConfigurationError
from agentkit.events import Emit
from agentkit.messages import Message, Part, UserMessage
from agentkit.models.profiles import OutputMode
from agentkit.output.build import Mode
from agentkit.redaction import PLACEHOLDER, Redactor
from agentkit.runtime.assemble import AnyTool, Compaction, Handoff, Instructions, Source
from agentkit.runtime.driver import Middleware, Program
from agentkit.runtime.handlers import Approver
from agentkit.settings import ChatSettings, Limits
from agentkit.tools.toolset import Toolset
from agentkit.trace.naming import canonical
from agentkit.trace.open import TraceTo
from agentkit.trace.recorder import Durability
from agentkit.trace.schema import Capture

__all__ = [
    "AgentOptions",
    "Configured",
    "History",
    "Prompt",
    "RunOptions",
    "TraceTo",
    "check_options",
    "prompt_messages",
    "without_placeholders",
]

Prompt: TypeAlias = str | Sequence[Part] | None
History: TypeAlias = Sequence[Message | Mapping[str, Any]]


OutputT = TypeVar("OutputT")


class Configured(Protocol[OutputT]):
    """An agent, as far as answering it from a recording needs to know."""

    name: str
    tools: tuple[AnyTool | Toolset | Handoff, ...]
    instructions: Instructions | None
    settings: ChatSettings
    capture: Capture
    durability: Durability
    redact: Redactor

    def program(
        self, settings: ChatSettings | None = None, limits: Limits | None = None
    ) -> Program[OutputT]:
        """Return the agent, ready to run."""
        ...

    def with_(self, **changes: Any) -> Self:
        """Return a variant of the agent."""
        ...


class AgentOptions(TypedDict, total=False):
    """What `Agent` takes besides its model and output type; described there."""

    name: str
    tools: Sequence[Source]
    instructions: Instructions | None
    output_mode: Mode
    output_retries: int
    output_validators: Sequence[Callable[..., Any]]
    settings: ChatSettings | None
    step_settings: Callable[..., Any] | None
    limits: Limits | None
    trace: TraceTo | None
    capture: Capture | None
    durability: Durability | None
    redact: Redactor | None
    middleware: Sequence[Middleware]
    concurrency: int | None
    compact: Compaction | None
    compact_above: int | None


class RunOptions(TypedDict, total=False):
    """What every way to run an agent takes besides the prompt.

    Attributes:
        deps: Given to tools as `RunContext.deps`.
        history: Earlier messages: ours, or plain chat-completions dicts.
        repair: Make a history valid that is not, instead of raising `InvalidHistory`.
        settings: Sampling parameters; what is set here wins over the agent's.
        limits: Instead of the agent's.
        trace: Where this run is recorded: a file, a folder (one file a run), True (in
            memory), False (not at all), or a list of structlog processors, which get each
            event after it was recorded in memory; what the last one returns is dropped.
            Without a word here or in the agent it goes to a new file in
            `AGENTKIT_TRACE_DIR` if that is set, else to memory.
        capture: How much is recorded: "full"; "metadata", which is names, hashes, counts,
            tokens, times and statuses without what was said; or "none", which is how the
            agents ended. Only "full" can be replayed.
        durability: When a trace file is brought to the disk: "none" leaves it to the
            system, "close" waits for it at the end, "effects" also before a call that
            writes and after each call, and ends the run if the trace cannot be written.
        redact: Takes secrets out, by your own patterns and fields too; see `Redactor`.
        on_event: Called with each event as it happens. It must not block.
        approver: Decides about calls that need approval: gets the `PendingCall`, gives a
            `Decision`, True or False; sync or async. Without one the run pauses.
    """

    deps: object
    history: History
    repair: bool
    settings: ChatSettings | None
    limits: Limits | None
    trace: TraceTo | None
    capture: Capture | None
    durability: Durability | None
    redact: Redactor | None
    on_event: Emit
    approver: Approver | None


_Check: TypeAlias = Callable[[Any], bool]


def _either(*types: type) -> _Check:
    return lambda value: value is None or isinstance(value, types)


def _sequence(of: _Check = lambda _: True) -> _Check:
    def check(value: Any) -> bool:
        listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        return listed and all(of(one) for one in cast("Sequence[Any]", value))

    return check


def _count(least: int) -> _Check:
    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return check


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _one_of(names: Any) -> _Check:
    return lambda value: value is None or value in get_args(names)


def _named(names: Any) -> str:
    return " | ".join(map(repr, get_args(names)))


_processors = _sequence(callable)
_MODES = ("auto", *get_args(OutputMode))
_EXPECTED: dict[str, tuple[_Check, str]] = {
    "name": (lambda value: isinstance(value, str), "text"),
    "tools": (_sequence(), "a list of tools, functions, toolsets and handoffs"),
    "instructions": (
        lambda value: value is None or isinstance(value, str) or callable(value),
        "text, or a function that gives it",
    ),
    "output_mode": (lambda value: value in _MODES, " | ".join(map(repr, _MODES))),
    "output_retries": (_count(0), "an integer >= 0"),
    "output_validators": (_sequence(callable), "a list of functions"),
    "settings": (_either(ChatSettings), "ChatSettings(…)"),
    "step_settings": (_or_none(callable), "a function that gives ChatSettings"),
    "limits": (_either(Limits), "Limits(…)"),
    "trace": (
        lambda value: _either(bool, str, os.PathLike)(value) or _processors(value),
        "a file, a folder, True, False or a list of structlog processors",
    ),
    "capture": (_one_of(Capture), _named(Capture)),
    "durability": (_one_of(Durability), _named(Durability)),
    "redact": (_either(Redactor), "Redactor(…)"),
    "middleware": (_sequence(callable), "a list of functions from handler to handler"),
    "concurrency": (_or_none(_count(1)), "None or an integer >= 1"),
    "compact": (_or_none(callable), "a function of the messages"),
    "compact_above": (_or_none(_count(1)), "None or an integer >= 1"),
    "history": (_sequence(), "a list of messages, such as result.messages"),
    "repair": (lambda value: isinstance(value, bool), "True or False"),
    "on_event": (callable, "a function of an event"),
    "approver": (_or_none(callable), "a function of a pending call"),
    "deps": (lambda _: True, "anything"),
}


def check_options(options: Mapping[str, Any], known: type, owner: str) -> None:
    """Check the names and the values of options.

    Raises:
        TypeError: There is no option of this name.
        ConfigurationError: A value cannot be meant.
    """
    if unknown := options.keys() - known.__annotations__.keys():
        raise TypeError(f"{owner} has no option {', '.join(sorted(unknown))}")
    for name, value in options.items():
        check, expected = _EXPECTED[name]
        if not check(value):
            raise ConfigurationError(f"{name}={value!r}: expected {expected}.")


def without_placeholders(
    asked: Mapping[str, Any], settings: ChatSettings | None
) -> Mapping[str, Any]:
    """What a run was given, if it can be sent again.

    Raises:
        ConfigurationError: Credentials are among its settings.
    """
    told = canonical(asked.get("settings", {})).decode(errors="replace")
    if settings is None and PLACEHOLDER.search(told):
        raise ConfigurationError(
            "The run was given settings that hold credentials, which its trace does not have. "
            "Give settings= as the run was given them."
        )
    return asked


def prompt_messages(prompt: Prompt) -> tuple[UserMessage, ...]:
    """Return the prompt as messages: none if it is None.

    Raises:
        ConfigurationError: The prompt is empty, or neither text nor content parts.
    """
    if prompt is None:
        return ()
    parts = isinstance(prompt, (list, tuple)) and all(isinstance(p, get_args(Part)) for p in prompt)
    if not (isinstance(prompt, str) or parts):
        raise ConfigurationError(
            f"The prompt is {prompt!r}: expected text, or a list of content parts."
        )
    content = prompt if isinstance(prompt, str) else tuple(prompt)
    if not content:
        raise ConfigurationError("The prompt is empty; give text, or None to go on from history.")
    return (UserMessage(content=content),)
