"""`agentkit replay`: a recorded run again, offline and exactly, or with some of it for real."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentkit.cli.console import AsJson, print_json, print_line
from agentkit.cli.find import replayable
from agentkit.cli.load import Many, application
from agentkit.cli.view.progress import Progress, Quiet, what_to_show
from agentkit.cli.view.run import document, print_held_back, run_and_show
from agentkit.core.effects import Failure
from agentkit.errors import ReplayDivergence, safe_str
from agentkit.replay.replay import OnDivergence, PlanName
from agentkit.runtime.result import RunResult
from agentkit.trace.compare import Strictness
from agentkit.trace.reader import Trace
from agentkit.trace.words import counted


def replay(
    trace: Path,
    /,
    *,
    app: str,
    model: str | None = None,
    deps: str | None = None,
    plan: PlanName | None = None,
    live: Many = None,
    strictness: Strictness | None = None,
    on_divergence: OnDivergence | None = None,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Run a recorded run again: offline and exactly, or with some of it done for real.

    The status is 1 if anything differs from the recording.

    Args:
        trace: The trace file, or the end of a run's id.
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        model: The model of the recorded run, if it was not the agent's own.
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
        plan: exact: no model is asked, no tool is run. tools_live: tools that only read run.
            model_live: the model is asked, and tools answer what was recorded of the same call.
        live: A tool that runs, whatever it does; no others do. Implies tools_live.
        strictness: What has to be the same.
        on_divergence: At the first difference end, or go on with the recording.
        quiet: Print the output and nothing else.
        json: Print one JSON document about the run, and nothing else on stdout.
    """
    plan = plan or ("tools_live" if live else "exact")
    show = what_to_show(quiet, json)
    recorded = replayable(trace)
    progress = Progress(f"replay of {recorded.run}", show)
    progress.doing(f"Loading {app}")
    with progress, application(app, recorded, model=model, deps=deps) as loaded:
        if plan != "exact":
            loaded.check_deps()

        async def replayed() -> RunResult[Any]:
            return await loaded.agent.replay(
                recorded,
                plan=plan,
                live=live or (),
                strictness=strictness,
                on_divergence=on_divergence,
                deps=loaded.deps,
                # Where a model is asked, its answers are in no trace but the replay's own.
                record=plan == "model_live",
                on_event=progress.tree.event,
            )

        result, error = run_and_show(progress, lambda: loaded.run(replayed))
    if json:
        print_json(document(result, error))
    if error is not None and (
        isinstance(error, ReplayDivergence) or not _ended_with(recorded, error)
    ):
        raise error
    if show != "tree":
        sys.exit(bool(result.divergences))
    if error is not None:
        print_line(f"The recorded run ended with {type(error).__name__}:", "yellow")
        print_line(safe_str(error))
    assert result.replayed is not None
    print_held_back(recorded, result.replayed.held_back, "--live NAME")
    for number, one in enumerate(result.divergences):
        print_line(f"\n{number + 1}. {one.message}")
    if result.divergences:
        places = counted(len(result.divergences), "place")
        print_line(f"\nThe replay differs in {places}.", "red")
        sys.exit(1)
    loose = (strictness or ("structural" if plan == "tools_live" else "exact")) == "structural"
    how = "with strictness structural" if loose else "exactly"
    # Where the model is asked, only those inside a tool that was answered are not.
    whose = "sub-agent " if plan == "model_live" else ""
    how = "with the model asked again" if plan == "model_live" else how
    answered = _both(result.replayed.answered, whose) or "nothing"
    performed = _both(result.replayed.ran) or "none"
    print_line(
        f"Replayed {how}: {answered} answered from the recording, {performed} made.", "green"
    )


def _both(addresses: Iterable[str], whose: str = "") -> str:
    """Return how many model calls and tool calls these are."""
    last = [at.rpartition("/")[2] for at in addresses]
    models, tools = (sum(bool(re.fullmatch(rf"{one}\d+", part)) for part in last) for one in "mt")
    counts = [(models, f"{whose}model call"), (tools, "tool call")]
    return " and ".join(counted(number, what) for number, what in counts if number)


def _ended_with(recorded: Trace, error: Exception) -> bool:
    """Return whether the recorded run ended with this error, too."""
    root = next((one for one in recorded.effects.values() if one.kind == "agent"), None)
    failure = root.error if root is not None else None
    return failure is not None and failure.type == Failure.of(error).type
