"""`agentkit replay`: a recorded run again, offline and exactly, or with some of it for real."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from cyclopts import Parameter
from rich.text import Text

from agentkit import replay as replaying
from agentkit.cli.console import OUT, shown
from agentkit.cli.find import found
from agentkit.cli.load import load_agent
from agentkit.cli.view.tally import Tally, counted
from agentkit.cli.view.tree import RunTree
from agentkit.cli.view.watch import not_run, print_result, watched
from agentkit.core.effects import Failure
from agentkit.errors import ReplayDivergence, safe_str
from agentkit.events import Event
from agentkit.replay.policy import PolicyName, policy_of
from agentkit.runtime.result import RunResult, result_of
from agentkit.trace.compare import Strictness
from agentkit.trace.reader import Trace


def replay(
    trace: Path,
    /,
    *,
    app: Annotated[str, Parameter(name="--app")],
    model: str | None = None,
    policy: PolicyName | None = None,
    live_tool: Annotated[list[str] | None, Parameter(negative="")] = None,
    order: Literal["recorded", "free"] | None = None,
    timing: float | None = None,
    strictness: Strictness | None = None,
    on_divergence: Literal["raise", "warn", "go_live"] | None = None,
) -> None:
    """Run a recorded run again: offline and exactly, or with some of it done for real.

    The status is 1 if anything differs from the recording.

    Args:
        trace: The trace file, or the end of a run's id.
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        model: The model of the recorded run, if it was not the agent's own.
        policy: exact: no model is asked, no tool is run. tools_live: tools that only read run.
            model_live: the model is asked, and tools answer what was recorded of the same call.
        live_tool: A tool that runs, whatever it does; no others do. Implies tools_live.
        order: Whether effects begin and end as they did then, or as they come.
        timing: How long recorded effects take, as a multiple of what they took then: 1 to watch.
        strictness: What has to be the same.
        on_divergence: At the first difference end, go on with the recording, or go on for real.
    """
    given = {
        "live_tools": live_tool,
        "order": order,
        "timing": timing,
        "strictness": strictness,
        "on_divergence": on_divergence,
    }
    name = policy or ("tools_live" if live_tool else "exact")
    chosen = policy_of(name, {key: value for key, value in given.items() if value is not None})
    recorded = Trace.load(found(trace))
    agent = load_agent(app, recorded, model)
    tree, tally = RunTree(f"replay of {recorded.run}"), Tally(recorded, agent, chosen)

    def happened(event: Event) -> None:
        tree.event(event)
        tally.event(event)

    # Where a model may be asked, what is said now is in no trace but the replay's own.
    asks = chosen.model == "live" or chosen.on_divergence == "go_live"

    async def again() -> RunResult[Any]:
        return await replaying.replay(
            recorded, agent, policy=chosen, record=asks, on_event=happened
        )

    try:
        result = watched(tree, lambda: anyio.run(again))
        print_result(result)
    except ReplayDivergence:
        raise
    except Exception as error:
        result = result_of(error)
        if result is None or not _ended_so(recorded, error):
            raise
        OUT.print(f"The recorded run ended with {type(error).__name__}:", style="yellow")
        OUT.print(Text(shown(safe_str(error))))
    not_run(tally.held_back, "--live-tool NAME")
    for number, one in enumerate(result.divergences):
        OUT.print(Text(shown(f"\n{number + 1}. {one.message}")))
    if result.divergences:
        places = counted(len(result.divergences), "place")
        OUT.print(f"\nThe replay differs in {places}.", style="red")
        sys.exit(1)
    OUT.print(tally.said(), style="green")


def _ended_so(recorded: Trace, error: Exception) -> bool:
    """Whether the recorded run ended with this error, too."""
    ends = [event for event in recorded.events if event["event"] == "agent.end"]
    return bool(ends) and ends[-1].get("error", {}).get("type") == Failure.of(error).type
