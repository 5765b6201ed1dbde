"""Finds the effects of a trace, by address, in one pass over its events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from agentkit.core.effects import Address, PendingCall, ancestors
from agentkit.messages import JsonObject, Usage
from agentkit.trace.effects import EffectKind, Lines, RecordedEffect, pending_call
from agentkit.trace.source import Source

_REQUESTS = 64
"""Requests whose lists of names are kept: agents that work side by side continue their own."""

_RECENT = 64
"""Events that are kept once they were read."""


class RecordedEffects(Mapping[str, RecordedEffect]):
    """The effects of a trace by address, in order of beginning.

    A call that never began stands where it first waited for a decision.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._checked = bytearray(len(source.events))
        self._effects: dict[str, RecordedEffect] = {}
        self._lines: dict[str, Lines] = {}
        self._since: dict[int, int | None] = {}
        self._requests: dict[int, tuple[str, ...]] = {}  # the last ones: the next continue them
        self._recent: dict[int, JsonObject] = {}
        self._below: dict[str, list[str]] | None = None
        for number, event in enumerate(source.events):
            self._take(number, event)

    def __len__(self) -> int:
        return len(self._effects)

    def __iter__(self) -> Iterator[str]:
        return iter(self._effects)

    def __contains__(self, at: object) -> bool:
        return at in self._effects

    def __getitem__(self, at: str) -> RecordedEffect:
        return self._effects[at]

    def __repr__(self) -> str:
        return f"<{len(self)} effects>"

    @property
    def usage(self) -> Usage:
        """What the run has used, as far as it came."""
        root = next((one for one in self.values() if one.kind == "agent"), None)
        if root is not None and "usage" in (root.end or {}):
            return root.usage  # also counts what failed and cost something
        return sum((one.usage for one in self.values() if one.kind == "model"), Usage())

    def below(self, at: str) -> tuple[RecordedEffect, ...]:
        """Return the effects right below an address."""
        if self._below is None:
            self._below = {}
            for one in self._effects:
                self._below.setdefault(one.rpartition("/")[0], []).append(one)
        return tuple(self[one] for one in self._below.get(at, ()))

    def append(self, line: bytes) -> JsonObject:
        """Take the next line of a trace in memory that grows, and return its event."""
        event = self.source.append(line)
        if event["event"] != "blob":
            self._checked.append(0)
            self._below = None
            self._take(len(self._checked) - 1, event)
        return event

    def event(self, number: int | None) -> JsonObject | None:
        """Return an event by its number, checked.

        Raises:
            TraceCorrupt: It lacks a field, or has one of another form.
        """
        if number is None:
            return None
        event = self._recent.get(number)  # the properties of one effect read the same ones
        if event is not None:
            return event
        event = self.source.events[number]
        if not self._checked[number]:
            self.source.check(event)
            self._checked[number] = True
        if len(self._recent) >= _RECENT:
            self._recent.clear()
        self._recent[number] = event
        return event

    def request(self, number: int) -> tuple[str, ...]:
        """Return the names of all messages of a request, by the number of its start.

        Raises:
            TraceCorrupt: It continues a request that is not there.
        """
        parts: list[Sequence[str]] = []
        one: int | None = number
        while one is not None and one not in self._requests:
            event = self.event(one)
            assert event is not None
            parts.append(event["messages"])
            if one in self._since and self._since[one] is None:
                since = event["since"]
                raise self.source.damaged(
                    event, f"has {since!r} as 'since', which is no earlier request"
                )
            one = self._since.get(one)
        if one is not None:
            parts.append(self._requests[one])
        if len(self._requests) >= _REQUESTS:
            self._requests.clear()
        names = self._requests[number] = tuple(chain.from_iterable(reversed(parts)))
        return names

    def check(self) -> None:
        """Check that every request continues one that is there.

        Raises:
            TraceCorrupt: One does not.
        """
        for number, since in self._since.items():
            if since is None:
                self.request(number)

    def _request_at(self, at: object) -> int | None:
        """Return the last request at an address, among the events so far."""
        one = self._effects.get(at) if isinstance(at, str) else None
        return self._lines[one.at].start if one is not None and one.kind == "model" else None

    def _take(self, number: int, event: JsonObject) -> None:
        match event["event"].split("."):
            case ["agent" | "model" | "tool" | "compute" as kind, "start"]:
                if kind == "model" and event.get("since") is not None:
                    self._since[number] = self._request_at(event["since"])
                self._begin(number, event, kind)
            case ["agent" | "model" | "tool" | "compute" as kind, "end"]:
                lines = self._of(event, kind)
                lines.end, lines.status = number, event["status"]
                if lines.first_end is None:
                    lines.first_end = number
            case ["tool", "skip"]:
                self._of(event, "tool").skip = number
            case ["tool", "pending" | "decision" as part]:
                self._decided(number, event, part)
            case ["http", _]:
                self._inside(number, event["at"].rpartition("/")[0])
            case ["model" | "tool", "chunks"] | ["det" | "log" | "warning"]:
                self._inside(number, event.get("at", ""))
            case _:
                pass

    def _begin(self, number: int, event: JsonObject, kind: EffectKind) -> None:
        at, lines = event["at"], self._of(event, kind)
        if lines.start is None:  # one that only waited for a decision stands where it begins
            self._effects[at] = self._effects.pop(at)
        lines.start = number
        lines.end = lines.first_end = lines.status = lines.skip = None  # it was begun anew

    def _decided(self, number: int, event: JsonObject, part: str) -> None:
        """Two things may be decided about a call: whether it may run, and whether again."""
        known = self._effects.get(event["at"])
        lines = self._of(event, "tool" if known is None else known.kind)
        if part == "decision":
            if lines.in_flight is None:
                lines.answer = number
            lines.in_flight = None
        elif event.get("kind") == "in_flight":
            lines.in_flight = number
            lines.end = lines.status = None  # it was cancelled, and goes on
        else:
            lines.ask, lines.answer = number, None

    def _inside(self, number: int, at: str) -> None:
        if (lines := self._lines.get(at)) is not None:
            lines.inner.append(number)

    def _of(self, event: JsonObject, kind: EffectKind) -> Lines:
        at = event["at"]
        lines = self._lines.get(at)
        if lines is None:
            lines = self._lines[at] = Lines()
            self._effects[at] = RecordedEffect(Address(at), kind, self, lines)
        elif (other := self._effects[at].kind) != kind:
            raise self.source.damaged(event, f"has {at!r:.80} as 'at', where a {other} is")
        return lines

    def last_to_end(self) -> RecordedEffect | None:
        """Return the call or function that ended last."""
        ends = {
            at: lines.end
            for at, lines in self._lines.items()
            if lines.end is not None and self[at].kind != "agent"
        }
        return self[max(ends, key=ends.__getitem__)] if ends else None

    def pending(self) -> tuple[PendingCall, ...]:
        """Return the calls that need a decision before the run can go on."""
        found: list[PendingCall] = []
        for at, one in self._effects.items():
            lines = self._lines[at]
            asks = (lines.in_flight, lines.ask if lines.answer is None else None)
            waits = max((number for number in asks if number is not None), default=None)
            if waits is not None and not self._over(at, waits):
                found.append(pending_call(one, self.event(waits)))
            elif waits is None and self._may_have_acted(one):
                found.append(pending_call(one, None))
        return tuple(sorted(found, key=lambda one: one.at.order))

    def _over(self, at: str, since: int) -> bool:
        """Whether the call, or one that it is in, finished after an event."""
        for up in (*ancestors(at), at):
            one = self.get(up)
            if one is not None and one.kind == "tool" and one.finished:
                end = self._lines[up].end
                if end is not None and end > since:
                    return True
        return False

    def _may_have_acted(self, one: RecordedEffect) -> bool:
        """Whether a tool or function that writes was in flight when its run ended."""
        begun, start = self._lines[one.at].start, one.start
        if begun is None or start is None or one.status not in ("in_flight", "cancelled"):
            return False
        policy = start.get("on_crash") or ("ask" if one.effect == "write" else "retry")
        return policy == "ask" and not self._over(one.at, begun)
