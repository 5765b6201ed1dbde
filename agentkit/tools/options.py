"""The options of a tool: what they are, and what is said of values that cannot be meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

from agentkit.errors import InvalidTool

__all__ = ["KEPT_AS", "Approval", "BehaviourOptions", "ToolOptions", "check_tool"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
KEPT_AS = {"description": "_description", "strict": "_asked"}
"""Where a tool keeps options as it was given them: its properties say what came of them."""
Approval: TypeAlias = bool | Callable[..., Any]
"""Whether a person has to agree to a call: always, never, or as the function says, sync or
async, of the `RunContext` and the arguments (a dict, as the model sent them)."""


class BehaviourOptions(TypedDict, total=False):
    """The options of a `Tool`, described there, that a raw schema leaves open."""

    strict: bool | None
    timeout: float | None
    concurrency: int | None
    sequential: bool
    effect: Literal["read", "write"]
    max_output: int | None
    on_error: Literal["tell", "raise"]
    retries: int
    approval: Approval


class ToolOptions(BehaviourOptions, total=False):
    """The options of a `Tool`, described there."""

    name: str | None
    description: str | None


def _number(least: float, kinds: tuple[type, ...], *, none: bool = False) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if value is None:
            return none
        return isinstance(value, kinds) and not isinstance(value, bool) and value >= least

    return check


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (str, bool, type(None))) and value in values


_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "description": (lambda text: text is None or isinstance(text, str), "text"),
    "strict": (_one_of(None, True, False), "True, False or None"),
    "timeout": (
        lambda value: _number(0, (int, float), none=True)(value) and value != 0,
        "seconds > 0, or None",
    ),
    "concurrency": (_number(1, (int,), none=True), "an integer >= 1, or None"),
    "sequential": (_one_of(True, False), "True or False"),
    "effect": (_one_of("read", "write"), "'read' or 'write'"),
    "max_output": (_number(0, (int,), none=True), "bytes >= 0, or None"),
    "on_error": (_one_of("tell", "raise"), "'tell' or 'raise'"),
    "retries": (_number(0, (int,)), "an integer >= 0"),
    "approval": (
        lambda value: isinstance(value, bool) or callable(value),
        "True, False, or a function of the context and the arguments",
    ),
}


def check_tool(options: Mapping[str, Any]) -> None:
    """Check a tool's name and the values of its options.

    Raises:
        InvalidTool: A value cannot be meant; the text names it and what is allowed.
    """
    name = options.get("name", "x")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        advice = "A lambda needs one" if name == "<lambda>" else "Give it another"
        raise InvalidTool(
            f"{name!r} cannot be the name of a tool: that takes 1 to 64 letters, digits, '_' and "
            f"'-'. {advice}, with name=….",
            tool=str(name),
        )
    for option, (fits, allowed) in _ALLOWED.items():
        kept = KEPT_AS.get(option, option)
        if kept in options and not fits(options[kept]):
            tool = options.get("name")
            raise InvalidTool(f"{option}={options[kept]!r}: expected {allowed}.", tool=tool)
