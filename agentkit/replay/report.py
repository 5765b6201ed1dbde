"""The result of comparing two runs, as data and as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal, TypeAlias

from agentkit.messages import JsonObject
from agentkit.trace.compare import excerpt

DifferenceKind: TypeAlias = Literal[
    "only_a",
    "only_b",
    "input",
    "messages",
    "tools",
    "params",
    "model",
    "response",
    "decision",
    "call",
    "det",
    "result",
    "value",
    "output",
]
_LINES, _SLOWEST = 12, 3
"""Lines of a list; changes of time shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One thing that is not the same in both runs.

    Attributes:
        at: The address.
        kind: What differs there: `only_a` and `only_b` are steps and calls that one run
            alone has; `messages`, `tools`, `params` and `model` belong to a request,
            `response` is its answer; `decision` is a person's, `det` a time, a UUID or a
            random number; `call`, `result` belong to a tool, `input`, `output` to an agent,
            and `value` to a function such as computed instructions.
        pointer: The first difference there, as a JSON pointer into the event of the trace,
            with what its hashes stand for in their place.
        a: What the first run has there; `(absent)` for nothing.
        b: What the second has.
        position: The index of the first differing character, where both are text.
        more: How many further differences there are in the same place.
        follows: An earlier difference explains this one.
    """

    at: str
    kind: DifferenceKind
    pointer: str
    a: Any
    b: Any
    position: int | None = None
    more: int = 0
    follows: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Measures:
    """What was used, by a run or at one address.

    Attributes:
        steps: Model calls.
        tool_calls: Tool calls.
        input_tokens: As the servers counted them.
        output_tokens: Likewise.
        cost: USD; None where no price is known.
        seconds: From beginning to end; None where there is no end.
    """

    steps: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What both runs used at one address.

    Attributes:
        at: The address.
        name: Of the model, tool, agent or function.
        a: What the first run used; None if it was not there.
        b: What the second used.
    """

    at: str
    name: str
    a: Measures | None
    b: Measures | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """One of two compared runs.

    Attributes:
        run: Its id.
        wall: When it began.
        status: How it ended; `interrupted` where its trace has no end.
        capture: How much of it was recorded.
        program: The hash of what decides the agent's behaviour.
        totals: What it used in all.
    """

    run: str
    wall: str
    status: str
    capture: str
    program: str
    totals: Measures


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceDiff:
    """Two runs, compared.

    Attributes:
        a: The first run.
        b: The second.
        differences: Causes and consequences, in causal order: a step before the calls that
            it makes, a call before what happens inside, both before the next step.
        places: What was used at each address, in the same order.
    """

    a: RunSummary
    b: RunSummary
    differences: tuple[Difference, ...]
    places: tuple[Place, ...]

    @property
    def same(self) -> bool:
        """Whether both runs did the same, however long it took."""
        return not self.differences

    @property
    def first(self) -> Difference | None:
        """The first difference in causal order: the first cause."""
        return self.differences[0] if self.differences else None

    @property
    def causes(self) -> tuple[Difference, ...]:
        """The differences that no earlier one explains."""
        return tuple(one for one in self.differences if not one.follows)

    def to_json(self) -> JsonObject:
        """Return everything as JSON."""
        return {"same": self.same, **asdict(self)}

    def text(self) -> str:
        """Return the first cause in full, the other causes, what follows, and the totals.

        Whatever the traces say is quoted: no control character comes through.
        """
        return _joined([self._heads(), *self._blocks(), self._totals(), self._slower()])

    def short(self) -> str:
        """Return `text` without the head and the totals: only what differs."""
        return _joined(self._blocks())

    def _blocks(self) -> list[list[str]]:
        if self.first is None:
            return [["The runs are the same."]]
        follow = [one for one in self.differences if one.follows]
        number = len(self.causes)
        verdict = f"The runs differ: {number} cause{'s' * (number > 1)}"
        verdict += f", and {len(follow)} that follow." if follow else "."
        name = next((place.name for place in self.places if place.at == self.first.at), None)
        blocks = [[verdict], _in_full(self.first, name)]
        if others := self.causes[1:]:
            lines = [f"  {_plain(one.at)}  {one.kind}: {_briefly(one)}" for one in others]
            blocks.append(["Not explained by that:", *_some(lines)])
        if follow:
            lines = [
                f"  {_plain(at)}  {', '.join(one.kind for one in there)}"
                for at, there in groupby(follow, key=lambda one: one.at)
            ]
            blocks.append([f"Follows ({len(follow)}):", *_some(lines)])
        return blocks

    def _heads(self) -> list[str]:
        heads = [
            f"{name}  run {_plain(run.run)}  {_plain(run.wall)}  {_plain(run.status)}"
            + (f"  (recorded: {_plain(run.capture)})" if run.capture != "full" else "")
            for name, run in (("a", self.a), ("b", self.b))
        ]
        if self.a.program != self.b.program:
            heads.append("The agents are not the same: instructions, tools or schemas differ.")
        return heads

    def _totals(self) -> list[str]:
        a, b = asdict(self.a.totals), asdict(self.b.totals)
        rows = [(name.replace("_", " "), _number(a[name]), _number(b[name])) for name in a]
        return [f"{name:14}{one:>14}{other:>14}" for name, one, other in (("", "a", "b"), *rows)]

    def _slower(self) -> list[str]:
        """List the calls whose times differ most."""
        changes = [
            (place.b.seconds - place.a.seconds, place)
            for place in self.places
            if place.a and place.b and place.a.steps + place.a.tool_calls
            if place.a.seconds is not None and place.b.seconds is not None
        ]
        most = sorted(changes, key=lambda change: -abs(change[0]))[:_SLOWEST]
        lines = [
            f"  {_plain(place.at)}  {_plain(place.name)}  {change:+.3f} s"
            for change, place in most
            if abs(change) >= 0.001
        ]
        return ["Largest changes in time, from a to b:", *lines] if lines else []


def _joined(blocks: Iterable[list[str]]) -> str:
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _in_full(one: Difference, name: str | None) -> list[str]:
    what = {"only_a": "only a has it", "only_b": "only b has it"}.get(one.kind, one.kind)
    where = [one.pointer] if one.pointer else []
    where += [f"character {one.position}"] if one.position else []
    return [
        f"First cause, at {_plain(one.at)}{f' ({_plain(name)})' if name else ''}: {what}",
        *([f"  {_plain(', '.join(where))}"] if where else []),
        f"    a: {excerpt(one.a, one.position)}",
        f"    b: {excerpt(one.b, one.position)}",
        *([f"  and {one.more} more there"] if one.more else []),
    ]


def _briefly(one: Difference) -> str:
    a, b = (excerpt(value, one.position, 60) for value in (one.a, one.b))
    return f"{_plain(one.pointer)} {a} → {b}".lstrip()


def _some(lines: list[str]) -> list[str]:
    rest = len(lines) - _LINES
    return lines if rest <= 0 else [*lines[:_LINES], f"  and {rest} more"]


def _plain(text: str) -> str:
    """Return a name from a trace on one line, with nothing in it that a terminal obeys."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
