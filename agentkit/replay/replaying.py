"""Drives the loop with recorded outcomes. Nothing is asked and nothing is executed."""

from __future__ import annotations

import os
from typing import Literal, TypeVar

from agentkit.agent import Agent
from agentkit.driver import Driver
from agentkit.errors import ConfigurationError
from agentkit.events import Emit, ignore
from agentkit.run import Origin, RunResult, conclude
from agentkit.settings import limits_of, settings_of
from agentkit.trace.reader import Trace
from agentkit.trace.recorded import RecordedHandler

__all__ = ["replay"]

OutputT = TypeVar("OutputT")
Policy = Literal["exact"]


async def replay(
    trace: Trace | str | os.PathLike[str],
    agent: Agent[OutputT],
    *,
    policy: Policy = "exact",
    on_event: Emit = ignore,
) -> RunResult[OutputT]:
    """Run a recorded run again: the agent as it is now, with the outcomes of then.

    Args:
        trace: The recording, or its path.
        agent: The agent that made it.
        policy: `exact`: no model is asked and no tool is run.
        on_event: Called with each event, as in `Agent.run`.

    Returns:
        The result, equal to the recorded run's.

    Raises:
        ReplayDivergence: The agent asks for something that was not recorded so, or leaves
            out something that was. It names the first difference.
        TraceError: The trace cannot be read.
        AgentKitError: The recorded run ended in this error.
    """
    if policy != "exact":
        raise ConfigurationError(f"policy={policy!r} is unknown; there is 'exact'.")
    recorded = trace if isinstance(trace, Trace) else Trace.load(trace)
    messages, earlier = recorded.input()
    handler = RecordedHandler(recorded)
    then = recorded.asked()
    program = agent.program(settings_of(then), limits_of(then))
    driver = Driver(program, messages, lambda _: handler, listener=on_event)
    finish = await driver.execute()
    diverged = finish.error is not None and finish.error.type == "ReplayDivergence"
    if not diverged and (left := handler.left_over()):
        raise left
    return conclude(finish, Origin(run=recorded.run, prompt=messages[earlier:], recorded=recorded))
