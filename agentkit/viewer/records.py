"""What a page knows of a run, as records: small JSON objects that may come one after the other.

A record replaces the one before it with the same `type`, `side` and `at` or `name`. So a page
that was made from a file, and one that is sent the records of a run as it goes on, are filled
in the same way: whatever is new or has changed is sent, in any order.

- `page`: what all pages know: `marks`, how a status is shown; `failed`, which are failures;
  `program`, how the commands begin that the page offers; `app`, the agent that they name.
- `run`: one run: what `agentkit runs --json` lists of it, and `header`, `t`, `pending`.
- `effect`: one effect, by its address: its events, and what Python knows of it.
- `blob`: a message, or another content, by its hash.
- `source`: the code of a tool, by its name.
- `diff`: `TraceDiff.to_json()` of two runs.

Times are microseconds since the trace was opened.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from agentkit.errors import AgentKitError, InvalidTool, TraceCorrupt
from agentkit.events import ToolCallDelta
from agentkit.messages import JsonObject, is_array, is_object
from agentkit.schema.repair import load
from agentkit.schema.walk import at
from agentkit.tools.raw import RawChecker, compiled
from agentkit.tools.validation import Problem
from agentkit.trace.deltas import Delta, described
from agentkit.trace.effects import HttpAttempt, RecordedEffect
from agentkit.trace.outline import open_calls, why_skipped
from agentkit.trace.reader import Trace
from agentkit.trace.summary import summary
from agentkit.trace.words import FAILED, MARKS, decided, forked_from

_FRAME = ("event", "at")
_PRECISE = 2**53
"""Integers beyond this are not exact in a browser."""
_LONG_NUMBER = re.compile(r"[\[:,]-?\d{16,}[,\]}]")


def words(program: str, app: str | None = None) -> JsonObject:
    """Return the record of what all pages know."""
    return {
        "type": "page",
        "marks": MARKS,
        "failed": FAILED,
        "program": program,
        "app": app or "FILE.py:NAME",
    }


def records(trace: Trace, side: str = "a", known: Container[str] = ()) -> Iterator[JsonObject]:
    """Yield the records of one run: itself, its effects, and the contents that they name.

    Args:
        trace: The run, as far as it was recorded.
        side: `a`, or `b` of the second of two runs.
        known: The names of contents that are left out.

    Raises:
        TraceCorrupt: An event or a content is damaged.
    """
    yield {"side": side, **_run(trace)}
    checks = _Checks(trace)
    for effect in trace.effects.values():
        yield {"side": side, **_effect(trace, effect, checks)}
        if effect.kind == "model":
            for place, node in open_calls(trace.effects, effect).items():
                call = {"at": place, "kind": "tool", "name": node.label, "arguments": node.detail}
                yield {"type": "effect", "side": side, **call, "status": node.status or "pending"}
    for name in trace.blobs:
        if name not in known:
            yield {"type": "blob", "name": name, "data": trace.blobs[name]}


def line_of(record: JsonObject) -> str:
    """Return a record as a line of ASCII JSON, in which a browser reads every number exactly.

    Raises:
        TraceCorrupt: It is nested too deeply.
    """
    try:
        try:
            line = _dumped(record)
        except (ValueError, TypeError):  # an infinity, or bytes
            return _dumped(_exact(record))
        return _dumped(_exact(record)) if _LONG_NUMBER.search(line) else line
    except RecursionError as error:
        raise TraceCorrupt("The trace holds a value that is nested too deeply to show.") from error


def _dumped(record: Any) -> str:
    return json.dumps(record, separators=(",", ":"), allow_nan=False)


def _exact(value: Any) -> Any:
    """Return a value with marks, as a trace has them, where a browser has no number for it."""
    match value:
        case dict():
            return {name: _exact(item) for name, item in cast("JsonObject", value).items()}
        case list() | tuple():
            return [_exact(item) for item in cast("Sequence[Any]", value)]
        case bool():
            return value
        case int() if abs(value) >= _PRECISE:
            return {"$nonjson": "int", "value": str(value)}
        case float() if not math.isfinite(value):
            return {"$nonjson": "float", "value": repr(value)}
        case bytes():
            return {"$nonjson": "bytes", "value": base64.b64encode(value).decode()}
        case _:
            return value


def _run(trace: Trace) -> JsonObject:
    run = summary(trace)
    fork: JsonObject | None = run["fork"]
    return {
        "type": "run",
        **run,
        "forked": None if not fork else forked_from(fork),
        "capture": trace.capture,
        "header": trace.header,
        "t": trace.t,
        "torn": trace.torn,
        "root": trace.agent_start.get("at"),
        "resumed": sum(event["event"] == "trace.resume" for event in trace.events),
        "pending": [{"at": one.at, "kind": one.kind} for one in trace.pending],
    }


def _effect(trace: Trace, effect: RecordedEffect, checks: _Checks) -> JsonObject:
    """Return everything about one effect; what is empty is left out."""
    status, note = effect.status, ""
    if effect.skipped is not None:
        status, note = why_skipped(trace.effects, effect)
        status = {"repeated": "skipped", "limit": "skipped"}.get(effect.skipped, status)
    decision, pending = effect.decision, effect.pending
    record: JsonObject = {
        "type": "effect",
        "at": effect.at,
        "kind": effect.kind,
        "name": effect.name,
        "status": status,
        "note": note,
        "began": effect.began and effect.began.t,
        "ended": effect.ended and effect.ended.t,
        "in_doubt": effect.in_doubt,
        "arguments": effect.arguments,
        "output": effect.packed_output if effect.kind == "agent" else None,
        "usage": effect.usage.to_json(),
        "waited": pending and pending.kind,
        "decision": decision and decided(decision),
        "attempts": [_attempt(one) for one in effect.attempts],
        "deltas": [[one.t, _delta(one.delta)] for one in effect.deltas],
        "progress": effect.progress,
        "dets": [asdict(one) for one in effect.dets],
        "warnings": [
            {"code": one.code, "text": one.text, "data": one.data} for one in effect.warnings
        ],
        "logs": [
            {"t": one.t, "level": one.level, "text": one.text, "data": one.data}
            for one in effect.logs
        ],
        "problems": checks.problems(effect),
        "start": _rest(effect.start),
        "end": _rest(effect.end),
        "skip": _rest(effect.skip),
    }
    return {name: value for name, value in record.items() if value or type(value) is int}


class _Checks:
    """Checks arguments against the schemas of the requests that led to them."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._checkers: dict[tuple[str, str], RawChecker | None] = {}

    def problems(self, effect: RecordedEffect) -> list[JsonObject]:
        """Return what is wrong with the arguments of a tool call, by JSON pointer."""
        step = self._trace.effects.get(effect.at.parent)
        if effect.kind != "tool" or not effect.arguments or step is None or step.tools is None:
            return []
        checker = self._checker(step.tools, effect.name)
        if checker is None:
            return []
        try:
            found = checker.check(load(effect.arguments)[0], strict=True)
        except AgentKitError as error:
            return [{"where": "/", "text": error.message}]
        if not is_array(found):
            return []
        wrong = [p for p in found if p.value is not ... or not _may_be_left_out(checker.schema, p)]
        return [{"where": p.where, "text": p.text} for p in wrong]

    def _checker(self, tools: str, name: str) -> RawChecker | None:
        if (tools, name) not in self._checkers:
            self._checkers[tools, name] = self._compiled(tools, name)
        return self._checkers[tools, name]

    def _compiled(self, tools: str, name: str) -> RawChecker | None:
        for one in self._trace.blobs.get(tools, ()):
            match one:
                case {"function": {"name": str(other), "parameters": {**schema}}} if other == name:
                    try:
                        return RawChecker(compiled(name, schema), schema)
                    except InvalidTool:
                        return None
                case _:
                    pass
        return None


def _may_be_left_out(schema: JsonObject, missing: Problem) -> bool:
    """Return whether null stands for a property that is left out, as in the strict form."""
    return any(
        "null" in (kind if is_array(kind := one.get("type")) else [kind])
        or None in one.get("enum", ())
        or any(
            is_object(branch) and branch.get("type") == "null" for branch in one.get("anyOf", ())
        )
        for one in at(schema, missing.path)
    )


def _rest(event: Mapping[str, Any] | None) -> JsonObject | None:
    if event is None:
        return None
    return {name: value for name, value in event.items() if name not in _FRAME}


def _attempt(attempt: HttpAttempt) -> JsonObject:
    described = {
        "number": attempt.number,
        "host": attempt.host,
        "began": attempt.began.t,
        "ended": attempt.ended and attempt.ended.t,
        "status": attempt.status,
        "retry_after": attempt.retry_after,
        "delay": attempt.delay,
        "request_id": attempt.request_id,
        "error": attempt.error,
    }
    return {name: value for name, value in described.items() if value is not None}


def _delta(delta: Delta) -> Any:
    piece = described(delta)
    return {**piece, "at": delta.at} if isinstance(delta, ToolCallDelta) else piece
