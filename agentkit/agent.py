"""`Agent`: a model, tools, instructions and an output type, and the ways to run them."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

import anyio
from anyio import NoEventLoopError
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import current_token

from agentkit.effects import Address
from agentkit.errors import ConfigurationError, InvalidTool
from agentkit.events import Emit, ignore
from agentkit.messages import Message, Part, UserMessage, messages_from_json
from agentkit.models import Model, resolve_model
from agentkit.output import Mode, OutputSpec, output_spec
from agentkit.redaction import Redactor
from agentkit.run import (
    OpenDriver,
    Origin,
    Run,
    RunResult,
    Steps,
    conclude,
    stepping,
    streaming,
)
from agentkit.runner import ComputeFunction, Driver, Program, Scope, new_run_id
from agentkit.settings import ChatSettings, Limits
from agentkit.spec import AgentSpec, Finish, OfferedTool
from agentkit.tools import RunContext, Tool, check_names
from agentkit.trace.blobs import canonical, digest
from agentkit.trace.recording import Recorder
from agentkit.trace.writer import FileSink, MemorySink, Sink

__all__ = ["Agent"]

OutputT = TypeVar("OutputT")
T = TypeVar("T")
AnyTool: TypeAlias = Tool[..., Any] | Callable[..., Any]
Instructions: TypeAlias = str | Callable[[RunContext[Any]], Any] | Callable[[], Any]
TraceTo: TypeAlias = bool | str | os.PathLike[str]
Prompt: TypeAlias = str | Sequence[Part] | None
History: TypeAlias = Sequence[Message | Mapping[str, Any]]


class Agent(Generic[OutputT]):
    """A model with tools and an output type. Immutable; `with_` makes variants.

    Example:
        >>> from agentkit import Agent
        >>> from agentkit.testing import ScriptedModel
        >>> agent = Agent(ScriptedModel(["Bonjour."]), instructions="Speak French.")
        >>> agent.run_sync("Hello").output
        'Bonjour.'
    """

    @overload
    def __init__(
        self: Agent[str],
        model: str | Model,
        *,
        name: str = ...,
        tools: Sequence[AnyTool] = ...,
        instructions: Instructions | None = ...,
        output_mode: Mode = ...,
        output_retries: int = ...,
        settings: ChatSettings | None = ...,
        limits: Limits | None = ...,
        trace: TraceTo | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        model: str | Model,
        *,
        name: str = ...,
        tools: Sequence[AnyTool] = ...,
        output: type[OutputT],
        instructions: Instructions | None = ...,
        output_mode: Mode = ...,
        output_retries: int = ...,
        settings: ChatSettings | None = ...,
        limits: Limits | None = ...,
        trace: TraceTo | None = ...,
    ) -> None: ...

    def __init__(
        self,
        model: str | Model,
        *,
        name: str = "agent",
        tools: Sequence[AnyTool] = (),
        output: Any = str,
        instructions: Instructions | None = None,
        output_mode: Mode = "auto",
        output_retries: int = 1,
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
    ) -> None:
        """Describe an agent. Nothing is connected, read or started yet.

        Args:
            model: A model string such as `openai:gpt-4o` or `local`, or a model object.
            name: What addresses and traces call it: letters, digits, `_`, `-` and `.`.
            tools: Tools, or functions to make tools of.
            output: The type of the result: `str`, a pydantic model, a dataclass, …
            instructions: The system text, or a function (sync or async, with or without a
                `RunContext`) that gives it at the start of each run.
            output_mode: How a typed output is asked for; `auto` lets the model's profile say.
            output_retries: How often an output that does not fit is asked for again.
            settings: Sampling parameters.
            limits: Where a run ends.
            trace: Where runs are recorded, unless `run` says otherwise: a file, a folder (one
                file a run), True (in memory) or False (not at all).

        Raises:
            InvalidTool: A tool cannot be made, or two have one name.
            ConfigurationError: The name or the instructions cannot be used.
        """
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigurationError(
                f"name={name!r} cannot stand in an address; use letters, digits, _, - and '.'."
            )
        if not (instructions is None or isinstance(instructions, str) or callable(instructions)):
            raise ConfigurationError(
                f"instructions={instructions!r} is neither text nor a function that gives it."
            )
        self.model = model
        self.name = name
        self.tools = tuple(_as_tool(tool) for tool in tools)
        self.output = output
        self.instructions = instructions
        self.output_mode: Mode = output_mode
        self.output_retries = output_retries
        self.settings = settings or ChatSettings()
        self.limits = limits or Limits()
        self.trace = trace
        check_names(self.tools)
        self._frozen = True

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse changes: an agent is shared between runs."""
        if getattr(self, "_frozen", False):
            raise AttributeError(f"An Agent does not change; use agent.with_({name}=…).")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        """Short: name, model and tools."""
        tools = ", ".join(tool.name for tool in self.tools)
        return f"Agent({self._model_name()!r}, name={self.name!r}, tools=[{tools}])"

    def with_(self, **changes: Any) -> Agent[Any]:
        """A variant of this agent. Takes what `Agent` takes.

        Example:
            >>> from agentkit import Agent
            >>> Agent("local").with_(model="openai:gpt-4o").model
            'openai:gpt-4o'
        """
        same: dict[str, Any] = {
            "model": self.__dict__.get("_resolved", self.model),
            "name": self.name,
            "tools": self.tools,
            "output": self.output,
            "instructions": self.instructions,
            "output_mode": self.output_mode,
            "output_retries": self.output_retries,
            "settings": self.settings,
            "limits": self.limits,
            "trace": self.trace,
        }
        return Agent(**(same | changes))

    async def run(
        self,
        prompt: Prompt,
        *,
        deps: object = None,
        history: History = (),
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
        on_event: Emit = ignore,
    ) -> RunResult[OutputT]:
        """Run the agent to its typed output.

        Args:
            prompt: What the user says: text, or content parts. None goes on from `history`.
            deps: Given to tools as `RunContext.deps`.
            history: Earlier messages: ours, or plain chat-completions dicts.
            settings: Sampling parameters; what is set here wins over the agent's.
            limits: Instead of the agent's.
            trace: Where this run is recorded; see `Agent`. Without a word here or there it
                goes to a new file in `AGENTKIT_TRACE_DIR` if that is set, else to memory.
            on_event: Called with each event as it happens. It must not block.

        Raises:
            ConfigurationError: Something in the call cannot work; said before any I/O.
            ModelError: The model gave no usable answer.
            LimitExceeded: A limit was reached.
            AgentKitError: Every other way to fail. `error.result` has what was reached.
        """
        begin = self._begin(prompt, deps, history, settings, limits, trace)
        driver, origin = begin(on_event)
        return conclude(await driver.execute(), origin)

    def run_sync(
        self,
        prompt: Prompt,
        *,
        deps: object = None,
        history: History = (),
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
        on_event: Emit = ignore,
    ) -> RunResult[OutputT]:
        """`run`, for code that is not async: in a script, a notebook, or inside a running loop.

        Takes and raises what `run` does. Inside a running event loop it works in a thread of
        its own and blocks that loop meanwhile.
        """

        async def main() -> RunResult[OutputT]:
            return await self.run(
                prompt,
                deps=deps,
                history=history,
                settings=settings,
                limits=limits,
                trace=trace,
                on_event=on_event,
            )

        return _run_sync(main)

    def stream(
        self,
        prompt: Prompt,
        *,
        deps: object = None,
        history: History = (),
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
        on_event: Emit = ignore,
    ) -> AbstractAsyncContextManager[Run[OutputT]]:
        """Run the agent and read what happens as it happens.

            async with agent.stream("…") as run:
                async for event in run: ...
            run.result

        Takes what `run` takes. The run goes on beside the block; leaving the block before
        the run has ended cancels it. `run.result` raises what `Agent.run` would raise.
        """
        begin = self._begin(prompt, deps, history, settings, limits, trace, stream=True)
        return streaming(begin, on_event)

    def iter(
        self,
        prompt: Prompt,
        *,
        deps: object = None,
        history: History = (),
        settings: ChatSettings | None = None,
        limits: Limits | None = None,
        trace: TraceTo | None = None,
        on_event: Emit = ignore,
    ) -> AbstractAsyncContextManager[Steps[OutputT]]:
        """Run the agent effect by effect: look, change what is asked or answered, go on.

            async with agent.iter("…") as steps:
                async for step in steps:
                    print(step.effect.at)
            steps.result

        Takes what `run` takes.
        """
        begin = self._begin(prompt, deps, history, settings, limits, trace)
        return stepping(begin, on_event)

    def as_tool(
        self, *, name: str | None = None, description: str | None = None, **options: Any
    ) -> Tool[..., Any]:
        """This agent as a tool for another one: a prompt in, its output out.

        Args:
            name: What the model calls it; the agent's name by default.
            description: What the model is told of it.
            **options: As of `Tool`.
        """

        async def ask(context: RunContext[Any], prompt: str) -> OutputT:
            result = await context.run(self, prompt)
            return result.output

        told = description or f"Ask the agent {self.name}. It sees only this prompt."
        return Tool(ask, name=name or self.name.replace(".", "_"), description=told, **options)

    def conclude(self, finish: Finish[OutputT], run: str) -> RunResult[OutputT]:
        """The result of a run of this agent inside another one's tool."""
        return conclude(finish, Origin(run=run, prompt=(), recorded=None))

    def _begin(
        self,
        prompt: Prompt,
        deps: object,
        history: History,
        settings: ChatSettings | None,
        limits: Limits | None,
        trace: TraceTo | None,
        *,
        stream: bool = False,
    ) -> OpenDriver[OutputT]:
        """Check the whole call; what is returned opens the trace and begins the run."""
        earlier = messages_from_json(history)
        prompted = _prompt_messages(prompt)
        messages = (*earlier, *prompted)
        if not messages:
            raise ConfigurationError("There is nothing to answer: give a prompt or a history.")
        program = self.program(settings, limits)
        program.model.check()
        to = _first(trace, self.trace, os.environ.get("AGENTKIT_TRACE_DIR") or None)

        def begin(listener: Emit) -> tuple[Driver[OutputT], Origin]:
            run, redact, recorder = new_run_id(), Redactor(), None
            sink = _sink(to, run)
            if sink is not None:
                recorder = Recorder(
                    sink, run=run, program=program_hash(program), redact=redact, stream=stream
                )
            scope = Scope(
                run=run,
                deps=deps,
                limits=program.spec.limits,
                listener=listener,
                recorder=recorder,
                redact=redact,
                stream=stream,
            )
            driver = scope.driver(program, messages, earlier=len(earlier))
            return driver, Origin(run=run, prompt=prompted, recorded=_recorded(sink))

        return begin

    def program(
        self, settings: ChatSettings | None = None, limits: Limits | None = None
    ) -> Program[OutputT]:
        """This agent, ready for a runner: resolved, merged, and still without any I/O."""
        model = self._model()
        spec: OutputSpec[OutputT] = output_spec(self.output, model.profile, self.output_mode)
        bounds = limits or self.limits
        if bounds.repeats is None:
            bounds = replace(bounds, repeats=model.profile.repeats)
        merged = self.settings.merge(settings) if settings is not None else self.settings
        dynamic = callable(self.instructions)
        return Program(
            name=self.name,
            model=model,
            tools={tool.name: tool for tool in self.tools},
            compute={"instructions": _instructions(self.instructions)} if dynamic else {},
            spec=AgentSpec(
                at=Address.root(self.name),
                model=model.name,
                output=spec,
                tools=tuple(map(_offered, self.tools)),
                instructions=None if dynamic else cast("str | None", self.instructions),
                dynamic=dynamic,
                settings=merged.to_params(),
                tool_choice=merged.forced_choice(),
                keep_tool_choice=bool(merged.keep_tool_choice),
                limits=bounds,
                reasks=self.output_retries,
            ),
        )

    def _model(self) -> Model:
        """The model object, made once: its connections are shared by all runs."""
        if "_resolved" not in self.__dict__:
            self.__dict__["_resolved"] = resolve_model(self.model)
        return self.__dict__["_resolved"]

    def _model_name(self) -> str:
        return self.model if isinstance(self.model, str) else self.model.name


def program_hash(program: Program[Any]) -> str:
    """The hash of what decides an agent's behaviour: instructions, tools, schemas."""
    spec = program.spec
    return digest(
        canonical(
            {
                "instructions": "(computed)" if spec.dynamic else spec.instructions,
                "tools": [tool.definition.to_json() for tool in spec.tools],
                "output": spec.output.schema,
            }
        )
    )


def _offered(tool: Tool[..., Any]) -> OfferedTool:
    return OfferedTool(definition=tool.definition, effect=tool.effect)


def _as_tool(tool: AnyTool) -> Tool[..., Any]:
    if isinstance(tool, Tool):
        return cast("Tool[..., Any]", tool)
    if callable(tool):
        return Tool(tool)
    raise InvalidTool(f"tools holds {tool!r}, which is neither a tool nor a function.")


def _prompt_messages(prompt: Prompt) -> tuple[UserMessage, ...]:
    if prompt is None:
        return ()
    content = prompt if isinstance(prompt, str) else tuple(prompt)
    if not content:
        raise ConfigurationError("The prompt is empty; give text, or None to go on from history.")
    return (UserMessage(content=content),)


def _instructions(function: Any) -> ComputeFunction:
    """The user's function as one that takes the context, which it may or may not want."""
    wants_context = bool(inspect.signature(function).parameters)
    if wants_context:
        return lambda context, _: function(context)
    return lambda context, _: function()


def _first(*choices: TraceTo | None) -> TraceTo:
    return next((choice for choice in choices if choice is not None), True)


def _sink(trace: TraceTo, run: str) -> Sink | None:
    if isinstance(trace, bool):
        return MemorySink() if trace else None
    path = Path(trace)
    folder = path.is_dir() or str(trace).endswith(("/", os.sep)) or not path.suffix
    return FileSink(path / f"{run}.jsonl" if folder else path)


def _recorded(sink: Sink | None) -> Path | list[bytes] | None:
    match sink:
        case FileSink(path=path):
            return path
        case MemorySink(lines=lines):
            return lines
        case _:
            return None


def _run_sync(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run in this thread, or in one of its own where a loop is running already."""
    try:
        current_token()
    except NoEventLoopError:
        return anyio.run(main)
    with start_blocking_portal() as portal:
        return portal.call(main)
