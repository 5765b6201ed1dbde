"""How a run reads to people, wherever it is shown: on a terminal, in a page, in a notebook.

Whatever a model, a tool or a server wrote is hostile where it is shown: on a terminal and in a
notebook it goes through `shown`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from agentkit.core.effects import Decision
from agentkit.messages import JsonObject, Usage, is_object

MARKS = {
    "ok": ("✓", "green"),
    "error": ("✗", "red"),
    "timeout": ("✗ timeout", "red"),
    "limit": ("✗ limit", "red"),
    "cancelled": ("⊘", "yellow"),
    "paused": ("?", "yellow"),
    "pending": ("?", "yellow"),
    "in_flight": ("…", "yellow"),
    "denied": ("⊘ denied", "yellow"),
    "answered": ("✓ answered", "green"),
    "output": ("✓", "green"),
    "handoff": ("✓", "green"),
    "refused": ("✗", "red"),
    "skipped": ("⊘ not run", "yellow"),
}
"""How a status is shown, and in which colour."""
FAILED = ("error", "timeout", "limit", "refused")
_UNUSUAL = re.compile(r"[^\n\t -~]+")
"""What may be invisible."""


def shown(text: str, width: int | None = None) -> str:
    """Return the text with control, bidirectional and other invisible characters made visible.

    Args:
        text: The text.
        width: Cut it to one line of this many characters.
    """
    if width is None:
        return _UNUSUAL.sub(_visible, text)
    size = 4 * width  # a text of any length costs what is seen of it
    while True:
        line = " ".join(_UNUSUAL.sub(_visible, text[:size]).split())
        if len(line) > width:
            return f"{line[: width - 1]}…"
        if size >= len(text):
            return line
        size *= 4


def _visible(match: re.Match[str]) -> str:
    """Return characters beyond ASCII, with the invisible ones escaped."""
    if match[0].isprintable():
        return match[0]
    return "".join(
        char.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else char
        for char in match[0]
    )


def as_text(value: Any) -> str:
    """Return text as it is, and anything else as JSON in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def decided(decision: Decision) -> str:
    """Return a decision in words."""
    by = f" by {decision.by}" if decision.by else ""
    return f"{decision.kind}{by}{f': {decision.text}' if decision.text else ''}"


def forked_from(fork: JsonObject) -> str:
    """Return in words what a run is a fork of, from the header of its trace."""
    patch = fork.get("patch") or {"done again": ""}
    changes = ", ".join(
        f"{value['kind']} {as_text(value.get('text', ''))}".strip()
        if is_object(value) and "kind" in value  # a decision
        else f"{name} {as_text(value)}".strip()
        for name, value in patch.items()
    )
    place = f" at {as_text(fork['at'])}" if fork.get("at") else ""
    return f"fork of {as_text(fork.get('run'))[-8:]}{place}: {changes}"


def pretty(output: Any) -> str:
    """Return text as it is, and anything else as JSON to read."""
    return output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)


def counted(number: int, what: str) -> str:
    """Return the number of things, with the plural where it is due."""
    return f"{number} {what}{'s' * (number != 1)}"


def used(usage: Usage) -> str:
    """Return in words what a run has used."""
    cost = "" if usage.cost is None else f", {money(usage.cost)}"
    return (
        f"{counted(usage.requests, 'model call')}, {usage.input_tokens} input and "
        f"{usage.output_tokens} output tokens{cost}"
    )


def money(cost: float) -> str:
    """Return an amount in USD."""
    return f"${cost:.4f}" if cost >= 0.0001 or not cost else "<$0.0001"
