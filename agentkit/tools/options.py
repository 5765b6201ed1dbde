"""The options of a tool, and the check of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

from agentkit import _checks
from agentkit._checks import Check, is_number
from agentkit._options import wrong_options
from agentkit.core.effects import OnCrash
from agentkit.errors import InvalidTool, safe_repr

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
Approval: TypeAlias = bool | Callable[..., Any]
"""Whether calls need approval: always, never, or as a function decides, sync or async, of the
`RunContext` and the arguments (a dict of JSON, as the tool will get them)."""


class BehaviourOptions(TypedDict, total=False):
    """The options of a `Tool` but for name and description; see there."""

    strict: bool | None
    timeout: float | None
    concurrency: int | None
    sequential: bool
    effect: Literal["read", "write"]
    max_output: int | None
    on_error: Literal["tell", "raise"]
    on_crash: OnCrash | None
    retries: int
    approval: Approval
    source: str | None


class ToolOptions(BehaviourOptions, total=False):
    """The options of a `Tool`; see there."""

    name: str | None
    description: str | None


_ALLOWED = {
    "description": _checks.TEXT.or_none(),
    "strict": _checks.FLAG.or_none(),
    "timeout": Check(
        "None or seconds > 0", lambda value: value is None or (is_number(value) and value > 0)
    ),
    "concurrency": _checks.integer(1).or_none(),
    "sequential": _checks.FLAG,
    "effect": _checks.one_of("read", "write"),
    "max_output": _checks.integer(0).or_none(),
    "on_error": _checks.one_of("tell", "raise"),
    "on_crash": _checks.one_of("retry", "ask", "fail").or_none(),
    "retries": _checks.integer(0),
    "source": _checks.TEXT.or_none(),
    "approval": Check(
        "True, False, or a function of the context and the arguments",
        lambda value: isinstance(value, bool) or callable(value),
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
            f"{safe_repr(name)} is not a valid tool name: a name is 1 to 64 letters, digits, '_' "
            f"and '-'. {advice}, with name=….",
            tool=name if isinstance(name, str) else safe_repr(name),
        )
    if unknown := options.keys() - _ALLOWED.keys() - {"name"}:
        raise wrong_options("Tool", sorted(unknown), ["name", *_ALLOWED])
    if wrong := _checks.misfit(options, _ALLOWED):
        option, check = wrong
        raise InvalidTool(
            f"{option}={safe_repr(options[option])}: expected {check.expected}.", tool=name
        )
