"""What a trace answers, by address.

Nothing is guessed: an effect is answered by what was recorded at its address if it is the
same effect, and is a divergence if not.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from agentkit.core.effects import (
    Address,
    Compute,
    Effect,
    Failure,
    Interrupt,
    ModelCall,
    Outcome,
    Pause,
    PendingCall,
    Suspended,
    ToolInvocation,
    ToolOutcome,
    Value,
    ancestors,
    decided,
)
from agentkit.errors import ReplayDivergence, RunCancelled
from agentkit.messages import JsonObject, ToolCall, ToolMessage, is_object
from agentkit.redaction import PLACEHOLDER, Redactor
from agentkit.trace.check import fits
from agentkit.trace.compare import (
    Strictness,
    divergence,
    request_difference,
    tool_difference,
    value_difference,
    without_digests,
)
from agentkit.trace.effects import RecordedEffect, failure_from_json
from agentkit.trace.naming import Namer, canonical, hidden_settings, packed, unpacked
from agentkit.trace.reader import Trace
from agentkit.trace.recorder import call_fingerprint, compute_fingerprint

_FROM_OUTSIDE = ("RunCancelled", "LimitExceeded")
"""What may end a run between two effects, without a trace at either."""
APPROVAL_CHANGED = "approval_changed"
"""The code of the warning about a call that waits only because it did so in the recording."""
_LOOK = "Look at what decides whether to go on: limits, output type, tools."
_DETAILS = ("model.chunks", "tool.chunks", "det", "warning", "log")
_ATTEMPTS = ("http.start", "http.end")


class Recording:
    """A trace as answers to effects.

    Attributes:
        effects: Its calls and functions by address, in the order in which they began.
    """

    def __init__(
        self, trace: Trace, redact: Redactor, options: Mapping[str, Any] | None = None
    ) -> None:
        self.trace = trace
        self.redact = redact
        self.other_key = trace.key_id != redact.key_id
        self.effects = {at: one for at, one in trace.effects.items() if one.kind != "agent"}
        self._namer = Namer(redact)
        self._origins: dict[str, str] = {}
        self._settings = _settings_in_force(trace, redact, options or {})
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
                advice="Take the agent of the recording; its name is part of every address.",
            )

    def begun(self, at: str) -> RecordedEffect | None:
        """Return the effect at an address, unless it never began."""
        one = self.effects.get(at)
        return one if one is not None and one.begun else None

    def pending(self, at: str) -> PendingCall | None:
        """Return the call at an address as it waited for a decision before it ran."""
        one = self.effects.get(at)
        return one.pending if one is not None else None

    def skipped(self, at: str) -> str | None:
        """Return why no tool ran the call at an address, if none did."""
        one = self.effects.get(at)
        return one.skipped if one is not None and not one.begun else None

    # Whether an effect is the recorded one

    def compare(
        self, effect: Effect, strictness: Strictness | None = "exact"
    ) -> ReplayDivergence | None:
        """Return how the effect differs from the recorded one; None compares its kind alone."""
        recorded = self.begun(effect.at)
        if recorded is None:
            ended = self.ended_from_outside and self.skipped(effect.at) is None
            return None if ended else self.unexpected(effect)
        if self._of_earlier_program(recorded):
            strictness = None
        match effect:
            case ModelCall() if recorded.kind == "model":
                if strictness is None or recorded.fp == self._namer.request(effect).fingerprint:
                    return None
                found = request_difference(self.trace, recorded, effect, self._namer, strictness)
                params = found is not None and (found.pointer or "").startswith("/params/")
                return None if params and self._had_other_settings(recorded) else found
            case ToolInvocation() if recorded.kind == "tool":
                if strictness is None or recorded.fp == call_fingerprint(effect, self.redact):
                    return None
                start = recorded.start or {}
                return tool_difference(self.trace, start, effect, self._namer, strictness)
            case Compute(name=name) if recorded.kind == "compute" and recorded.name == name:
                same = recorded.fp == compute_fingerprint(effect, self.redact)
                return None if same or strictness != "exact" else self._other_input(effect)
            case _:
                return self.unexpected(effect)

    @property
    def program(self) -> str:
        """The hash of the agent that recorded the run last."""
        return self._programs[-1][1]

    @cached_property
    def _programs(self) -> list[tuple[int, str]]:
        """The hashes of the agents that recorded the run, each with its first line."""
        programs = [(0, self.trace.header["program"])]
        for event in self.trace.events:
            if event["event"] == "trace.resume" and event["program"] != programs[-1][1]:
                programs.append((event["seq"], event["program"]))
        return programs

    @property
    def last_request(self) -> RecordedEffect | None:
        """The last model call of the outermost agent."""
        agent = self.trace.agent_start.get("at")
        calls = [one for one in self.effects.values() if one.kind == "model" and one.begun]
        return next((one for one in reversed(calls) if one.at.parent == agent), None)

    def _of_earlier_program(self, recorded: RecordedEffect) -> bool:
        """Return whether the run went on with a changed agent since this effect."""
        since = self._programs[-1][0]
        return since > 0 and recorded.began is not None and recorded.began.seq < since

    def _had_other_settings(self, call: RecordedEffect) -> bool:
        """Return whether the run was resumed with other settings since this request."""
        seq = call.began.seq if call.began is not None else 0
        in_force = [settings for since, settings in self._settings if since <= seq]
        ours = call.at.parent == self.trace.agent_start.get("at")
        return ours and in_force[-1] != self._settings[-1][1]

    def difference(self, at: str, then: Any, now: Any, kind: str) -> ReplayDivergence | None:
        """Compare a recorded result with that of now."""
        return value_difference(self.trace, at, then, now, self._namer, kind=kind)

    def waited(self, pending: PendingCall) -> bool:
        """Return whether the same decision about the same call was asked for then."""
        then = self.pending(pending.at)
        return then is not None and then.kind == pending.kind and self.same_call(then, pending)

    def same_call(self, then: PendingCall, call: PendingCall | ToolInvocation) -> bool:
        """Return whether a call of now is one that waited then, as it was sent or read."""
        now = call.call
        if then.call.name != now.name:
            return False
        for what in ("approval", "arguments"):
            at = call.at.child(what)
            sent = Compute(at=at, name=f"{what}:{now.name}", input=now.arguments)
            if self.begun(at) is not None and self.compare(sent) is None:
                return True
        return self.same_text(then, now)

    def same_text(self, then: PendingCall, now: ToolCall) -> bool:
        """Return whether the arguments of a call are those that were shown then."""
        arguments = unpacked(packed(now.arguments, self.redact))
        if self.other_key:
            return without_digests(then.call.arguments) == without_digests(arguments)
        return then.call.arguments == arguments

    def was_to_wait(self, call: ToolInvocation) -> PendingCall | None:
        """Return a call that was judged before the run was interrupted, unless it was harmless."""
        if self.begun(call.at) is not None:
            return None
        for what in ("approval", "arguments"):
            at = call.at.child(what)
            judge = self.begun(at)
            if judge is None or judge.kind != "compute":
                continue
            verdict: Any = judge.output if judge.status == "ok" else None
            if verdict is False:
                continue
            read: JsonObject = verdict if is_object(verdict) else {}
            if read.get("needed", True) and "problem" not in read:
                # Without a verdict nothing was shown yet: it is read anew.
                shown = replace(call.call, arguments=str(read.get("arguments", "")))
                return PendingCall(at=call.at, call=shown, kind="approval")
        return None

    def forced(self, at: str) -> bool:
        """Return whether a call waited only because it had done so in an earlier recording."""
        one = self.effects.get(at)
        return one is not None and any(w.code == APPROVAL_CHANGED for w in one.warnings)

    def approval_changed(self, at: str) -> ReplayDivergence:
        """Return the divergence of a call that the agent would just run, and that waited then."""
        return divergence(
            "approval_changed",
            at,
            text="a decision was asked for before this call, and the agent asks for none now.",
            advice="Look at the tool's approval=, or at what decides whether it is deferred.",
        )

    def unexpected(self, effect: Effect) -> ReplayDivergence:
        """Return the divergence of an effect that was not recorded."""
        if (reason := self.skipped(effect.at)) is not None:
            return divergence(
                "unexpected_call",
                effect.at,
                text=f"no tool ran this call then ({reason}), and one is to run it now.",
                advice="Look at what decides whether a call runs: output type, approval, limits.",
            )
        if self.trace.status == "interrupted":
            return _ended(effect.at)
        new = "This function of the agent is new: strictness='structural' runs it."
        return divergence(
            "unexpected_call",
            effect.at,
            text="the replay asks for something that the recording does not have.",
            advice=new if isinstance(effect, Compute) else _LOOK,
        )

    def _other_input(self, effect: Compute) -> ReplayDivergence | None:
        text = canonical(packed(effect.input, self.redact)).decode(errors="replace")
        if self.other_key and PLACEHOLDER.search(text):
            return None  # of secrets under another key nothing is known
        return divergence(
            "request_changed",
            effect.at,
            text=f"{effect.name} is called for something else than when this was recorded.",
        )

    # What was recorded of it

    def outcome(self, effect: Effect) -> Outcome:
        """Return what was recorded of an effect that was compared."""
        recorded = self.begun(effect.at)
        if recorded is None or isinstance(effect, Pause):
            return self.interrupted()  # the run had ended before this began
        if recorded.in_doubt or recorded.status == "paused":
            error = Failure.of(RunCancelled(f"{effect.at} waits for a decision.", reason="paused"))
            inside = (one for one in self.trace.pending if _within(one.at, effect.at))
            return Interrupt(
                status="paused", error=error, pending=tuple(inside), usage=recorded.usage
            )
        if recorded.end is None:
            return stopped(_ended(effect.at))
        outcome = recorded.outcome or replace(self.interrupted(), usage=recorded.usage)
        if isinstance(outcome, Value) and not fits(recorded.name, outcome.value):
            raise self.trace.damaged(recorded.end, f"has a damaged 'value': {outcome.value!r:.80}")
        return outcome

    def skip_outcome(self, call: ToolInvocation) -> ToolOutcome | None:
        """Return what the model read about a call that no tool ran, as the outcome of the call."""
        one = self.effects.get(call.at)
        if one is None or one.begun or one.message is None:
            return None
        (message,) = self.trace.messages([one.message])
        assert isinstance(message, ToolMessage)
        return ToolOutcome(at=call.at, status="denied", message=message)

    def decisions(self, pause: Pause) -> Outcome:
        """Return the recorded decisions; a run that paused there pauses here."""
        for pending in pause.pending:
            if self.pending(pending.at) is None and self.ended_from_outside:
                return self.interrupted()
            if not self.waited(pending):
                return stopped(self.unexpected(pause))
        outcome = decided([self.effects[pending.at].decision for pending in pause.pending])
        if not isinstance(outcome, Suspended) or self.ended.get("status") == "paused":
            return outcome
        # An approver that fails ends the run, and leaves no other trace.
        return self.interrupted() if "error" in self.ended else stopped(_ended(pause.at))

    def listed(self, agent: str) -> Mapping[str, Any]:
        """Return the definitions of an agent's toolsets as they were listed last, by name."""
        listed = [
            one.output
            for one in self.effects.values()
            if one.kind == "compute"
            and one.at == one.at.parent.child("toolsets")
            and one.at.parent.parent == agent
            and one.status == "ok"
        ]
        if not listed or not fits("toolsets", listed[-1]):
            return {}
        return {tool["definition"]["function"]["name"]: tool["definition"] for tool in listed[-1]}

    def det(self, at: Address, kind: str, use: int) -> Any:
        """Return the recorded value that was not deterministic, or None."""
        if at not in self._dets:
            dets = one.dets if (one := self.effects.get(at)) is not None else ()
            self._dets[at] = {(one.kind, one.use): one.value for one in dets}
        return self._dets[at].get((kind, use))

    def forget_unless_same(self, effect: Effect) -> None:
        """Drop the times and numbers drawn by an effect if another one is at its address now."""
        recorded = self.effects.get(effect.at)
        if recorded is not None and recorded.dets and self.compare(effect) is not None:
            self._dets[effect.at] = {}

    def finished(self, effect: Effect) -> bool:
        """Return whether the effect had an end of its own, not by the end of its run.

        A model or a function that failed at the very end is asked again: it may answer now.
        """
        one = self.effects.get(effect.at)
        return one is not None and one.finished and one.at != self._failed_last

    def given_up(self, effect: Effect) -> bool:
        """Return whether the code around the effect cancelled it, and the run went on."""
        one = self.begun(effect.at)
        went_on = self.ended.get("status") in ("ok", "paused")
        return went_on and one is not None and one.status == "cancelled"

    def origin(self, name: str) -> str | None:
        """Return the address of the effect that a message of this name came from."""
        if not self._origins:
            for at, one in self.effects.items():
                if (message := one.message) is not None:
                    self._origins.setdefault(message, at)
        return self._origins.get(name)

    @cached_property
    def _failed_last(self) -> str | None:
        """The address of the model call or the function whose failure ended the run."""
        last = self.trace.effects.last_to_end()
        if last is None or last.kind == "tool" or last.error is None:
            return None
        return last.at if last.error.type != "RunCancelled" else None  # a person has denied it

    def interrupted(self) -> Interrupt:
        """Return the end of a run that was ended here from outside, as the recorded one was."""
        status = self.ended.get("status", "cancelled")
        return Interrupt(
            status=status if status in ("limit", "error") else "cancelled",
            error=failure_from_json(self.ended.get("error", {})),
        )

    # The whole run

    @cached_property
    def ended(self) -> JsonObject:
        """The `agent.end` of the outermost agent; empty where the run was interrupted."""
        root = self.trace.effects.get(self.trace.agent_start.get("at", ""))
        return (root and root.end) or {}

    @property
    def ended_from_outside(self) -> bool:
        """Whether the run was ended between two effects, without a trace at either."""
        return self.ended.get("error", {}).get("type") in _FROM_OUTSIDE

    def never_came_to(self, effect: Effect) -> bool:
        """Return whether the run was ended from outside before this effect."""
        at = effect.pending[0].at if isinstance(effect, Pause) else effect.at
        waited = isinstance(effect, Pause) and self.pending(at) is not None
        return self.ended_from_outside and self.begun(at) is None and not waited

    def left_over(
        self, requested: Collection[str], answered: Collection[str], waited: Collection[str]
    ) -> ReplayDivergence | None:
        """Return a divergence if an effect was recorded that the run has not requested.

        Args:
            requested: The addresses of the effects that it has.
            answered: Those that were answered, so that nothing inside them is requested.
            waited: The calls that decisions were asked for.
        """
        for at, one in self.effects.items():
            unasked = one.pending is not None and at not in waited
            # That the arguments of a call were read says no more than that it waited.
            read = one.name.startswith("arguments:") and one.at.parent in waited
            missing = one.begun and at not in requested and not read and not self._forgone(at)
            if not (unasked or missing) or self.inside(at, answered):
                continue
            if unasked and at in requested:
                return self.approval_changed(at)
            return divergence(
                "missing_call",
                at,
                text="it was recorded, and the replay ended without it.",
                advice=_LOOK,
            )
        return None

    def inside(self, at: str, answered: Collection[str]) -> bool:
        """Return whether a tool or a function did this that was answered as a whole."""
        above = (self.effects[up] for up in self._around(at) if up in answered)
        return any(one.kind != "model" for one in above)

    def _around(self, at: str) -> list[str]:
        """Return the addresses of what an effect happens in: a call's approval comes before it."""
        chain = [*ancestors(at), at]
        return [up for up, below in pairwise(chain) if not self._is_approval(below)]

    def _is_approval(self, at: str) -> bool:
        one = self.effects.get(at)
        judges = at.endswith(("/approval", "/arguments"))
        return one is not None and one.kind == "compute" and judges

    def _forgone(self, at: str) -> bool:
        """Return whether this judged a call, and other versions go on without it.

        By the end the call waited only because it had before, or a version asked about it
        always, and another if its function said so.
        """
        call = Address(at).parent
        both = all(call.child(name) in self.effects for name in ("approval", "arguments"))
        return self._is_approval(at) and (both or self.forced(call))

    def driven(self, enters: Callable[[RecordedEffect], bool]) -> list[RecordedEffect]:
        """Return the effects that a run requests which goes only into those that it `enters`."""
        goes = {at: one.kind == "model" or enters(one) for at, one in self.effects.items()}
        return [
            one
            for at, one in self.effects.items()
            if one.begun and all(goes.get(up, True) for up in self._around(at))
            if not self._forgone(at)
        ]

    def events_inside(self, at: str) -> Sequence[JsonObject]:
        """Return the recorded events inside an effect: its attempts, its agents' steps."""
        return self._inside.get(at, ())

    @cached_property
    def _inside(self) -> dict[str, list[JsonObject]]:
        inside = defaultdict[str, list[JsonObject]](list)
        for event in self.trace.events:
            at, kind = event.get("at", ""), event["event"]
            if kind in _DETAILS and at in self.effects:
                inside[at].append(event)
            for up in self._around(at):
                one = self.effects.get(up)
                if one is not None and (one.kind != "model" or kind in _ATTEMPTS):
                    inside[up].append(event)
        return inside


class SameCalls:
    """Answers tool calls with what was recorded of the same call, wherever it stood.

    Each recorded call answers once, at its own address if it is asked for there; the last
    one of a tool that only reads serves for all further ones. What was not called is not run.
    """

    def __init__(self, recorded: Recording) -> None:
        self._recorded = recorded
        self._unused = defaultdict[bytes, deque[str]](deque)
        for at, one in recorded.effects.items():
            if one.kind == "tool" and one.begun and one.finished and one.message is not None:
                self._unused[self._key(one.name, one.arguments)].append(at)

    def answer(self, call: ToolInvocation) -> ToolOutcome | ReplayDivergence:
        """Return the recorded outcome, or that there is none."""
        arguments = unpacked(packed(call.call.arguments, self._recorded.redact))
        known = self._unused[self._key(call.call.name, arguments)]
        if not known:
            return divergence(
                "unexpected_call",
                call.at,
                text=f"{call.call.name} was not called so when this was recorded, and is not "
                f"run: {arguments}",
                advice="Let the tool run with live=, or record a new run.",
            )
        if call.at in known:
            known.remove(call.at)
            known.appendleft(call.at)
        at = known[0] if len(known) == 1 and call.effect == "read" else known.popleft()
        outcome = self._recorded.outcome(replace(call, at=Address(at)))
        assert isinstance(outcome, ToolOutcome)
        message = replace(outcome.message, call_id=call.call.id)
        return replace(outcome, at=call.at, message=message)

    def _key(self, tool: str, arguments: Any) -> bytes:
        # Of secrets under another key only the kinds can be compared.
        known = without_digests(arguments) if self._recorded.other_key else arguments
        # Models write the same arguments with other spaces and in another order.
        with suppress(TypeError, ValueError, RecursionError):
            known = {"json": json.loads(known)}
        return canonical(packed([tool, known], self._recorded.redact))


def _settings_in_force(
    trace: Trace, redact: Redactor, options: Mapping[str, Any]
) -> list[tuple[float, Any]]:
    """Return the settings that the run was given, each with the line from which they hold."""
    given = [(0.0, trace.agent_start.get("options", {}).get("settings"))]
    given += [
        (event["seq"], event["options"]["settings"])
        for event in trace.events
        if event["event"] == "trace.resume" and "settings" in event.get("options", {})
    ]
    if "settings" in options:
        given.append((math.inf, hidden_settings(options["settings"], redact)))
    return given


def stopped(diverged: ReplayDivergence) -> Interrupt:
    """Return the end of a run that differs from its recording."""
    return Interrupt(status="error", error=Failure.of(diverged))


def _ended(at: str) -> ReplayDivergence:
    return divergence(
        "recording_ended",
        at,
        text="the recording ends here: its run was interrupted, or is still going on.",
        advice="`await agent.resume(trace)` goes on with a run that was interrupted.",
    )


def _within(at: str, above: str) -> bool:
    return f"{at}/".startswith(f"{above}/")
