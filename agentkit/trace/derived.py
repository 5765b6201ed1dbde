"""Writes the files that are made of a trace: the page of a run, and its export."""

from __future__ import annotations

import os
from pathlib import Path

from agentkit.errors import TraceError


def write_anew(
    target: Path, text: str, *, mark: str, what: str, other: str, option: str | None = None
) -> None:
    """Write a file, readable by its owner only, as traces are.

    Args:
        target: Where. An earlier file of this kind is replaced; any other stays as it is.
        text: What the file holds.
        mark: How the text of every file of this kind begins.
        what: The kind, in a word.
        other: What a file is called that is of no such kind.
        option: The option of a command that names the file, if one does.

    Raises:
        TraceError: The file is of another kind, or cannot be written.
    """
    try:
        if _begins(target, mark.encode()):
            target.unlink()
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        found = "folder" if target.is_dir() else other
        raise TraceError(
            f"{str(target)!r} is a {found}, and is not overwritten. "
            f"Give {option or f'the {what}'} another name.",
            path=str(target),
        ) from error
    except (OSError, ValueError) as error:  # no path has a NUL in it
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise TraceError(
            f"The {what} {str(target)!r} cannot be written: {why}. "
            f"Give {option or 'it'} another place.",
            path=str(target),
        ) from error


def _begins(path: Path, mark: bytes) -> bool:
    """Return whether a file was written here, and may be written anew."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(mark)) == mark
