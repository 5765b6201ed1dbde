"""Records what passes through a run: the handler that does it, and the recorder that it fills.

The handler stands around the one that performs, so the trace holds what the loop was sent,
wherever that came from. `.start` and `.end` stand around each effect: a start without an
end was in flight when the process died.

A trace in memory is noted, and written when it is read, which is seldom. Effects,
outcomes and events are frozen, so it is enough to keep them with their time; what is not
frozen, the values of an application, is packed when it is noted.
"""

from __future__ import annotations

import functools
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, cast

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
    SkippedCall,
    Suspended,
    ToolInvocation,
    ToolOutcome,
    Value,
)
from agentkit.core.spec import Finish
from agentkit.errors import TraceError, TraceLocked
from agentkit.events import (
    Event,
    HttpFinished,
    HttpStarted,
    ToolProgress,
    Warned,
)
from agentkit.messages import NO_USAGE, JsonObject, Message, ModelResponse, ToolCall
from agentkit.redaction import Redactor
from agentkit.trace.deltas import Chunks, Delta, model_of
from agentkit.trace.file import FileSink, MemorySink, Sink, Tap, TraceWriter
from agentkit.trace.logs import Follower, inside, tap
from agentkit.trace.naming import (
    Namer,
    Packed,
    canonical,
    digest,
    hidden_settings,
    is_plain,
    packed,
)
from agentkit.trace.output import output_fields
from agentkit.trace.reader import Trace
from agentkit.trace.schema import SCHEMA, Capture, blobs_of

Durability: TypeAlias = Literal["none", "close", "effects"]
P = ParamSpec("P")
_Note: TypeAlias = tuple[int, Callable[..., None], Sequence[Any], Mapping[str, Any]]
"""A time, what is to be written for it, and the arguments of that."""


def _timed(
    write: Callable[Concatenate[Recorder, P], None],
) -> Callable[Concatenate[Recorder, P], None]:
    """Write at once; or, for a trace in memory, note the time and the arguments for later."""

    @functools.wraps(write)
    def record(self: Recorder, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.notes is None:
            write(self, *args, **kwargs)
        else:
            kept = [_frozen(one, self.redact) if type(one) in _NOT_FROZEN else one for one in args]
            self.notes.append((time.monotonic_ns(), write, kept, kwargs))

    return record


class Recorder:
    """The trace of one run being written: events in, lines out, each blob once.

    Args:
        sink: Takes the lines.
        run: The run's id.
        program: Returns the hash of what decides the agent's behaviour.
        redact: Takes secrets out of everything that is written.
        stream: Whether models send their answers piece by piece.
        capture: How much of the run is written.
        durability: When what was written is brought to the disk: never, at the end, or
            also around every effect, which is then not performed if that fails.
        followers: Get each line too, and enter each effect.
        resumes: The trace so far; `sink` appends to it.
        options: The settings and limits that it is resumed with.
        fork: The run, the address and the patch that it was forked with, if it was.

    Attributes:
        notes: What is still to be written, with its time; None where it is written at once.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        run: str,
        program: Callable[[], str],
        redact: Redactor,
        stream: bool = False,
        capture: Capture = "full",
        durability: Durability = "none",
        followers: Sequence[Follower] = (),
        resumes: Trace | None = None,
        options: Mapping[str, Any] | None = None,
        fork: Mapping[str, Any] | None = None,
    ) -> None:
        self.run = run
        self.redact = redact
        self.namer = Namer(redact)
        self.durable = durability == "effects"
        later = isinstance(sink, MemorySink) and not followers and not resumes and capture == "full"
        self.notes: list[_Note] | None = [] if later else None
        self._sink = sink
        self._program = program
        self._stream = stream
        self._capture: Capture = capture
        self._durability = durability
        self.followers = followers
        self._taps: Sequence[Tap] = [tap(one) for one in followers]
        self._clock = self._noted if later else time.monotonic_ns
        self._now = 0
        self._writing = threading.Lock()  # threads that a run has abandoned record things, too
        self._streams: dict[Address, Chunks] = {}
        self._depth = 0
        self._written: set[str] = set()
        self._skipped: dict[str, str | None] = {}
        self._resumed = False
        self._warned: frozenset[tuple[str, Any]] = frozenset()
        if resumes is None:
            self._open(time.time(), fork)
            return
        self._writer = TraceWriter(
            sink, lines=resumes.lines, t=resumes.t, capture=capture, taps=self._taps
        )
        self._written |= resumes.blobs.keys()
        effects = resumes.effects.values()
        self._skipped = {one.at: one.message for one in effects if one.skipped is not None}
        warnings = (one for one in resumes.events if one["event"] == "warning")
        self._warned = frozenset((one["at"], one.get("text")) for one in warnings)
        self._resumed = True
        self._depth = 1  # the outermost agent has started already
        began: JsonObject = {"wall": _wall(time.time()), "program": program()}
        self._writer.write("trace.resume", {**began, **_options(options, redact)})

    @_timed
    def _open(self, wall: float, fork: Mapping[str, Any] | None) -> None:
        self._writer = TraceWriter(
            self._sink, capture=self._capture, taps=self._taps, clock=self._clock
        )
        fields: JsonObject = {
            "schema": SCHEMA,
            "run": self.run,
            "wall": _wall(wall),
            "agentkit": installed_version("agentkit-replay"),
            "versions": _versions(),
            "capture": self._capture,
            "redaction": {"key_id": self.redact.key_id},
            "program": self._program(),
            "fork": fork,
        }
        self._writer.write("trace.open", fields)

    @property
    def trace(self) -> Path | Callable[[], list[bytes]] | None:
        """Where the trace is found: its file, or its lines so far."""
        match self._sink:
            case FileSink(path=path):
                return path
            case MemorySink():
                return self._lines
            case _:
                return None

    def _lines(self) -> list[bytes]:
        with self._writing:
            if self.notes is not None:
                notes, self.notes = self.notes, []
                for self._now, write, args, kwargs in notes:
                    write(self, *args, **kwargs)
        return cast("MemorySink", self._sink).lines

    def _noted(self) -> int:
        return self._now

    @property
    def resumable(self) -> bool:
        """Whether the run can go on after a pause: all of it is kept somewhere."""
        return self._capture == "full" and self.trace is not None and self.failure is None

    @property
    def failure(self) -> TraceError | None:
        """Why nothing is written any more, if so."""
        error = self._writer.failure if self.notes is None else None
        if error is None or isinstance(error, TraceLocked):
            return error
        return TraceError(f"The trace of {self.run} cannot be written any more: {error}.")

    @property
    def taken(self) -> bool:
        """Whether another process goes on with the run, so that this one has to end."""
        return self.notes is None and self._writer.taken

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
        own = _options(options, self.redact)
        self._agent_start(at, agent, tuple(messages), earlier, own)

    @_timed
    def _agent_start(
        self, at: Address, agent: str, messages: Sequence[Message], earlier: int, own: JsonObject
    ) -> None:
        names = [self._message(message) for message in messages]
        named = self._blob("input", {"messages": names, "earlier": earlier})
        self._writer.write("agent.start", {"at": at, "agent": agent, "input": named, **own})

    def agent_end(self, at: Address, finish: Finish[Any]) -> None:
        """Record that an agent has ended; the end of the outermost one closes the trace.

        A run that is resumed by another agent than its own has not ended: it stays open.
        """
        outermost, error = self._resumed and self._depth == 1, finish.error
        if outermost and error is not None and error.type == "ReplayDivergence":
            self._writer.close()
            return
        fields: JsonObject = {"status": finish.status}
        plain = self.namer.plain
        fields |= output_fields(finish.output, finish.written, self.redact, plain)
        fields |= {"usage": finish.usage.to_json(), "cost": finish.usage.cost}
        if error is not None:
            fields["error"] = self._error(error)
        self._depth -= 1
        self._event("agent.end", at, fields, held=not self._depth)  # the trace's end follows
        if not self._depth:
            self._close(finish.status)

    @_timed
    def _close(self, status: str) -> None:
        self._writer.write("trace.close", {"status": status, "lines": self._writer.lines + 1})
        if self._durability != "none":
            self._writer.sync()
        self._writer.close()

    @_timed
    def _event(self, event: str, at: Address, fields: JsonObject, *, held: bool = False) -> None:
        self._writer.write(event, {"at": at, **fields}, held=held)

    def det(self, at: Address, kind: str, use: int, value: Any) -> None:
        """Record a value that was not deterministic; `use` counts those of one kind and address."""
        self._event("det", at, {"kind": kind, "use": use, "value": packed(value, self.redact)})

    def log(self, at: Address, level: str, text: Any, data: Mapping[str, Any]) -> None:
        """Record a line that the application logged inside an effect; see `to_trace`."""
        texts = {"text": packed(text, self.redact), "data": packed(data, self.redact)}
        self._event("log", at, {"level": level, **texts})

    @_timed
    def started(self, effect: Effect) -> None:
        """Record that an effect begins."""
        match effect:
            case ModelCall():
                self._model_start(effect)
            case ToolInvocation(at=at, call=call):
                fields: JsonObject = {"at": at, **self._call(call)}
                fp = _fingerprint(call.name, fields["arguments"])
                fields["effect"] = effect.effect
                if effect.on_crash is not None:
                    fields["on_crash"] = effect.on_crash
                fields["fp"] = fp
                self._writer.write("tool.start", fields)
            case Compute(at=at, name=name):
                fields = {"at": at, "name": name}
                if effect.effect == "write":
                    arguments = packed(effect.input, self.redact)
                    fields |= {"arguments": arguments, "effect": "write"}
                if effect.on_crash is not None:
                    fields["on_crash"] = effect.on_crash
                fields["fp"] = compute_fingerprint(effect, self.redact)
                self._writer.write("compute.start", fields)
            case Pause(pending=pending):
                for one in pending:  # in one write: what waits together is recorded together
                    held = one is not pending[-1]
                    fields = {"at": one.at, "kind": one.kind, **self._call(one.call)}
                    self._writer.write("tool.pending", fields, held=held)

    def _model_start(self, call: ModelCall) -> None:
        request = call.request
        if self._stream:
            self._streams[call.at] = Chunks(self.redact, self._clock)
        named = self.namer.request(call)
        for message in named.new:
            self._message(message)
        if named.tools not in self._written:
            self._write_blob("tools", *self.namer.tools_blob(request.tools))
        if named.output is not None:
            self._write_blob("output", *named.output)
        fields: JsonObject = {
            "at": call.at,
            "model": named.model,
            "since": named.since and str(named.since),
            "messages": named.messages,
            "tools": named.tools,
            "params": named.params,
            "stream": self._stream,
            "fp": named.fingerprint,
        }
        self._writer.write("model.start", fields)

    @_timed
    def ended(self, effect: Effect, outcome: Outcome | None) -> None:
        """Record that an effect has ended; None means that it was cancelled."""
        at = effect.at
        match effect:
            case ModelCall():
                fields = self._end(at, outcome)
                if (stream := self._streams.pop(at, None)) is not None:
                    if ready := stream.rest():
                        self._writer.write("model.chunks", {"at": at, "d": ready})
                    if stream.first is not None:
                        fields["first_chunk"] = stream.first
                self._writer.write("model.end", fields)
            case ToolInvocation():
                # A call that ends without an outcome of its own ends with its run.
                ended = None if isinstance(outcome, Failure) else outcome
                self._writer.write("tool.end", self._end(at, ended))
            case Compute():
                self._writer.write("compute.end", self._end(at, outcome))
            case Pause(pending=pending):
                decided = outcome.made if isinstance(outcome, Suspended) else outcome
                given = decided if isinstance(decided, tuple) else ()
                decisions = cast("Sequence[Decision | None]", given)
                for one, decision in zip(pending, decisions, strict=False):  # none, if it failed
                    if decision is not None:
                        fields = {
                            "at": one.at,
                            "decision": decision.kind,
                            "reason": packed(decision.text, self.redact),
                            "by": packed(decision.by, self.redact),
                        }
                        self._writer.write("tool.decision", fields)

    @_timed
    def skipped(self, skipped: SkippedCall) -> None:
        """Record that no tool runs a call; once, where the run was resumed after it."""
        message = None if skipped.message is None else self._message(skipped.message)
        if self._skipped.get(skipped.at, "") != message:
            fields: JsonObject = {"at": skipped.at, **self._call(skipped.call)}
            fields |= {"reason": skipped.reason, "message": message}
            self._writer.write("tool.skip", fields)

    def note(self, warned: Warned) -> None:
        """Record a warning about an agent; once, where the run was resumed after it."""
        if (warned.at, packed(warned.text, self.redact)) not in self._warned:
            self.event(warned)

    @_timed
    def event(self, event: Event) -> None:
        """Record an event inside an effect."""
        if isinstance(event, Delta):
            at = model_of(event)
            if (stream := self._streams.get(at)) is not None and (ready := stream.take(event)):
                self._writer.write("model.chunks", {"at": at, "d": ready})
            return
        match event:
            case HttpStarted(at=at, attempt=attempt, host=host):
                # The model call has begun: its first attempt may be written later.
                fields: JsonObject = {"at": at, "attempt": attempt, "host": host}
                self._writer.write("http.start", fields, held=not attempt)
            case HttpFinished(at=at, delay=delay):
                again = event.retry_after
                fields = _given({"at": at, "status": event.status, "retry_after": again})
                if delay is not None:
                    fields["delay"] = round(delay * 1e6)
                if event.request_id is not None or event.error is not None:
                    texts = _given({"request_id": event.request_id, "error": event.error})
                    fields |= self._texts(texts, own=True)
                self._writer.write("http.end", fields, held=delay is None)
            case ToolProgress(at=at, value=value):
                fields = {"at": at, "d": [packed(value, self.redact)]}
                self._writer.write("tool.chunks", fields)
            case Warned(at=at, code=code, text=text, data=data):
                texts = {"text": packed(text, self.redact), "data": packed(data, self.redact)}
                self._writer.write("warning", {"at": at, "code": code, **texts})
            case _:
                pass  # the effects themselves record it

    @_timed
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
            self._writer.write(fields.pop("event"), fields)

    def _end(self, at: Address, outcome: Outcome | None) -> JsonObject:
        """Return the fields that say how the effect at an address ended."""
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
                    "at": at,
                    "status": "ok",
                    "message": self._message(outcome.message),
                    "finish": outcome.finish,
                    "usage": outcome.usage.to_json(),
                    "response": self._texts(_given(rest)),
                }
            case ToolOutcome(error=error, usage=usage):
                message = self._message(outcome.message)
                fields: JsonObject = {"at": at, "status": outcome.status, "message": message}
                if error is not None:
                    fields["error"] = self._error(error)
                if outcome.fatal:
                    fields["fatal"] = True
                if usage is not NO_USAGE and (used := usage.to_json()):
                    fields["usage"] = used
                return fields
            case Value(value=value, usage=usage):
                used = _given({"usage": usage.to_json() or None})
                return {"at": at, "status": "ok", "value": packed(value, self.redact), **used}
            case Failure():
                return {"at": at, "status": "error", "error": self._error(outcome)}
            case Interrupt(status="paused"):
                return {"at": at, "status": "paused"}
            case _:
                return {"at": at, "status": "cancelled"}

    def _call(self, call: ToolCall) -> JsonObject:
        texts = {"tool": call.name, "call": call.id, "arguments": call.arguments}
        return self._texts(texts, own=True)

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
        """Fields, packed."""
        return fields if is_plain(fields, self.redact) else packed(fields, self.redact, own=own)

    def _message(self, message: Message) -> str:
        name, content, _ = self.namer.known(message)
        if name not in self._written:
            self._write_blob("message", name, content)
        return name

    def _blob(self, kind: str, data: Any) -> str:
        content = canonical(data)
        name = digest(content)
        self._write_blob(kind, name, content)
        return name

    def _write_blob(self, kind: str, name: str, content: bytes) -> None:
        if name in self._written:
            return
        self._written.add(name)
        self._writer.write("blob", {"h": name, "kind": kind, "data": content}, held=True)


class RecordingHandler:
    """Records each effect and its outcome around the handler that performs it."""

    def __init__(self, inner: Handler, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    async def perform(self, effect: Effect) -> Outcome:
        """Perform through the inner handler. Writing is synchronous: nothing is awaited here."""
        recorder = self._recorder
        recorder.started(effect)
        bound = recorder.durable or recorder.taken
        if bound and (stop := await self._unsafe(effect)) is not None:
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
        return (_lost(recorder) or outcome) if recorder.taken else outcome

    async def _unsafe(self, effect: Effect) -> Interrupt | None:
        """Return the end of the run, unless the beginning of this effect is safely on the disk."""
        if _acts(effect):
            await self._recorder.on_disk()
        return _lost(self._recorder)


class DurableHandler:
    """Waits at the end of each effect until its record is on the disk.

    It stands around the handler with the listener, so that events come in the order of the
    trace, however long the disk takes.
    """

    def __init__(self, inner: Handler, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    async def perform(self, effect: Effect) -> Outcome:
        """Perform through the inner handler."""
        outcome = await self._inner.perform(effect)
        await self._recorder.on_disk()
        if isinstance(effect, ToolInvocation):
            return outcome  # a call is answered, and the next effect is the end
        return _lost(self._recorder) or outcome


def _lost(recorder: Recorder) -> Interrupt | None:
    """Return the end of a run whose trace cannot be written any more."""
    error = recorder.failure
    return None if error is None else Interrupt(status="error", error=Failure.of(error))


def _acts(effect: Effect) -> bool:
    """Whether performing it twice may do harm."""
    match effect:
        case ToolInvocation(effect=does) | Compute(effect=does):
            return does != "read"
        case _:
            return False


def _options(options: Mapping[str, Any] | None, redact: Redactor) -> JsonObject:
    """Return the field with the settings and limits of one run, if it was given any."""
    given = dict(options or {})
    if "settings" in given:
        given["settings"] = Packed(hidden_settings(given["settings"], redact))
    return {"options": packed(given, redact, own=True)} if given else {}


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


_NOT_FROZEN = {Compute, Value, ToolProgress, Failure, ToolOutcome}
"""What holds values of the application's, or exceptions with their stacks."""


def _frozen(value: Any, redact: Redactor) -> Any:
    """Return an argument as it may be kept: values as they are now, failures without a stack."""
    match value:
        case Compute(input=given):
            return replace(value, input=_packed(given, redact))
        case Value(value=given) | ToolProgress(value=given):
            return replace(value, value=_packed(given, redact))
        case Failure(parts=parts):
            kept = tuple(_frozen(part, redact) for part in parts)
            return replace(value, exception=None, parts=kept)
        case ToolOutcome(error=Failure() as error):
            return replace(value, error=_frozen(error, redact))
        case _:
            return value


def _packed(value: Any, redact: Redactor) -> Any:
    kept = value is None or type(value) in (str, int, float, bool)
    return value if kept else Packed(packed(value, redact))


def _wall(seconds: float) -> str:
    """Write a time of the system's clock in ISO 8601, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _given(fields: Mapping[str, Any]) -> JsonObject:
    return {key: value for key, value in fields.items() if value is not None}


@functools.cache
def _versions() -> JsonObject:
    libraries = {name: installed_version(name) for name in ("pydantic", "httpx2")}
    return {"python": platform.python_version(), **libraries}


@functools.cache
def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None where it runs from sources."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
