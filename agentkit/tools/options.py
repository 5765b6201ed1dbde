"""The options of a tool, and the check of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

from agentkit.errors import InvalidTool

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
Approval: TypeAlias = bool | Callable[..., Any]
"""Whether calls need approval: always, never, or as a function decides, sync or async, of the
`RunContext` and the arguments (a dict, as the model sent them)."""


class BehaviourOptions(TypedDict, total=False):
    """The options of a `Tool` but for name and description; see there."""

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
    """The options of a `Tool`; see there."""

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


def check_tool(name: object, options: Mapping[str, Any]) -> None:
    """Check a tool's name and the values of its options.

    Raises:
        TypeError: There is no option of this name.
        InvalidTool: A value is not allowed; the text names it and what is.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        advice = "A lambda needs one" if name == "<lambda>" else "Choose another"
        raise InvalidTool(
            f"{name!r} is not a valid tool name: a name is 1 to 64 letters, digits, '_' and '-'. "
            f"{advice}, with name=….",
            tool=str(name),
        )
    for option, value in options.items():
        if option == "name":
            continue
        if option not in _ALLOWED:
            raise TypeError(f"A tool has no option {option!r}.")
        fits, allowed = _ALLOWED[option]
        if not fits(value):
            raise InvalidTool(f"{option}={value!r}: expected {allowed}.", tool=name)
