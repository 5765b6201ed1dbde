"""The events of a recording that a replay does not make itself: it plays them again.

Inside an effect that is answered from the recording nothing happens: no model
streams, no tool reports progress, no sub-agent takes steps. A listener of the replay
gets all these events nevertheless, from the trace's lines and in their order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from agentkit.core.effects import Address, PendingCall
from agentkit.events import (
    Event,
    Finished,
    HttpFinished,
    HttpStarted,
    Paused,
    StepFinished,
    StepStarted,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
)
from agentkit.messages import JsonObject, ToolCall, Usage
from agentkit.trace.deltas import delta_from_json
from agentkit.trace.effects import warning_from_json
from agentkit.trace.naming import unpacked
from agentkit.trace.reader import Trace


@dataclass(frozen=True, slots=True)
class Played:
    """One event of the recording.

    Attributes:
        time: When it happened then: µs since the trace was opened, and its line.
        owner: The effect of the replay inside which it happened.
        event: What listeners get.
    """

    time: tuple[int, int]
    owner: str
    event: Event


class Player:
    """Emits what happened inside recorded effects.

    Args:
        trace: The recording.
        owner: Gives the effect that the replay drives at or above an address, or None. What
            such an effect itself begins and ends with is emitted by the replay.
        emit: The listener.
    """

    def __init__(
        self, trace: Trace, owner: Callable[[str], str | None], emit: Callable[[Event], None]
    ) -> None:
        self._emit = emit
        self._owned: dict[str, list[Played]] = {}
        for played in _recorded(trace, owner):
            self._owned.setdefault(played.owner, []).append(played)
        for events in self._owned.values():
            events.sort(key=lambda one: one.time)
            events.reverse()  # taken from the end
        self._begun: dict[str, list[Played]] = {}

    def begin(self, at: str) -> None:
        """Let the events of an effect be emitted, now that the replay has come to it."""
        if at in self._owned:
            self._begun[at] = self._owned.pop(at)

    def until(self, time: tuple[int, int], at: str | None = None) -> None:
        """Emit what happened before `time` inside the effects that have begun, or one of them."""
        while (first := self._first(at)) is not None and first.time < time:
            self._begun[first.owner].pop()
            self._emit(first.event)

    def _first(self, at: str | None) -> Played | None:
        events = (self._begun.get(at),) if at is not None else self._begun.values()
        return min((one[-1] for one in events if one), key=lambda one: one.time, default=None)


def _recorded(trace: Trace, owner: Callable[[str], str | None]) -> Iterator[Played]:
    """Yield what the recording has inside the effects that the replay drives."""
    started: dict[str, JsonObject] = {}
    shown: dict[str, int] = {}
    # By the model call whose calls they are: threads may write other lines in between.
    groups = defaultdict[str, _Asked](list)
    for line in trace.events:
        at, name, time = line.get("at", ""), line["event"], (line["t"], line["seq"])
        if name == "trace.resume":
            yield from _paused(groups)
        if name in ("tool.start", "model.start"):
            started[at], shown[at] = line, line["t"]
        inside = owner(at)
        # A pause is of the model call whose calls it is about.
        itself = Address(at).parent if name in ("tool.pending", "tool.decision") else at
        if inside is None or (owner(itself) == itself and name in _OWN):
            continue
        if name == "model.chunks":
            for microseconds, item in line["d"]:
                # Not later than its line, whatever was measured.
                shown[at] = min(shown.get(at, line["t"]) + microseconds, line["t"])
                yield Played((shown[at], line["seq"]), inside, delta_from_json(Address(at), item))
            continue
        if name == "tool.pending":
            # A call in flight is asked about alone.
            together = at if line["kind"] == "in_flight" else itself
            if any(one.at == at for one, _, _ in groups[together]):
                yield from _paused({together: groups.pop(together)})  # it is asked anew
            groups[together].append((_pending(line), inside, time))
            continue
        for event in _events(trace, line, started):
            yield Played(time, inside, event)
    yield from _paused(groups)


_OWN = ("model.start", "model.end", "tool.start", "tool.end", "tool.pending", "tool.decision")
"""Lines of a driven effect that the replay makes itself."""


_Asked: TypeAlias = list[tuple[PendingCall, str, tuple[int, int]]]
"""Calls that were asked about, inside what, and when."""


def _paused(groups: dict[str, _Asked]) -> Iterator[Played]:
    """Yield one event for all calls that were asked about together."""
    for group in groups.values():
        pending = tuple(one for one, _, _ in group)
        _, owner, time = group[-1]
        yield Played(time, owner, Paused(at=pending[0].at.parent, pending=pending))
    groups.clear()


def _events(trace: Trace, line: JsonObject, started: Mapping[str, JsonObject]) -> Iterator[Event]:
    at = Address(line["at"])
    match line["event"]:
        case "model.start":
            yield StepStarted(at=at, model=line["model"])
        case "model.end" if line["status"] == "ok":
            yield StepFinished(
                at=at,
                finish=line["finish"],
                usage=Usage.from_json(line["usage"]),
                text=trace.messages([line["message"]])[0].text,
            )
        case "model.end" if line["status"] == "error":
            text = line["error"].get("message", "")
            yield StepFinished(at=at, finish=None, usage=Usage(), error=text)
        case "tool.start":
            yield ToolCallStarted(at=at, name=line["tool"], arguments=unpacked(line["arguments"]))
        case "tool.end" if "message" in line:
            name = started.get(at, {}).get("tool", "")
            text = trace.messages([line["message"]])[0].text
            yield ToolCallFinished(at=at, name=name, status=line["status"], text=text)
        case "agent.end" if at.parent in started:
            yield Finished(at=at, status=line["status"])
        case _:
            yield from _details(at, line)


def _details(at: Address, line: JsonObject) -> Iterator[Event]:
    match line["event"]:
        case "tool.chunks":
            for value in line["d"]:
                yield ToolProgress(at=at, value=unpacked(value))
        case "http.start":
            yield HttpStarted(at=at, attempt=line["attempt"], host=line.get("host", ""))
        case "http.end":
            yield _http_end(at, line)
        case "warning":
            yield warning_from_json(line)
        case _:
            pass


def _http_end(at: Address, line: JsonObject) -> HttpFinished:
    delay = line.get("delay")
    return HttpFinished(
        at=at,
        status=line.get("status"),
        request_id=line.get("request_id"),
        retry_after=line.get("retry_after"),
        delay=None if delay is None else delay / 1e6,
        error=line.get("error"),
    )


def _pending(line: JsonObject) -> PendingCall:
    call = ToolCall(id=line["call"], name=line["tool"], arguments=line["arguments"])
    return PendingCall(at=Address(line["at"]), call=call, kind=line["kind"])
