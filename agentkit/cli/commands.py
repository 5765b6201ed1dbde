"""The commands that run and show runs. Each checks its input, calls the library, and prints."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
from cyclopts import App, Parameter
from pydantic_core import to_jsonable_python
from rich.live import Live
from rich.text import Text

from agentkit.cli import inspecting
from agentkit.cli.apps import load_agent
from agentkit.cli.console import ERR, OUT
from agentkit.cli.tree import RunTree, shown, tree_of
from agentkit.errors import AgentKitError, ConfigurationError, ReplayDivergence, TraceError
from agentkit.folders import state_folder
from agentkit.messages import Usage
from agentkit.models import ChatModel, resolve_model
from agentkit.models.local import LocalModel
from agentkit.replay import replay
from agentkit.run import RunResult
from agentkit.runner import new_run_id
from agentkit.trace.reader import Trace
from agentkit.trace.recording import installed_version

__all__ = ["run"]

app = App(
    name="agentkit",
    help="Agents that call tools, and traces that run again.",
    version=installed_version("agentkit-replay") or "unknown",
    version_flags=["--version"],
)
_EXAMPLE = Path("examples/quickstart.py")
_INSTALLED = "agentkit.cli.quickstart"


for command in (inspecting.tools, inspecting.models, inspecting.doctor):
    app.command(command)


def run() -> None:
    """Run the command line and turn what goes wrong into a message and an exit status.

    0: done; 1: the run failed or the replay diverged; 2: the call was wrong; 130: Ctrl-C.
    """
    try:
        app(result_action="return_value")
    except KeyboardInterrupt:
        ERR.print("Interrupted.", style="yellow")
        sys.exit(130)
    except BrokenPipeError:
        # The reader has gone, for example `| head`. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except AgentKitError as error:
        style = "bold red"
        ERR.print(Text.assemble((f"{type(error).__name__}: ", style), shown(error.message)))
        sys.exit(2 if isinstance(error, (ConfigurationError, TraceError)) else 1)


@app.command
def demo(
    *,
    model: str | None = None,
    base_url: str | None = None,
    prompt: str | None = None,
    trace: Path | None = None,
) -> None:
    """Run the quickstart agent: tools in parallel, then a typed result.

    It uses the embedded model, or OpenAI if OPENAI_API_KEY is set.

    Args:
        model: Another model, such as `openai:gpt-4o`; with --base-url its plain name.
        base_url: The address of any chat-completions server, such as http://localhost:8000/v1.
        prompt: Another question.
        trace: Where to record the run; a new file in the state folder by default.
    """
    from agentkit.cli import quickstart  # builds an agent, which only this command needs

    chosen = _demo_model(model, base_url)
    agent = quickstart.agent if chosen is None else quickstart.agent.with_(model=chosen)
    path = trace or state_folder() / "traces" / f"{new_run_id()}.jsonl"
    question = prompt or quickstart.PROMPT
    tree = RunTree(question)
    served = agent.program().model
    if isinstance(served, LocalModel):
        anyio.run(served.start)  # its weights may be fetched now, with a bar of their own
    try:
        result = _watched(tree, lambda: agent.run_sync(question, trace=path, on_event=tree.event))
        _summary(result)
    finally:
        if path.exists():
            _next_steps(path)


def _demo_model(model: str | None, base_url: str | None) -> Any:
    if base_url is not None:
        if model is None:
            raise ConfigurationError("--base-url needs --model NAME, the server's name for it.")
        return ChatModel(model, base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY"))
    if model is not None:
        return resolve_model(model)
    return "openai:gpt-4o-mini" if os.environ.get("OPENAI_API_KEY") else None


@app.command(name="replay")
def replay_command(trace: Path, *, app: Annotated[str, Parameter(name="--app")]) -> None:
    """Run a recorded run again, offline: no model is asked, no tool is run.

    Args:
        trace: The trace file.
        app: The agent, as FILE.py:NAME or MODULE:NAME.
    """
    recorded, agent = Trace.load(trace), load_agent(app)
    tree = RunTree(f"replay of {recorded.run}")
    counts = {
        kind: sum(event["event"] == f"{kind}.start" for event in recorded.events)
        for kind in ("model", "tool")
    }
    failed: AgentKitError | None = None
    try:
        result = _watched(
            tree, lambda: anyio.run(lambda: replay(recorded, agent, on_event=tree.event))
        )
        _summary(result)
    except ReplayDivergence:
        raise
    except AgentKitError as error:
        failed = error  # the recorded run ended so: the replay is exact
    if failed is not None:
        OUT.print(f"The recorded run ended with {type(failed).__name__}:", style="yellow")
        OUT.print(Text(shown(failed.message)))
    OUT.print(
        f"Replayed exactly: {counts['model']} model calls and {counts['tool']} tool calls "
        "answered from the recording, none made.",
        style="green",
    )


@app.command
def show(trace: Path) -> None:
    """Show a recorded run: its steps and calls, times, tokens and output.

    Args:
        trace: The trace file.
    """
    recorded = Trace.load(trace)
    header = recorded.header
    OUT.print(
        Text(
            f"run {shown(recorded.run)}  {shown(str(header.get('wall')))}  {recorded.status}",
            style="bold",
        )
    )
    OUT.print(tree_of(recorded, title=_prompt(recorded)))
    ended = [event for event in recorded.events if event["event"] == "agent.end"]
    if not ended:
        OUT.print("The run was interrupted; what is recorded ends here.", style="yellow")
        return
    last = ended[-1]
    if "error" in last:
        OUT.print(Text(shown(f"{last['error']['type']}: {last['error']['message']}"), "red"))
    elif last["output"] is not None:
        OUT.print(Text(shown(_pretty(last["output"]))))
    OUT.print(_tokens(Usage.from_json(last["usage"])), style="dim")


def _watched(tree: RunTree, work: Callable[[], RunResult[Any]]) -> RunResult[Any]:
    """Run with a live tree on a terminal, and with the finished tree elsewhere."""
    if not OUT.is_terminal:
        try:
            return work()
        finally:
            OUT.print(tree)
    with Live(tree, console=OUT, refresh_per_second=12):
        return work()


def _summary(result: RunResult[Any]) -> None:
    output = to_jsonable_python(result.output, fallback=repr)
    OUT.print(Text(shown(_pretty(output)), style="bold"))
    OUT.print(_tokens(result.usage), style="dim")


def _pretty(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)


def _tokens(usage: Usage) -> str:
    return (
        f"{usage.requests} model calls, {usage.input_tokens} input and "
        f"{usage.output_tokens} output tokens"
    )


def _next_steps(path: Path) -> None:
    place = str(_EXAMPLE) if _EXAMPLE.is_file() else _INSTALLED
    OUT.print(f"\nThe trace is in {path}\nNext, try:", highlight=False, soft_wrap=True)
    OUT.print(f"  agentkit show {path}", highlight=False, soft_wrap=True)
    OUT.print(f"  agentkit replay {path} --app {place}:agent", highlight=False, soft_wrap=True)


def _prompt(trace: Trace) -> str:
    try:
        messages, _ = trace.input()
    except AgentKitError:
        return "(no agent has started)"
    content = messages[-1].to_json()["content"]
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
