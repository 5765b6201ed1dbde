"""Replay: a recorded run again, with the agent as it is now and the outcomes of then."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import anyio

from agentkit.core.effects import Compute, Effect, ToolInvocation
from agentkit.core.spec import Finish
from agentkit.errors import ConfigurationError, safe_repr
from agentkit.events import Emit, ignore
from agentkit.messages import Message
from agentkit.redaction import Redactor
from agentkit.replay.answers import Recording
from agentkit.replay.engine import Choice, Do, Engine, Plan
from agentkit.runtime.assemble import Program, assemble, program_hash
from agentkit.runtime.config import AgentConfig
from agentkit.runtime.driver import Driver
from agentkit.runtime.request import check_not_intercepted
from agentkit.runtime.result import RunResult
from agentkit.runtime.scope import Approver, Scope, guarded, new_run_id
from agentkit.trace.check import check_replayable, recorded_options
from agentkit.trace.compare import Strictness
from agentkit.trace.effects import RecordedEffect
from agentkit.trace.open import Recorded, TraceTo, open_recorder
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import Recorder

OutputT = TypeVar("OutputT")
PlanName: TypeAlias = Literal["exact", "tools_live", "model_live"]
OnDivergence: TypeAlias = Literal["raise", "warn"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayOptions:
    """What a replay performs, and how strictly the rest is compared.

    Attributes:
        plan: Which of the presets.
        live: The tools that run, by name or address, and no others. Empty with `tools_live`:
            those that only read.
        strictness: What has to be the same.
        on_divergence: What a divergence does.
        functions: The agent's own functions run, too.
        ordered: Effects begin and end in the recorded order.
    """

    plan: PlanName = "exact"
    live: Collection[str] = ()
    strictness: Strictness = "exact"
    on_divergence: OnDivergence = "raise"
    functions: bool = False
    ordered: bool = True


def options_of(
    plan: PlanName,
    live: Collection[str],
    strictness: Strictness | None,
    on_divergence: OnDivergence | None,
) -> ReplayOptions:
    """Check what a caller gives; None is what fits the plan.

    Raises:
        ConfigurationError: There is no such value.
    """
    loose = plan == "tools_live"
    strictness = strictness or ("structural" if loose else "exact")
    on_divergence = on_divergence or ("warn" if loose else "raise")
    for name, value, allowed in (
        ("plan", plan, get_args(PlanName)),
        ("strictness", strictness, get_args(Strictness)),
        ("on_divergence", on_divergence, get_args(OnDivergence)),
    ):
        if value not in allowed:
            raise ConfigurationError(
                f"{name}={value!r}: expected {' | '.join(map(repr, allowed))}."
            )
    check_live(live)
    if live and plan == "exact":
        raise ConfigurationError(
            f"live={live!r}: plan='exact' runs no tool. Give plan='tools_live' or 'model_live'."
        )
    return ReplayOptions(plan=plan, live=live, strictness=strictness, on_divergence=on_divergence)


def check_live(live: Collection[str]) -> None:
    """Refuse a `live=` that is not a list of names and addresses."""
    if isinstance(live, str) or not all(isinstance(one, str) for one in live):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
        raise ConfigurationError(
            f"live={safe_repr(live)}: expected a list of tool names, or of addresses of calls."
        )


def check_names(
    live: Collection[str], program: Program[Any], recorded: Recording, *, option: str = "live="
) -> None:
    """Refuse names of tools that neither the agent has nor the run has called.

    Raises:
        ConfigurationError: There is no such tool, and no toolset that might have it.
    """
    called = (one.name for one in recorded.effects.values() if one.kind == "tool")
    known = dict.fromkeys((*program.tools, *called))  # those of sub-agents, too
    unknown = sorted(one for one in {*live} - known.keys() if not one.startswith("/"))
    if unknown and not program.spec.toolsets:
        raise ConfigurationError(
            f"{option} names {unknown[0]!r}, which the agent does not have; "
            f"its tools: {', '.join(map(repr, known)) or 'none'}."
        )


class _Replay(Plan):
    """The recorded model; recorded tools, or some of them live."""

    checks = True

    def __init__(self, recorded: Recording, options: ReplayOptions) -> None:
        self._recorded = recorded
        self._options = options
        self._reading = options.plan == "tools_live" and not options.live
        self.acts = options.plan != "exact" or options.functions
        self.in_order = options.strictness == "exact" and not self.acts

    def choose(self, effect: Effect) -> Choice:
        match effect:
            case ToolInvocation(at=at, call=call):
                known = self._recorded.begun(at)
                if known is not None and known.status == "cancelled":
                    return Do.ANSWER
                if self._reading:
                    return Do.PERFORM if effect.effect == "read" else Do.HOLD_BACK
                live = self._options.live
                return Do.PERFORM if call.name in live or at in live else Do.ANSWER
            case Compute() if self._options.functions or self._is_new(effect):
                return Do.PERFORM
            case _:
                return Do.ANSWER

    def strictness(self, effect: Effect) -> Strictness:
        return self._options.strictness

    def enters(self, effect: RecordedEffect) -> bool:
        if effect.kind == "compute":
            return self._options.functions
        if self._reading:
            return effect.effect == "read"
        return effect.name in self._options.live or effect.at in self._options.live

    def _is_new(self, effect: Compute) -> bool:
        """Return whether the agent did not have this function, and only its effect counts."""
        if self._options.strictness == "exact" or self._recorded.ended_from_outside:
            return False
        return self._recorded.begun(effect.at) is None


class _ModelLive(Plan):
    """A live model from the first step on, and recorded tools."""

    def __init__(self, live: Collection[str]) -> None:
        self._live = live

    def choose(self, effect: Effect) -> Choice:
        if not isinstance(effect, ToolInvocation):
            return Do.PERFORM
        return (
            Do.PERFORM
            if effect.call.name in self._live or effect.at in self._live
            else Do.SAME_CALL
        )

    def enters(self, effect: RecordedEffect) -> bool:
        return effect.kind != "tool" or effect.name in self._live or effect.at in self._live


async def replay(
    config: AgentConfig,
    trace: Trace | str | os.PathLike[str],
    options: ReplayOptions,
    *,
    deps: object = None,
    approver: Approver | None = None,
    on_event: Emit = ignore,
    record: TraceTo = False,
    redact: Redactor | None = None,
) -> RunResult[Any]:
    """Replay a run; see `Agent.replay`."""
    on_event = guarded(on_event)
    recording = trace if isinstance(trace, Trace) else Trace.load(trace)
    check_replayable(recording)
    messages, earlier = recording.input()
    program = assemble(config, *recorded_options(recording))
    if options.plan == "model_live":
        check_not_intercepted("Agent.replay with plan='model_live'")
        program.model.check()
        config.check_deps(deps)
    redact, run = redact or config.redact, new_run_id()
    recorder, to = open_recorder(
        record,
        run=run,
        program=lambda: program_hash(program, redact),
        redact=redact,
        replayed=options.plan != "model_live",
    )
    driver, engine = prepared(
        recording,
        program,
        messages,
        earlier,
        options,
        redact=redact,
        run=recording.run if recorder is None else run,
        recorder=recorder,
        recorded_in=to or recording,
        deps=deps,
        approver=approver,
        emit=on_event,
    )
    finish = engine.checked(await _driven_to_the_end(driver, engine))
    return engine.concluded(driver, finish)


def prepared(
    recording: Trace,
    program: Program[OutputT],
    messages: Sequence[Message],
    earlier: int,
    options: ReplayOptions,
    *,
    redact: Redactor,
    run: str | None = None,
    recorder: Recorder | None = None,
    recorded_in: Recorded = None,
    deps: object = None,
    approver: Approver | None = None,
    emit: Emit = ignore,
) -> tuple[Driver[OutputT], Engine]:
    """Return a run that is answered from a recording, and the engine that answers it.

    Where effects are ordered, the engine's order has to be watched beside the driver.
    """
    recorded = Recording(recording, redact)
    recorded.check_agent(program.spec.at)
    check_names(options.live, program, recorded)
    listener = guarded(emit)
    live = options.plan == "model_live"
    plan = _ModelLive(options.live) if live else _Replay(recorded, options)
    ordered = options.ordered and not live
    engine = Engine(
        recorded,
        plan,
        warn=options.on_divergence == "warn",
        driven=recorded.driven(plan.enters),
        ordered=ordered,
        listener=listener,
    )
    if not plan.acts:
        # Nothing takes its own time here: where a deadline ended the run, the recording says so.
        limits = replace(program.spec.limits, seconds=None)
        program = replace(program, spec=replace(program.spec, limits=limits))
    scope = Scope(
        run=run or recording.run,
        handler=engine.handler,
        limits=program.spec.limits,
        deps=deps,
        listener=listener,
        recorder=recorder,
        trace=recorded_in or recording,
        redact=redact,
        approver=approver,
        recorded=engine,
        bounded=plan.acts or not ordered,
    )
    return Driver(scope, program, messages, earlier=earlier), engine


async def _driven_to_the_end(driver: Driver[OutputT], engine: Engine) -> Finish[OutputT]:
    failed: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(engine.order.watch)
        try:
            await driver.execute()
        except Exception as error:
            failed = error  # raised below: a task group would wrap it in an ExceptionGroup
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed
    assert driver.finish is not None
    return driver.finish
