"""`Agent`: a model, tools, instructions and an output type, and the ways to run them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import NoneType
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypedDict, Unpack, overload
from typing import TypeVar as PlainTypeVar

from typing_extensions import TypeVar

from agentkit._options import options
from agentkit.core.effects import OnCrash
from agentkit.events import Emit, ignore
from agentkit.messages import JsonObject, Message
from agentkit.models import Model
from agentkit.output.build import Mode
from agentkit.redaction import Redactor
from agentkit.replay.fork import Patch, fork
from agentkit.replay.replay import OnDivergence, PlanName, options_of, replay
from agentkit.replay.resume import Decisions, ResumeRequest
from agentkit.runtime.assemble import Program, assemble
from agentkit.runtime.config import AgentConfig, Compaction, Middleware, Source
from agentkit.runtime.driver import Driver
from agentkit.runtime.request import History, Prompt, RunRequest, TraceTo
from agentkit.runtime.result import RunResult
from agentkit.runtime.run import Run, Steps, stepping, streaming
from agentkit.runtime.scope import Approver
from agentkit.settings import ChatSettings, Limits
from agentkit.tools.context import RunContext
from agentkit.tools.invoke import run_blocking
from agentkit.tools.options import Approval
from agentkit.tools.tool import Tool
from agentkit.trace.compare import Strictness
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import Durability
from agentkit.trace.schema import Capture

__all__ = ["Agent"]

DepsT = TypeVar("DepsT", default=None)
OutputT = TypeVar("OutputT", default=str)
T = PlainTypeVar("T")
P = ParamSpec("P")
Instructions: TypeAlias = str | Callable[[RunContext[DepsT]], Any] | Callable[[], Any]
StepSettings: TypeAlias = Callable[[RunContext[DepsT]], Any] | Callable[[], Any]
Validator: TypeAlias = Callable[[RunContext[DepsT], OutputT], Any] | Callable[[OutputT], Any]


class AgentOptions(TypedDict, total=False):
    """The options of an `Agent` whose types depend neither on its deps nor on its output."""

    name: str
    tools: Sequence[Source]
    output_mode: Mode
    output_retries: int
    settings: ChatSettings | None
    limits: Limits | None
    trace: TraceTo | None
    capture: Capture
    durability: Durability
    redact: Redactor | None
    middleware: Sequence[Middleware]
    concurrency: int | None
    compact: Compaction | None
    compact_above: int | None


class AgentChanges(AgentOptions, total=False):
    """What `Agent.with_` takes besides the output type."""

    model: str | Model
    deps_type: type[Any]
    instructions: Instructions[Any] | None
    output_validators: Sequence[Callable[..., Any]]
    step_settings: StepSettings[Any] | None


def takes(method: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Give a function the parameters of another one, for type checkers and for `help`."""

    def decorate(function: Callable[..., T]) -> Callable[P, T]:
        returned = inspect.signature(function).return_annotation
        signature = inspect.signature(method).replace(return_annotation=returned)
        vars(function)["__signature__"] = signature
        return options(function)

    return decorate


class Agent(Generic[DepsT, OutputT]):
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
            function, which gets the output as its arguments and whose value is the result;
            or such a function with `@tool`, whose `effect` and `on_crash` hold for it.
        deps_type: The type of what runs get as `deps=` and tools read as `context.deps`.
            A run with other deps is refused.
        name: What addresses and traces call it: letters, digits, `_`, `-` and `.`.
        tools: Tools, functions to make tools of, toolsets, and handoffs.
        instructions: The system text, or a function (sync or async, with or without a
            `RunContext`) that gives it at the start of each run.
        output_mode: How a typed output is requested; `auto` lets the model's profile decide.
        output_retries: How often an output that does not fit is requested again.
        output_validators: Functions that get the typed output, or the `RunContext` and the
            output, and raise `ToolError` to have it requested again.
        settings: Sampling parameters.
        step_settings: A function, with or without a `RunContext`, sync or async, that gives
            `ChatSettings` before each step, over the agent's and the run's; also `tool_choice`.
        limits: Where a run ends; `Limits()` if None.
        trace: Where runs are recorded, unless `run` has its own; see there.
        capture: How much of runs is recorded, as `trace`.
        durability: When a trace is brought to the disk, as `trace`.
        redact: Takes secrets out of traces and of what models read of exceptions, as `trace`.
        middleware: Handlers around what performs the effects, outermost first.
        concurrency: Tool calls running at the same time, over all runs of this agent in
            one event loop; `Limits.parallel` is for one run.
        compact: Makes a long history shorter; see `agentkit.history`.
        compact_above: Input tokens of a step above which that is done.

    Raises:
        InvalidTool: A tool cannot be made, or two have one name.
        ConfigurationError: An option does not fit.
    """

    config: AgentConfig

    @overload
    def __init__(
        self,
        model: str | Model,
        *,
        output: Callable[..., Coroutine[Any, Any, OutputT]],
        deps_type: type[DepsT] = NoneType,
        instructions: Instructions[DepsT] | None = None,
        output_validators: Sequence[Callable[..., Any]] = (),
        step_settings: StepSettings[DepsT] | None = None,
        **options: Unpack[AgentOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        model: str | Model,
        *,
        output: type[OutputT] | Callable[..., OutputT] = str,
        deps_type: type[DepsT] = NoneType,
        instructions: Instructions[DepsT] | None = None,
        output_validators: Sequence[Validator[DepsT, OutputT]] = (),
        step_settings: StepSettings[DepsT] | None = None,
        **options: Unpack[AgentOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: Agent[Any, Any],
        model: str | Model,
        *,
        output: Any,
        deps_type: type[DepsT] = NoneType,
        instructions: Instructions[DepsT] | None = None,
        output_validators: Sequence[Callable[..., Any]] = (),
        step_settings: StepSettings[DepsT] | None = None,
        **options: Unpack[AgentOptions],
    ) -> None: ...

    @options
    def __init__(
        self,
        model: str | Model,
        *,
        output: Any = str,
        deps_type: type[DepsT] = NoneType,
        name: str = "agent",
        tools: Sequence[Source] = (),
        instructions: Instructions[DepsT] | None = None,
        output_mode: Mode = "auto",
        output_retries: int = 1,
        output_validators: Sequence[Callable[..., Any]] = (),
        settings: ChatSettings | None = None,
        step_settings: StepSettings[DepsT] | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
        capture: Capture = "full",
        durability: Durability = "none",
        redact: Redactor | None = None,
        middleware: Sequence[Middleware] = (),
        concurrency: int | None = None,
        compact: Compaction | None = None,
        compact_above: int | None = None,
    ) -> None:
        values = {name: value for name, value in locals().items() if name != "self"}
        vars(self)["config"] = AgentConfig(**values)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse changes: an agent is shared between runs."""
        raise AttributeError(f"An Agent does not change; use agent.with_({name}=…).")

    def __repr__(self) -> str:
        """Show model, name and tools."""
        model, tools = self.config.model, self.config.tools
        named = model if isinstance(model, str) else model.name
        names = ", ".join(one.name if isinstance(one, Tool) else repr(one) for one in tools)
        return f"Agent({named!r}, name={self.name!r}, tools=[{names}])"

    @property
    def name(self) -> str:
        """What addresses and traces call it."""
        return self.config.name

    @property
    def model(self) -> str | Model:
        """The model string, or the model."""
        return self.config.model

    @overload
    def with_(
        self,
        *,
        output: type[T] | Callable[..., Coroutine[Any, Any, T] | T],
        **changes: Unpack[AgentChanges],
    ) -> Agent[DepsT, T]: ...

    @overload
    def with_(self, **changes: Unpack[AgentChanges]) -> Agent[DepsT, OutputT]: ...

    def with_(self, **changes: Any) -> Agent[Any, Any]:
        """Make a variant of this agent. Takes what `Agent` takes; the rest stays.

        Example:
            >>> from agentkit import Agent
            >>> Agent("local").with_(model="openai:gpt-4o").model
            'openai:gpt-4o'
        """
        variant: Agent[Any, Any] = object.__new__(type(self))
        vars(variant)["config"] = self.config.with_(**changes)
        return variant

    @options
    async def run(
        self,
        prompt: Prompt,
        *,
        deps: DepsT = None,
        history: History = (),
        repair: bool = False,
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
        capture: Capture | None = None,
        durability: Durability | None = None,
        redact: Redactor | None = None,
        on_event: Emit = ignore,
        approver: Approver | None = None,
        model: str | Model | None = None,
    ) -> RunResult[OutputT]:
        """Run the agent to its typed output.

        Args:
            prompt: What the user says: text, or content parts. None goes on from `history`.
            deps: Given to tools as `RunContext.deps`.
            history: Earlier messages: ours, or plain chat-completions dicts.
            repair: Make a history valid that is not, instead of raising `InvalidHistory`.
            settings: Sampling parameters; what is set here wins over the agent's.
            limits: Instead of the agent's.
            trace: Where this run is recorded: a file, a folder (one file a run), True (in
                memory) or False (not at all).
                None takes the agent's; without one it goes to a new file in
                `AGENTKIT_TRACE_DIR` if that is set, else to memory.
            capture: How much is recorded: "full"; "metadata", which is names, hashes, counts,
                tokens, times and statuses without contents; or "none", which is how the
                agents ended. Only "full" can be replayed.
            durability: When a trace file is brought to the disk: "none" leaves it to the
                system, "close" waits for it at the end, "effects" also before a call that
                writes and after each call, and ends the run if the trace cannot be written.
            redact: Takes secrets out, by your own patterns and fields too; see `Redactor`.
            on_event: Called with each event as it happens. It must not block.
            approver: Decides about calls that need approval: gets the `PendingCall`, gives a
                `Decision`, True or False; sync or async. Without one the run pauses.
            model: Instead of the agent's, for example with the key of a tenant. Sub-agents and
                agents that take over keep theirs.

        Returns:
            The result; `status` is "ok", or "paused" when a call waits for a decision.

        Raises:
            ConfigurationError: An argument does not fit; raised before any I/O.
            ModelError: The model gave no usable answer.
            LimitExceeded: A limit was reached.
            AgentKitError: Every other way to fail. `error.result` has what was reached.
        """
        given = deps, history, repair, settings, limits, trace, capture, durability, redact
        request = RunRequest[OutputT].of(self.config, prompt, *given, on_event, approver, model)
        driver = request.open()
        await driver.execute()
        return driver.result

    @takes(run)
    def run_sync(self, *args: Any, **options: Any) -> RunResult[OutputT]:
        """Run the agent from code that is not async: a script, a notebook, inside a running loop.

        Takes and raises what `run` does. Inside a running event loop it works in a thread of
        its own and blocks that loop meanwhile.
        """
        return run_blocking(partial(self.run, *args, **options))

    @takes(run)
    def stream(self, *args: Any, **options: Any) -> AbstractAsyncContextManager[Run[OutputT]]:
        """Run the agent and read what happens as it happens.

            async with agent.stream("…") as run:
                async for event in run: ...
            run.result

        Takes what `run` takes. The run goes on beside the block; leaving the block before
        the run has ended cancels it. `run.result` raises what `Agent.run` would raise.
        """
        return streaming(RunRequest.of(self.config, *args, **options, stream=True))

    @takes(run)
    def iter(self, *args: Any, **options: Any) -> AbstractAsyncContextManager[Steps[OutputT]]:
        """Run the agent effect by effect: look, change what is requested or answered, go on.

            async with agent.iter("…") as steps:
                async for step in steps:
                    print(step.effect.at)
            steps.result

        Takes what `run` takes.
        """
        return stepping(RunRequest.of(self.config, *args, **options))

    @options
    async def resume(
        self,
        trace: Trace | str | os.PathLike[str],
        *,
        decisions: Decisions | None = None,
        deps: DepsT = None,
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        on_event: Emit = ignore,
        approver: Approver | None = None,
        durability: Durability | None = None,
        redact: Redactor | None = None,
        model: str | Model | None = None,
        force: bool = False,
    ) -> RunResult[OutputT]:
        """Go on with a run that was paused or interrupted, in any process.

        What is recorded is not done again: the run is replayed to where it ended and goes
        on from there, live, appended to the same trace. A model call or a reading tool that
        was in flight is made again; a writing tool is asked about first. A call that waits
        for a decision does not run without one, however the agent has changed since.

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
            model: As the run was given it, instead of the agent's.
            force: Go on although the agent has changed since: its instructions, tools or output
                type. What is recorded stays; a warning (`program_changed`) says what changed.

        Raises:
            ConfigurationError: A decision is about a call that does not wait, or the run was
                given settings with credentials or a model, which the trace does not have.
            TraceLocked: The run is still going on, in this process or another one.
            TraceError: The trace cannot be read, or has no contents.
            ReplayDivergence: The agent is not as it was, and `force` is not set: what changed.
            AgentKitError: As of `run`.
        """
        request = ResumeRequest(
            config=self.config,
            trace=trace,
            decisions=decisions,
            deps=deps,
            settings=settings,
            limits=limits,
            on_event=on_event,
            approver=approver,
            durability=durability,
            redact=redact,
            model=model,
            force=force,
        )
        driver: Driver[OutputT] = request.open()
        await driver.execute()
        return driver.result

    @takes(resume)
    def resume_sync(self, *args: Any, **options: Any) -> RunResult[OutputT]:
        """Call `resume` from code that is not async; see `run_sync`."""
        return run_blocking(partial(self.resume, *args, **options))

    @takes(resume)
    def resume_stream(
        self, trace: Trace | str | os.PathLike[str], **options: Any
    ) -> AbstractAsyncContextManager[Run[OutputT]]:
        """Go on with a run and read what happens as it happens, as `stream` does.

        Takes what `resume` takes. The events begin with those of the recorded steps and calls;
        pieces of text and of calls come of what is new, so `run.text()` is only that.
        """
        return streaming(ResumeRequest(config=self.config, trace=trace, **options, stream=True))

    @takes(resume)
    def resume_iter(
        self, trace: Trace | str | os.PathLike[str], **options: Any
    ) -> AbstractAsyncContextManager[Steps[OutputT]]:
        """Go on with a run effect by effect, as `iter` does.

        Takes what `resume` takes. The steps begin with the recorded ones: performing such a
        step gives its recorded outcome.
        """
        return stepping(ResumeRequest(config=self.config, trace=trace, **options))

    @options
    async def replay(
        self,
        trace: Trace | str | os.PathLike[str],
        *,
        plan: PlanName = "exact",
        live: Collection[str] = (),
        strictness: Strictness | None = None,
        on_divergence: OnDivergence | None = None,
        deps: DepsT = None,
        approver: Approver | None = None,
        on_event: Emit = ignore,
        record: TraceTo = False,
        redact: Redactor | None = None,
    ) -> RunResult[OutputT]:
        """Run a recorded run again: the agent as it is now, with the outcomes of then.

        Args:
            trace: The recording, or its path. It is not changed.
            plan: `exact`: no model is asked and no tool is run. `tools_live`: the tools of
                `live` run, the model's answers are the recorded ones. `model_live`: the model
                is asked, and tools answer with what was recorded of the same call; one that
                was not recorded is refused.
            live: The tools that run, by name, or single calls, by address; no others do. Empty
                with `tools_live`: the tools that only read.
            strictness: `exact`: every request, call, result and their order has to be the same.
                `structural`: the same calls in the same places, with whatever arguments. None:
                `structural` with `tools_live`, else `exact`.
            on_divergence: `raise` ends the replay at the first difference; `warn` notes it in
                `result.divergences` and goes on with the recording. None: `warn` with
                `tools_live`, else `raise`.
            deps: Given to tools that run.
            approver: Decides about calls that were not decided about then.
            on_event: Called with each event, those inside recorded calls included.
            record: Where the replay itself is recorded, as `run(trace=…)`; by default nowhere.
            redact: As the run was given it, instead of the agent's.

        Returns:
            The result, in `exact` equal to the recorded run's. `result.replayed` says what ran
            and what was answered.

        Raises:
            ReplayDivergence: The agent asks for something that was not recorded so, or leaves
                out something that was. It names the first difference.
            TraceError: The trace cannot be read.
            AgentKitError: The recorded run ended in this error.
        """
        return await replay(
            self.config,
            trace,
            options_of(plan, live, strictness, on_divergence),
            deps=deps,
            approver=approver,
            on_event=on_event,
            record=record,
            redact=redact,
        )

    @options
    async def fork(
        self,
        trace: Trace | str | os.PathLike[str],
        *,
        at: str | None = None,
        prompt: Prompt = None,
        instructions: Instructions[DepsT] | None = None,
        messages: Mapping[int, str | Message | JsonObject] | None = None,
        result: Any = None,
        answers: Mapping[str, Any] | None = None,
        settings: ChatSettings | None = None,
        model: str | Model | None = None,
        tools: Sequence[Tool[..., Any]] = (),
        live: Collection[str] = (),
        deps: DepsT = None,
        approver: Approver | None = None,
        on_event: Emit = ignore,
        record: TraceTo = True,
        redact: Redactor | None = None,
    ) -> RunResult[OutputT]:
        """Run a recorded run again with something changed: live from where that matters.

        Args:
            trace: The recording, or its path. It is not changed.
            at: The address of the effect from which things are different; everything before it
                stays as recorded. It is done again even where nothing of it changes. None:
                wherever the change first makes a difference.
            prompt: Another prompt.
            instructions: Other instructions.
            messages: Other messages by their index in the recorded request at `at`, as
                `agentkit show --at` numbers them: text, a message, or its JSON.
            result: The outcome of the effect at `at`, instead of performing it: the text a tool
                answers; the text or the message of a model; the value of a function; a
                `Decision` about a call.
            answers: Outcomes by the name of a tool, for all its calls, or by the address of one
                effect; each as `result`. In sub-agents, too.
            settings: Sampling parameters over those of the agent and the run.
            model: Another model.
            tools: Other implementations of tools that the agent has; they run.
            live: The tools whose calls all run again from `at` on, also those that write and
                those in sub-agents, by name; or single calls, by address. Other writing calls
                are held back: answered with what was recorded of the same call, and refused if
                there is none.
            deps: Given to tools.
            approver: Decides about calls that were not decided about then.
            on_event: Called with each event.
            record: Where the fork is recorded, as `run(trace=…)`. Its trace names this one.
            redact: As the run was given it, instead of the agent's.

        Returns:
            The result of the fork; `result.trace` is a whole trace of its own, and
            `result.replayed` says what ran and what was held back.

        Raises:
            ConfigurationError: There is no such address, or nothing is changed, or a change does
                not fit the effect there.
            ReplayDivergence: The agent differs from the recorded one before `at`, or a call was
                refused.
            TraceError: The trace cannot be read.
            AgentKitError: As of `run`.
        """
        patch = Patch(
            prompt=prompt,
            instructions=instructions,
            messages=messages or {},
            result=result,
            answers={} if answers is None else answers,
            settings=settings,
            model=model,
            tools=tools,
        )
        return await fork(
            self.config,
            trace,
            at=at,
            patch=patch,
            live=live,
            deps=deps,
            approver=approver,
            on_event=on_event,
            record=record,
            redact=redact,
        )

    @takes(replay)
    def replay_sync(self, *args: Any, **options: Any) -> RunResult[OutputT]:
        """Call `replay` from code that is not async; see `run_sync`."""
        return run_blocking(partial(self.replay, *args, **options))

    @takes(fork)
    def fork_sync(self, *args: Any, **options: Any) -> RunResult[OutputT]:
        """Call `fork` from code that is not async; see `run_sync`."""
        return run_blocking(partial(self.fork, *args, **options))

    @options
    def as_tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
        timeout: float | None = None,
        concurrency: int | None = None,
        sequential: bool = False,
        effect: Literal["read", "write"] = "read",
        max_output: int | None = 65_536,
        on_error: Literal["tell", "raise"] = "tell",
        on_crash: OnCrash | None = None,
        retries: int = 0,
        approval: Approval = False,
    ) -> Tool[..., Any]:
        """Make a tool of this agent for another one: a prompt in, its output out.

        Args:
            name: What the model calls it; the agent's name by default.
            description: What the model reads about it.
            strict: As of `Tool`, like all that follow.
            timeout: Seconds that a call may take.
            concurrency: How many calls of it may run at the same time.
            sequential: Whether nothing else may run while it does.
            effect: "read", because the tool does nothing but ask the agent, and what the
                agent's own tools do is looked after by itself.
            max_output: Bytes of an output that the model is shown.
            on_error: Whether the model reads an error, or the run ends with it.
            on_crash: What becomes of a call that is interrupted.
            retries: How often a failed call is tried again.
            approval: Whether a call needs approval before it runs.
        """

        async def ask(context: RunContext[Any], prompt: str) -> OutputT:
            result = await context.run(self, prompt)
            return result.output

        # Its runs need what the agent needs: a run without it is refused before it begins.
        _, needed = next(self.config.needed_deps(), ("", Any))
        vars(ask)["agent"] = self  # what hosts the tool may have to host the agent
        ask.__annotations__["context"] = RunContext[needed]
        return Tool(
            ask,
            name=name or self.name.replace(".", "_"),
            description=description or f"Ask the agent {self.name}. It sees only this prompt.",
            strict=strict,
            timeout=timeout,
            concurrency=concurrency,
            sequential=sequential,
            effect=effect,
            max_output=max_output,
            on_error=on_error,
            on_crash=on_crash,
            retries=retries,
            approval=approval,
        )

    def program(
        self, settings: ChatSettings | None = None, limits: Limits | None = None
    ) -> Program[OutputT]:
        """Make this agent ready for a run: resolved, merged, and still without any I/O."""
        return assemble(self.config, settings, limits)
