"""What a fork changes in a recorded run, as it is written on the command line.

A run is changed in one place at a time: what was before it stays as recorded.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

from agentkit.cli.view.describe import describe
from agentkit.core.effects import Decision
from agentkit.errors import ConfigurationError
from agentkit.messages import is_object
from agentkit.settings import ChatSettings
from agentkit.trace.reader import Trace
from agentkit.trace.words import as_text

What: TypeAlias = Literal["result", "messages", "prompt", "instructions", "settings", "model"]
"""The names of the changes, as `Agent.fork` has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing that is to be different.

    Attributes:
        what: What it is.
        at: The address from which it holds; None for the whole run.
        value: What it becomes.
        number: The number of a message.
    """

    what: What
    at: str | None
    value: Any
    number: int | None = None

    def text(self) -> str:
        """Return the change in words."""
        value = self.value
        if isinstance(value, Decision):
            return f"the decision about {self.at} is {value.kind}: {value.text}".removesuffix(": ")
        if self.what == "result":
            return f"result of {self.at}: {as_text(value)}"
        if isinstance(value, ChatSettings):
            value = value.to_params()
        what = self.what if self.number is None else f"message {self.number}"
        return f"{what}, {_from(self.at)}: {as_text(value)}"


def joined(changes: tuple[Change, ...], new: Change) -> tuple[Change, ...]:
    """Add a change. It holds from where the first one does."""
    if not changes:
        return (new,)
    at = changes[0].at
    if new.what in ("result", "messages") and new.at != at:
        raise ConfigurationError(
            f"The changes so far hold {_from(at)}, and a run is changed in one place at a time: "
            "`go` on with them first, or `undo` them. Several messages of one request can be "
            "changed together: `edit message N TEXT` at its model call."
        )
    return (*changes, replace(new, at=at))


def patch_of(changes: tuple[Change, ...]) -> dict[str, Any]:
    """Return all changes as arguments of `Agent.fork`; of two about one thing, the later."""
    patch: dict[str, Any] = {}
    for one in changes:
        if one.what == "messages":
            patch[one.what] = {**patch.get(one.what, {}), one.number: one.value}
        elif one.what == "settings":
            patch[one.what] = patch.get(one.what, ChatSettings()).merge(one.value)
        else:
            patch[one.what] = one.value
    return patch


def _from(at: str | None) -> str:
    return "from the start" if at is None else f"from {at} on"


def outcome_from(trace: Trace, at: str, text: str) -> Any:
    """Return the outcome of an effect that a text stands for.

    A model's answer may be a whole message as JSON; a call that never ran is answered by
    a decision; the value of a function is JSON, unless it was a text.
    """
    effect = trace.effects[at]
    match effect.kind:
        case "model":
            message = _json(text)
            return message if is_object(message) and "role" in message else text
        case "tool":
            return text if effect.begun else Decision.answer(text)
        case "compute" if not isinstance(effect.output, str):
            value = _json(text)
            if value is None and text != "null":
                raise ConfigurationError(f"The result of {at} has to be JSON; {text!r} is not.")
            return value
        case "compute":
            return text
        case "agent":
            raise ConfigurationError(
                f"{at} is not an effect with a result: name a model call, a tool call or a "
                "function."
            )


def check_asked(trace: Trace, at: str) -> None:
    """Check that the call at this address waited for a decision."""
    waited = [one.at for one in trace.effects.values() if one.pending is not None]
    if at not in waited:
        raise ConfigurationError(
            f"Nothing was asked at {at}, so there is nothing to approve or deny; "
            f"asked were: {', '.join(waited) or 'none'}."
        )


def message_number(trace: Trace, at: str, text: str) -> int:
    """Return the number of a message in a request that can be changed there."""
    if trace.effects[at].kind != "model":
        raise ConfigurationError(f"Messages belong to a model call, and {at} is not one.")
    messages = describe(trace, at)["messages"]
    if not text.isdecimal() or len(text) > 9 or int(text) >= len(messages):
        raise ConfigurationError(
            f"There is no message {text!r}: the request at {at} has {len(messages)} messages, "
            "counted from 0."
        )
    if is_object(messages[int(text)]) and messages[int(text)].get("role") == "system":
        raise ConfigurationError(f"Message {text} comes from the instructions: change those.")
    return int(text)


def settings_from(pairs: Iterable[tuple[str, str]]) -> ChatSettings:
    """Return sampling parameters as they are written: values are JSON, or else text."""
    known = [one.name for one in fields(ChatSettings)]
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.4)
            has = f"nearest: {', '.join(near)}" if near else f"there is {', '.join(known)}"
            raise ConfigurationError(f"There is no setting {name!r}; {has}.")
        value = _json(text)
        values[name] = text if value is None else value
    return ChatSettings(**values)


def _json(text: str) -> Any:
    """Return the value that a text is the JSON of, or None."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def written(text: str, now: str) -> str:
    """Return the text on the line, or from the user's editor, which begins with `now`."""
    if text.strip():
        return text.strip()
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor or not sys.stdin.isatty():
        raise ConfigurationError("Write the new text on the same line, or set EDITOR.")
    with TemporaryDirectory(prefix="agentkit-") as folder:
        file = Path(folder) / "text"
        file.write_text(now, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise ConfigurationError(f"The editor {editor!r} failed: {error}") from error
        new = file.read_text(encoding="utf-8", errors="replace")
    # Editors end a file with a newline.
    new = new if now.endswith("\n") else new.removesuffix("\n")
    if new == now:
        raise ConfigurationError("Nothing was changed in the editor.")
    return new
