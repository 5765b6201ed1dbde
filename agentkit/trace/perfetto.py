"""A trace as the JSON that Perfetto and Chrome's about:tracing open."""

from __future__ import annotations

from collections.abc import Iterator

from agentkit.messages import JsonObject
from agentkit.trace.reader import Trace
from agentkit.trace.spans import Span, spans_of

MARK = '{"traceEvents": [{"ph": "M", "name": "process_name", "pid": 1, "tid": 1, "args": {"run":'
"""How the JSON of every run begins."""


def perfetto(trace: Trace, *, content: bool = False) -> JsonObject:
    """Return the slices of a run, in Chrome's Trace Event Format.

    Times are microseconds since the trace was opened, without those between a pause and
    what came after. Slices of one thread have to lie side by side or one in the other, so
    what ran at the same time stands in lanes of its own. What no tool ran is an instant.

    Args:
        trace: The trace.
        content: Whether slices hold messages, arguments, results and the texts of errors.

    Raises:
        TraceCorrupt: An event lacks what it has to have.
    """
    lanes: list[list[Span]] = []
    spans = spans_of(trace.effects, content=content)
    ordered = sorted(spans, key=lambda one: (one.start, -_end(one), len(one.at)))
    slices = [_slice(span) | {"pid": 1, "tid": _lane(lanes, span) + 1} for span in ordered]
    header = trace.header
    return {
        "traceEvents": [*_names(trace.run, len(lanes)), *slices],
        "displayTimeUnit": "ms",
        "otherData": {"run": trace.run, "wall": header.get("wall"), "status": trace.status},
    }


def _lane(lanes: list[list[Span]], span: Span) -> int:
    """Return the lane of a span, and put it there.

    A lane is the stack of what is open in it. A span stands in the innermost one that has
    caused it and does not end before it, or else in a lane where nothing is open.
    """
    best, depth = len(lanes), -1
    for number, lane in enumerate(lanes):
        while lane and _over(lane[-1], span):
            lane.pop()
        fits = not lane or (_caused(lane[-1], span) and _end(span) <= _end(lane[-1]))
        if fits and (deep := len(lane[-1].at) if lane else 0) > depth:
            best, depth = number, deep
    if best == len(lanes):
        lanes.append([])
    lanes[best].append(span)
    return best


def _over(one: Span, then: Span) -> bool:
    return _end(one) < then.start or (_end(one) == then.start and not _caused(one, then))


def _caused(outer: Span, inner: Span) -> bool:
    return f"{inner.parent}/".startswith(f"{outer.at}/")


def _end(span: Span) -> int:
    return span.start if span.end is None else span.end


def _slice(span: Span) -> JsonObject:
    known = {**span.attributes}
    if span.error is not None and span.error[1]:
        known["error.message"] = span.error[1]
    operation = known.get("gen_ai.operation.name") or ("http" if span.client else "compute")
    common: JsonObject = {"name": span.name, "cat": operation, "ts": span.start, "args": known}
    if "agentkit.tool.skipped" in known:
        return common | {"ph": "i", "s": "t"}
    return common | {"ph": "X", "dur": _end(span) - span.start}


def _names(run: str, lanes: int) -> Iterator[JsonObject]:
    yield _meta("process_name", 0, {"run": run, "name": f"agentkit run {run}"})
    for lane in range(lanes):
        yield _meta("thread_name", lane, {"name": "run" if lane == 0 else f"parallel {lane}"})
        yield _meta("thread_sort_index", lane, {"sort_index": lane})


def _meta(name: str, lane: int, args: JsonObject) -> JsonObject:
    return {"ph": "M", "name": name, "pid": 1, "tid": lane + 1, "args": args}
