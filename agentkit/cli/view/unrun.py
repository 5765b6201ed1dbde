"""The tool calls that a model asked for and that no tool ran, as a run's trace has them.

There are no events about them: such a call was the output, handed the conversation over,
was refused, or came too late; or the model only repeated itself. What it was is read from
the answer that it stands in and from the request after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentkit.core.effects import Address
from agentkit.messages import JsonObject, is_object
from agentkit.trace.reader import Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Unrun:
    """A call that a model asked for; its texts are as the trace has them.

    Attributes:
        name: The tool's.
        arguments: What the model wanted to call it with.
        status: What became of it, in the words of a tool's status; `decided` if it was left
            out, None if the trace ends before that.
        said: What the model was told about it, or what it was.
    """

    name: Any
    arguments: Any
    status: str | None
    said: Any = ""


def unrun(trace: Trace) -> dict[str, Mapping[str, Unrun] | None]:
    """The calls of each step of which not all were run, by the addresses of both.

    None where they were those of the step before: then the answer was left out, and the
    model was told to answer.
    """
    run = _Run(trace)
    return {at: run.became(at) for at, calls in run.calls.items() if not calls.keys() <= run.begun}


class _Run:
    """What the events of a run have about the calls of its steps."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.calls: dict[str, dict[str, JsonObject]] = {}
        self.begun: set[str] = set()
        self._steps: dict[str, list[str]] = {}
        self._asked: dict[str, JsonObject] = {}
        self._answers: dict[str, str] = {}
        self._inside: dict[str, JsonObject] = {}
        self._ended: dict[str, str] = {}
        for event in trace.events:
            self._take(Address(event.get("at", "")), event)

    def _take(self, at: Address, event: JsonObject) -> None:
        match event["event"]:
            case "agent.start":
                self._inside[at.parent] = event
            case "agent.end":
                self._ended[at] = event["status"]
            case "model.start":
                if at not in self._asked:
                    self._steps.setdefault(at.parent, []).append(at)
                self._asked[at] = event
            case "model.end" if event.get("message") in self._trace.blobs:
                calls = self._trace.blob(event["message"]).get("tool_calls") or ()
                self._answers[at] = event["message"]
                self.calls[at] = {at.call(index): call for index, call in enumerate(calls)}
            case "tool.start" | "gate.ask":
                self.begun.add(at)
            case _:
                pass

    def became(self, at: str) -> dict[str, Unrun] | None:
        """What the calls of this step came to; None if they were those of the step before."""
        calls = self.calls[at]
        known = self._known(at)
        if known is None:
            return None
        ended = self._ended.get(Address(at).parent)
        last = self._beside(at, 1) is None and not known
        left = {None: None, "paused": "paused"}.get(ended, "decided") if last else "decided"
        made: dict[str, Unrun] = {}
        for place, call in calls.items():
            status, said = known.get(place, (left, ""))
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            made[place] = Unrun(name=name, arguments=arguments, status=status, said=said)
        return made

    def _known(self, at: str) -> dict[str, tuple[str, Any]] | None:
        """The status of the calls that came to something, and what is to be said of each."""
        calls, after = self.calls[at], self._beside(at, 1)
        transfer = next((one for one in calls if one in self._inside.keys() - self.begun), None)
        if transfer is not None:
            told = self._told(self._input(transfer))
            return {transfer: ("ok", told.get(calls[transfer]["id"], ""))}
        if after is not None:
            messages = self._trace.effects[after].messages
            if self._answers[at] not in messages and self._repeats(at):
                return None
            told = self._told(messages)
            ids = {place: call["id"] for place, call in calls.items()}
            return {place: ("error", told[one]) for place, one in ids.items() if one in told}
        if self._ended.get(Address(at).parent) == "ok":
            return {self._output(at): ("ok", "the output")}
        return {}

    def _beside(self, at: str, by: int) -> str | None:
        """The same agent's step after this one, or before it."""
        steps = self._steps[Address(at).parent]
        place = steps.index(at) + by
        return steps[place] if 0 <= place < len(steps) else None

    def _repeats(self, at: str) -> bool:
        """Whether the calls of this step are those of the step before."""
        before = self.calls.get(self._beside(at, -1) or "", {})
        now, then = (
            [one["function"] for one in calls.values()] for calls in (self.calls[at], before)
        )
        return now == then

    def _input(self, call: str) -> Sequence[str]:
        """The messages that an agent was given by this call."""
        given = self._trace.blobs.get(self._inside[call].get("input", ""))
        return given["messages"] if is_object(given) else ()

    def _told(self, messages: Sequence[str]) -> dict[str, Any]:
        """What the tool messages among these say, by the ids of their calls."""
        blobs = (self._trace.blobs.get(name, {}) for name in messages)
        return {one["tool_call_id"]: one["content"] for one in blobs if "tool_call_id" in one}

    def _output(self, at: str) -> str:
        """The call that the output came as: its tool is the last one of a request."""
        tools = self._trace.blob(self._asked[at]["tools"])
        name = tools[-1]["function"]["name"] if tools else None
        calls = self.calls[at].items()
        return next((one for one, call in calls if call["function"]["name"] == name), "")
