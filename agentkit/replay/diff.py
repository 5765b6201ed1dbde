"""Two runs side by side: what each did at the same address, and where they first part.

Addresses come from causes, so nothing has to be guessed: what stands at `/agent/m2/t1` in
one run is compared with what stands there in the other, in causal order. A difference that
an earlier one explains (another answer after another question) `follows`; what is left are
the causes.

Compared is what decides behaviour, as JSON: requests, answers, calls, results, decisions,
computed values, outputs. Not compared are the ids that servers give, tracebacks, and how long
things took or what they cost: those are measured.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any, Literal, TypeAlias

from agentkit.core.effects import ancestors
from agentkit.errors import TraceCorrupt
from agentkit.messages import JsonObject, Usage, is_array, is_object
from agentkit.replay.report import (
    Difference,
    DifferenceKind,
    Measures,
    Place,
    RunSummary,
    TraceDiff,
)
from agentkit.trace.check import check_events
from agentkit.trace.compare import ABSENT, Found, differences, without_digests
from agentkit.trace.effects import EffectKind, RecordedEffect
from agentkit.trace.naming import without_ids
from agentkit.trace.reader import Trace

_Phase: TypeAlias = Literal["decision", "start", "det", "end"]
_Key: TypeAlias = tuple[tuple[int, int], ...]
_Compared: TypeAlias = tuple[DifferenceKind, list[Found]]

_COUNTED = 100
"""Differences in one place beyond this many are not counted."""
_OUTCOMES: Mapping[EffectKind, DifferenceKind] = {
    "agent": "output",
    "model": "response",
    "tool": "result",
    "compute": "value",
}
_ENDS = ("error", "message", "status", "reason", "finish", "fatal", "value", "output")
"""What decides behaviour in how an effect ended, the most telling first."""
_BEFORE = ("approval", "arguments", "compact", "toolsets", "settings")
"""Functions whose values the effect above them needs; the others come after it has begun."""


def diff(a: Trace | str | os.PathLike[str], b: Trace | str | os.PathLike[str]) -> TraceDiff:
    """Compare two recorded runs, address by address.

    Where contents were not recorded, hashes and names are compared, as far as both have
    them. A run that was interrupted is compared as far as it goes, and what it lacks is a
    difference.

    Args:
        a: A trace, or its path.
        b: Another one.

    Returns:
        What differs, what follows from it, and what both used.

    Raises:
        TraceError: A trace cannot be read.
        TraceCorrupt: An event is damaged.
    """
    traces = [one if isinstance(one, Trace) else Trace.load(one) for one in (a, b)]
    try:
        for trace in traces:
            check_events(trace)
        return _Comparison(traces).result()
    except RecursionError as error:
        raise TraceCorrupt("A value in these traces is nested too deeply to compare.") from error


class _Side:
    """One trace, by address."""

    def __init__(self, trace: Trace, kinds: Sequence[EffectKind]) -> None:
        self.trace = trace
        self.effects = {at: one for at, one in trace.effects.items() if one.kind in kinds}

    def content(self, name: str) -> Any:
        """Return what a hash stands for, or the hash where that was not recorded."""
        if self.trace.capture != "full" and name not in self.trace.blobs:
            return name
        value = self.trace.blob(name)
        if not (is_object(value) and "role" in value):
            return value
        self.trace.messages((name,))  # it is a message, whatever the trace calls it
        return _normal(value)

    def params(self, start: JsonObject) -> JsonObject:
        """Return what a request asks for besides its messages and tools."""
        params: JsonObject = start.get("params", {})
        return params | {"output": self.content(params["output"])} if "output" in params else params

    def summary(self) -> RunSummary:
        """Summarize the whole run."""
        trace, effects = self.trace, self.effects.values()
        root = trace.effects.get(trace.agent_start.get("at", ""))
        if root is not None and root.end is not None:
            usage = root.usage  # also counts what failed and cost something
        else:
            usage = sum((one.usage for one in effects if one.kind == "model"), Usage())
        kinds = Counter(one.kind for one in effects if one.begun)
        return RunSummary(
            run=trace.run,
            wall=trace.header["wall"],
            status=trace.status,
            capture=trace.capture,
            program=trace.header["program"],
            totals=_measures(kinds, usage, trace.t / 1e6),
        )


class _Comparison:
    """Goes through both runs in causal order, and keeps in mind what has differed so far."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        nothing = any(trace.capture == "none" for trace in traces)
        kinds: Sequence[EffectKind] = ("agent",) if nothing else [*_OUTCOMES]
        self.a, self.b = self.sides = [_Side(trace, kinds) for trace in traces]
        self.effects = {**self.b.effects, **self.a.effects}
        self._other_key = self.a.trace.key_id != self.b.trace.key_id
        self._partial = any(trace.capture != "full" for trace in traces)
        self._alone = self.a.effects.keys() ^ self.b.effects.keys()
        self._equal: dict[tuple[str, str], bool] = {}
        # Effects of a fork that were not performed, because their results were given.
        self._given = {trace.header["fork"]["at"] for trace in traces if "result" in trace.patch}
        self._dirty: set[str] = set()  # addresses at or under which something has differed
        self._answers: set[str] = set()  # model calls whose answers differ
        self._changes: set[str] = set()  # what has differed in requests, as text

    def result(self) -> TraceDiff:
        order = list(self._causal())
        different = [one for at, phase in order for one in self._differing(at, phase)]
        places: list[Place] = []
        for at in (at for at, phase in order if phase == "start"):
            effects = [side.effects.get(at) for side in self.sides]
            name = next((one.name for one in effects if one is not None and one.begun), None)
            if name is not None:
                a, b = map(_used, effects)
                places.append(Place(at=at, name=name, a=a, b=b))
        return TraceDiff(
            a=self.a.summary(),
            b=self.b.summary(),
            differences=tuple(different),
            places=tuple(places),
        )

    # In which order

    def _causal(self) -> Iterator[tuple[str, _Phase]]:
        """Yield every address with its phases in causal order, however calls overlapped in time.

        What an effect needs stands before its start; what happens inside, between its start
        and its end. A model's answer stands before the calls that it makes.
        """
        keys: dict[str, _Key] = {"": ()}
        places: list[tuple[_Key, str, _Phase]] = []
        for at, effect in self.effects.items():
            key = self._key(at, keys)
            places.append(((*key, (1, 0)), at, "decision"))
            places.append(((*key, (2, 0)), at, "start"))
            effects = [side.effects[at] for side in self.sides if at in side.effects]
            if drawn := [one.seq for effect in effects for one in effect.dets]:
                places.append(((*key, (5, min(drawn))), at, "det"))
            places.append(((*key, (4 if effect.kind == "model" else 9, 0)), at, "end"))
        return ((at, phase) for _, at, phase in sorted(places))

    def _key(self, at: str, keys: dict[str, _Key]) -> _Key:
        """Return where an address stands: a pair of numbers for each of its parts."""
        for one in (*ancestors(at), at):
            if one in keys:
                continue
            above, _, part = one.rpartition("/")
            kind = self.effects[one].kind if one in self.effects else None
            numbered = re.fullmatch(r"[mt]([0-9]{1,9})", part)
            if kind == "compute" and part in _BEFORE:
                place = (0, _BEFORE.index(part))
            elif numbered and kind != "agent":
                place = (6, int(numbered[1]))
            else:
                began = (side.effects[one].began for side in self.sides if one in side.effects)
                place = (5, min((moment.seq for moment in began if moment), default=0))
            keys[one] = (*keys[above], place)
        return keys[at]

    # What differs

    def _differing(self, at: str, phase: _Phase) -> list[Difference]:
        """Return what differs at one address in one phase; from then on it is known to differ."""
        if self._alone and any(above in self._alone for above in ancestors(at)):
            return []
        different = [
            Difference(
                at=at,
                kind=kind,
                pointer=found[0].pointer,
                a=found[0].expected,
                b=found[0].actual,
                position=found[0].position,
                more=len(found) - 1,
                follows=self._follows(at, kind, found[0]),
            )
            for kind, found in self._compare(at, phase)
            if found
        ]
        if different:
            self._dirty |= {at, *ancestors(at)}
        answers = ("response", "only_a", "only_b")
        self._answers |= {one.at for one in different if one.kind in answers}
        return different

    def _compare(self, at: str, phase: _Phase) -> Iterator[_Compared]:
        a, b = self.a.effects.get(at), self.b.effects.get(at)
        if a is None or b is None:
            if phase == "decision":  # the first
                yield "only_b" if a is None else "only_a", [Found("", _about(a), _about(b))]
        elif phase == "decision":
            yield "decision", self._differ(self._decision(a), self._decision(b), "")
        elif a.begun != b.begun:
            if phase == "start":
                yield "only_a" if a.begun else "only_b", [Found("", _about(a), _about(b))]
        elif phase == "start":
            yield from self._starts(a, b)
        elif phase == "end":
            yield _OUTCOMES[a.kind], self._ends(a, b)
        elif _drawn(a) != _drawn(b) and self._ends(a, b):
            # Other times and random numbers alone are no other behaviour.
            yield "det", self._differ(_drawn(a), _drawn(b), "")

    def _decision(self, effect: RecordedEffect) -> JsonObject:
        """Return what was decided about a call; nothing where no decision was needed."""
        if (pending := effect.pending) is None:
            return {}
        if (decision := effect.decision) is None:
            return {"kind": pending.kind}
        reason = {} if self._partial else {"reason": decision.text}
        return {"decision": decision.kind, **reason, "kind": pending.kind}

    def _starts(self, a: RecordedEffect, b: RecordedEffect) -> Iterator[_Compared]:
        one, other = a.start or {}, b.start or {}
        match a.kind:
            case "agent":
                yield "input", self._inputs(one, other)
            case "model" if a.fp is None or a.fp != b.fp:
                yield "messages", self._messages(a.messages, b.messages, "/messages")
                tools = one.get("tools", ""), other.get("tools", "")
                yield "tools", self._blobs(*tools, "/tools")
                params = self.a.params(one), self.b.params(other)
                yield "params", self._differ(*params, "/params")
                yield "model", self._differ(one.get("model"), other.get("model"), "/model")
            case "tool":
                calls = _call(a.start or a.skip or {}), _call(b.start or b.skip or {})
                yield "call", self._differ(*calls, "")
            case _:
                pass

    def _inputs(self, a: JsonObject, b: JsonObject) -> list[Found]:
        found: list[Found] = []
        if "input" in a and "input" in b and a["input"] != b["input"]:
            one, other = (
                side.content(start["input"]) for side, start in zip(self.sides, (a, b), strict=True)
            )
            if is_object(one) and is_object(other):
                names = one.get("messages", []), other.get("messages", [])
                found = self._messages(*names, "/input/messages")
            else:
                found = [Found("/input", one, other)]
        return found + self._differ(a.get("options", {}), b.get("options", {}), "/options")

    def _messages(self, a: Sequence[str], b: Sequence[str], pointer: str) -> list[Found]:
        """Look for the first message that differs, by hash; nothing else is loaded."""
        for index, (one, other) in enumerate(zip_longest(a, b)):
            if one is None or other is None:
                sides = (
                    ABSENT if one is None else self.a.content(one),
                    ABSENT if other is None else self.b.content(other),
                )
                return self._differ(*sides, f"{pointer}/{index}")
            if not self._equal_messages(one, other):
                return self._blobs(one, other, f"{pointer}/{index}")
        return []

    def _equal_messages(self, one: str, other: str | None) -> bool:
        if other is None:
            return False
        if (one, other) not in self._equal:
            self._equal[one, other] = not self._blobs(one, other, "")
        return self._equal[one, other]

    def _blobs(self, one: str, other: str, pointer: str) -> list[Found]:
        if one == other:
            return []
        return self._differ(self.a.content(one), self.b.content(other), pointer)

    def _ends(self, a: RecordedEffect, b: RecordedEffect) -> list[Found]:
        """Compare how an effect ended, or why a call was skipped."""
        ends = [one.end if one.begun else one.skip for one in (a, b)]
        if ends[0] is None or ends[1] is None:
            open_ = "interrupted" if a.begun else "pending"
            one, other = (open_ if end is None else end.get("status", "skipped") for end in ends)
            return self._differ(one, other, "/status")
        one, other = (_ended(end) for end in ends if end is not None)
        for effect, data in ((a, one), (b, other)):
            if effect.kind == "agent" and effect.packed_output is not None:
                data["output"] = effect.packed_output
        if (name := one.get("message")) and self._equal_messages(name, other.get("message")):
            del one["message"], other["message"]
        for side, data in zip(self.sides, (one, other), strict=True):
            if data.get("message") is not None:
                data["message"] = side.content(data["message"])
        return self._differ(one, other, "")

    def _differ(self, a: Any, b: Any, pointer: str) -> list[Found]:
        if self._partial:
            a, b = _common(a, b), _common(b, a)
        found = list(islice(differences(a, b, pointer), _COUNTED))
        if found and self._other_key:
            a, b = without_digests(a), without_digests(b)
            found = list(islice(differences(a, b, pointer), _COUNTED))
        return found

    # What follows from what

    def _follows(self, at: str, kind: DifferenceKind, found: Found) -> bool:
        """Return whether something that has differed before explains this."""
        parent = at.rpartition("/")[0]
        match kind, self.effects[at].kind:
            case (("response" | "result" | "det" | "output"), _):
                return at in self._dirty and at not in self._given
            case (("tools" | "params" | "model"), _):
                earlier = found.pointer.startswith("/params/tool_choice")
                return (
                    self._repeats(kind, found)
                    or at in self._dirty
                    or (earlier and self._agent(at) in self._dirty)
                )
            case "messages", _:
                return self._repeats(kind, found) or self._agent(at) in self._dirty
            case _, "tool":
                return at in self._dirty or parent in self._answers
            case _, "agent":
                above = parent if parent in self.effects else self._agent(at)
                return above in self._dirty | self._given
            case _:
                return self._agent(at) in self._dirty

    def _repeats(self, kind: str, found: Found) -> bool:
        """Return whether requests have differed in just this before."""
        change = json.dumps([kind, found.pointer, found.expected, found.actual])
        known = change in self._changes
        self._changes.add(change)
        return known

    def _agent(self, at: str) -> str:
        """Return the agent that an effect belongs to; the run's own has none above."""
        above = (up for up in reversed(ancestors(at)) if up in self.effects)
        return next((up for up in above if self.effects[up].kind == "agent"), "")


def _measures(kinds: Mapping[str, int], usage: Usage, seconds: float | None) -> Measures:
    return Measures(
        steps=kinds.get("model", 0),
        tool_calls=kinds.get("tool", 0),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=usage.cost,
        seconds=seconds,
    )


def _used(effect: RecordedEffect | None) -> Measures | None:
    """Return what an effect used, without what happened in it."""
    if effect is None or not effect.begun:
        return None
    usage = effect.usage if effect.kind == "model" else Usage()
    return _measures({effect.kind: 1}, usage, effect.seconds)


def _drawn(effect: RecordedEffect) -> dict[str, list[Any]]:
    """Return the times and numbers that code drew, by their kinds, as far as recorded."""
    drawn: dict[str, list[Any]] = {}
    for one in effect.dets:
        if one.value is not None:
            drawn.setdefault(one.kind, []).append(one.value)
    return drawn


def _about(effect: RecordedEffect | None) -> JsonObject | str:
    """Describe an effect for people: which model, which call."""
    if effect is None:
        return ABSENT
    if (call := effect.call) is None:
        return {"name" if effect.kind == "compute" else effect.kind: effect.name}
    arguments = {"arguments": call.arguments} if call.arguments else {}
    skipped = {"skipped": effect.skipped} if effect.skipped and not effect.begun else {}
    return {"tool": call.name, **arguments, **skipped}


def _call(event: JsonObject) -> JsonObject:
    data = {key: event[key] for key in ("tool", "arguments", "effect") if key in event}
    if "arguments" not in data:
        return data | {"fp": event.get("fp")}
    return data | {"arguments": _parsed(data["arguments"])}


def _ended(end: JsonObject) -> JsonObject:
    """Return what decides behaviour in how an effect ended."""
    data = {key: end[key] for key in _ENDS if key in end}
    if "error" in data:
        data["error"] = _bare(data["error"])
    response = end.get("response", {})
    kept = {key: response[key] for key in ("model", "choices") if key in response}
    if is_array(choices := kept.get("choices")):
        kept["choices"] = [_normal(one) if is_object(one) else one for one in choices]
    return data | {"response": kept}


def _bare(error: Any) -> Any:
    """Return an error without its traceback, which names lines of files."""
    if is_array(error):
        return [_bare(part) for part in error]
    if not is_object(error):
        return error
    bare = {key: value for key, value in error.items() if key != "traceback"}
    return bare | {"parts": _bare(bare["parts"])} if "parts" in bare else bare


def _normal(message: JsonObject) -> JsonObject:
    """Return a message without the ids of its calls, and with their arguments as JSON."""
    data = without_ids(message)
    for call in data.get("tool_calls") or ():
        if is_object(call) and is_object(function := call.get("function")):
            call["function"] = function | {"arguments": _parsed(function.get("arguments"))}
    return data


def _parsed(text: Any) -> Any:
    """Return arguments as JSON, or as text where they are not JSON."""
    try:
        return json.loads(text, parse_constant=str)  # a NaN is not equal to itself
    except (ValueError, TypeError, RecursionError):
        return text


def _common(value: Any, other: Any) -> Any:
    """Return the value without what only it has recorded."""
    if not (is_object(value) and is_object(other)):
        return value
    return {key: _common(item, other[key]) for key, item in value.items() if key in other}
