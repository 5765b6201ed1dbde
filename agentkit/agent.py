"""`Agent`: a model, tools, instructions and an output type, and the ways to run them."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

import anyio
from anyio import NoEventLoopError
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import current_token

from agentkit.effects import Address
from agentkit.errors import ConfigurationError, InvalidTool
from agentkit.events import Emit, Event, ignore
from agentkit.loop import AgentSpec, Finish, RunStatus
from agentkit.messages import Message, Part, Usage, UserMessage, messages_from_json
from agentkit.models import Model, resolve_model
from agentkit.output import Mode, OutputSpec, output_spec
from agentkit.redaction import Redactor
from agentkit.runner import Driver, LiveHandler, Program, new_run_id
from agentkit.settings import ChatSettings, Limits
from agentkit.tools import RunContext, Tool, check_names
from agentkit.trace.blobs import canonical, digest
from agentkit.trace.reader import Trace
from agentkit.trace.recording import Recorder
from agentkit.trace.writer import FileSink, MemorySink, Sink

__all__ = ["Agent", "RunResult"]

OutputT = TypeVar("OutputT")
T = TypeVar("T")
AnyTool: TypeAlias = Tool[..., Any] | Callable[..., Any]
Instructions: TypeAlias = str | Callable[[RunContext[Any]], Any] | Callable[[], Any]
TraceTo: TypeAlias = bool | str | os.PathLike[str]
Prompt: TypeAlias = str | Sequence[Part] | None
History: TypeAlias = Sequence[Message | Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunResult(Generic[OutputT]):
    """What a run came to.

    Attributes:
        output: The typed output; None unless `status` is "ok".
        messages: The whole history, ready to be given to the next run as `history`.
        new_messages: What this run added, beginning with the prompt.
        usage: Tokens over all steps.
        status: ok, error, limit or cancelled.
        run: The run's id.
    """

    output: OutputT
    messages: tuple[Message, ...]
    new_messages: tuple[Message, ...]
    usage: Usage
    status: RunStatus
    run: str
    _recorded: Trace | Path | list[bytes] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def trace(self) -> Trace | None:
        """The run's trace, read when it is first asked for; None with `trace=False`."""
        match self._recorded:
            case None | Trace():
                return self._recorded
            case Path() as path:
                return Trace.load(path)
            case lines:
                return Trace(lines)


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
        earlier = messages_from_json(history)
        messages = (*earlier, *_prompt_messages(prompt))
        if not messages:
            raise ConfigurationError("There is nothing to answer: give a prompt or a history.")
        program = self.program(settings, limits)
        program.model.check()
        # What was wrong with the call has been said by now; I/O begins here.
        run_id, redact = new_run_id(), Redactor()
        to = _first(trace, self.trace, os.environ.get("AGENTKIT_TRACE_DIR") or None)
        sink = _sink(to, run_id)
        recorder = None
        if sink is not None:
            recorder = Recorder(sink, run=run_id, program=program_hash(program), redact=redact)
        emit = _fan_out(recorder.event if recorder is not None else ignore, on_event)
        driver = Driver(
            program,
            messages,
            LiveHandler(program, run=run_id, deps=deps, emit=emit, redact=redact),
            earlier=len(earlier),
            recorder=recorder,
            listener=on_event,
            seconds=program.spec.limits.seconds,
        )
        finish = await driver.execute()
        return finished(finish, run=run_id, earlier=len(earlier), recorded=_recorded(sink))

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
                tools=tuple(tool.definition for tool in self.tools),
                reads=frozenset(tool.name for tool in self.tools if tool.effect == "read"),
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


def finished(
    finish: Finish[OutputT],
    *,
    run: str,
    earlier: int,
    recorded: Trace | Path | list[bytes] | None,
) -> RunResult[OutputT]:
    """The result of a run that ended well.

    Raises:
        AgentKitError: The run ended otherwise; `error.result` is what it had reached.
    """
    result = RunResult(
        output=cast("OutputT", finish.output),
        messages=finish.messages,
        new_messages=finish.messages[earlier:],
        usage=finish.usage,
        status=finish.status,
        run=run,
        _recorded=recorded,
    )
    if finish.error is not None:
        error = finish.error.to_error()
        error.result = result
        raise error
    return result


def program_hash(program: Program[Any]) -> str:
    """The hash of what decides an agent's behaviour: instructions, tools, schemas."""
    spec = program.spec
    computed = getattr(program.compute.get("instructions"), "__qualname__", None)
    return digest(
        canonical(
            {
                "instructions": spec.instructions or computed,
                "tools": [tool.to_json() for tool in spec.tools],
                "output": spec.output.schema,
            }
        )
    )


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


def _instructions(function: Any) -> Callable[[RunContext[Any]], Any]:
    """The user's function as one that takes the context, which it may or may not want."""
    wants_context = bool(inspect.signature(function).parameters)
    return function if wants_context else lambda context: function()


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


def _fan_out(*listeners: Emit) -> Emit:
    listening = [listener for listener in listeners if listener is not ignore]
    if len(listening) < 2:
        return listening[0] if listening else ignore

    def emit(event: Event) -> None:
        for listener in listening:
            listener(event)

    return emit


def _run_sync(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run in this thread, or in one of its own where a loop is running already."""
    try:
        current_token()
    except NoEventLoopError:
        return anyio.run(main)
    with start_blocking_portal() as portal:
        return portal.call(main)
