"""Resume: an interrupted run goes on, recorded as far as it came and live from there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from agentkit._checks import FLAG
from agentkit.core.effects import Address, Compute, Decision, Effect, PendingCall, ToolInvocation
from agentkit.errors import ConfigurationError, ReplayDivergence, safe_repr
from agentkit.events import Emit, Warned, ignore
from agentkit.models import Model
from agentkit.redaction import Redactor
from agentkit.replay.answers import Recording
from agentkit.replay.engine import Choice, Do, Engine, Plan
from agentkit.replay.program import program_change
from agentkit.runtime.assemble import assemble, program_hash
from agentkit.runtime.config import AgentConfig, check
from agentkit.runtime.driver import Driver
from agentkit.runtime.request import (
    RUN_CHECKS,
    check_credentials,
    check_model,
    check_not_intercepted,
)
from agentkit.runtime.scope import Approver, Scope, guarded
from agentkit.settings import ChatSettings, Limits, asked_of
from agentkit.trace.check import check_replayable, recorded_options
from agentkit.trace.compare import Strictness, divergence
from agentkit.trace.file import FileSink, MemorySink
from agentkit.trace.logs import followers
from agentkit.trace.open import reopened
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import Durability, Recorder

Decisions: TypeAlias = Mapping[str, Decision | bool] | Mapping[Address, Decision | bool]
_CHECKS = {**RUN_CHECKS, "force": FLAG}
_SHARED = ("force", "settings", "limits", "on_event", "approver", "durability", "redact", "model")


class _Resume(Plan):
    """What has ended is answered; a call that may have had its effect is asked about."""

    def __init__(
        self,
        recorded: Recording,
        decisions: dict[Address, Decision | bool],
        approver: Approver | None,
        force: bool,
    ) -> None:
        self._recorded = recorded
        self._decisions = decisions
        self._approver = approver
        self._force = force

    def decide(self, pending: PendingCall) -> Any:
        """Use each decision once: a server may give a later call the same id."""
        if pending.at in self._decisions:
            return self._decisions.pop(pending.at)
        return self._approver(pending) if self._approver is not None else None

    def strictness(self, effect: Effect) -> Strictness | None:
        return None if self._force else "exact"

    def unused(self) -> Sequence[ReplayDivergence]:
        return [*map(_not_applied, self._decisions)]

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeRequest:
    """A run that is to go on, with what `Agent.resume` takes."""

    config: AgentConfig
    trace: Trace | str | os.PathLike[str]
    decisions: Decisions | None = None
    deps: object = None
    settings: ChatSettings | None = None
    limits: Limits | None = None
    on_event: Emit = ignore
    approver: Approver | None = None
    durability: Durability | None = None
    redact: Redactor | None = None
    model: str | Model | None = None
    force: bool = False
    stream: bool = False

    def __post_init__(self) -> None:
        """Refuse an option that does not fit, before anything is read."""
        check({name: getattr(self, name) for name in _SHARED}, _CHECKS)

    def open(self, listener: Emit | None = None) -> Driver[Any]:
        """Read the trace and prepare to go on in it.

        Args:
            listener: Gets the events, instead of `on_event`.

        Raises:
            AgentKitError: As of `Agent.resume`.
        """
        check_not_intercepted("Agent.resume")
        sink = reopened(self.trace)
        try:
            return self._opened(sink, guarded(listener or self.on_event))
        except BaseException:
            sink.close()
            raise

    def _opened(self, sink: FileSink | MemorySink, listener: Emit) -> Driver[Any]:
        config, settings, limits = self.config, self.settings, self.limits
        if self.model is not None:
            config = config.for_model(self.model)
        asked = asked_of(settings, limits, None if self.model is None else config.resolved.name)
        redact = self.redact or config.redact
        recording = Trace(sink.lines) if isinstance(sink, MemorySink) else Trace.load(sink.path)
        check_replayable(recording)
        messages, earlier = recording.input()
        check_credentials(recording.options(), settings)
        check_model(recording.options(), self.model)
        then = recorded_options(recording)
        program = assemble(config, settings or then[0], limits or then[1])
        program.model.check()
        config.check_deps(self.deps)
        recorded = Recording(recording, redact, asked)
        recorded.check_agent(program.spec.at)
        decisions = _checked(self.decisions or {}, recording.pending)
        if (changed := program_change(recorded, program, redact)) is not None:
            if not self.force:
                raise changed
            note = Warned(at=program.spec.at, code="program_changed", text=changed.message)
            program = replace(program, notes=(*program.notes, note))
        plan = _Resume(recorded, decisions, self.approver, self.force)
        if isinstance(sink, FileSink):
            sink.go_on(recording.excess)  # nothing is written before all of it was read
        recorder = Recorder(
            sink,
            run=recording.run,
            program=lambda: program_hash(program, redact),
            redact=redact,
            stream=self.stream,
            durability=self.durability or config.durability,
            followers=followers(recording.run, recording),
            resumes=recording,
            options=asked,
        )
        engine = Engine(recorded, plan)
        scope = Scope(
            run=recording.run,
            handler=engine.handler,
            limits=program.spec.limits,
            deps=self.deps,
            listener=listener,
            recorder=recorder,
            trace=recorder.trace,
            redact=redact,
            stream=self.stream,
            approver=plan.decide,
            recorded=engine,
            resumed=True,
        )
        return Driver(scope, program, messages, earlier=earlier)


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
