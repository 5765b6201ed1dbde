"""Answers effects from a trace, by address.

Nothing is guessed: an effect is answered by what was recorded at its address, if
it is the same effect, and is a divergence if not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
    ToolOutcome,
    Value,
    ancestors,
    decided,
)
from agentkit.errors import ReplayDivergence, RunCancelled
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    ModelResponse,
    ToolMessage,
    Usage,
    message_from_json,
)
from agentkit.redaction import PLACEHOLDER, Redactor
from agentkit.trace.compare import (
    Strictness,
    divergence,
    request_difference,
    tool_difference,
    without_digests,
)
from agentkit.trace.naming import Namer, canonical, packed
from agentkit.trace.reader import Trace, unpacked
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
        self._starts: dict[str, JsonObject] = {}
        self._ends: dict[str, JsonObject] = {}
        self._first_ends: dict[str, JsonObject] = {}
        self._answered: set[str] = set()
        self._made: set[str] = set()
        self._origins: dict[str, str] = {}
        self._dets: dict[tuple[str, str, int], Any] = {}
        self._asked: dict[str, JsonObject] = {}
        self._decided: dict[str, JsonObject] = {}
        self._agent_end: JsonObject = {}
        self._agent_ends: dict[str, JsonObject] = {}
        self._in_flight: dict[str, JsonObject] = {}
        for event in trace.events:
            kind, _, part = event["event"].partition(".")
            if kind in ("model", "tool", "compute") and part in ("start", "end"):
                self._take(event, part)
            elif kind == "det":
                self._dets[event["at"], event["kind"], event["use"]] = unpacked(event["value"])
            elif kind == "gate":
                self._gate(event, part)
            elif event["event"] == "agent.end":
                self._agent_end = event  # the outermost agent's is the last
                self._agent_ends[event["at"]] = event

    def _take(self, event: JsonObject, part: str) -> None:
        at = event["at"]
        if part == "start":
            self._starts[at] = event
            self._ends.pop(at, None)  # it was begun anew
            self._first_ends.pop(at, None)
        else:
            self._ends[at] = event
            self._first_ends.setdefault(at, event)

    def _gate(self, event: JsonObject, part: str) -> None:
        """Two things may be decided about a call: whether it may run, and whether again."""
        at = event["at"]
        if part == "ask" and event["kind"] == "in_flight":
            self._in_flight[at] = event
            self._ends.pop(at, None)  # it was cancelled, and goes on
        elif part == "ask":
            self._asked[at] = event
        elif self._in_flight.pop(at, None) is None:
            self._decided[at] = event

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
        return self._starts.get(at)

    def end(self, at: str) -> JsonObject | None:
        """How it ended."""
        return self._ends.get(at)

    def asked(self, at: str) -> JsonObject | None:
        """What somebody was asked to decide about at this address."""
        return self._asked.get(at)

    def first_end(self, at: str) -> JsonObject | None:
        """When it was over: its first end, where its outcome was edited afterwards."""
        return self._first_ends.get(at)

    @property
    def starts(self) -> Mapping[str, JsonObject]:
        """How each effect began, by address, in the order in which they did."""
        return self._starts

    def compare(self, effect: Effect, strictness: Strictness = "exact") -> ReplayDivergence | None:
        """Whether the effect is the one that was recorded at its address."""
        start = self._starts.get(effect.at)
        if start is None:
            return None if self.ended_from_outside else self.unexpected(effect)
        match effect:
            case ModelCall() if start["event"] == "model.start":
                named = self._namer.request(effect)
                if strictness == "outcome" or start["fp"] == named.fingerprint:
                    return None
                return request_difference(self.trace, start, effect, self._namer, strictness)
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
        asked = self._asked.get(pending.at)
        if asked is None or asked["call"] != pending.call.name:
            return False
        then, now = asked["arguments"], packed(pending.call.arguments, self.redact)
        return then == now or (self.other_key and without_digests(then) == without_digests(now))

    def forget(self, at: str) -> None:
        """What is done at this address is another thing: it draws its own times and numbers."""
        for drawn in [one for one in self._dets if one[0] == at]:
            del self._dets[drawn]

    def outcome(self, effect: Effect) -> Outcome:
        """What was recorded of an effect that was compared."""
        start, end = self._starts.get(effect.at), self._ends.get(effect.at)
        if start is None or isinstance(effect, Pause):
            return self._interrupted()  # the run had ended before this began
        self._answered.add(effect.at)
        if effect.at in self._in_flight or (end is not None and end["status"] == "paused"):
            return self._paused(effect.at)
        if end is None:
            return stopped(_ended(effect.at))
        if end["status"] == "cancelled":
            return replace(self._interrupted(), usage=self._used_in(effect.at))
        if end["status"] == "error" and not isinstance(effect, ToolInvocation):
            return replace(_failure(end["error"]), usage=self._used_in(effect.at))
        match effect:
            case ModelCall():
                return self._response(end)
            case ToolInvocation():
                return self._tool_outcome(effect.at, end)
            case _:
                return Value(
                    value=unpacked(end["value"]), usage=Usage.from_json(end.get("usage", {}))
                )

    def made(self, effect: Effect) -> None:
        """Note that an effect was performed for real: it is not left over."""
        self._made.add(effect.at)

    def never_came_to(self, effect: Effect) -> bool:
        """Whether the run was ended from outside before this effect."""
        first = effect.pending[0].at if isinstance(effect, Pause) else effect.at
        return self.ended_from_outside and first not in self._starts and first not in self._asked

    @property
    def ended_from_outside(self) -> bool:
        """Whether the run was ended between two effects, without a trace at either."""
        return self._agent_end.get("error", {}).get("type") in _FROM_OUTSIDE

    @property
    def cut_short(self) -> bool:
        """Whether the whole run ended early, and not only something inside it."""
        return self._agent_end.get("status") not in ("ok", "paused")

    @property
    def ended(self) -> JsonObject:
        """The `agent.end` of the outermost agent; empty where the run was interrupted."""
        return self._agent_end

    def origin(self, name: str) -> str | None:
        """The address of the effect that a message of this name came from."""
        if not self._origins:
            for at, end in self._ends.items():
                if "message" in end:
                    self._origins.setdefault(end["message"], at)
        return self._origins.get(name)

    def decisions(self, pause: Pause) -> Outcome:
        """What was decided then; a run that paused there pauses here."""
        for pending in pause.pending:
            if pending.at not in self._asked and self.ended_from_outside:
                return self._interrupted()
            if not self.asks_again(pending):
                return stopped(self.unexpected(pause))
            del self._asked[pending.at]
        decisions = [self.decision(pending.at) for pending in pause.pending]
        made = decided(decisions)
        if not isinstance(made, Suspended) or self._agent_end.get("status") == "paused":
            return made
        # An approver that fails ends the run, and leaves no other trace.
        return self._interrupted() if "error" in self._agent_end else stopped(_ended(pause.at))

    def decision(self, at: Address) -> Decision | None:
        """What was decided about the call at this address."""
        answer = self._decided.get(at)
        if answer is None:
            return None
        return Decision(answer["decision"], unpacked(answer["reason"]), answer["by"])

    def det(self, at: Address, kind: str, use: int) -> Any:
        """The recorded value that was not deterministic, or None."""
        return self._dets.get((at, kind, use))

    def finished(self, effect: Effect) -> bool:
        """Whether the effect had an end of its own, not by the end of its run.

        A model or a function that failed at the very end is asked again: it may answer now.
        """
        if effect.at == self._failed_last:
            return False
        status = self._ends.get(effect.at, {}).get("status", "cancelled")
        return status not in ("cancelled", "paused")

    def paused(self, effect: Effect) -> bool:
        """Whether an agent in it waits, or waited, for a decision."""
        return self._ends.get(effect.at, {}).get("status") == "paused"

    def waiting(self) -> tuple[PendingCall, ...]:
        """The calls about which somebody has to decide before the run can go on."""
        return self.trace.pending

    def begun(self, effect: Effect) -> bool:
        """Whether the effect had at least begun."""
        return effect.at in self._starts

    def left_over(self) -> ReplayDivergence | None:
        """The first recorded effect that the replay never asked for, if there is one."""
        for at in (*self._starts, *self._asked):
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
        return any(up in self._answered and _acts(self._starts[up]) for up in ancestors(at))

    @property
    def _failed_last(self) -> str | None:
        """The address of the model call or the function whose failure ended the run."""
        last = next(reversed(self._ends.values()), {"event": "", "status": ""})
        failed = last["event"] != "tool.end" and last["status"] == "error"
        return last["at"] if failed else None

    def unexpected(self, effect: Effect) -> ReplayDivergence:
        """The divergence of an effect that was not recorded."""
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
        status = self._agent_end.get("status", "cancelled")
        return Interrupt(
            status=status if status in ("limit", "error") else "cancelled",
            error=_failure(self._agent_end.get("error", {})),
        )

    def _paused(self, at: Address) -> Interrupt:
        """The recorded run has waited here for decisions."""
        inside = tuple(one for one in self.waiting() if f"{one.at}/".startswith(f"{at}/"))
        error = Failure.of(RunCancelled(f"{at} waits for a decision.", reason="paused"))
        return Interrupt(status="paused", error=error, pending=inside, usage=self._used_in(at))

    def _used_in(self, at: Address) -> Usage:
        """What the agents used that worked inside an effect."""
        used = Usage()
        for agent, end in self._agent_ends.items():
            if Address(agent).parent == at:
                used += Usage.from_json(end["usage"])
        return used

    def _response(self, end: JsonObject) -> ModelResponse:
        rest: JsonObject = unpacked(end.get("response", {}))
        message = self.trace.messages([end["message"]])[0]
        assert isinstance(message, AssistantMessage)
        choices = tuple(message_from_json(choice) for choice in rest.get("choices", ()))
        return ModelResponse(
            message=message,
            finish=end["finish"],
            usage=Usage.from_json(end["usage"]),
            model=rest.get("model"),
            id=rest.get("id"),
            logprobs=rest.get("logprobs"),
            extra=rest.get("extra", {}),
            choices=tuple(one for one in choices if isinstance(one, AssistantMessage)),
        )

    def _tool_outcome(self, at: Address, end: JsonObject) -> ToolOutcome:
        message = self.trace.messages([end["message"]])[0]
        assert isinstance(message, ToolMessage)
        return ToolOutcome(
            at=at,
            status=end["status"],
            message=message,
            error=_failure(end["error"]) if "error" in end else None,
            fatal=end.get("fatal", False),
            usage=Usage.from_json(end.get("usage", {})),
        )


def _acts(start: JsonObject) -> bool:
    """Whether other effects may be inside this one."""
    return start["event"] != "model.start"


def _failure(data: JsonObject) -> Failure:
    return Failure(
        type=data.get("type", "AgentKitError"),
        message=data.get("message", ""),
        data=unpacked(data.get("data", {})),
        traceback=data.get("traceback"),
        parts=tuple(_failure(part) for part in data.get("parts", ())),
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
