"""`agentkit run`: an application's agent, run once and recorded."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from agentkit.cli.console import ERR, AsJson, command_line, print_json, print_line
from agentkit.cli.find import traces_folder
from agentkit.cli.load import application
from agentkit.cli.view.ask import approve, is_somebody_there
from agentkit.cli.view.progress import Progress, Quiet, what_to_show
from agentkit.cli.view.run import document, print_waiting, run_and_show
from agentkit.errors import ConfigurationError
from agentkit.events import ignore
from agentkit.runtime.result import RunResult


def run(
    app: str,
    prompt: str | None = None,
    /,
    *,
    model: str | None = None,
    deps: str | None = None,
    trace: Path | None = None,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Run an agent once, show what happens, and record it.

    Calls that need approval are asked about on a terminal; elsewhere the run pauses, and the
    command that decides is printed.

    Args:
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        prompt: What it is asked; read from stdin if it is left out.
        model: A model, instead of the agent's own.
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
        trace: A new file, or a folder, where the run is recorded; by default the state folder.
        quiet: Print the output and nothing else.
        json: Print one JSON document about the run, and nothing else on stdout.
    """
    show = what_to_show(quiet, json)
    question = prompt_of(prompt)
    somebody = is_somebody_there() and show == "tree"
    progress = Progress(question, show)
    progress.doing(f"Loading {app}")
    with progress, application(app, model=model, deps=deps) as loaded:
        loaded.check_deps()

        async def once() -> RunResult[Any]:
            return await loaded.agent.run(
                question,
                deps=loaded.deps,
                trace=trace or f"{traces_folder()}{os.sep}",
                on_event=progress.event if show == "tree" else ignore,
                approver=approve if somebody else None,
            )

        result, error = run_and_show(progress, lambda: loaded.run(once))
        if json:
            print_json(document(result, error))
        elif not quiet and result.trace is not None:
            print_line(f"The trace is in {result.trace.path}")
        if error is not None:
            raise error
        if not json:
            path = result.trace.path if result.trace is not None else None
            print_waiting(result.pending, path, loaded.options())


def prompt_of(prompt: str | None) -> str:
    """Return the prompt, from stdin where none is given.

    Raises:
        ConfigurationError: There is none.
    """
    if prompt is not None:
        return prompt
    if sys.stdin.isatty():
        ERR.print("The prompt, ended by Ctrl-D:", style="dim")
    text = sys.stdin.read().strip()
    if not text:
        raise ConfigurationError(
            f"There is no prompt. Give one: {command_line('run', 'FILE.py:NAME', 'PROMPT')}"
        )
    return text
