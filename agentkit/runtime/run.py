"""What a caller holds of a run: its result, its stream of events, its steps.

Three ways to drive one loop. `Agent.run` waits for the result, `Agent.stream`
gives a `Run` whose events come as they happen, and `Agent.iter` gives `Steps`,
which stand still between the effects.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar

import anyio

from agentkit.core.effects import Address, LoopEffect, Outcome
from agentkit.core.spec import PartialReader
from agentkit.errors import ConfigurationError
from agentkit.events import (
    Emit,
    Event,
    OutputDelta,
    Restarted,
    StepStarted,
    TextDelta,
    ToolCallDelta,
)
from agentkit.runtime.batch import bare
from agentkit.runtime.driver import Driver, checked
from agentkit.runtime.result import RunResult
from agentkit.runtime.scope import guarded
from agentkit.tools.invoke import is_async
from agentkit.trace.deltas import Delta, model_of

OutputT = TypeVar("OutputT")
HeldT = TypeVar("HeldT")
ParamsT = ParamSpec("ParamsT")


class Request(Protocol[OutputT]):
    """A run that has not begun: a new one, or one that goes on."""

    @property
    def on_event(self) -> Emit:
        """The listener of the caller."""
        ...

    def open(self, listener: Emit | None = None) -> Driver[OutputT]:
        """Begin the run; `listener` gets the events instead of `on_event`."""
        ...


class Run(Generic[OutputT]):
    """A run that is going on: an async iterator of its events.

    Made by `Agent.stream` and `Agent.resume_stream`.

    Events that nobody reads are kept; the run never waits for its reader.
    """

    def __init__(self, request: Request[OutputT]) -> None:
        self._events: deque[Event] = deque()
        self._changed = anyio.Event()
        self._on_event = guarded(request.on_event)
        self._ended = False
        self._partial: PartialReader | None = None
        self._answer: Address | None = None  # the model call that `_partial` reads
        self._call: Address | None = None
        self._driver = request.open(self._take)

    @property
    def id(self) -> str:
        """The run, 32 hexadecimal digits: the name of its trace in a folder."""
        return self._driver.scope.run

    @property
    def result(self) -> RunResult[OutputT]:
        """The result, once the run has ended; a cancelled run has one too.

        Raises:
            ConfigurationError: The run is still going on.
            AgentKitError: The run failed.
        """
        if not self._ended or self._driver.finish is None:
            raise ConfigurationError("The run is going on; read its events to their end first.")
        return _result(self._driver)

    def cancel(self, reason: str = "cancelled") -> None:
        """End the run: status "cancelled", what has finished is kept, the history is valid."""
        self._driver.cancel(reason)

    def text(self, *, restarted: Callable[[str], object] = lambda _: None) -> AsyncIterator[str]:
        """Iterate over the agent's text as it comes, without that of sub-agents.

        A model call may begin again after some of its text was shown: a connection broke, or
        a fallback model was asked. The pieces then begin again too.

        Args:
            restarted: Called before they do, with the text that no longer counts: what this
                call has shown so far. Not async.

        Raises:
            ConfigurationError: `restarted` is async.
        """
        if is_async(restarted):
            raise ConfigurationError(f"restarted={restarted!r}: expected a function, not async.")
        return _Text(self, restarted)

    def concerns(self, event: Event) -> bool:
        """Tell whether an event is about a model call of the agent, or of one that took over."""
        return event.at.parent in self._driver.agents

    def __aiter__(self) -> Run[OutputT]:
        """Iterate over the events to the end of the run. Failures are raised by `result`."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event."""
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            if self._changed.is_set():
                self._changed = anyio.Event()
            await self._changed.wait()
        return self._events.popleft()

    def _take(self, event: Event) -> None:
        self._tell(event)
        try:
            output = self._output_so_far(event)
        except KeyboardInterrupt:
            raise
        except BaseException:  # of a validator, which never expected an unfinished value
            return
        if output is not None:
            self._tell(output)

    def _tell(self, event: Event) -> None:
        self._on_event(event)
        if not self._events:  # nobody waits where there are some
            self._changed.set()
        self._events.append(event)

    def _output_so_far(self, event: Event) -> OutputDelta | None:
        """Return the typed output as far as it is written, if a piece of it has come."""
        spec = self._driver.program.spec
        if spec.output.partial is None:
            return None
        at = model_of(event) if isinstance(event, Delta) else event.at
        if at != self._answer and at.parent != spec.at:
            return None
        match event:
            case StepStarted() | Restarted():
                self._partial, self._answer, self._call = None, at, None
                self._partial = spec.output.partial()
                return None
            case TextDelta(text=piece) if spec.output.tool is None:
                pass
            case ToolCallDelta(name=name, arguments=piece) if spec.output.tool is not None:
                self._call = self._call or (event.at if name == spec.output.tool.name else None)
                if event.at != self._call:
                    return None
            case _:
                return None
        value = self._partial.feed(piece) if self._partial is not None else None
        return None if value is None else OutputDelta(at=at, value=value)

    async def drive(self) -> None:
        """Run to the end, in a task beside the reader."""
        try:
            await self._driver.execute()
        except (Exception, SystemExit) as error:
            finish = self._driver.finish
            if finish is None or finish.error is None or finish.error.exception is not error:
                raise
            # The run ended with it, and `result` raises it.
        finally:
            self._ended = True
            self._changed.set()


class _Text:
    """Iterators here are objects: a generator that is left early would have to be closed."""

    def __init__(self, run: Run[Any], restarted: Callable[[str], object]) -> None:
        self._run = run
        self._restarted = restarted
        self._shown: list[str] = []

    def __aiter__(self) -> _Text:
        return self

    async def __anext__(self) -> str:
        async for event in self._run:
            match event:
                case TextDelta(text=text) if self._run.concerns(event):
                    self._shown.append(text)
                    return text
                case StepStarted() if self._run.concerns(event):
                    self._shown.clear()
                case Restarted() if self._shown and self._run.concerns(event):
                    gone = "".join(self._shown)
                    self._shown.clear()
                    self._restarted(gone)
                case _:
                    pass
        raise StopAsyncIteration


def _result(driver: Driver[OutputT]) -> RunResult[OutputT]:
    """Return the result of a run that may have been cancelled by its own caller."""
    assert driver.finish is not None
    return driver.reached if driver.finish.status == "cancelled" else driver.result


_HOW = {
    "stream": "Open it first: `async with agent.stream(…) as run:`, and in the block "
    "`async for event in run:`. For the result alone, `await agent.run(…)`",
    "iter": "Open it first: `async with agent.iter(…) as steps:`, and in the block "
    "`async for step in steps:`. For the result alone, `await agent.run(…)`",
}


class _Block(AbstractAsyncContextManager[HeldT]):
    """What opens a run. Used in any other way, it says how to open it."""

    def __init__(self, form: str, opening: AbstractAsyncContextManager[HeldT]) -> None:
        self._form = form
        self._opening = opening

    async def __aenter__(self) -> HeldT:
        return await self._opening.__aenter__()

    async def __aexit__(self, *raised: Any) -> bool | None:
        return await self._opening.__aexit__(*raised)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for by copies, and by tools that look at objects
            raise AttributeError(name)
        raise AttributeError(
            f"agent.{self._form}(…) has no {name!r} before it is open. {_HOW[self._form]}.",
            name=name,
        )

    def _misused(self, *raised: Any) -> Any:
        sync = "; in code that is not async, `agent.run_sync(…)`"
        raise TypeError(f"agent.{self._form}(…) is not open. {_HOW[self._form]}{sync}.")

    __aiter__ = __anext__ = __await__ = __iter__ = __next__ = __enter__ = __exit__ = _misused


def block(
    form: Literal["stream", "iter"],
) -> Callable[
    [Callable[ParamsT, AsyncGenerator[HeldT, None]]],
    Callable[ParamsT, AbstractAsyncContextManager[HeldT]],
]:
    """Make an async context manager of a generator, as `asynccontextmanager` does."""

    def decorate(
        function: Callable[ParamsT, AsyncGenerator[HeldT, None]],
    ) -> Callable[ParamsT, AbstractAsyncContextManager[HeldT]]:
        opening = asynccontextmanager(function)

        @functools.wraps(function)
        def opened(
            *args: ParamsT.args, **kwargs: ParamsT.kwargs
        ) -> AbstractAsyncContextManager[HeldT]:
            return _Block(form, opening(*args, **kwargs))

        return opened

    return decorate


@block("stream")
async def streaming(request: Request[OutputT]) -> AsyncGenerator[Run[OutputT], None]:
    """Drive a run beside the caller's block. Leaving the block early cancels the run."""
    run = Run(request)
    failed: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(run.drive)
            try:
                yield run
            except (anyio.get_cancelled_exc_class(), GeneratorExit):
                raise
            except BaseException as error:
                failed = error  # raised below: a task group would wrap it
            finally:
                run.cancel("its stream was left")
    except BaseExceptionGroup as several:
        failed = failed or bare(several)
    if failed is not None:
        raise failed


class Step(Generic[OutputT]):
    """One effect of a run, before or after it is performed.

    Attributes:
        effect: What the loop asks for. Replace it to change what is performed.
        performed: The outcome of performing it, or None.
        outcome: The outcome that the loop will be sent, or None. Set it to answer without
            performing, or replace it after `perform` to change what the loop is sent.
    """

    def __init__(self, effect: LoopEffect, driver: Driver[OutputT]) -> None:
        self.effect = effect
        self.outcome: Outcome | None = None
        self.performed: Outcome | None = None
        self._driver = driver

    async def perform(self) -> Outcome:
        """Perform the effect now, to look at its outcome before the loop goes on."""
        self.performed = self.outcome = await self._driver.perform(self.effect)
        return self.outcome


class Steps(Generic[OutputT]):
    """A run that stands still between its effects. Made by `Agent.iter` and `Agent.resume_iter`.

    Each turn gives the next `Step`; asking for the one after it performs it, unless
    that was done already.
    """

    def __init__(self, driver: Driver[OutputT]) -> None:
        self._driver = driver
        self._step: Step[OutputT] | None = None
        self._first: Step[OutputT] | None = None

    @property
    def result(self) -> RunResult[OutputT]:
        """The result, once there are no more steps, or once the block was left.

        Raises:
            ConfigurationError: There are more steps.
            AgentKitError: The run failed.
        """
        if self._driver.finish is None:
            raise ConfigurationError("The run has more steps; go on to their end first.")
        return _result(self._driver)

    def __aiter__(self) -> Steps[OutputT]:
        """Iterate over the steps, once."""
        return self

    async def __anext__(self) -> Step[OutputT]:
        """Perform the last step and give the next one."""
        if self._driver.finish is not None:
            raise StopAsyncIteration
        if self._first is not None:
            self._step, self._first = self._first, None
            return self._step
        if self._step is None:
            effect = self._driver.begin()
        else:
            if self._step.outcome is None:
                await self._step.perform()
            checked(self._step.effect, self._step.outcome)
            self._driver.record(self._step.effect, self._step.outcome, self._step.performed)
            effect = self._driver.send(self._step.outcome)
        if effect is None:
            raise StopAsyncIteration
        self._step = await self._entered(effect)
        return self._step

    async def prepare(self) -> None:
        """Enter the toolsets as the block begins: what they open is nested in it."""
        effect = self._driver.begin()
        assert effect is not None  # toolsets are listed at each step
        self._first = await self._entered(effect)

    async def _entered(self, effect: LoopEffect) -> Step[OutputT]:
        step = Step(effect, self._driver)
        if self._driver.unentered:
            step.outcome = step.performed = await self._driver.enter(effect, at_once=True)
        return step


@block("iter")
async def stepping(request: Request[OutputT]) -> AsyncGenerator[Steps[OutputT], None]:
    """Hold a run open for stepping and close its trace at the end."""
    driver = request.open()
    steps = Steps(driver)
    try:
        if driver.unentered:
            await steps.prepare()
        yield steps
    except BaseException as error:
        driver.abandon()
        driver.close()
        if not await driver.leave(error):
            raise
    else:
        driver.abandon()
        driver.close()
        await driver.leave()
