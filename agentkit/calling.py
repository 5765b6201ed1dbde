"""Runs a function that may be sync or async, a generator or not, under one roof."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import anyio.from_thread
import anyio.to_thread

from agentkit.context import RunContext, progress_to
from agentkit.events import Event

__all__ = ["awaited", "run"]


async def awaited(value: Any) -> Any:
    """What a function gave that may be sync or async."""
    return await value if inspect.isawaitable(value) else value


async def run(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    context: RunContext[Any],
) -> Any:
    """Run the function: coroutines here, everything else in a worker thread.

    What a generator yields is progress; its return, or else its last yield, is
    the value. A sync function whose call is cancelled goes on in its thread,
    and whatever it still reports or returns is discarded.
    """
    call = functools.partial(function, *args, **kwargs)
    value = call() if _is_async(function) else await _in_thread(call, context)
    value = await awaited(value)
    if inspect.isasyncgen(value):
        return await _exhausted(value, context)
    return value


def _is_async(function: Any) -> bool:
    """Whether calling the function returns at once, with something to await or iterate."""
    while isinstance(function, functools.partial):
        function = cast("Any", function).func
    if not inspect.isroutine(function):
        function = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


async def _in_thread(call: Callable[[], Any], context: RunContext[Any]) -> Any:
    watched = True

    def deliver(event: Event) -> None:
        if watched:
            context.emit(event)

    def progress(event: Event) -> None:
        if watched:
            anyio.from_thread.run_sync(deliver, event)

    def work() -> tuple[Any]:  # trio takes no bare coroutine out of a thread
        progress_to(progress)
        value = call()
        if not inspect.isgenerator(value):
            return (value,)
        last = None
        with contextlib.closing(value):
            while watched:
                try:
                    last = next(value)
                except StopIteration as end:
                    return (last if end.value is None else end.value,)
                context.progress(last)
        return (None,)

    try:
        (value,) = await anyio.to_thread.run_sync(
            work, abandon_on_cancel=True, limiter=context.threads
        )
        return value
    finally:
        watched = False


async def _exhausted(values: Any, context: RunContext[Any]) -> Any:
    last = None
    async with contextlib.aclosing(values):
        async for last in values:
            context.progress(last)
    return last
