"""Run a tool's function: sync or async, a generator or not."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio import NoEventLoopError
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import current_token

from agentkit.events import Event, Warned
from agentkit.tools.context import RunContext, progress_to

T = TypeVar("T")


async def called(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the application's, sync or async, and return its value.

    Raises:
        RuntimeError: It ended as if it had been cancelled, and nothing had cancelled it.
    """
    try:
        value = function(*args)
        return await value if inspect.isawaitable(value) else value
    except BaseException as error:
        if (meant := meant_by(error)) is error:
            raise
        raise meant from error


def meant_by(error: BaseException) -> BaseException:
    """Return what an exception of the application's code stands for: most often itself."""
    if isinstance(error, anyio.get_cancelled_exc_class()) and not _cancelled():
        return RuntimeError("Something that the function awaited was cancelled.")
    if isinstance(error, BaseExceptionGroup):
        # A trio nursery that is cancelled raises that beside what its other tasks raise. The
        # scope that cancels would take its part out of the group, and the rest would pass it.
        _, cancelled = cast("BaseExceptionGroup[BaseException]", error).split(Exception)
        return cancelled or cast("BaseException", error)
    return error


def _cancelled() -> bool:
    """Tell whether a cancellation is meant for the code that runs here.

    Under asyncio it may also come from an awaited task that was cancelled on its own.
    """
    import asyncio  # here, because trio programs do not need it

    if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return True
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


HELD = 1.0
"""Seconds for which an async tool may hold the event loop without a warning."""


async def run(
    call: Callable[[], Any], context: RunContext[Any], *, threaded: bool, name: str
) -> Any:
    """Run a tool's function: coroutines in the event loop, everything else in a worker thread.

    A generator's yields are progress; its return value, or else its last yield, is
    the value. A sync function whose call is cancelled continues in its thread, and
    what it still reports or returns is discarded.
    """
    if threaded:
        value = await called(_in_thread, call, context)
    else:
        value = await _Watched(called(call), context, name)
    if inspect.isawaitable(value):  # of a function that hands another one's on
        value = await called(lambda: value)
    if inspect.isasyncgen(value):
        return await _Watched(called(_exhausted, value, context), context, name)
    return value


class _Last(threading.local):
    """When such a tool was found last in this thread: it was not the tool around that one."""

    found = 0.0


_last = _Last()


class _Watched:
    """A coroutine, with a warning where its code held the event loop for long.

    Nothing can stop such code while it does, a time-out neither, so it is found afterwards.
    """

    __slots__ = ("_context", "_coroutine", "_name")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], context: RunContext[Any], name: str
    ) -> None:
        self._coroutine = coroutine
        self._context = context
        self._name = name

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        longest = 0.0
        try:
            while True:
                began = time.perf_counter()
                try:
                    awaited = resume(value)
                except StopIteration as end:
                    return end.value
                finally:
                    now = time.perf_counter()
                    if now - began > max(longest, HELD) and _last.found < began:
                        longest, _last.found = now - began, now
                resume = self._coroutine.send
                try:
                    value = yield awaited
                except BaseException as error:
                    resume, value = self._coroutine.throw, error
        finally:
            if longest:
                self._warn(longest)

    def _warn(self, seconds: float) -> None:
        text = (
            f"{self._name} held the event loop for {seconds:.1f} s: nothing else ran meanwhile, "
            "and no time-out or cancellation could end it. Make it a plain `def`, which runs in "
            "a thread, or await what blocks."
        )
        self._context.emit(Warned(at=self._context.address, code="blocked_loop", text=text))


def is_async(function: Any) -> bool:
    """Tell whether calling the function returns at once, with something to await or iterate."""
    while isinstance(function, functools.partial):
        function = cast("Any", function).func
    if not inspect.isroutine(function):
        function = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


async def _in_thread(call: Callable[[], Any], context: RunContext[Any]) -> Any:
    thread = _Thread(call, context)
    limiter = context.services.threads if context.services is not None else None
    try:
        (value,) = await anyio.to_thread.run_sync(
            thread.work, abandon_on_cancel=True, limiter=limiter
        )
        return value
    finally:
        thread.watched = False
        if thread.working:
            text = "The tool's thread is still running; what it reports or returns is discarded."
            context.emit(Warned(at=context.address, code="thread_abandoned", text=text))


class _Thread:
    """A function that runs in a thread.

    Attributes:
        watched: The call still waits for it.
        working: It has started and not ended.
    """

    def __init__(self, call: Callable[[], Any], context: RunContext[Any]) -> None:
        self.watched = True
        self.working = False
        self._call = call
        self._context = context

    def work(self) -> tuple[Any]:  # trio takes no bare coroutine out of a thread
        self.working = True
        progress_to(self._progress)
        try:
            value = self._call()
            return (self._exhausted(value) if inspect.isgenerator(value) else value,)
        finally:
            self.working = False

    def _exhausted(self, values: Generator[Any, Any, Any]) -> Any:
        last = None
        with contextlib.closing(values):
            while self.watched:
                try:
                    last = next(values)
                except StopIteration as end:
                    return last if end.value is None else end.value
                self._context.progress(last)
        return None

    def _progress(self, event: Event) -> None:
        if self.watched:
            anyio.from_thread.run_sync(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        if self.watched:
            self._context.emit(event)


async def _exhausted(values: Any, context: RunContext[Any]) -> Any:
    last = None
    async with contextlib.aclosing(values):
        async for last in values:
            context.progress(last)
    return last


def run_blocking(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run in this thread, or in one of its own where a loop is running already."""
    if not _in_event_loop():
        return anyio.run(main)
    with start_blocking_portal() as portal:
        return portal.call(main)


def _in_event_loop() -> bool:
    try:
        current_token()
    except NoEventLoopError:
        return False
    return True
