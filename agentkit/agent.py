"""`Agent`: a model, tools, instructions and an output type, and the ways to run them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar, Unpack, overload

import anyio
from anyio import NoEventLoopError
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import current_token

from agentkit.core.effects import Address, Decision, PendingCall
from agentkit.core.spec import Finish, OutputSpec
from agentkit.errors import ConfigurationError
from agentkit.events import Emit, ignore
from agentkit.history import check_history, repair_history
from agentkit.messages import messages_from_json
from agentkit.models import Model, resolve_model
from agentkit.output.build import Mode
from agentkit.redaction import Redactor
from agentkit.replay.answers import RecordedHandler
from agentkit.replay.resume import resuming
from agentkit.runtime.assemble import (
    Instructions,
    assemble,
    check_compaction,
    output_of,
    program_hash,
    sources,
)
from agentkit.runtime.driver import Driver, Program
from agentkit.runtime.handlers import Approver, Scope, guarded, new_run_id
from agentkit.runtime.hooks import Beginning, interceptor
from agentkit.runtime.options import (
    AgentOptions,
    Prompt,
    RunOptions,
    TraceTo,
    check_options,
    prompt_messages,
    without_placeholders,
)
from agentkit.runtime.result import Origin, RunResult, conclude
from agentkit.runtime.run import OpenDriver, Run, Steps, stepping, streaming
from agentkit.settings import ChatSettings, Limits, asked_of, limits_of, settings_of
from agentkit.tools.context import RunContext
from agentkit.tools.options import BehaviourOptions
from agentkit.tools.tool import Tool
from agentkit.trace.file import MemorySink
from agentkit.trace.logs import teeing
from agentkit.trace.open import check_replayable, open_recorder, recorded_in, reopened
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import Durability, Recorder
from agentkit.trace.schema import Capture

__all__ = ["Agent", "AgentOptions", "RunOptions"]

OutputT = TypeVar("OutputT")
T = TypeVar("T")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class _Changes(AgentOptions, total=False):
    """What `Agent.with_` takes besides the output type."""

    model: str | Model


class Agent(Generic[OutputT]):
    """A model with tools and an output type. Immutable; `with_` makes variants.

    Example:
        >>> from agentkit import Agent
        >>> from agentkit.testing import ScriptedModel
        >>> agent = Agent(ScriptedModel(["Bonjour."]), instructions="Speak French.")
        >>> agent.run_sync("Hello").output
        'Bonjour.'

    Nothing is connected, read or started before the first run.

    Args:
        model: A model string such as `openai:gpt-4o` or `local`, or a model object.
        output: The type of the result: `str`, a pydantic model, a dataclass, … or a
            function, which gets the output as its arguments and whose value is the result.
        name: What addresses and traces call it: letters, digits, `_`, `-` and `.`.
        tools: Tools, functions to make tools of, toolsets, and handoffs.
        instructions: The system text, or a function (sync or async, with or without a
            `RunContext`) that gives it at the start of each run.
        output_mode: How a typed output is asked for; `auto` lets the model's profile say.
        output_retries: How often an output that does not fit is asked for again.
        output_validators: Functions that get the typed output, or the `RunContext` and the
            output, and raise `ToolError` to have it asked for again.
        settings: Sampling parameters.
        step_settings: A function, with or without a `RunContext`, sync or async, that gives
            `ChatSettings` before each step, over the agent's and the run's; also `tool_choice`.
        limits: Where a run ends.
        trace: Where runs are recorded, unless `run` says otherwise; see `RunOptions`.
        capture: How much of runs is recorded, unless `run` says otherwise; see `RunOptions`.
        durability: When a trace is brought to the disk, as `capture`.
        redact: Takes secrets out of traces and of what models are told of exceptions, as
            `capture`.
        middleware: Handlers around what performs the effects, outermost first.
        concurrency: Tool calls running at the same time, over all runs of this agent in
            one event loop; `Limits.parallel` is for one run.
        compact: Makes a long history shorter; see `agentkit.history`.
        compact_above: Input tokens of a step above which that is done.

    Raises:
        InvalidTool: A tool cannot be made, or two have one name.
        ConfigurationError: Something cannot be used.
    """

    @overload
    def __init__(self: Agent[str], model: str | Model, **options: Unpack[AgentOptions]) -> None: ...

    @overload
    def __init__(
        self, model: str | Model, *, output: type[OutputT], **options: Unpack[AgentOptions]
    ) -> None: ...

    @overload
    def __init__(
        self,
        model: str | Model,
        *,
        output: Callable[..., Coroutine[Any, Any, OutputT]],
        **options: Unpack[AgentOptions],
    ) -> None: ...

    @overload
    def __init__(
        self, model: str | Model, *, output: Callable[..., OutputT], **options: Unpack[AgentOptions]
    ) -> None: ...

    @overload
    def __init__(
        self: Agent[Any], model: str | Model, *, output: Any, **options: Unpack[AgentOptions]
    ) -> None: ...

    def __init__(
        self, model: str | Model, *, output: Any = str, **options: Unpack[AgentOptions]
    ) -> None:
        check_options(options, AgentOptions, "Agent")
        if not (isinstance(model, str) or hasattr(model, "request")):
            raise ConfigurationError(f"model={model!r}: expected a model string or a model.")
        name, instructions = options.get("name", "agent"), options.get("instructions")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigurationError(
                f"name={name!r} cannot stand in an address; use letters, digits, _, - and '.'."
            )
        check_compaction(options.get("compact"), options.get("compact_above"))
        self.model = model
        self.output = output
        self.name = name
        self.tools = sources(options.get("tools", ()))
        self.instructions: Instructions | None = instructions
        self.output_mode: Mode = options.get("output_mode", "auto")
        self.output_retries = options.get("output_retries", 1)
        self.validators = [*options.get("output_validators", ())]
        self.settings = options.get("settings") or ChatSettings()
        self.step_settings = options.get("step_settings")
        self.limits = options.get("limits") or Limits()
        self.trace = options.get("trace")
        self.capture: Capture = options.get("capture") or "full"
        self.durability: Durability = options.get("durability") or "none"
        self.redact = options.get("redact") or Redactor()
        self.middleware = tuple(options.get("middleware", ()))
        self.concurrency = options.get("concurrency")
        self.compact = options.get("compact")
        self.compact_above = options.get("compact_above")
        self._options = options
        self._resolved: Model | None = None
        self._compiled: tuple[OutputSpec[Any], Tool[..., Any] | None] | None = None
        self._frozen = True

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse changes: an agent is shared between runs."""
        if getattr(self, "_frozen", False) and name not in ("_resolved", "_compiled"):
            raise AttributeError(f"An Agent does not change; use agent.with_({name}=…).")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        """Short: model, name and tools."""
        model = self.model if isinstance(self.model, str) else self.model.name
        tools = ", ".join(one.name if isinstance(one, Tool) else repr(one) for one in self.tools)
        return f"Agent({model!r}, name={self.name!r}, tools=[{tools}])"

    @overload
    def with_(self, *, output: type[T], **changes: Unpack[_Changes]) -> Agent[T]: ...

    @overload
    def with_(
        self, *, output: Callable[..., Coroutine[Any, Any, T]], **changes: Unpack[_Changes]
    ) -> Agent[T]: ...

    @overload
    def with_(self, *, output: Callable[..., T], **changes: Unpack[_Changes]) -> Agent[T]: ...

    @overload
    def with_(self, **changes: Unpack[_Changes]) -> Agent[OutputT]: ...

    def with_(self, **changes: Any) -> Agent[Any]:
        """A variant of this agent. Takes what `Agent` takes.

        Example:
            >>> from agentkit import Agent
            >>> Agent("local").with_(model="openai:gpt-4o").model
            'openai:gpt-4o'
        """
        given: dict[str, Any] = {
            "model": self._resolved or self.model,
            "output": self.output,
            **self._options,
            "output_validators": self.validators,
            **changes,
        }
        return Agent(given.pop("model"), output=given.pop("output"), **given)

    def output_validator(self, function: FunctionT) -> FunctionT:
        """Decorator: have the typed output checked by a function, before the first run.

        It gets the output, or the `RunContext` and the output; sync or async. Raising
        `ToolError` has the output asked for again, with that text as the reason.
        """
        self.validators.append(function)
        return function

    async def run(self, prompt: Prompt, **options: Unpack[RunOptions]) -> RunResult[OutputT]:
        """Run the agent to its typed output.

        Args:
            prompt: What the user says: text, or content parts. None goes on from `history`.
            **options: See `RunOptions`.

        Returns:
            The result; `status` is "ok", or "paused" when somebody has to decide first.

        Raises:
            ConfigurationError: Something in the call cannot work; said before any I/O.
            ModelError: The model gave no usable answer.
            LimitExceeded: A limit was reached.
            AgentKitError: Every other way to fail. `error.result` has what was reached.
        """
        driver, origin = self._begin(prompt, options)(options.get("on_event", ignore))
        return conclude(await driver.execute(), origin)

    async def resume(
        self,
        trace: Trace | str | os.PathLike[str],
        *,
        decisions: Mapping[str, Decision | bool] | Mapping[Address, Decision | bool] | None = None,
        deps: object = None,
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        on_event: Emit = ignore,
        approver: Approver | None = None,
        durability: Durability | None = None,
        redact: Redactor | None = None,
    ) -> RunResult[OutputT]:
        """Go on with a run that was paused or interrupted, in any process.

        What is recorded is not done again: the run is replayed to where it ended and goes
        on from there, live, appended to the same trace. A model call or a reading tool that
        was in flight is made again; a writing tool is asked about first.

        Args:
            trace: The run's trace, or its path.
            decisions: What was decided about `result.pending`, by address or call id.
            deps: Given to tools.
            settings: Instead of those that the run was given.
            limits: Instead of those that the run was given.
            on_event: Called with each event, the replayed ones included.
            approver: Decides about what `decisions` leaves open.
            durability: As the run was given it, instead of the agent's.
            redact: As the run was given it, instead of the agent's.

        Raises:
            ConfigurationError: A decision is about a call that does not wait, or the run was
                given settings with credentials, which the trace does not have.
            TraceError: The trace cannot be read, has no contents, or its run is still going on.
            ReplayDivergence: The agent is not the one that was interrupted.
            AgentKitError: As of `run`.
        """
        durable, redact = durability or self.durability, redact or self.redact
        sink = reopened(trace, durable)
        try:
            memory = isinstance(sink, MemorySink)
            recorded = Trace(sink.lines) if memory else Trace.load(sink.path)
            check_replayable(recorded)
            messages, earlier = recorded.input()
            then = without_placeholders(recorded.asked(), settings)
            program = self.program(settings or settings_of(then), limits or limits_of(then))
            program.model.check()
            answers = RecordedHandler(recorded, redact)
            answers.check_agent(program.spec.at)
            decide = _deciding(decisions or {}, approver, answers.waiting())
            recorder = Recorder(
                sink,
                run=recorded.run,
                program=program_hash(program, redact),
                redact=redact,
                durability=durable,
                taps=teeing(recorded.run),
                resumes=recorded,
            )
            scope = Scope(
                run=recorded.run,
                deps=deps,
                limits=program.spec.limits,
                listener=guarded(on_event),
                recorder=recorder,
                redact=redact,
                approver=decide,
                recorded=answers,
                around=resuming,
                resumed=True,
            )
            driver = scope.driver(program, messages, earlier=earlier)
            origin = Origin(run=recorded.run, prompt=messages[earlier:], recorded=recorded_in(sink))
            return conclude(await driver.execute(), origin)
        finally:
            sink.close()  # the run has closed it already, unless it never began

    def run_sync(self, prompt: Prompt, **options: Unpack[RunOptions]) -> RunResult[OutputT]:
        """`run`, for code that is not async: in a script, a notebook, or inside a running loop.

        Takes and raises what `run` does. Inside a running event loop it works in a thread of
        its own and blocks that loop meanwhile.
        """

        async def main() -> RunResult[OutputT]:
            return await self.run(prompt, **options)

        return run_blocking(main)

    def stream(
        self, prompt: Prompt, **options: Unpack[RunOptions]
    ) -> AbstractAsyncContextManager[Run[OutputT]]:
        """Run the agent and read what happens as it happens.

            async with agent.stream("…") as run:
                async for event in run: ...
            run.result

        Takes what `run` takes. The run goes on beside the block; leaving the block before
        the run has ended cancels it. `run.result` raises what `Agent.run` would raise.
        """
        begin = self._begin(prompt, options, stream=True)
        return streaming(begin, options.get("on_event", ignore))

    def iter(
        self, prompt: Prompt, **options: Unpack[RunOptions]
    ) -> AbstractAsyncContextManager[Steps[OutputT]]:
        """Run the agent effect by effect: look, change what is asked or answered, go on.

            async with agent.iter("…") as steps:
                async for step in steps:
                    print(step.effect.at)
            steps.result

        Takes what `run` takes.
        """
        return stepping(self._begin(prompt, options), options.get("on_event", ignore))

    def as_tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        **options: Unpack[BehaviourOptions],
    ) -> Tool[..., Any]:
        """This agent as a tool for another one: a prompt in, its output out.

        Args:
            name: What the model calls it; the agent's name by default.
            description: What the model is told of it.
            **options: As of `Tool`. `effect` is "read": the tool does nothing but ask the
                agent, and what the agent's own tools do is looked after by itself.
        """
        options.setdefault("effect", "read")

        async def ask(context: RunContext[Any], prompt: str) -> OutputT:
            result = await context.run(self, prompt)
            return result.output

        told = description or f"Ask the agent {self.name}. It sees only this prompt."
        return Tool(ask, name=name or self.name.replace(".", "_"), description=told, **options)

    def program(
        self, settings: ChatSettings | None = None, limits: Limits | None = None
    ) -> Program[OutputT]:
        """This agent, ready for a runner: resolved, merged, and still without any I/O."""
        if self._resolved is None:
            # Made once: its connections are shared by all runs.
            self._resolved = resolve_model(self.model)
        if self._compiled is None:
            self._compiled = output_of(self, self._resolved)
        return assemble(self, self._resolved, self._compiled, settings, limits)

    def conclude(self, finish: Finish[OutputT], run: str) -> RunResult[OutputT]:
        """The result of a run of this agent inside another one's tool."""
        return conclude(finish, Origin(run=run, prompt=(), recorded=None))

    def _begin(
        self, prompt: Prompt, options: RunOptions, *, stream: bool = False
    ) -> OpenDriver[OutputT]:
        """Check the whole call; what is returned opens the trace and begins the run."""
        check_options(options, RunOptions, "A run")
        earlier, prompted = messages_from_json(options.get("history", ())), prompt_messages(prompt)
        if options.get("repair"):
            earlier = repair_history(earlier)
        check_history(earlier)
        if not (earlier or prompted):
            raise ConfigurationError("There is nothing to answer: give a prompt or a history.")
        program = self.program(options.get("settings"), options.get("limits"))
        intercept = interceptor()
        if intercept is None:
            program.model.check()
        to = _first(options.get("trace"), self.trace, _environment_folder())

        redact = options.get("redact") or self.redact

        def begin(
            listener: Emit,
            *,
            program: Program[OutputT] = program,
            to: TraceTo = to,
            redact: Redactor = redact,
        ) -> tuple[Driver[OutputT], Origin]:
            run = new_run_id()
            recorder, recorded = open_recorder(
                to,
                run=run,
                program=lambda: program_hash(program, redact),
                redact=redact,
                stream=stream,
                capture=options.get("capture") or self.capture,
                durability=options.get("durability") or self.durability,
            )
            scope = Scope(
                run=run,
                deps=options.get("deps"),
                limits=program.spec.limits,
                listener=guarded(listener),
                recorder=recorder,
                redact=redact,
                stream=stream,
                approver=options.get("approver"),
                asked=asked_of(options.get("settings"), options.get("limits")),
            )
            driver = scope.driver(program, (*earlier, *prompted), earlier=len(earlier))
            return driver, Origin(run=run, prompt=prompted, recorded=recorded)

        if intercept is not None:
            messages = (*earlier, *prompted)
            deps = options.get("deps")
            return intercept(Beginning(program, messages, len(earlier), redact, deps), begin)
        return begin


def _deciding(
    decisions: Mapping[str, Decision | bool] | Mapping[Address, Decision | bool],
    approver: Approver | None,
    waiting: Sequence[PendingCall],
) -> Approver:
    """An approver that knows what was decided about the calls that wait now.

    Raises:
        ConfigurationError: A decision is about a call that does not wait.
    """
    known: dict[str, Decision | bool] = {}
    for key, decision in decisions.items():
        if not isinstance(decision, (bool, Decision)):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
            raise ConfigurationError(
                f"decisions[{str(key)!r}]={decision!r}: expected a Decision, True or False."
            )
        found = [one.at for one in waiting if key in (one.at, one.call.id)]
        if len(found) != 1:
            waits = ", ".join(f"{one.at} ({one.call.name})" for one in waiting) or "none"
            raise ConfigurationError(f"No call waits at {key!r}; those that wait: {waits}.")
        known[found[0]] = decision

    def decide(pending: PendingCall) -> Any:
        # Each decision is used once: a server may give a later call the same id.
        if pending.at in known:
            return known.pop(pending.at)
        return approver(pending) if approver is not None else None

    return decide


def _first(*choices: TraceTo | None) -> TraceTo:
    return next((choice for choice in choices if choice is not None), True)


def _environment_folder() -> str | None:
    """The folder of `AGENTKIT_TRACE_DIR`, whatever its name looks like."""
    folder = os.environ.get("AGENTKIT_TRACE_DIR")
    return f"{folder}{os.sep}" if folder else None


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
