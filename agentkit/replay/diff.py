"""Two runs side by side: what each did at the same address, and where they first part.

Addresses come from causes, so nothing has to be guessed: what stands at
`/agent/m2/t1` in one run is compared with what stands there in the other, in
causal order. A difference that an earlier one explains (another answer after
another question) `follows`; what is left are the causes.

Compared is what decides behaviour, as JSON: requests, answers, calls, results,
decisions, computed values, outputs. Not compared are the ids that servers give,
tracebacks, and how long things took or what they cost: those are measured.
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
from agentkit.messages import JsonObject, Usage, is_object
from agentkit.replay.report import (
    Difference,
    DifferenceKind,
    Measures,
    Place,
    RunSummary,
    TraceDiff,
)
from agentkit.trace.compare import ABSENT, Found, differences, without_digests
from agentkit.trace.naming import without_ids
from agentkit.trace.reader import Trace

_Phase: TypeAlias = Literal["gate", "start", "det", "end"]
_Key: TypeAlias = tuple[tuple[int, int], ...]

_COUNTED = 100
"""Differences in one place beyond this many are not counted."""
_OUTCOMES: Mapping[str, DifferenceKind] = {
    "agent": "output",
    "model": "response",
    "tool": "result",
    "compute": "value",
}
_ENDS = ("error", "message", "status", "finish", "fatal", "value", "output")
"""What decides behaviour in how an effect ended, the most telling first."""
_BEFORE = ("approval", "compact", "toolsets", "settings")
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
    """
    traces = [given if isinstance(given, Trace) else Trace.load(given) for given in (a, b)]
    nothing = any(_capture(trace) == "none" for trace in traces)
    kinds = ("agent",) if nothing else (*_OUTCOMES, "gate", "det")
    try:
        return _Comparison(*(_Side(trace, kinds) for trace in traces)).result()
    except KeyError as error:
        raise TraceCorrupt(f"An event of these traces lacks the field {error}.") from error
    except RecursionError as error:
        raise TraceCorrupt("A value in these traces is nested too deeply to compare.") from error


def _capture(trace: Trace) -> str:
    return str(trace.header.get("capture", "full"))


class _Side:
    """One trace, by address."""

    def __init__(self, trace: Trace, kinds: Sequence[str]) -> None:
        self.trace = trace
        self.starts: dict[str, JsonObject] = {}
        self.ends: dict[str, JsonObject] = {}
        self.dets: dict[str, dict[str, list[Any]]] = {}
        self.order: dict[str, int] = {}
        self.drawn: dict[str, int] = {}  # when the first value of `dets` was, among `order`
        self._gates: dict[str, JsonObject] = {}
        self._seconds = 0.0
        for event in trace.events:
            self._seconds = event["t"] / 1e6
            kind, _, part = event["event"].partition(".")
            if kind in kinds:
                self._take(event, event["at"], kind, part)

    def _take(self, event: JsonObject, at: str, kind: str, part: str) -> None:
        self.order.setdefault(at, len(self.order))
        if kind == "det":
            self.drawn.setdefault(at, len(self.order))
            if "value" in event:
                self.dets.setdefault(at, {}).setdefault(event["kind"], []).append(event["value"])
        elif kind == "gate":
            self._gates.setdefault(at, {}).update(event)
        elif part == "start":
            self.starts[at] = event
        elif part == "end":
            self.ends[at] = event

    def content(self, name: str) -> Any:
        """Return what a hash stands for, or the hash where that was not recorded."""
        try:
            value = self.trace.blob(name)
        except TraceCorrupt:
            if _capture(self.trace) == "full":
                raise
            return name
        return _normal(value) if is_object(value) else value

    def about(self, at: str) -> JsonObject:
        """Return what is at an address, for people: which model, which call."""
        gate = self._gates.get(at, {})
        event = self.starts.get(at) or {"tool": gate.get("call"), **gate}
        shown = ("agent", "model", "tool", "name", "arguments")
        return {key: event[key] for key in shown if key in event}

    def decision(self, at: str) -> JsonObject:
        """Return what was decided about a call; nothing where no decision was needed."""
        gate = self._gates.get(at, {})
        return {key: gate[key] for key in ("decision", "reason", "kind") if key in gate}

    def params(self, start: JsonObject) -> JsonObject:
        """Return what a request asks for besides its messages and tools."""
        params: JsonObject = start.get("params", {})
        return params | {"output": self.content(params["output"])} if "output" in params else params

    def measures(self, at: str) -> Measures | None:
        """Return what was used at an address, without what is inside."""
        start, end = self.starts.get(at), self.ends.get(at)
        if start is None:
            return None
        kind = start["event"].partition(".")[0]
        usage = self._usage(at) if kind == "model" else Usage()
        return Measures(
            steps=int(kind == "model"),
            tool_calls=int(kind == "tool"),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost=usage.cost,
            seconds=None if end is None else (end["t"] - start["t"]) / 1e6,
        )

    def summary(self) -> RunSummary:
        """Summarize the whole run."""
        header = self.trace.header
        kinds = Counter(start["event"] for start in self.starts.values())
        root = next((at for at, one in self.starts.items() if one["event"] == "agent.start"), "")
        usage = self._usage(root)  # also counts what failed and cost something
        if "usage" not in self.ends.get(root, {}):
            models = (at for at, one in self.starts.items() if one["event"] == "model.start")
            usage = sum((self._usage(at) for at in models), Usage())
        return RunSummary(
            run=self.trace.run,
            wall=str(header.get("wall")),
            status=self.trace.status,
            capture=_capture(self.trace),
            program=str(header.get("program")),
            totals=Measures(
                steps=kinds["model.start"],
                tool_calls=kinds["tool.start"],
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cost=usage.cost,
                seconds=self._seconds,
            ),
        )

    def _usage(self, at: str) -> Usage:
        return Usage.from_json(self.ends.get(at, {}).get("usage", {}))


class _Comparison:
    """Goes through both runs in causal order, and keeps in mind what has differed so far."""

    def __init__(self, a: _Side, b: _Side) -> None:
        self.a, self.b = a, b
        self._other_key = a.trace.key_id != b.trace.key_id
        self._partial = any(_capture(side.trace) != "full" for side in (a, b))
        self._alone = a.order.keys() ^ b.order.keys()
        self._equal: dict[tuple[str, str], bool] = {}
        self._given = {at for side in (a, b) if (at := _patched(side.trace))}
        self._dirty: set[str] = set()  # addresses at or under which something has differed
        self._answers: set[str] = set()  # model calls whose answers differ
        self._changes: set[str] = set()  # what has differed in requests, as text

    def result(self) -> TraceDiff:
        order = list(_causal(self.a, self.b))
        found = [one for at, phase in order for one in self._differing(at, phase)]
        places = [
            Place(at=at, name=_name(start), a=self.a.measures(at), b=self.b.measures(at))
            for at, phase in order
            if phase == "start" and (start := self.a.starts.get(at) or self.b.starts.get(at))
        ]
        return TraceDiff(
            a=self.a.summary(),
            b=self.b.summary(),
            differences=tuple(found),
            places=tuple(places),
        )

    def _differing(self, at: str, phase: _Phase) -> list[Difference]:
        """Return what differs at one address in one phase; from then on it is known to differ."""
        if self._alone and any(above in self._alone for above in ancestors(at)):
            return []
        compared = self._compare(at, phase)
        made = [
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
            for kind, found in compared
            if found
        ]
        if made:
            self._dirty |= {at, *ancestors(at)}
        self._answers |= {one.at for one in made if one.kind in ("response", "only_a", "only_b")}
        return made

    def _compare(self, at: str, phase: _Phase) -> Iterator[tuple[DifferenceKind, list[Found]]]:
        if at in self._alone:
            if phase == "gate":  # the first
                yield self._on_one_side(at)
            return
        start, other = self.a.starts.get(at), self.b.starts.get(at)
        if phase == "gate":
            yield "decision", self._differ(self.a.decision(at), self.b.decision(at), "")
        elif start is None or other is None:
            if phase == "start" and start is not other:
                yield self._on_one_side(at)
        elif phase == "start":
            yield from self._starts(start, other)
        elif phase == "end":
            kind = start["event"].partition(".")[0]
            yield _OUTCOMES[kind], self._ends(at)
        elif self.a.dets.get(at) != self.b.dets.get(at) and self._ends(at):
            # Other times and random numbers alone are no other behaviour.
            yield "det", self._differ(self.a.dets.get(at, {}), self.b.dets.get(at, {}), "")

    @staticmethod
    def _request(side: _Side, start: JsonObject) -> Sequence[str]:
        effect = side.trace.effects.get(start["at"])
        return effect.messages if effect is not None else ()

    def _on_one_side(self, at: str) -> tuple[DifferenceKind, list[Found]]:
        if at in self.a.starts or at not in self.b.order:
            return "only_a", [Found("", self.a.about(at), ABSENT)]
        return "only_b", [Found("", ABSENT, self.b.about(at))]

    def _starts(self, a: JsonObject, b: JsonObject) -> Iterator[tuple[DifferenceKind, list[Found]]]:
        match a["event"]:
            case "agent.start":
                yield "input", self._inputs(a, b)
            case "model.start" if "fp" not in a or a["fp"] != b.get("fp"):
                one, other = self._request(self.a, a), self._request(self.b, b)
                yield "messages", self._messages(one, other, "/messages")
                yield "tools", self._blobs(a.get("tools", ""), b.get("tools", ""), "/tools")
                yield "params", self._differ(self.a.params(a), self.b.params(b), "/params")
                yield "model", self._differ(a.get("model"), b.get("model"), "/model")
            case "tool.start":
                yield "call", self._differ(_call(a), _call(b), "")
            case _:
                pass

    def _inputs(self, a: JsonObject, b: JsonObject) -> list[Found]:
        found: list[Found] = []
        if "input" in a and "input" in b and a["input"] != b["input"]:
            one, other = self.a.content(a["input"]), self.b.content(b["input"])
            if is_object(one) and is_object(other):
                found = self._messages(one["messages"], other["messages"], "/input/messages")
            else:
                found = [Found("/input", one, other)]
        return found + self._differ(a.get("asked", {}), b.get("asked", {}), "/asked")

    def _messages(self, a: Sequence[str], b: Sequence[str], pointer: str) -> list[Found]:
        """Look for the first message that differs, by hash; nothing else is loaded."""
        for index, (one, other) in enumerate(zip_longest(a, b)):
            if one is None or other is None:
                sides = (
                    (ABSENT if one is None else self.a.content(one)),
                    (ABSENT if other is None else self.b.content(other)),
                )
                return self._differ(*sides, f"{pointer}/{index}")
            if not self._equal_messages(one, other):
                return self._blobs(one, other, f"{pointer}/{index}")
        return []

    def _equal_messages(self, one: str, other: str) -> bool:
        if one == other:
            return True
        if (one, other) not in self._equal:
            self._equal[one, other] = not self._blobs(one, other, "")
        return self._equal[one, other]

    def _blobs(self, one: str, other: str, pointer: str) -> list[Found]:
        if one == other:
            return []
        return self._differ(self.a.content(one), self.b.content(other), pointer)

    def _ends(self, at: str) -> list[Found]:
        a, b = self.a.ends.get(at), self.b.ends.get(at)
        if a is None or b is None:
            one, other = ("interrupted" if end is None else end["status"] for end in (a, b))
            return self._differ(one, other, "/status")
        one, other = _ended(a), _ended(b)
        if "message" in a and "message" in b and self._equal_messages(a["message"], b["message"]):
            del one["message"], other["message"]
        for side, data in ((self.a, one), (self.b, other)):
            if "message" in data:
                data["message"] = side.content(data["message"])
        return self._differ(one, other, "")

    def _differ(self, a: Any, b: Any, pointer: str) -> list[Found]:
        if self._partial:
            a, b = _common(a, b), _common(b, a)
        found = list(islice(differences(a, b, pointer), _COUNTED))
        if found and self._other_key:
            found = list(
                islice(differences(without_digests(a), without_digests(b), pointer), _COUNTED)
            )
        return found

    def _follows(self, at: str, kind: DifferenceKind, found: Found) -> bool:
        """Return whether something that has differed before explains this."""
        start = self.a.starts.get(at) or self.b.starts.get(at) or {"event": "tool.start"}
        match kind, start["event"]:
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
            case _, "tool.start":
                return at in self._dirty or at.rpartition("/")[0] in self._answers
            case _, "agent.start":
                parent = at.rpartition("/")[0]
                inside = parent in self.a.starts or parent in self.b.starts
                return (parent if inside else self._agent(at)) in self._dirty | self._given
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
        sides = (self.a.starts, self.b.starts)
        for above in reversed(ancestors(at)):
            if any(starts.get(above, {}).get("event") == "agent.start" for starts in sides):
                return above
        return ""


def _patched(trace: Trace) -> str | None:
    """Return the effect of a fork that was not performed, because its result was given."""
    return str(trace.header["fork"]["at"]) if "result" in trace.patch else None


def _causal(a: _Side, b: _Side) -> Iterator[tuple[str, _Phase]]:
    """Yield every address with its phases, in causal order, however the calls overlapped in time.

    What an effect needs stands before its start; what happens inside, between its start
    and its end. A model's answer stands before the calls that it makes.
    """
    seen, drawn = _earliest(a.order, b.order), _earliest(a.drawn, b.drawn)
    kinds = {at: one["event"].partition(".")[0] for at, one in (a.starts | b.starts).items()}
    keys: dict[str, _Key] = {"": ()}
    places: list[tuple[_Key, str, _Phase]] = []
    for at in seen:
        key = _key(at, seen, kinds, keys)
        places.append(((*key, (1, 0)), at, "gate"))
        places.append(((*key, (2, 0)), at, "start"))
        if at in drawn:
            places.append(((*key, (5, drawn[at])), at, "det"))
        places.append(((*key, (4 if kinds.get(at) == "model" else 9, 0)), at, "end"))
    return ((at, phase) for _, at, phase in sorted(places))


def _earliest(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {**a, **{at: min(n, a.get(at, n)) for at, n in b.items()}}


def _key(at: str, seen: Mapping[str, int], kinds: Mapping[str, str], keys: dict[str, _Key]) -> _Key:
    """Return where an address stands: a pair of numbers for each of its parts."""
    unknown: list[str] = []
    while at not in keys:
        unknown.append(at)
        at = at.rpartition("/")[0]
    for one in reversed(unknown):
        above, _, part = one.rpartition("/")
        numbered = re.fullmatch(r"[mt]([0-9]{1,9})", part)
        if kinds.get(one) == "compute" and part in _BEFORE:
            place = (0, _BEFORE.index(part))
        elif numbered and kinds.get(one) != "agent":
            place = (6, int(numbered[1]))
        else:
            place = (5, seen.get(one, 0))
        keys[one] = (*keys[above], place)
        at = one
    return keys[at]


def _name(start: JsonObject) -> str:
    return next(str(start[key]) for key in ("agent", "model", "tool", "name") if key in start)


def _call(start: JsonObject) -> JsonObject:
    data = {key: start[key] for key in ("tool", "arguments", "effect") if key in start}
    if "arguments" not in data:
        return data | {"fp": start.get("fp")}
    return data | {"arguments": _parsed(data["arguments"])}


def _ended(end: JsonObject) -> JsonObject:
    """Return what decides behaviour in how an effect ended."""
    data = {key: end[key] for key in _ENDS if key in end}
    if "error" in data:
        data["error"] = _bare(data["error"])
    response = end.get("response", {})
    kept = {key: response[key] for key in ("model", "choices") if key in response}
    if "choices" in kept:
        kept["choices"] = [_normal(choice) for choice in kept["choices"]]
    return data | {"response": kept}


def _bare(error: JsonObject) -> JsonObject:
    """Return an error without its traceback, which names lines of files."""
    bare = {key: value for key, value in error.items() if key != "traceback"}
    if "parts" in bare:
        bare["parts"] = [_bare(part) for part in bare["parts"]]
    return bare


def _normal(message: JsonObject) -> JsonObject:
    """Return a message without the ids of its calls, and with their arguments as JSON."""
    data = without_ids(message)
    for call in data.get("tool_calls", ()):
        if is_object(function := call.get("function")):
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
