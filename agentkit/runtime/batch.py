"""Runs one batch of tool calls: concurrently, bounded, answered in call order.

A `Batch` decides when each of its calls runs; `tool_call` how one runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import anyio

from agentkit.core.effects import Interrupt, ToolBatch, ToolInvocation, ToolOutcome
from agentkit.messages import NO_USAGE
from agentkit.runtime.slots import CallFrame, Frames, Slots, merged
from agentkit.runtime.tool_call import outcome_of

Perform: TypeAlias = Callable[[ToolInvocation], Awaitable[ToolOutcome | Interrupt]]


class Batch:
    """One batch being run.

    Attributes:
        finished: The outcomes so far by index, in the order of finishing.
    """

    def __init__(
        self, batch: ToolBatch, perform: Perform, frames: Frames, slots: Sequence[Slots] = ()
    ) -> None:
        """Prepare a batch.

        Args:
            batch: The calls.
            perform: Performs one call and returns its outcome, whatever happens.
            frames: Those of the run.
            slots: Of each, every call has to hold one while it runs.
        """
        self.calls = batch.calls
        self.finished: dict[int, ToolOutcome] = {}
        self._interrupts: dict[int, Interrupt] = {}
        self._begun: dict[int, CallFrame] = {}
        self._perform = perform
        self._frames = frames
        self._slots = slots

    async def run(self) -> None:
        """Run the calls concurrently. What a handler raises comes out as it is."""
        for stage in self.stages():
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
        """Return every call's outcome in call order; what has not ended is cancelled."""
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
        # A task costs as much as what else runs a small call. Where no call has to wait for
        # another, the first needs none: it runs here.
        in_tasks = stage if self._slots else stage[1:]
        async with anyio.create_task_group() as group:
            for index, invocation in in_tasks:
                # Admitted here, one after the other: calls begin in call order, whatever the
                # event loop's order of tasks is, so a replay can let them begin so again.
                frame = await self._admitted(index, invocation)
                group.start_soon(self._one, index, invocation, frame, name=invocation.at)
            if in_tasks is not stage:
                await self._one(*stage[0], await self._admitted(*stage[0]))

    async def _admitted(self, index: int, invocation: ToolInvocation) -> CallFrame:
        frame = self._begun[index] = CallFrame(invocation.at, self._frames, self._slots)
        if self._slots:
            try:
                await frame.acquire()
            except BaseException:
                frame.release()
                raise
        return frame

    async def _one(self, index: int, invocation: ToolInvocation, frame: CallFrame) -> None:
        try:
            with frame:
                outcome = await self._perform(invocation)
        finally:
            frame.release()
        self.ended(index, outcome)

    def ended(self, index: int, outcome: ToolOutcome | Interrupt) -> None:
        """Keep the outcome of a call."""
        if isinstance(outcome, Interrupt):
            self._interrupts[index] = outcome
        else:
            self.finished[index] = outcome

    def _unfinished(self, index: int, invocation: ToolInvocation) -> ToolOutcome:
        """Answer a call that has not ended, with what its sub-agents have used."""
        interrupt, frame = self._interrupts.get(index), self._begun.get(index)
        paused = any(one.status == "paused" for one in self._interrupts.values())
        text = "Not finished: the run is paused." if paused else "Cancelled before it finished."
        used = frame.used if frame is not None else NO_USAGE
        if interrupt is not None:
            used = interrupt.usage
        return replace(outcome_of(invocation, "cancelled", text), usage=used)

    def stages(self) -> Iterator[list[tuple[int, ToolInvocation]]]:
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
    """Return what a task group raised: one failure as it is, several as their group."""
    return group.exceptions[0] if len(group.exceptions) == 1 else group
