"""Runs one batch of tool calls: concurrently, bounded, answered in call order.

A `Batch` decides when each of its calls runs; `tool_call` how one runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import anyio

from agentkit.core.effects import Interrupt, ToolBatch, ToolInvocation, ToolOutcome
from agentkit.messages import Usage
from agentkit.runtime.slots import Gate, Inside, Open, merged
from agentkit.runtime.tool_call import outcome_of

Perform: TypeAlias = Callable[[ToolInvocation], Awaitable[ToolOutcome | Interrupt]]


class Batch:
    """One batch being run.

    Attributes:
        finished: The outcomes so far by index, in the order of finishing.
    """

    def __init__(
        self,
        batch: ToolBatch,
        perform: Perform,
        *,
        gates: Sequence[Gate] = (),
        among: Open | None = None,
    ) -> None:
        """Prepare a batch.

        Args:
            batch: The calls.
            perform: Performs one call and returns its outcome, whatever happens.
            gates: What each call has to have a place of while it runs.
            among: Where the insides of the calls are kept while they are open.
        """
        self.calls = batch.calls
        self.finished: dict[int, ToolOutcome] = {}
        self._interrupts: dict[int, Interrupt] = {}
        self._insides: dict[int, Inside] = {}
        self._perform = perform
        self._gates = gates
        self._among: Open = {} if among is None else among

    async def run(self) -> None:
        """Run the calls concurrently. What a handler raises comes out as it is."""
        for stage in self._stages():
            if self._interrupts:
                return
            if len(stage) == 1:
                await self._one(*stage[0], await self._admitted(*stage[0]))
                continue
            failed: BaseException | None = None
            try:
                await self._together(stage)
            except BaseExceptionGroup as group:
                failed = bare(group)
            if failed is not None:
                raise failed

    def outcomes(self) -> tuple[ToolOutcome, ...]:
        """Every call's outcome in call order; what has not ended is answered as cancelled."""
        return tuple(
            self.finished.get(index) or self._unfinished(index, invocation)
            for index, invocation in enumerate(self.calls)
        )

    @property
    def interrupt(self) -> Interrupt | None:
        """The end of the whole run, if calls were answered by it."""
        if not self._interrupts:
            return None
        return merged([self._interrupts[index] for index in sorted(self._interrupts)])

    async def _together(self, stage: list[tuple[int, ToolInvocation]]) -> None:
        async with anyio.create_task_group() as group:
            for index, invocation in stage:
                # Admitted here, one after the other: calls begin in call order, whatever the
                # event loop's order of tasks is, so a replay can let them begin so again.
                inside = await self._admitted(index, invocation)
                group.start_soon(self._one, index, invocation, inside, name=invocation.at)

    async def _admitted(self, index: int, invocation: ToolInvocation) -> Inside:
        inside = self._insides[index] = Inside(invocation.at, self._among, self._gates)
        try:
            await inside.take()
        except BaseException:
            inside.give()
            raise
        return inside

    async def _one(self, index: int, invocation: ToolInvocation, inside: Inside) -> None:
        self._among[invocation.at] = inside
        try:
            outcome = await self._perform(invocation)
        finally:
            del self._among[invocation.at]
            inside.give()
        if isinstance(outcome, Interrupt):
            self._interrupts[index] = outcome
        else:
            self.finished[index] = outcome

    def _unfinished(self, index: int, invocation: ToolInvocation) -> ToolOutcome:
        """The answer to a call that has not ended, with what its agents have used."""
        interrupt, inside = self._interrupts.get(index), self._insides.get(index)
        paused = any(one.status == "paused" for one in self._interrupts.values())
        text = "Not finished: the run is paused." if paused else "Cancelled before it finished."
        used = inside.used if inside is not None else Usage()
        if interrupt is not None:
            used = interrupt.usage
        return replace(outcome_of(invocation, "cancelled", text), usage=used)

    def _stages(self) -> Iterator[list[tuple[int, ToolInvocation]]]:
        """Split the batch at its sequential calls.

        What stands before one has ended when it starts; what stands after it starts when
        it has ended.
        """
        stage: list[tuple[int, ToolInvocation]] = []
        for index, invocation in enumerate(self.calls):
            if not invocation.sequential:
                stage.append((index, invocation))
                continue
            if stage:
                yield stage
            yield [(index, invocation)]
            stage = []
        if stage:
            yield stage


def bare(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a task group raised: the one failure as it is; of several the group."""
    return group.exceptions[0] if len(group.exceptions) == 1 else group
