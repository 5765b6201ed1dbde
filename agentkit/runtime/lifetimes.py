"""Toolsets with a lifetime: connections, browsers, subprocesses that one run of an agent holds.

The driver enters them in the task of the run, before the first effect that may need one, and
leaves them there when the run has ended. So whatever a toolset opens, a task group included,
is nested like an `async with` around the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import cast

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from agentkit.tools.toolset import Toolset


class Lifetimes:
    """The toolsets that a run has entered.

    Attributes:
        entered: What each goes on as, by its id.
    """

    def __init__(self) -> None:
        self.entered: dict[int, Toolset] = {}
        self._stack = AsyncExitStack()

    async def enter(
        self, toolset: Toolset, deadline: float, hold: Callable[[CancelScope], None]
    ) -> bool:
        """Enter a toolset, unless that is done already; return whether it is entered.

        Args:
            toolset: It defines `__aenter__` and `__aexit__`.
            deadline: Of the run.
            hold: Gets the scope that ends the entering, and that stays open as long as it.
        """
        if id(toolset) in self.entered:
            return True
        async with AsyncExitStack() as attempt:
            # It encloses what the toolset opens, as scopes have to be nested.
            scope = attempt.enter_context(CancelScope(deadline=deadline))
            hold(scope)
            held = cast("AbstractAsyncContextManager[object]", toolset)
            entered = await attempt.enter_async_context(held)
            if scope.cancel_called:  # it came too late for the toolset: leave it again
                await checkpoint()
            scope.deadline = math.inf
            self._stack.push_async_exit(attempt.pop_all())
            self.entered[id(toolset)] = entered if isinstance(entered, Toolset) else toolset
        return id(toolset) in self.entered

    async def leave(self, error: BaseException | None) -> bool:
        """Leave the toolsets, the last first; return whether one of them swallowed the error."""
        trace = error.__traceback__ if error is not None else None
        kind = type(error) if error is not None else None
        try:
            return bool(await self._stack.__aexit__(kind, error, trace))
        except BaseExceptionGroup as group:
            if group.split(lambda one: one is error)[1] is not None:
                raise
            return False  # a task group of a toolset has only wrapped it
