"""What somebody has changed in a run they step through, and how they wrote it.

A run is changed in one place at a time: what was before it stays as recorded.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

from agentkit.cli.view.tree import as_text
from agentkit.core.effects import Decision
from agentkit.errors import ConfigurationError
from agentkit.replay import Patch
from agentkit.settings import ChatSettings

What: TypeAlias = Literal["result", "message", "prompt", "instructions", "settings", "model"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing that is to be different.

    Attributes:
        what: What.
        at: The address from which it holds; None for the whole run.
        value: What it is to be.
        number: The message's.
    """

    what: What
    at: str | None
    value: Any
    number: int | None = None

    def said(self) -> str:
        """In words."""
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
    """One change more. It holds from where the first one does.

    Raises:
        ConfigurationError: It is about an effect in another place.
    """
    if not changes:
        return (new,)
    at = changes[0].at
    if new.what in ("result", "message") and new.at != at:
        raise ConfigurationError(
            f"The changes so far hold {_from(at)}, and a run is changed in one place at a time: "
            "`go` on with them first, or `undo` them. Several messages of one request can be "
            "changed together: `edit message N TEXT` at its model call."
        )
    return (*changes, replace(new, at=at))


def patch_of(changes: tuple[Change, ...]) -> Patch:
    """All changes together; of two that contradict each other, the later one."""
    patch = Patch()
    for one in changes:
        if one.what == "message":
            patch = replace(patch, messages={**patch.messages, one.number: one.value})
        elif one.what == "settings":
            patch = replace(patch, settings=(patch.settings or ChatSettings()).merge(one.value))
        else:
            patch = replace(patch, **{one.what: one.value})
    return patch


def _from(at: str | None) -> str:
    return "from the start" if at is None else f"from {at} on"


def written(text: str, now: str) -> str:
    """What somebody writes: on the line, or in their editor, beginning with what is there now.

    Raises:
        ConfigurationError: There is no text and no editor, or nothing was changed in it.
    """
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
