"""Laws of the loop, over random programs: whatever tools do, the history is valid."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, Decision, Limits, ToolError, ToolMessage, tool
from agentkit.errors import AgentKitError, ToolsFailed
from agentkit.messages import AssistantMessage, Message
from agentkit.testing import ScriptedModel

How = Literal["ok", "tell", "fail", "slow", "hang", "raise"]


@tool(effect="read", timeout=0.05)
async def act(how: How, delay: int = 0) -> str:
    """Do something, well or badly."""
    for _ in range(delay):
        await anyio.lowlevel.checkpoint()
    match how:
        case "tell":
            raise ToolError("Try otherwise.")
        case "fail":
            raise ValueError("broken")
        case "hang":
            await anyio.sleep_forever()
        case _:
            pass
    return how


@tool(approval=True, on_error="raise")
def guarded(how: How, delay: int = 0) -> str:
    """Do something that has to be approved and whose errors are raised."""
    if how == "raise":
        raise KeyError("raised")
    return how


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["act", "guarded", "unknown"]),
        st.fixed_dictionaries(
            {"how": st.sampled_from(["ok", "tell", "fail", "slow", "hang", "raise", "nonsense"])},
            optional={"delay": st.integers(0, 3)},
        ),
    ),
    min_size=1,
    max_size=4,
)
DECISIONS = st.sampled_from(
    [
        Decision.approve(),
        Decision.deny("no"),
        Decision.edit({"how": "ok"}),
        Decision.answer("later"),
        None,
    ]
)


def check_valid(messages: tuple[Message, ...]) -> None:
    """Each call is answered by exactly one tool message, right behind it, in call order."""
    position = 0
    while position < len(messages):
        message = messages[position]
        assert not isinstance(message, ToolMessage), f"an answer without a call at {position}"
        position += 1
        calls = message.tool_calls if isinstance(message, AssistantMessage) else ()
        for call in calls:
            answer = messages[position]
            assert isinstance(answer, ToolMessage)
            assert answer.call_id == call.id
            position += 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    script=st.lists(CALLS, max_size=4),
    decision=DECISIONS,
    cancel_after=st.none() | st.integers(0, 12),
    limits=st.sampled_from([Limits(), Limits(steps=2), Limits(tool_calls=3), Limits(parallel=1)]),
)
def test_history_is_valid_and_replays(
    backend: str, script: list[Any], decision: Any, cancel_after: int | None, limits: Limits
) -> None:
    """However a run ends, its history is valid, and a replay comes to the same."""

    def agent(*answers: Any) -> Agent[str]:
        return Agent(ScriptedModel(list(answers)), tools=[act, guarded], limits=limits)

    async def attempt() -> tuple[Any, Any]:
        """The result or the error of a run."""
        events = 0
        running = agent(*script, "done").stream("go", approver=lambda pending: decision)
        async with running as run:
            async for _ in run:
                events += 1
                if cancel_after is not None and events == cancel_after:
                    run.cancel()
        try:
            return run.result, None
        except (AgentKitError, ToolsFailed) as error:
            return error.result, error

    async def main() -> None:
        result, error = await attempt()
        check_valid(result.messages)
        check_valid(result.new_messages)
        assert result.trace is not None
        assert result.trace.status == result.status
        try:
            again, raised = await agent().replay(result.trace), None
        except (AgentKitError, ToolsFailed) as caught:
            again, raised = caught.result, caught
        # `Run.result` gives a cancelled run's result, `replay` raises it.
        assert type(raised) is type(error) or result.status == "cancelled"
        assert again == result

    anyio.run(main, backend=backend)
