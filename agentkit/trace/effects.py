"""The effects of a recorded run as objects: what replays, diffs and the command line read.

A trace is a list of events; what belongs to one effect is scattered over it. Here it is
put together by address. Only the numbers of the events are kept: what they hold is read
when a property is asked for, so that the effects of a large trace fit into memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from agentkit.core.effects import (
    Address,
    Decision,
    Failure,
    PendingCall,
    SkipReason,
    ToolOutcome,
    Value,
)
from agentkit.errors import ConfigurationError
from agentkit.events import Warned
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    ModelResponse,
    ToolCall,
    ToolMessage,
    Usage,
    message_from_json,
)
from agentkit.trace.deltas import Delta, delta_from_json
from agentkit.trace.naming import unpacked
from agentkit.trace.output import written_output
from agentkit.trace.source import Source

EffectKind: TypeAlias = Literal["agent", "model", "tool", "compute"]
MessageT = TypeVar("MessageT", AssistantMessage, ToolMessage)
_UNFINISHED = ("cancelled", "paused")


class Recording(Protocol):
    """The effects that one is part of."""

    @property
    def source(self) -> Source:
        """The lines that hold them."""
        ...

    def event(self, number: int | None) -> JsonObject | None:
        """Return an event by its number, checked."""
        ...

    def request(self, number: int) -> tuple[str, ...]:
        """Return the names of all messages of a request, by the number of its start."""
        ...

    def below(self, at: str) -> tuple[RecordedEffect, ...]:
        """Return the effects right below an address."""
        ...

    def get(self, at: str, /) -> RecordedEffect | None:
        """Return the effect at an address, if there is one."""
        ...


class Moment(NamedTuple):
    """When something was recorded.

    Attributes:
        t: Microseconds since the trace was opened.
        seq: The number of the line, which gives the order of what has the same time.
    """

    t: int
    seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpAttempt:
    """One HTTP attempt of a model call.

    Attributes:
        at: Its address.
        number: Counts from 0.
        host: The host, with its port.
        began: When.
        ended: When; None if it was in flight.
        status: The HTTP status; None without a response.
        retry_after: Seconds to wait, as the server had it.
        delay: Microseconds until the next attempt, if there was one.
        request_id: The server's id.
        error: What failed.
    """

    at: Address
    number: int
    host: str
    began: Moment
    ended: Moment | None = None
    status: int | None = None
    retry_after: float | None = None
    delay: int | None = None
    request_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedDelta:
    """A piece of a streamed answer.

    Attributes:
        t: When it came, in microseconds since the trace was opened.
        delta: The event that a listener got.
    """

    t: int
    delta: Delta


@dataclass(frozen=True, kw_only=True, slots=True)
class Det:
    """A value that was not deterministic: a time, an id or a number that code drew.

    Attributes:
        kind: `now`, `uuid` or `random`.
        use: Counts those of one kind and address, from 0.
        value: What the code got, as JSON.
        seq: The number of its line.
    """

    kind: str
    use: int
    value: Any
    seq: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLine:
    """A line that the application has logged inside an effect; see `to_trace`.

    Attributes:
        t: When, in microseconds since the trace was opened.
        level: Its level.
        text: Its text.
        data: Its other fields.
    """

    t: int
    level: str
    text: Any
    data: JsonObject


@dataclass(slots=True)
class Lines:
    """The numbers of the events of one effect, as they are found.

    Attributes:
        start: The last start. What was there before was begun anew.
        end: The end of that, if there is one and no decision about running it again is open.
        first_end: Its first end, where the outcome was edited afterwards.
        status: The status of `end`.
        ask: The question whether it may run, or what it comes to.
        in_flight: The open question whether to run it again.
        answer: The decision about `ask`.
        skip: That no tool runs it, and why.
        inner: What happened in it: attempts, deltas, progress, dets, warnings, log lines.
    """

    start: int | None = None
    end: int | None = None
    first_end: int | None = None
    status: str | None = None
    ask: int | None = None
    in_flight: int | None = None
    answer: int | None = None
    skip: int | None = None
    inner: array[int] = field(default_factory=lambda: array("Q"))


@dataclass(frozen=True, slots=True, eq=False)
class RecordedEffect:
    """One effect of a recorded run: a model call, a tool call, a function, or an agent's run.

    Of an effect that was begun several times, because its run was interrupted and resumed,
    this is the last time. Properties read the trace when they are asked for; they raise
    `TraceCorrupt` where an event lacks what it has to have.

    Attributes:
        at: Its address.
        kind: What it is.
    """

    at: Address
    kind: EffectKind
    _recording: Recording = field(repr=False)
    _lines: Lines = field(repr=False)

    # Its events

    @property
    def start(self) -> JsonObject | None:
        """The event of its beginning; None if it never began."""
        return self._recording.event(self._lines.start)

    @property
    def end(self) -> JsonObject | None:
        """The event of its end; None if it was in flight, or is to be run again."""
        return self._recording.event(self._lines.end)

    @property
    def first_end(self) -> JsonObject | None:
        """Its first end: when it was over, where the outcome was edited afterwards."""
        return self._recording.event(self._lines.first_end)

    @property
    def began(self) -> Moment | None:
        """When it began."""
        return _moment(self.start)

    @property
    def ended(self) -> Moment | None:
        """When it was over: at its first end."""
        return _moment(self.first_end)

    @property
    def seconds(self) -> float | None:
        """How long it took, in seconds; None if it has no beginning or no end."""
        began, ended = self.began, self.ended
        return (ended.t - began.t) / 1e6 if began is not None and ended is not None else None

    @property
    def begun(self) -> bool:
        """Whether it began. A call that only waited for a decision did not."""
        return self._lines.start is not None

    # What it was

    @property
    def name(self) -> str:
        """The name of the tool, the model, the agent or the function."""
        start = self.start
        if start is not None:
            return unpacked(start[_NAMES[self.kind]])
        return self.call.name if self.call is not None else ""

    @property
    def call(self) -> ToolCall | None:
        """The call of a tool, as it ran, was skipped, or waits for a decision."""
        if self.kind != "tool":
            return None
        event = self.start or self.skip
        if event is None:
            return self.pending and self.pending.call
        return _call(id=event["call"], name=event["tool"], arguments=event.get("arguments", ""))

    @property
    def skip(self) -> JsonObject | None:
        """The event that no tool runs the call; None if one did, or may still do."""
        return self._recording.event(self._lines.skip)

    @property
    def arguments(self) -> str:
        """The arguments of a tool call: the JSON text that the model sent."""
        return self.call.arguments if self.call is not None else ""

    @property
    def effect(self) -> Literal["read", "write"] | None:
        """What a tool or an output function that was begun does to the world."""
        return (self.start or {}).get("effect")

    @property
    def messages(self) -> tuple[str, ...]:
        """The names of all messages of a model's request, in order; see `Trace.messages`."""
        if self.kind != "model" or self._lines.start is None:
            return ()
        return self._recording.request(self._lines.start)

    @property
    def tools(self) -> str | None:
        """The name of the list of tools of a model's request; see `Trace.blob`."""
        return (self.start or {}).get("tools")

    @property
    def fp(self) -> str | None:
        """The fingerprint: equal ones ask for the same."""
        return (self.start or {}).get("fp")

    # How it ended

    @property
    def status(self) -> str:
        """How it ended.

        `ok`, `error`, `timeout`, `denied`, `limit`, `cancelled` or `paused` as its end says;
        `in_flight` if it has none; `pending` for a call that waits for a decision before it
        runs, `skipped` for one that no tool runs.
        """
        lines = self._lines
        if lines.start is None and lines.end is None:
            return "skipped" if lines.skip is not None else "pending"
        return lines.status or "in_flight"

    @property
    def skipped(self) -> SkipReason | None:
        """Why no tool ran the call; None if one did, or may still do."""
        return None if self.skip is None else self.skip["reason"]

    @property
    def finished(self) -> bool:
        """Whether it had an end of its own, not by the end of its run."""
        return self._lines.status is not None and self._lines.status not in _UNFINISHED

    @property
    def outcome(self) -> ModelResponse | ToolOutcome | Value | Failure | None:
        """What the loop was sent of a call or a function; None if it did not finish."""
        end = self.end
        if end is None or not self.finished or self._recording.source.capture != "full":
            return None
        match self.kind:
            case "agent":
                return None
            case "tool":
                return self._tool_outcome(end)
            case _ if end["status"] == "error":
                return replace(failure_from_json(end["error"]), usage=self.usage)
            case "model":
                return self._response(end)
            case "compute":
                return Value(value=unpacked(end["value"]), usage=self.usage, recorded=True)

    @property
    def message(self) -> str | None:
        """The name of the message that it came to: the model's answer, or a tool's."""
        return (self.end or self.skip or {}).get("message")

    @property
    def output(self) -> Any:
        """The output of an agent, or the value of a function, as JSON."""
        end = self.end or {}
        return self.packed_output if "output_at" in end else unpacked(self.packed_output)

    @property
    def packed_output(self) -> Any:
        """Its `output` as it was recorded: what JSON has no form for is marked."""
        end = self.end or {}
        if "output_at" in end:
            return self._written_output(end)
        return end.get("output" if self.kind == "agent" else "value")

    @property
    def error(self) -> Failure | None:
        """Why it failed. Below full capture only its type is known."""
        end = self.end or {}
        return failure_from_json(end["error"]) if "error" in end else None

    @property
    def usage(self) -> Usage:
        """What it has used: of an effect without a figure of its own, what agents in it used."""
        end = self.end or {}
        if "usage" in end:
            return Usage.from_json(end["usage"])
        used = Usage()
        for one in self.children if self.kind in ("tool", "compute") else ():
            if one.kind == "agent":
                used += one.usage
        return used

    # Decisions

    @property
    def pending(self) -> PendingCall | None:
        """The call as it waited for a decision before it ran; None if it just ran."""
        event = self._recording.event(self._lines.ask)
        return None if event is None else pending_call(self, event)

    @property
    def in_doubt(self) -> bool:
        """Whether it was in flight at an interruption, and is not decided about since."""
        return self._lines.in_flight is not None

    @property
    def decision(self) -> Decision | None:
        """What was decided about the call before it ran. Below full capture without its text."""
        answer = self._recording.event(self._lines.answer)
        if answer is None:
            return None
        if self._recording.source.capture != "full" and answer["decision"] == "edit":
            return Decision("edit", "{}", answer["by"])
        try:
            return Decision(answer["decision"], unpacked(answer.get("reason", "")), answer["by"])
        except ConfigurationError as error:
            raise self._recording.source.damaged(
                answer, "holds arguments that are not JSON"
            ) from error

    # What happened in it

    @property
    def children(self) -> tuple[RecordedEffect, ...]:
        """The effects that it caused: the calls of an agent, of an answer, the agents of a tool."""
        return self._recording.below(self.at)

    @property
    def attempts(self) -> tuple[HttpAttempt, ...]:
        """The HTTP attempts of a model call."""
        ends = {event["at"]: event for event in self._inner("http.end")}
        return tuple(_attempt(one, ends.get(one["at"])) for one in self._inner("http.start"))

    @property
    def deltas(self) -> tuple[RecordedDelta, ...]:
        """The pieces of a streamed answer, as they came."""
        start = self.start
        found: list[RecordedDelta] = []
        t = start["t"] if start is not None else 0
        for event in self._inner("model.chunks"):
            for microseconds, item in event["d"]:
                t = min(t + microseconds, event["t"])  # not later than its line
                found.append(RecordedDelta(t=t, delta=delta_from_json(self.at, item)))
        return tuple(found)

    @property
    def progress(self) -> tuple[Any, ...]:
        """The values that a running tool reported."""
        return tuple(unpacked(one) for event in self._inner("tool.chunks") for one in event["d"])

    @property
    def dets(self) -> tuple[Det, ...]:
        """The times, ids and numbers that code in it drew."""
        return tuple(
            Det(kind=one["kind"], use=one["use"], value=unpacked(one.get("value")), seq=one["seq"])
            for one in self._inner("det", ever=True)
        )

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What was changed on the way."""
        return tuple(map(warning_from_json, self._inner("warning", ever=True)))

    @property
    def logs(self) -> tuple[LogLine, ...]:
        """The lines that the application has logged in it."""
        return tuple(
            LogLine(
                t=one["t"],
                level=one["level"],
                text=unpacked(one["text"]),
                data=unpacked(one.get("data", {})),
            )
            for one in self._inner("log", ever=True)
        )

    def _inner(self, name: str, *, ever: bool = False) -> Iterator[JsonObject]:
        """Yield the events of this name; those before the last start only if `ever`."""
        first = 0 if ever or self._lines.start is None else self._lines.start
        for number in self._lines.inner:
            event = self._recording.event(number) if number >= first else None
            if event is not None and event["event"] == name:
                yield event

    def _response(self, end: JsonObject) -> ModelResponse:
        rest: JsonObject = unpacked(end.get("response", {}))
        choices = tuple(message_from_json(choice) for choice in rest.get("choices", ()))
        return ModelResponse(
            message=self._answer(end, AssistantMessage),
            finish=end["finish"],
            usage=self.usage,
            model=rest.get("model"),
            id=rest.get("id"),
            logprobs=rest.get("logprobs"),
            extra=rest.get("extra", {}),
            choices=tuple(one for one in choices if isinstance(one, AssistantMessage)),
        )

    def _tool_outcome(self, end: JsonObject) -> ToolOutcome:
        return ToolOutcome(
            at=self.at,
            status=end["status"],
            message=self._answer(end, ToolMessage),
            error=self.error,
            fatal=end.get("fatal", False),
            usage=Usage.from_json(end.get("usage", {})),
        )

    def _written_output(self, end: JsonObject) -> Any:
        """Return the output that a model has written: in an answer, or as a call."""
        at = end["output_at"]
        effect = self._recording.get(at)
        text: str | None = None
        if effect is not None and effect.kind == "model" and effect.message is not None:
            (message,) = self._recording.source.messages((effect.message,))
            text = message.text
        elif effect is not None:
            text = effect.arguments
        try:
            return written_output(text or "", end.get("output_key"))
        except ValueError as error:
            problem = f"has {at!r:.80} as 'output_at', where no output is"
            raise self._recording.source.damaged(end, problem) from error

    def _answer(self, end: JsonObject, kind: type[MessageT]) -> MessageT:
        message = self._recording.source.messages((end["message"],))[0]
        if not isinstance(message, kind):
            raise self._recording.source.damaged(
                end, f"names a {type(message).__name__} as its 'message'"
            )
        return message


_NAMES: Mapping[EffectKind, str] = {
    "agent": "agent",
    "model": "model",
    "tool": "tool",
    "compute": "name",
}


def warning_from_json(line: JsonObject) -> Warned:
    """Return the warning that a line of a trace holds."""
    text, data = unpacked(line.get("text", "")), unpacked(line.get("data", {}))
    return Warned(at=Address(line["at"]), code=line["code"], text=text, data=data)


def failure_from_json(data: JsonObject) -> Failure:
    """Return the failure that an `error` field holds."""
    return Failure(
        type=data.get("type", "AgentKitError"),
        message=unpacked(data.get("message", "")),
        data=unpacked(data.get("data", {})),
        traceback=unpacked(data.get("traceback")),
        parts=tuple(failure_from_json(part) for part in data.get("parts", ())),
    )


def _moment(event: JsonObject | None) -> Moment | None:
    return None if event is None else Moment(event["t"], event["seq"])


def _call(**texts: Any) -> ToolCall:
    return ToolCall(**unpacked(texts))


def pending_call(effect: RecordedEffect, waits: JsonObject | None) -> PendingCall:
    """Return the call as it waits for a decision, or as it began and may have had its effect."""
    if waits is None:
        arguments = (effect.start or {}).get("arguments", "")
        call = effect.call or _call(id=effect.name, name=effect.name, arguments=arguments)
        return PendingCall(at=effect.at, call=call, kind="in_flight")
    call = _call(id=waits["call"], name=waits["tool"], arguments=waits.get("arguments", ""))
    return PendingCall(at=effect.at, call=call, kind=waits["kind"])


def _attempt(start: JsonObject, end: JsonObject | None) -> HttpAttempt:
    attempt = HttpAttempt(
        at=Address(start["at"]),
        number=start["attempt"],
        host=start.get("host", ""),
        began=Moment(start["t"], start["seq"]),
    )
    if end is None:
        return attempt
    fields = {name: unpacked(end.get(name)) for name in _ATTEMPT}
    return replace(attempt, ended=Moment(end["t"], end["seq"]), **fields)


_ATTEMPT = ("status", "retry_after", "delay", "request_id", "error")
