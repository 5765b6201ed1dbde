"""`agentkit replay`: a recorded run again, offline and exactly, or with some of it for real."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from agentkit import replay as replaying
from agentkit.cli.console import print_line
from agentkit.cli.find import found
from agentkit.cli.load import Many, application
from agentkit.cli.view.run import print_held_back, run_and_show
from agentkit.cli.view.tally import Tally, counted
from agentkit.cli.view.tree import RunTree
from agentkit.core.effects import Failure
from agentkit.errors import ReplayDivergence, safe_str
from agentkit.events import Event
from agentkit.replay.policy import PolicyName, policy_of
from agentkit.runtime.result import RunResult
from agentkit.trace.compare import Strictness
from agentkit.trace.reader import Trace


def replay(
    trace: Path,
    /,
    *,
    app: str,
    model: str | None = None,
    deps: str | None = None,
    policy: PolicyName | None = None,
    live_tool: Many = None,
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
        deps: What the agent's tools depend on, as FILE.py:NAME or MODULE:NAME: a value, or a
            function that returns it.
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
    # Where a model may be asked, its answers are in no trace but the replay's own.
    asks = chosen.model == "live" or chosen.on_divergence == "go_live"
    tree = RunTree(f"replay of {recorded.run}")
    with application(app, recorded, model=model, deps=deps) as loaded:
        if chosen.acts:
            loaded.check_deps()
        tally = Tally(recorded, loaded.agent, chosen)

        def follow(event: Event) -> None:
            tree.event(event)
            tally.event(event)

        async def replayed() -> RunResult[Any]:
            return await replaying.replay(
                recorded,
                loaded.agent,
                policy=chosen,
                deps=loaded.deps,
                record=asks,
                on_event=follow,
            )

        result, error = run_and_show(tree, lambda: loaded.run(replayed))
    if error is not None:
        if isinstance(error, ReplayDivergence) or not _ended_with(recorded, error):
            raise error
        print_line(f"The recorded run ended with {type(error).__name__}:", "yellow")
        print_line(safe_str(error))
    print_held_back(tally.held_back, "--live-tool NAME")
    for number, one in enumerate(result.divergences):
        print_line(f"\n{number + 1}. {one.message}")
    if result.divergences:
        places = counted(len(result.divergences), "place")
        print_line(f"\nThe replay differs in {places}.", "red")
        sys.exit(1)
    print_line(tally.said(), "green")


def _ended_with(recorded: Trace, error: Exception) -> bool:
    """Return whether the recorded run ended with this error, too."""
    ends = [event for event in recorded.events if event["event"] == "agent.end"]
    return bool(ends) and ends[-1].get("error", {}).get("type") == Failure.of(error).type
