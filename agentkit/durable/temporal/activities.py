"""The activities of a worker: what a workflow has done for it, from the first to the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from agentkit.core.effects import Address, Compute, ModelCall, ToolInvocation
from agentkit.durable.temporal.blobs import Blobs
from agentkit.durable.temporal.data import Threads, from_data, whole_all
from agentkit.durable.temporal.hosted import hosted_program
from agentkit.durable.temporal.journal import Assembly, PieceRecorder
from agentkit.durable.temporal.live import Publisher
from agentkit.durable.temporal.versions import described
from agentkit.durable.temporal.work import Work, alive
from agentkit.errors import ConfigurationError, safe_str
from agentkit.messages import JsonObject, Message, ModelRequest, ToolDefinition
from agentkit.runtime.assemble import Program, program_hash
from agentkit.tools.invoke import called
from agentkit.trace.naming import unpacked

Deps = Callable[[Any], Any]
"""Makes the deps of a run from the reference that it was started with; sync or async."""


class Activities:
    """What a worker performs.

    Args:
        programs: The agents, by name.
        blobs: The store.
        deps: Makes the deps of a run.
    """

    def __init__(
        self, programs: Mapping[str, Program[Any]], blobs: Blobs, deps: Deps | None
    ) -> None:
        self._programs = programs
        self._blobs = blobs
        self._deps = deps
        self._threads = Threads(blobs)

    @property
    def all(self) -> Sequence[Callable[..., Any]]:
        """The activities of the worker."""
        return [self.begin, self.model, self.tool, self.compute, self.finish]

    @activity.defn(name="agentkit.begin")
    async def begin(self, asked: JsonObject) -> JsonObject:
        """Check that the run can be performed here, before anything of it is."""
        program = self._program(asked)
        try:
            program.model.check()
            program.config.check_deps(await self._rebuilt(asked["deps_ref"]))
        except ConfigurationError as error:
            kind = type(error).__name__
            raise ApplicationError(
                error.message, error.data(), type=kind, non_retryable=True
            ) from error
        return {"program": described(program), "limits": asdict(program.spec.limits)}

    @activity.defn(name="agentkit.model")
    async def model(self, asked: JsonObject, tools: list[JsonObject] | None) -> JsonObject:
        """Ask the model."""
        program = self._program(asked)
        messages, base = await self._threads.extend(asked["base"], asked["new"], asked["run"])
        spec = program.spec
        if tools is None:
            fixed = tuple(one.definition for one in spec.tools)
            offered = fixed if spec.output.tool is None else (*fixed, spec.output.tool)
        else:
            offered = tuple(map(ToolDefinition.from_json, tools))
        request = ModelRequest(
            messages=messages,
            tools=offered,
            tool_choice=from_data(asked["tool_choice"]),
            output=spec.output.format,
            settings=unpacked(asked["settings"]) if "settings" in asked else spec.settings,
        )
        effect = ModelCall(at=Address(asked["at"]), model=spec.model, request=request)
        return {**await self._perform(asked, program, effect), "base": base}

    @activity.defn(name="agentkit.tool")
    async def tool(self, asked: JsonObject) -> JsonObject:
        """Run a tool."""
        program, effect = self._program(asked), from_data(asked["effect"])
        known = program.tools.get(effect.call.name)
        messages: tuple[Message, ...] = ()
        if known is None or known.takes_context:
            messages = await self._threads.load(asked["base"], asked["run"])
        return await self._perform(asked, program, effect, messages)

    @activity.defn(name="agentkit.compute")
    async def compute(self, asked: JsonObject) -> JsonObject:
        """Call a function of the application's."""
        program, effect = self._program(asked), from_data(asked["effect"])
        if effect.name == "compact":
            history = await whole_all(effect.input, asked["run"], self._blobs)
            effect = replace(effect, input=history)
        return await self._perform(asked, program, effect)

    @activity.defn(name="agentkit.finish")
    async def finish(self, asked: JsonObject) -> JsonObject:
        """Put the trace together and store it."""
        async with alive():
            run, root, log = asked["run"], self._programs[asked["agent"]], asked["log"]
            recorder = self._recorder(asked, root)
            assembly = Assembly(self._blobs, recorder, run)
            if asked["nested"]:
                await assembly.take(log)
                return {"piece": await assembly.piece.store(self._blobs)}
            at, finish = root.spec.at, from_data(asked["ended"])
            began, ended = (log[0][1], log[-1][1]) if log else (0, 0)
            messages = await whole_all(asked["messages"], run, self._blobs)
            recorder.agent_start(at, root.config.name, messages, asked["earlier"])
            for note in root.notes:
                recorder.note(note)
            await assembly.own(began)
            await assembly.take(log)
            takers = [Address(entry[2]) for entry in log if entry[0] == "agent"]
            for agent in (*reversed(takers), at):
                recorder.agent_end(agent, finish)
            await assembly.own(ended)
            lines = await assembly.piece.lines(self._blobs, recorder.header, finish.status)
            await self._blobs.write(f"traces/{run}.jsonl", b"".join(lines))
            return {}

    def _program(self, asked: JsonObject) -> Program[Any]:
        """Return the agent that has the conversation.

        Raises:
            RuntimeError: This worker does not have it; another one may.
        """
        program = hosted_program(self._programs, asked["agent"])
        for taker in asked["path"]:
            program = program.handoffs[taker]()
        return replace(program, spec=replace(program.spec, at=Address(asked["of"])))

    async def _rebuilt(self, ref: Any) -> Any:
        """Rebuild the deps of a run.

        Raises:
            ConfigurationError: The function that does it fails, or there is none.
        """
        if ref is None:
            return None
        if self._deps is None:
            raise ConfigurationError(
                f"The run has deps_ref={ref!r}, and the worker cannot make deps of it: pass a "
                "function of the reference as worker(deps=…)."
            )
        try:
            return await called(self._deps, ref)
        except Exception as error:
            raise ConfigurationError(
                f"The deps of the run cannot be rebuilt from deps_ref={ref!r}: "
                f"{type(error).__name__}: {safe_str(error)}."
            ) from error

    def _recorder(
        self, asked: JsonObject, program: Program[Any], stream: bool = False
    ) -> PieceRecorder:
        redact = program.config.redact
        return PieceRecorder(
            run=asked["run"],
            program=lambda: program_hash(program, redact),
            redact=redact,
            stream=stream,
        )

    async def _perform(
        self,
        asked: JsonObject,
        program: Program[Any],
        effect: ModelCall | ToolInvocation | Compute,
        messages: tuple[Message, ...] = (),
    ) -> JsonObject:
        """Perform one effect, and return its outcome and what was recorded."""
        try:
            deps = await self._rebuilt(asked["deps_ref"])
        except ConfigurationError as error:
            raise ApplicationError(str(error), type="ConfigurationError") from error
        async with alive(), Publisher.of(self._blobs, asked["run"]) as publisher:
            recorder = self._recorder(asked, program, publisher.listened)
            work = Work(self._programs, self._blobs, recorder, asked, effect)
            return await work.perform(program, deps, messages, publisher)
