"""What an agent and a run may be told, and what is said of values that cannot be meant.

Type checkers see most mistakes; who has none reads these messages, before any I/O.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, cast, get_args

from agentkit.assembly import Compaction, Instructions, Source
from agentkit.driver import Middleware
from agentkit.errors import ConfigurationError
from agentkit.events import Emit
from agentkit.messages import Message, Part
from agentkit.models.profiles import OutputMode
from agentkit.output import Mode
from agentkit.runner import Approver
from agentkit.settings import ChatSettings, Limits

__all__ = ["AgentOptions", "History", "Prompt", "RunOptions", "TraceTo", "check_options"]

TraceTo: TypeAlias = bool | str | os.PathLike[str]
Prompt: TypeAlias = str | Sequence[Part] | None
History: TypeAlias = Sequence[Message | Mapping[str, Any]]


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
            memory) or False (not at all). Without a word here or in the agent it goes
            to a new file in `AGENTKIT_TRACE_DIR` if that is set, else to memory.
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
    "trace": (_either(bool, str, os.PathLike), "a file, a folder, True or False"),
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
