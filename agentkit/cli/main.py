"""The commands by name, and how errors become messages and exit statuses."""

from __future__ import annotations

import codecs
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from cyclopts import App, CycloptsError
from rich.text import Text

from agentkit.cli.commands import (
    chat,
    demo,
    diff,
    doctor,
    export,
    fork,
    grep,
    mcp,
    models,
    replay,
    resume,
    runs,
    serve,
    show,
    step,
    test_from,
    tools,
    trace_doctor,
    view,
)
from agentkit.cli.commands import run as run_command
from agentkit.cli.console import ERR, PipedConsole, shown
from agentkit.cli.view.run import print_error
from agentkit.errors import AgentKitError, ConfigurationError, TraceError
from agentkit.runtime.result import result_of
from agentkit.trace.recorder import installed_version

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo.demo,
    "run": run_command.run,
    "chat": chat.chat,
    "show": show.show,
    "view": view.view,
    "runs": runs.runs,
    "grep": grep.grep,
    "replay": replay.replay,
    "resume": resume.resume,
    "fork": fork.fork,
    "step": step.step,
    "diff": diff.diff,
    "test-from": test_from.test_from,
    "tools": tools.tools,
    "mcp": mcp.mcp,
    "models": models.models,
    "doctor": doctor.doctor,
    "serve": serve.serve,
}
"""A command is a function: its parameters are the arguments, its docstring is the help."""

_SIGNS = {
    "✓": "ok",
    "✗": "x",
    "⊘": "-",
    "→": "->",
    "…": "...",
    "⟦": "[[",
    "⟧": "]]",
    # and what models like to write
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2013": "-",
    "\u2014": "-",
    "\u2022": "*",
}
app = App(
    name="agentkit",
    help="Agents that call tools, and traces that run again.",
    version=installed_version("agentkit-replay") or "unknown",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # `run` reports it
    console=PipedConsole(),
    error_console=PipedConsole(stderr=True),
)
for name, command in COMMANDS.items():
    app.command(command, name=name)
trace_app = App(name="trace", help="Check an application by its traces.")
trace_app.command(trace_doctor.trace_doctor, name="doctor")
app.command(trace_app)
export_app = App(name="export", help="Give a recorded run to other tools.")
export_app.command(export.export_otel, name="otel")
export_app.command(export.export_perfetto, name="perfetto")
app.command(export_app)


def run() -> None:
    """Run the command line and turn what goes wrong into a message and an exit status.

    0: done; 1: the run failed, the replay diverged, or nothing was found; 2: the call was
    wrong; 130: Ctrl-C; 141: the reader of a pipe has gone, as `head` does.
    """
    # The tree shows what failed in a run, and its traceback is in the trace.
    logging.getLogger("agentkit").addHandler(logging.NullHandler())
    codecs.register_error("agentkit", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        # Names of files may not be Unicode, and a terminal may know few characters.
        stream.reconfigure(errors="agentkit")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # of TextIO it is not known
    try:
        app(result_action="return_value", exit_on_error=False)
        sys.stdout.flush()
    except CycloptsError as error:  # which it has printed
        _hint(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        ERR.print("Interrupted.", style="yellow")
        sys.exit(130)
    except BrokenPipeError:
        _forget_output()
        sys.exit(141)
    except OSError as error:
        if result_of(error) is None:
            _forget_output()
        print_error(error)
        sys.exit(1)
    except Exception as error:
        # What the application's own code raises ends a run, too.
        if not isinstance(error, AgentKitError) and result_of(error) is None:
            raise
        print_error(error)
        sys.exit(2 if isinstance(error, (ConfigurationError, TraceError)) else 1)


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what an encoding does not have: signs by ASCII, the rest by escapes."""
    if not isinstance(error, UnicodeEncodeError):
        return codecs.backslashreplace_errors(error)
    return "".join(map(_one_in_ascii, error.object[error.start : error.end])), error.end


def _one_in_ascii(char: str) -> str:
    if "\u2800" <= char <= "\u28ff":  # of a spinner
        return "*"
    return _SIGNS.get(char) or char.encode("ascii", "backslashreplace").decode()


def _forget_output() -> None:
    """Drop what cannot be written: Python would complain of it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hint(message: str) -> None:
    """Print how to write a value that looks like an option."""
    for option, value in pairwise(sys.argv[1:]):
        if option.startswith("--") and option in message and re.match("-[^-]", value):
            line = f"Write a value that begins with - like this: {option}={shlex.quote(value)}"
            ERR.print(Text(shown(line)), soft_wrap=True)
