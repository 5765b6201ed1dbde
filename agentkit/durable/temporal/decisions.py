"""What the calls of a hosted run wait for, and what was decided about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio import workflow

from agentkit.core.effects import PendingCall
from agentkit.durable.temporal.data import from_data, to_data
from agentkit.messages import JsonObject


class Decisions:
    """Decisions about calls, by their addresses; those of sub-agents go on to them.

    Attributes:
        made: Those that no call has taken yet.
    """

    def __init__(self, start: JsonObject) -> None:
        self.made: dict[str, JsonObject] = start.get("decisions", {})
        self._start = start
        self._waiting: dict[str, PendingCall] = {}
        self._below: dict[str, tuple[PendingCall, ...]] = {}

    @property
    def pending(self) -> tuple[PendingCall, ...]:
        """The calls that wait, those of sub-agents included."""
        below = (one for some in self._below.values() for one in some)
        return tuple(one for one in (*self._waiting.values(), *below) if one.at not in self.made)

    async def take(self, at: str, decision: JsonObject) -> None:
        """Take a decision; the first one counts."""
        self.made.setdefault(at, decision)
        await self._pass_on()

    async def learn(self, child: str, pending: Any) -> None:
        """Learn what a sub-agent waits for: the decision may be here already."""
        self._below[child] = from_data(pending)
        await self._tell_parent()
        await self._pass_on()

    def forget(self, child: str) -> None:
        """Forget a sub-agent, which has ended."""
        self._below.pop(child, None)

    async def about(self, pending: Sequence[PendingCall]) -> list[JsonObject]:
        """Wait until every call is decided about: for days, and without a worker."""
        self._waiting |= {one.at: one for one in pending}
        await self._tell_parent()
        await workflow.wait_condition(lambda: all(one.at in self.made for one in pending))
        for one in pending:
            del self._waiting[one.at]
        await self._tell_parent()
        return [self.made.pop(one.at) for one in pending]

    async def _pass_on(self) -> None:
        for child in self._below:
            for at in [one for one in self.made if one.startswith(f"{child}/")]:
                decision = self.made.pop(at)
                self._below[child] = tuple(one for one in self._below[child] if one.at != at)
                await _signal(f"{self._start['root']}{child}", "decide", at, decision)

    async def _tell_parent(self) -> None:
        parent = workflow.info().parent
        if parent is not None:
            waits = to_data(self.pending)
            await _signal(parent.workflow_id, "waits_below", self._start["at"], waits)


async def _signal(workflow_id: str, name: str, *args: Any) -> None:
    other: Any = workflow.get_external_workflow_handle(workflow_id)
    await other.signal(name, args=args)
