"""A handler that records what passes through it.

It stands around the handler that performs, so the trace holds what the loop was
sent, wherever that came from. `.start` and `.end` stand around each effect: a start
without an end was in flight when the process died.
"""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeAlias, cast

import anyio
import anyio.to_thread
from pydantic_core import to_json

from agentkit.core.effects import (
    Address,
    Compute,
    Decision,
    Effect,
    Failure,
    Handler,
    Interrupt,
    ModelCall,
    Outcome,
    Pause,
    PendingCall,
    SkippedCall,
    Suspended,
    ToolInvocation,
    ToolOutcome,
    Value,
)
from agentkit.errors import TraceError
from agentkit.events import (
    Event,
    HttpFinished,
    HttpStarted,
    ToolProgress,
    Warned,
)
from agentkit.messages import JsonObject, Message, ModelResponse, Usage
from agentkit.redaction import Redactor
from agentkit.trace.deltas import Chunks, Delta, model_of
from agentkit.trace.file import Sink, Tap, TraceWriter
from agentkit.trace.logs import inside
from agentkit.trace.naming import Namer, canonical, digest, hidden_settings, packed
from agentkit.trace.reader import Trace
from agentkit.trace.schema import SCHEMA, Capture, blobs_of

__all__ = [
    "Durability",
    "Opened",
    "Recorder",
    "RecordingHandler",
    "call_fingerprint",
    "compute_fingerprint",
    "installed_version",
]

Durability: TypeAlias = Literal["none", "close", "effects"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """When a trace was opened, and what gives the time in it, in monotonic nanoseconds."""

    wall: datetime
    clock: Callable[[], int]


class Recorder:
    """The trace of one run being written: events in, lines out, each blob once."""

    def __init__(
        self,
        sink: Sink,
        *,
        run: str,
        program: str,
        redact: Redactor,
        stream: bool = False,
        capture: Capture = "full",
        durability: Durability = "none",
        taps: Sequence[Tap] = (),
        resumes: Trace | None = None,
        fork: Mapping[str, Any] | None = None,
        opened: Opened | None = None,
    ) -> None:
        """Open the trace of a run, or go on with that of an interrupted one.

        Args:
            sink: Takes the lines.
            run: The run's id.
            program: The hash of what decides the agent's behaviour.
            redact: Takes secrets out of everything that is written.
            stream: Whether models send their answers piece by piece.
            capture: How much of the run is written.
            durability: When what was written is brought to the disk: never, at the end, or
                also around every effect, which is then not performed if that fails.
            taps: Get each line too.
            resumes: The trace so far; `sink` appends to it.
            fork: The run, the address and the patch that it was forked with, if it was.
            opened: When it was opened, if that was not now, and what gives the time.
        """
        self.run = run
        self.redact = redact
        self.namer = Namer(redact)
        self.durable = durability == "effects"
        self._durability = durability
        self._stream = stream
        self._streams: dict[Address, Chunks] = {}
        self._depth = 0
        self._written: set[str] = set()
        self._skipped: dict[str, str | None] = {}
        self._format: tuple[JsonObject, str] | None = None
        opened = opened or Opened(wall=datetime.now(UTC), clock=time.monotonic_ns)
        self._clock = opened.clock
        wall = opened.wall.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if resumes is not None:
            self._writer = TraceWriter(
                sink, lines=resumes.lines, t=resumes.t, capture=capture, taps=taps
            )
            self._written |= resumes.blobs.keys()
            effects = resumes.effects.values()
            self._skipped = {one.at: one.message for one in effects if one.skipped is not None}
            self._depth = 1  # the outermost agent has started already
            self._writer.write("trace.resume", wall=wall, program=program)
            return
        self._writer = TraceWriter(sink, capture=capture, taps=taps, clock=self._clock)
        self._writer.write(
            "trace.open",
            schema=SCHEMA,
            run=run,
            wall=wall,
            agentkit=installed_version("agentkit-replay"),
            versions={
                "python": platform.python_version(),
                "pydantic": installed_version("pydantic"),
                "httpx2": installed_version("httpx2"),
            },
            capture=capture,
            redaction={"key_id": redact.key_id},
            program=program,
            fork=fork,
        )

    @property
    def failure(self) -> TraceError | None:
        """Why nothing is written any more, if so."""
        error = self._writer.failure
        if error is None:
            return None
        return TraceError(f"The trace of {self.run} cannot be written any more: {error}.")

    async def on_disk(self) -> None:
        """Wait until all that was written survives a power failure. It cannot be cancelled."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._writer.sync)

    def agent_start(
        self,
        at: Address,
        agent: str,
        messages: Sequence[Message],
        earlier: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that an agent begins with these messages; the first `earlier` are history."""
        self._depth += 1
        names = [self._message(message) for message in messages]
        fields: JsonObject = {"options": self._options(options)} if options else {}
        named = self._blob("input", {"messages": names, "earlier": earlier})
        self._writer.write("agent.start", at=at, agent=agent, input=named, **fields)

    def agent_end(
        self, at: Address, status: str, output: Any, usage: Usage, error: Failure | None
    ) -> None:
        """Record that an agent has ended; the end of the outermost one closes the trace."""
        fields: JsonObject = {"status": status, "output": packed(output, self.redact)}
        fields |= {"usage": usage.to_json(), "cost": usage.cost}
        if error is not None:
            fields["error"] = self._error(error)
        self._writer.write("agent.end", at=at, **fields)
        self._depth -= 1
        if not self._depth:
            self._writer.write("trace.close", status=status, lines=self._writer.lines + 1)
            if self._durability != "none":
                self._writer.sync()
            self._writer.close()

    def det(self, at: Address, kind: str, use: int, value: Any) -> None:
        """Record a value that was not deterministic; `use` counts those of one kind and address."""
        self._writer.write("det", at=at, kind=kind, use=use, value=packed(value, self.redact))

    def started(self, effect: Effect) -> None:
        """Record that an effect begins."""
        match effect:
            case ModelCall():
                self._model_start(effect)
            case ToolInvocation(at=at, call=call):
                texts = {"tool": call.name, "call": call.id, "arguments": call.arguments}
                texts = self._texts(texts, own=True)
                fp = _fingerprint(call.name, texts["arguments"])
                self._writer.write("tool.start", at=at, **texts, effect=effect.effect, fp=fp)
            case Compute(at=at, name=name):
                fp = compute_fingerprint(effect, self.redact)
                self._writer.write("compute.start", at=at, name=name, fp=fp)
            case Pause(pending=pending):
                for one in pending:
                    call = one.call
                    texts = {"tool": call.name, "call": call.id, "arguments": call.arguments}
                    texts = self._texts(texts, own=True)
                    self._writer.write("tool.pending", at=one.at, kind=one.kind, **texts)

    def _model_start(self, call: ModelCall) -> None:
        request = call.request
        if self._stream:
            self._streams[call.at] = Chunks(self.redact, self._clock)
        named = self.namer.request(call)
        for message in named.new:
            self._message(message)
        if named.tools not in self._written:
            self._write_blob("tools", *self.namer.tools_blob(request.tools))
        params = named.params
        if request.output is not None:
            params = params | {"output": self._output(params["output"])}
        self._writer.write(
            "model.start",
            at=call.at,
            model=named.model,
            since=named.since and str(named.since),
            messages=named.messages,
            tools=named.tools,
            params=params,
            stream=self._stream,
            fp=named.fingerprint,
        )

    def ended(self, effect: Effect, outcome: Outcome | None) -> None:
        """Record that an effect has ended; None means that it was cancelled."""
        at = effect.at
        match effect:
            case ModelCall():
                fields = self._model_end(outcome)
                if (stream := self._streams.pop(at, None)) is not None:
                    if ready := stream.rest():
                        self._writer.write("model.chunks", at=at, d=ready)
                    fields |= _given({"first_chunk": stream.first})
                self._writer.write("model.end", at=at, **fields)
            case ToolInvocation():
                self._writer.write("tool.end", at=at, **self._tool_end(outcome))
            case Compute():
                self._writer.write("compute.end", at=at, **self._compute_end(outcome))
            case Pause(pending=pending) if isinstance(outcome, tuple):
                self._decided(pending, cast("tuple[Decision, ...]", outcome))
            case Pause(pending=pending) if isinstance(outcome, Suspended):
                self._decided(pending, outcome.made)
            case Pause():
                pass

    def skipped(self, skipped: SkippedCall) -> None:
        """Record that no tool runs a call; once, where the run was resumed after it."""
        call = skipped.call
        message = None if skipped.message is None else self._message(skipped.message)
        if self._skipped.get(skipped.at, "") == message:
            return
        texts = {"tool": call.name, "call": call.id, "arguments": call.arguments}
        self._writer.write(
            "tool.skip",
            at=skipped.at,
            **self._texts(texts, own=True),
            reason=skipped.reason,
            message=message,
        )

    def _decided(
        self, pending: Sequence[PendingCall], decisions: Sequence[Decision | None]
    ) -> None:
        for one, decision in zip(pending, decisions, strict=False):  # none, if nobody is there
            if decision is not None:
                self._writer.write(
                    "tool.decision",
                    at=one.at,
                    decision=decision.kind,
                    reason=packed(decision.text, self.redact),
                    by=packed(decision.by, self.redact),
                )

    def event(self, event: Event) -> None:
        """Record an event inside an effect."""
        if isinstance(event, Delta):
            at = model_of(event)
            if (stream := self._streams.get(at)) is not None and (ready := stream.take(event)):
                self._writer.write("model.chunks", at=at, d=ready)
            return
        match event:
            case HttpStarted(at=at, attempt=attempt, host=host):
                # The model call has begun: that its first attempt has, too, can be said later.
                first = not attempt
                self._writer.write("http.start", held=first, at=at, attempt=attempt, host=host)
            case HttpFinished():
                delay = None if event.delay is None else round(event.delay * 1e6)
                numbers = {
                    "status": event.status,
                    "retry_after": event.retry_after,
                    "delay": delay,
                }
                texts = _given({"request_id": event.request_id, "error": event.error})
                fields = _given(numbers) | self._texts(texts, own=True)
                self._writer.write("http.end", held=delay is None, at=event.at, **fields)
            case ToolProgress(at=at, value=value):
                self._writer.write("tool.chunks", at=at, d=[packed(value, self.redact)])
            case Warned(at=at, code=code, text=text, data=data):
                self._writer.write(
                    "warning",
                    at=at,
                    code=code,
                    text=packed(text, self.redact),
                    data=packed(data, self.redact),
                )
            case _:
                pass  # the effects themselves record it

    def copy(self, trace: Trace, events: Sequence[JsonObject]) -> None:
        """Copy what another trace has inside an effect that is answered from there."""
        for event in events:
            for kind, name in blobs_of(event):
                data = trace.blob(name)
                if kind == "input":
                    for message in data["messages"]:
                        self._write_blob("message", message, canonical(trace.blob(message)))
                self._write_blob(kind, name, canonical(data))
            fields = {key: value for key, value in event.items() if key not in ("seq", "t")}
            self._writer.write(fields.pop("event"), **fields)

    def log(self, at: Address, level: str, text: Any, data: Mapping[str, Any]) -> None:
        """Record a line that the application logged inside an effect; see `to_trace`."""
        texts = {"text": packed(text, self.redact), "data": packed(data, self.redact)}
        self._writer.write("log", at=at, level=level, **texts)

    def _options(self, options: Mapping[str, Any]) -> JsonObject:
        given = dict(options)
        settings = hidden_settings(given.pop("settings", {}), self.redact)
        return {
            **packed(given, self.redact, own=True),
            **({"settings": settings} if settings else {}),
        }

    def _model_end(self, outcome: Outcome | None) -> JsonObject:
        match outcome:
            case ModelResponse():
                rest = {
                    "id": outcome.id,
                    "model": outcome.model,
                    "logprobs": outcome.logprobs,
                    "extra": outcome.extra or None,
                    "choices": [choice.to_json() for choice in outcome.choices] or None,
                }
                return {
                    "status": "ok",
                    "message": self._message(outcome.message),
                    "finish": outcome.finish,
                    "usage": outcome.usage.to_json(),
                    "response": self._texts(_given(rest)),
                }
            case Failure():
                return {"status": "error", "error": self._error(outcome)}
            case _:
                return {"status": "cancelled"}

    def _tool_end(self, outcome: Outcome | None) -> JsonObject:
        if not isinstance(outcome, ToolOutcome):
            return _unfinished(outcome)
        fields: JsonObject = {"status": outcome.status, "message": self._message(outcome.message)}
        if outcome.error is not None:
            fields["error"] = self._error(outcome.error)
        if outcome.fatal:
            fields["fatal"] = True
        if usage := outcome.usage.to_json():
            fields["usage"] = usage
        return fields

    def _compute_end(self, outcome: Outcome | None) -> JsonObject:
        match outcome:
            case Value(value=value, usage=usage):
                used = _given({"usage": usage.to_json() or None})
                return {"status": "ok", "value": packed(value, self.redact), **used}
            case Failure():
                return {"status": "error", "error": self._error(outcome)}
            case _:
                return _unfinished(outcome)

    def _error(self, failure: Failure) -> JsonObject:
        texts = {
            "type": failure.type,
            "message": failure.message,
            "data": failure.data or None,
            "traceback": failure.traceback,
            "parts": [self._error(part) for part in failure.parts] or None,
        }
        return packed(_given(texts), self.redact, own=True)

    def _texts(self, fields: JsonObject, *, own: bool = False) -> JsonObject:
        """Fields, packed. Most are texts with nothing to hide, which are looked at together."""
        try:
            text = "\n".join(fields.values())
        except TypeError:  # there are others, too
            return packed(fields, self.redact, own=own)
        plain = text.isascii() and self.redact.passes(text)
        return fields if plain else packed(fields, self.redact, own=own)

    def _message(self, message: Message) -> str:
        name, content = self.namer.blob(message)
        self._write_blob("message", name, content)
        return name

    def _output(self, schema: JsonObject) -> str:
        """Return the name of an output format; the same object is named once."""
        if self._format is None or self._format[0] is not schema:
            self._format = (schema, self._blob("output", schema))
        return self._format[1]

    def _blob(self, kind: str, data: Any) -> str:
        content = canonical(data)
        name = digest(content)
        self._write_blob(kind, name, content)
        return name

    def _write_blob(self, kind: str, name: str, content: bytes) -> None:
        if name in self._written:
            return
        self._written.add(name)
        self._writer.write("blob", held=True, h=name, kind=kind, data=content)


class RecordingHandler:
    """Records each effect and its outcome around the handler that performs it."""

    def __init__(self, inner: Handler, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    async def perform(self, effect: Effect) -> Outcome:
        """Perform through the inner handler. Writing is synchronous: nothing is awaited here."""
        recorder = self._recorder
        recorder.started(effect)
        if recorder.durable and (stop := await self._unsafe(effect)) is not None:
            return stop
        try:
            with inside(recorder, effect.at):
                outcome = await self._inner.perform(effect)
        except Exception as error:
            recorder.ended(effect, Failure.of(error))
            raise
        except BaseException:
            recorder.ended(effect, None)
            raise
        recorder.ended(effect, outcome)
        if recorder.durable:
            await recorder.on_disk()
            if not isinstance(effect, ToolInvocation):
                return self._lost() or outcome  # a call is answered, and the next effect is the end
        return outcome

    async def _unsafe(self, effect: Effect) -> Interrupt | None:
        """Return the end of the run, unless the beginning of this effect is safely on the disk."""
        if _acts(effect):
            await self._recorder.on_disk()
        return self._lost()

    def _lost(self) -> Interrupt | None:
        error = self._recorder.failure
        return None if error is None else Interrupt(status="error", error=Failure.of(error))


def _acts(effect: Effect) -> bool:
    """Whether performing it twice may do harm."""
    match effect:
        case ToolInvocation(effect=does):
            return does != "read"
        case Compute(name=name):
            return name == "output"  # the function that the output is handed to
        case _:
            return False


def call_fingerprint(invocation: ToolInvocation, redact: Redactor) -> str:
    """Return the hash that decides whether a replay makes the same tool call."""
    return _fingerprint(invocation.call.name, packed(invocation.call.arguments, redact))


def compute_fingerprint(compute: Compute, redact: Redactor) -> str:
    """Return the hash that decides whether a replay calls a function with the same input."""
    return digest(canonical([compute.name, packed(compute.input, redact)]))


def _fingerprint(tool: str, arguments: Any) -> str:
    try:
        return digest(to_json([tool, arguments]))
    except ValueError:  # lone surrogates
        return digest(canonical([tool, arguments]))


def _unfinished(outcome: Outcome | None) -> JsonObject:
    paused = isinstance(outcome, Interrupt) and outcome.status == "paused"
    return {"status": "paused" if paused else "cancelled"}


def _given(fields: Mapping[str, Any]) -> JsonObject:
    return {key: value for key, value in fields.items() if value is not None}


@functools.cache
def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None where it runs from sources."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
