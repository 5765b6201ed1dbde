"""Where the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

__all__ = ["ERR", "OUT", "AsJson", "PipedConsole", "print_json", "print_table"]

AsJson: TypeAlias = Annotated[bool, Parameter(name="--json", negative="")]

_PIPED = 1000
"""Columns where there is no terminal: programs read lines, so texts are not wrapped there."""


class PipedConsole(Console):
    """A console whose reader may go away, as `head` does."""

    def on_broken_pipe(self) -> None:
        """Let `commands.run` end the program: the reader has gone."""
        raise BrokenPipeError


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty() or os.environ.get("COLUMNS"):
        return PipedConsole(stderr=stderr)
    return PipedConsole(stderr=stderr, width=_PIPED, soft_wrap=True)


OUT = _console(stderr=False)
ERR = _console(stderr=True)


def print_json(value: Any) -> None:
    """Print one JSON document. It is ASCII, so nothing in it can harm a terminal."""
    print(json.dumps(value, indent=2))


def print_table(table: Table) -> None:
    """Print a table; where a program reads it, without spaces that fill the lines."""
    if OUT.is_terminal:
        OUT.print(table)
        return
    with OUT.capture() as text:
        OUT.print(table)
    for line in text.get().splitlines():
        print(line.rstrip())
