"""Answers effects from a trace, by address.

Nothing is guessed: an effect is answered by what was recorded at its address, if
it is the same effect, and is a divergence if not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from agentkit.core.effects import (
    Address,
    Compute,
    Decision,
    Effect,
    Failure,
    Interrupt,
    ModelCall,
    Outcome,
    Pause,
    PendingCall,
    Suspended,
    ToolInvocation,
    ancestors,
    decided,
)
from agentkit.errors import ReplayDivergence, RunCancelled
from agentkit.messages import JsonObject
from agentkit.redaction import PLACEHOLDER, Redactor
from agentkit.trace.compare import (
    Strictness,
    divergence,
    request_difference,
    tool_difference,
    without_digests,
)
from agentkit.trace.effects import RecordedEffect, failure_from_json
from agentkit.trace.naming import Namer, canonical, packed, unpacked
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import call_fingerprint, compute_fingerprint

__all__ = ["RecordedHandler", "stopped"]


_FROM_OUTSIDE = ("RunCancelled", "LimitExceeded")
"""What may end a run between two effects, without a trace at either."""


class RecordedHandler:
    """Answers effects from a trace."""

    def __init__(self, trace: Trace, redact: Redactor | None = None) -> None:
        self.trace = trace
        self.redact = redact or Redactor()
        self.other_key = trace.key_id != self.redact.key_id
        self._namer = Namer(self.redact)
        self._effects = trace.effects
        self._answered: set[str] = set()
        self._made: set[str] = set()
        self._asked_again: set[str] = set()
        self._origins: dict[str, str] = {}
        self._dets: dict[str, dict[tuple[str, int], Any]] = {}

    def check_agent(self, at: str) -> None:
        """Refuse an agent that is not the one of the recording.

        Raises:
            ReplayDivergence: It has another name, so all its addresses are others.
        """
        then = self.trace.agent_start.get("at", at)
        if then != at:
            raise divergence(
                "unexpected_call",
                at,
                text=f"the trace is a run of the agent {then[1:]!r}, and this one is {at[1:]!r}.",
                advice="Take the agent that made it; a name is part of every address.",
            )

    async def perform(self, effect: Effect) -> Outcome:
        """Answer from the recording, or end the run with a `ReplayDivergence`."""
        if isinstance(effect, Pause):
            return self.decisions(effect)
        if diverged := self.compare(effect):
            return stopped(diverged)
        return self.outcome(effect)

    def start(self, at: str) -> JsonObject | None:
        """How the effect at this address began."""
        return one.start if (one := self._effect(at)) is not None else None

    def end(self, at: str) -> JsonObject | None:
        """How it ended."""
        return one.end if (one := self._effect(at)) is not None else None

    def asked(self, at: str) -> PendingCall | None:
        """Return the call at this address as it waited for a decision before it ran."""
        if at in self._asked_again or (one := self._effect(at)) is None:
            return None
        return one.asked

    def first_end(self, at: str) -> JsonObject | None:
        """When it was over: its first end, where its outcome was edited afterwards."""
        return one.first_end if (one := self._effect(at)) is not None else None

    @cached_property
    def starts(self) -> Mapping[str, JsonObject]:
        """How each effect began, by address, in the order in which they did."""
        effects = (one for one in self._effects.values() if one.kind != "agent")
        return {one.at: start for one in effects if (start := one.start) is not None}

    def _effect(self, at: str) -> RecordedEffect | None:
        """Return the call or function at this address."""
        one = self._effects.get(at)
        return None if one is None or one.kind == "agent" else one

    def compare(self, effect: Effect, strictness: Strictness = "exact") -> ReplayDivergence | None:
        """Whether the effect is the one that was recorded at its address."""
        recorded = self._effect(effect.at)
        if recorded is not None and recorded.skipped is not None and not recorded.begun:
            return self.unexpected(effect)
        if recorded is None or (start := recorded.start) is None:
            return None if self.ended_from_outside else self.unexpected(effect)
        match effect:
            case ModelCall() if start["event"] == "model.start":
                named = self._namer.request(effect)
                if strictness == "outcome" or start["fp"] == named.fingerprint:
                    return None
                return request_difference(self.trace, recorded, effect, self._namer, strictness)
            case ToolInvocation() if start["event"] == "tool.start":
                same = start["fp"] == call_fingerprint(effect, self._namer.redact)
                if strictness == "outcome" or same:
                    return None
                return tool_difference(self.trace, start, effect, self._namer, strictness)
            case Compute(name=name) if start.get("name") == name:
                if strictness in ("structural", "outcome"):
                    return None
                same = start["fp"] == compute_fingerprint(effect, self.redact)
                return None if same else self._of_compute(effect)
            case _:
                return self.unexpected(effect)

    def _of_compute(self, effect: Compute) -> ReplayDivergence | None:
        given = canonical(packed(effect.input, self.redact))
        if self.other_key and PLACEHOLDER.search(given.decode(errors="replace")):
            return None  # of secrets under another key nothing is known
        return divergence(
            "request_changed",
            effect.at,
            text=f"{effect.name} is called for something else than when this was recorded.",
        )

    def asks_again(self, pending: PendingCall) -> bool:
        """Whether it was asked then about the same call."""
        asked = self.asked(pending.at)
        if asked is None or asked.call.name != pending.call.name:
            return False
        then = asked.call.arguments
        now = unpacked(packed(pending.call.arguments, self.redact))
        return then == now or (self.other_key and without_digests(then) == without_digests(now))

    def forget(self, at: str) -> None:
        """What is done at this address is another thing: it draws its own times and numbers."""
        self._dets[at] = {}

    def outcome(self, effect: Effect) -> Outcome:
        """What was recorded of an effect that was compared."""
        recorded = self._effect(effect.at)
        if recorded is None or recorded.start is None or isinstance(effect, Pause):
            return self._interrupted()  # the run had ended before this began
        self._answered.add(effect.at)
        if recorded.asked_again or recorded.status == "paused":
            return self._paused(effect.at)
        if recorded.end is None:
            return stopped(_ended(effect.at))
        return recorded.outcome or replace(self._interrupted(), usage=recorded.usage)

    def made(self, effect: Effect) -> None:
        """Note that an effect was performed for real: it is not left over."""
        self._made.add(effect.at)

    def never_came_to(self, effect: Effect) -> bool:
        """Whether the run was ended from outside before this effect."""
        first = effect.pending[0].at if isinstance(effect, Pause) else effect.at
        return self.ended_from_outside and not self.begun_at(first) and self.asked(first) is None

    @property
    def ended_from_outside(self) -> bool:
        """Whether the run was ended between two effects, without a trace at either."""
        return self.ended.get("error", {}).get("type") in _FROM_OUTSIDE

    @property
    def cut_short(self) -> bool:
        """Whether the whole run ended early, and not only something inside it."""
        return self.ended.get("status") not in ("ok", "paused")

    @cached_property
    def ended(self) -> JsonObject:
        """The `agent.end` of the outermost agent; empty where the run was interrupted."""
        root = self._effects.get(self.trace.agent_start.get("at", ""))
        return (root and root.end) or {}

    def origin(self, name: str) -> str | None:
        """The address of the effect that a message of this name came from."""
        if not self._origins:
            for at, one in self._effects.items():
                if (message := one.message) is not None:
                    self._origins.setdefault(message, at)
        return self._origins.get(name)

    def decisions(self, pause: Pause) -> Outcome:
        """What was decided then; a run that paused there pauses here."""
        for pending in pause.pending:
            if self.asked(pending.at) is None and self.ended_from_outside:
                return self._interrupted()
            if not self.asks_again(pending):
                return stopped(self.unexpected(pause))
            self._asked_again.add(pending.at)
        decisions = [self.decision(pending.at) for pending in pause.pending]
        made = decided(decisions)
        if not isinstance(made, Suspended) or self.ended.get("status") == "paused":
            return made
        # An approver that fails ends the run, and leaves no other trace.
        return self._interrupted() if "error" in self.ended else stopped(_ended(pause.at))

    def decision(self, at: Address) -> Decision | None:
        """What was decided about the call at this address."""
        one = self._effect(at)
        return one.decision if one is not None else None

    def det(self, at: Address, kind: str, use: int) -> Any:
        """The recorded value that was not deterministic, or None."""
        if at not in self._dets:
            dets = one.dets if (one := self._effects.get(at)) is not None else ()
            self._dets[at] = {(one.kind, one.use): one.value for one in dets}
        return self._dets[at].get((kind, use))

    def finished(self, effect: Effect) -> bool:
        """Whether the effect had an end of its own, not by the end of its run.

        A model or a function that failed at the very end is asked again: it may answer now.
        """
        if effect.at == self._failed_last:
            return False
        one = self._effect(effect.at)
        return one is not None and one.finished

    def paused(self, effect: Effect) -> bool:
        """Whether an agent in it waits, or waited, for a decision."""
        one = self._effect(effect.at)
        return one is not None and one.status == "paused"

    def waiting(self) -> tuple[PendingCall, ...]:
        """The calls about which somebody has to decide before the run can go on."""
        return self.trace.pending

    def begun(self, effect: Effect) -> bool:
        """Whether the effect had at least begun."""
        return self.begun_at(effect.at)

    def skipped(self, effect: Effect) -> bool:
        """Check whether no tool ran this call."""
        one = self._effect(effect.at)
        return one is not None and one.skipped is not None

    def begun_at(self, at: str) -> bool:
        """Check whether an effect had begun at this address."""
        one = self._effect(at)
        return one is not None and one.begun

    def left_over(self) -> ReplayDivergence | None:
        """The first recorded effect that the replay never asked for, if there is one."""
        for at, one in self._effects.items():
            if one.kind == "agent" or not (one.begun or self.asked(at) is not None):
                continue
            if at not in self._answered and at not in self._made and not self._inside(at):
                return divergence(
                    "missing_call",
                    at,
                    text="it was recorded, and the replay ended without it.",
                    advice="Look at what decides whether to go on: limits, output type, tools.",
                )
        return None

    def _inside(self, at: str) -> bool:
        """Whether a tool did this that was not run again, so that it need not be asked for."""
        return any(
            up in self._answered and self._effects[up].kind != "model" for up in ancestors(at)
        )

    @cached_property
    def _failed_last(self) -> str | None:
        """The address of the model call or the function whose failure ended the run."""
        last = self._effects.last_to_end()
        if last is None or last.kind == "tool" or last.status != "error":
            return None
        return last.at

    def unexpected(self, effect: Effect) -> ReplayDivergence:
        """The divergence of an effect that was not recorded."""
        one = self._effect(effect.at)
        if one is not None and one.skipped is not None:
            return divergence(
                "unexpected_call",
                effect.at,
                text=f"no tool ran this call then ({one.skipped}), and one is to run it now.",
                advice="Look at what decides whether a call runs: output type, approval, limits.",
            )
        if self.trace.status == "interrupted":
            return _ended(effect.at)
        return divergence(
            "unexpected_call",
            effect.at,
            text="the replay asks for something that the recording does not have.",
            advice="This function of the agent is new: run it with compute='live'."
            if isinstance(effect, Compute)
            else "Look at what decides whether to go on: limits, output type, tools.",
        )

    def _interrupted(self) -> Interrupt:
        """The recorded run was ended here from outside, so this one is too."""
        status = self.ended.get("status", "cancelled")
        return Interrupt(
            status=status if status in ("limit", "error") else "cancelled",
            error=failure_from_json(self.ended.get("error", {})),
        )

    def _paused(self, at: Address) -> Interrupt:
        """The recorded run has waited here for decisions."""
        inside = tuple(one for one in self.waiting() if f"{one.at}/".startswith(f"{at}/"))
        error = Failure.of(RunCancelled(f"{at} waits for a decision.", reason="paused"))
        return Interrupt(
            status="paused", error=error, pending=inside, usage=self._effects[at].usage
        )


def _ended(at: Any) -> ReplayDivergence:
    return divergence(
        "recording_ended",
        at,
        text="the recording ends here: its run was interrupted, or is still going on.",
        advice="`await agent.resume(trace)` goes on with a run that was interrupted.",
    )


def stopped(diverged: ReplayDivergence) -> Interrupt:
    """The end of a run that differs from its recording."""
    return Interrupt(status="error", error=Failure.of(diverged))
