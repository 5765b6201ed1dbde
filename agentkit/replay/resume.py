"""Resume: an interrupted run goes on, recorded as far as it came and live from there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from agentkit.core.effects import Address, Compute, Decision, Effect, PendingCall, ToolInvocation
from agentkit.errors import ConfigurationError, ReplayDivergence, safe_repr
from agentkit.events import Emit, ignore
from agentkit.redaction import Redactor
from agentkit.replay.answers import Recording
from agentkit.replay.engine import Choice, Do, Engine, Plan
from agentkit.runtime.assemble import assemble, program_hash
from agentkit.runtime.config import AgentConfig
from agentkit.runtime.driver import Driver
from agentkit.runtime.request import check_credentials, check_not_intercepted
from agentkit.runtime.result import RunResult
from agentkit.runtime.scope import Approver, Scope, guarded
from agentkit.settings import ChatSettings, Limits, asked_of
from agentkit.trace.check import check_replayable, recorded_options
from agentkit.trace.compare import divergence
from agentkit.trace.file import FileSink, MemorySink
from agentkit.trace.logs import teeing
from agentkit.trace.open import reopened
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import Durability, Recorder

Decisions: TypeAlias = Mapping[str, Decision | bool] | Mapping[Address, Decision | bool]


class _Resume(Plan):
    """What has ended is answered; a call that may have had its effect is asked about."""

    def __init__(self, recorded: Recording) -> None:
        self._recorded = recorded

    def choose(self, effect: Effect) -> Choice:
        recorded, known = self._recorded, self._recorded.begun(effect.at)
        # What a limit kept from running ended its agent: a higher limit lets it run now. Any
        # other call that no tool ran is a divergence.
        if recorded.finished(effect) or recorded.skipped(effect.at) not in (None, "limit"):
            return Do.ANSWER
        if known is None or (known.status != "in_flight" and known.status != "cancelled"):
            # In a call that is paused a sub-agent waited: it begins anew, and is given what
            # that had done.
            return Do.PERFORM
        return Do.GO_ON if isinstance(effect, (ToolInvocation, Compute)) else Do.PERFORM


async def resume(
    config: AgentConfig,
    trace: Trace | str | os.PathLike[str],
    *,
    decisions: Decisions | None = None,
    deps: object = None,
    settings: ChatSettings | None = None,
    limits: Limits | None = None,
    on_event: Emit = ignore,
    approver: Approver | None = None,
    durability: Durability | None = None,
    redact: Redactor | None = None,
) -> RunResult[Any]:
    """Go on with a run; see `Agent.resume`."""
    check_not_intercepted("Agent.resume")
    listener = guarded(on_event)
    durable, redact = durability or config.durability, redact or config.redact
    sink = reopened(trace)
    try:
        memory = isinstance(sink, MemorySink)
        recording = Trace(sink.lines) if memory else Trace.load(sink.path)
        check_replayable(recording)
        messages, earlier = recording.input()
        check_credentials(recording.options(), settings)
        then = recorded_options(recording)
        program = assemble(config, settings or then[0], limits or then[1])
        program.model.check()
        config.check_deps(deps)
        recorded = Recording(recording, redact, asked_of(settings, limits))
        recorded.check_agent(program.spec.at)
        known = _checked(decisions or {}, recording.pending)

        def decide(pending: PendingCall) -> Any:
            # Each decision is used once: a server may give a later call the same id.
            if pending.at in known:
                return known.pop(pending.at)
            return approver(pending) if approver is not None else None

        if isinstance(sink, FileSink):
            sink.go_on(recording.excess)  # nothing is written before all of it was read
        recorder = Recorder(
            sink,
            run=recording.run,
            program=lambda: program_hash(program, redact),
            redact=redact,
            durability=durable,
            taps=teeing(recording.run),
            resumes=recording,
            options=asked_of(settings, limits),
        )
        engine = Engine(recorded, _Resume(recorded))
        scope = Scope(
            run=recording.run,
            handler=engine.handler,
            limits=program.spec.limits,
            deps=deps,
            listener=listener,
            recorder=recorder,
            trace=recorder.trace,
            redact=redact,
            approver=decide,
            recorded=engine,
            resumed=True,
        )
        driver = Driver(scope, program, messages, earlier=earlier)
        finish = await driver.execute()
        engine.divergences += map(_not_applied, known)
        return engine.concluded(driver, finish)
    finally:
        sink.close()  # the run has closed it already, unless it never began


def _checked(
    decisions: Decisions, waiting: Sequence[PendingCall]
) -> dict[Address, Decision | bool]:
    """Return the decisions by the addresses of the calls that wait now.

    Raises:
        ConfigurationError: A decision is about a call that does not wait.
    """
    known: dict[Address, Decision | bool] = {}
    if not isinstance(decisions, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
        raise ConfigurationError(
            f"decisions={safe_repr(decisions)}: expected a dict of decisions by address or id."
        )
    for key, decision in decisions.items():
        if not isinstance(decision, (bool, Decision)):  # pyright: ignore[reportUnnecessaryIsInstance]  # not everybody checks types
            raise ConfigurationError(
                f"decisions[{str(key)!r}]={safe_repr(decision)}: expected a Decision, True or "
                "False."
            )
        chosen = [one.at for one in waiting if key in (one.at, one.call.id)]
        if len(chosen) > 1:
            raise ConfigurationError(
                f"{len(chosen)} calls that wait have the id {key!r}. Decide by address: "
                f"{', '.join(chosen)}."
            )
        if not chosen:
            waits = ", ".join(f"{one.at} ({one.call.name})" for one in waiting) or "none"
            raise ConfigurationError(f"No call waits at {key!r}; those that wait: {waits}.")
        if chosen[0] in known:
            raise ConfigurationError(f"decisions= has two decisions about {chosen[0]}.")
        known[chosen[0]] = decision
    return known


def _not_applied(at: Address) -> ReplayDivergence:
    return divergence(
        "missing_call",
        at,
        text="the decision about this call was not applied: the run has not come to it.",
        advice="Look at what has changed in the agent, its sub-agents' names included.",
    )
