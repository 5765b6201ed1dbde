"""Where the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from agentkit.errors import TraceCorrupt
from agentkit.trace.words import shown

Count: TypeAlias = Annotated[int | None, Parameter(validator=Number(gte=1))]
AsJson: TypeAlias = Annotated[bool, Parameter(name="--json", negative="")]

INDENTED = (0, 0, 0, 2)
"""The padding of what belongs to the line above it."""
_PIPED = 1000
"""Columns where there is no terminal: programs read lines, so texts are not wrapped there."""
_MODULE = Path(__file__).resolve().parents[1] / "__main__.py"


class PipedConsole(Console):
    """A console whose reader may go away, as `head` does."""

    def on_broken_pipe(self) -> None:
        """Let `main.run` end the program: the reader has gone."""
        raise BrokenPipeError


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty() or os.environ.get("COLUMNS"):
        return PipedConsole(stderr=stderr)
    return PipedConsole(stderr=stderr, width=_PIPED, soft_wrap=True)


OUT = _console(stderr=False)
ERR = _console(stderr=True)


def print_text(text: str, style: str = "", *, indent: int = 0) -> None:
    """Print a text of any length; where there is a width, it is wrapped to it.

    Lines that fit are written as they are: to lay out a line takes a hundred times as long.
    """
    room = OUT.width - indent
    lines = shown(text).split("\n")
    if not OUT.soft_wrap:
        lines = [line.expandtabs() for line in lines]
    for fits, some in groupby(lines, lambda line: OUT.soft_wrap or cell_len(line) <= room):
        if fits:
            block = "".join(" " * indent + line + "\n" if line else "\n" for line in some)
            OUT.print(Segments([Segment(block, OUT.get_style(style))]), end="", crop=False)
        else:
            for line in some:
                OUT.print(Padding(Text(line, style), (0, 0, 0, indent), expand=False))


def print_line(line: str, style: str = "") -> None:
    """Print a line that is not wrapped, such as a command or a path."""
    OUT.print(Text(shown(line), style), soft_wrap=True)


def print_note(line: str) -> None:
    """Print a note on stderr."""
    ERR.print(Text(shown(line), "yellow"))


class _Notes(logging.Handler):
    """Prints the messages of a logger as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        print_note(self.format(record))


def print_diagnostics() -> None:
    """Print what goes wrong in runs, for a command that serves: no tree shows them."""
    notes = _Notes(logging.WARNING)
    notes.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("agentkit").addHandler(notes)


def print_json(value: Any) -> None:
    """Print one JSON document. It is ASCII, so nothing in it can harm a terminal."""
    print(json_text(value, indent=2))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value of a trace as JSON, which knows no infinity and no endless nesting."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise TraceCorrupt(f"The trace holds a value that JSON cannot hold: {error}.") from error


def print_rows(
    titles: Mapping[str, Any], rows: Iterable[Sequence[Text]], *, narrow: int = 0
) -> None:
    """Print a table; on a narrow terminal, the cells of each row one below the other.

    Args:
        titles: How each column is laid out, by its title.
        rows: A cell for each column.
        narrow: The width that the table needs.
    """
    if OUT.width < narrow:
        for head, *rest in rows:
            OUT.print(head)
            for title, cell in zip([*titles][1:], rest, strict=True):
                if cell.plain:
                    named = Text.assemble((f"{title}: ", "dim"), cell)
                    OUT.print(Padding(named, INDENTED, expand=False))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, layout in titles.items():
        table.add_column(title, **{"overflow": "fold"} | layout)
    for row in rows:
        table.add_row(*row)
    if OUT.is_terminal:
        OUT.print(table)
        return
    with OUT.capture() as text:
        OUT.print(table)
    for line in text.get().splitlines():  # without the spaces that fill the lines
        print(line.rstrip())


def command_line(*words: str) -> str:
    """Return a command of agentkit's, to be pasted into the shell that started this one."""
    return shlex.join([*_program(), *words])


def _program() -> list[str]:
    """Return how this program is started: as it was, and as short as its shell allows.

    `make` and editors run it from a virtual environment that is not on the PATH.
    """
    script = Path(sys.argv[0])
    if script.name == _MODULE.name and script.resolve() == _MODULE:
        return [_from_here(Path(sys.executable)), "-m", "agentkit"]
    return [_from_here(script) if script.stem == "agentkit" else "agentkit"]


def _from_here(program: Path) -> str:
    """Return a program's name if that finds it, or else its path, from the current folder."""
    place, here = program.absolute(), Path.cwd()
    known = shutil.which(place.name)
    # By their folders: the same interpreter in another one is another environment.
    if known is not None and Path(known).parent.resolve() == place.parent.resolve():
        return place.name
    if not place.is_relative_to(here):
        return str(place)
    path = str(place.relative_to(here))
    return path if os.sep in path else f".{os.sep}{path}"
