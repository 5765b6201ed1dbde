"""A trace as JSON documents: the run, and everything about one address.

Contents stand where the trace has hashes. Values that JSON cannot hold stay
marked, as in the trace.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from pydantic_core import from_json

from agentkit.cli.console import command_line
from agentkit.cli.find import state_of
from agentkit.errors import AgentKitError, TraceCorrupt, TraceError
from agentkit.messages import JsonObject, Usage
from agentkit.trace.reader import Trace

_FRAME = ("event", "seq", "t", "at")


@contextmanager
def careful(trace: Trace) -> Generator[None]:
    """Anybody may have written the file: an odd event is an error in it, not in this program."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raw = command_line("show", str(trace.path), "--raw")
        raise TraceCorrupt(
            f"The trace {str(trace.path)!r} holds an event that cannot be shown "
            f"({type(error).__name__}: {error}). `{raw}` prints its lines.",
            path=str(trace.path),
        ) from error


def summary(trace: Trace) -> JsonObject:
    """What a list of runs says of one. Times are in seconds."""
    first: JsonObject = {}
    last: JsonObject = {}
    steps, calls, usage, t = 0, 0, Usage(), 0
    for event in trace.events:
        t = event.get("t", t)
        match event["event"]:
            case "agent.start":
                first = first or event
            case "agent.end":
                last = event
            case "model.start":
                steps += 1
            case "tool.start":
                calls += 1
            case "model.end":
                usage += Usage.from_json(event.get("usage", {}))
            case _:
                pass
    if last.get("at") == first.get("at") and "usage" in last:
        usage = Usage.from_json(last["usage"])  # also counts what failed and cost something
    else:
        last = {}  # a sub-agent's
    return {
        "file": None if trace.path is None else str(trace.path),
        "run": trace.run,
        "wall": trace.header.get("wall"),
        "status": state_of(trace),
        "fork": trace.header.get("fork"),
        "agent": first.get("agent"),
        "prompt": _prompt(trace),
        "steps": steps,
        "tool_calls": calls,
        "usage": usage.to_json(),
        "cost": usage.cost,
        "seconds": t / 1e6,
        "output": last.get("output"),
        "error": last.get("error"),
    }


def _prompt(trace: Trace) -> Any:
    try:
        messages, _ = trace.input()
    except AgentKitError:
        return None  # no agent has started, or what it was given is not in the trace
    return messages[-1].to_json()["content"] if messages else None


def describe_run(trace: Trace) -> JsonObject:
    """The whole run: what `summary` says, and its effects in the order in which they began."""
    pending = [
        {"at": one.at, "kind": one.kind, "tool": one.call.name, "arguments": one.call.arguments}
        for one in trace.pending
    ]
    effects: dict[str, JsonObject] = {}
    for event in trace.events:
        kind, _, part = event["event"].partition(".")
        if kind in ("model", "tool", "compute") and part in ("start", "end"):
            effect = effects.setdefault(event["at"], {"at": event["at"], "kind": kind})
            effect |= _filled(trace, _timed(effect, event, part), ("message",))
            effect.pop("messages", None)  # the history so far, at each step: `--at` has it
            effect.pop("tools", None)
    header = {name: value for name, value in trace.header.items() if name not in _FRAME}
    return {
        **summary(trace),
        "pending": pending,
        "effects": [*effects.values()],
        "torn": trace.torn,
        "header": header,
    }


def _never_begun(trace: Trace, parts: dict[str, list[Any]]) -> JsonObject:
    """Describe a call that no tool ran, or that waits for a decision."""
    skips = parts.pop("tool", ())
    if skips and "gate" not in parts:
        event = skips[0]
        message = _blob(trace, event["message"]) if event["message"] else None
        rest = {name: value for name, value in event.items() if name != "event"}
        return {"kind": "tool", "status": "skipped", **rest, "message": message}
    if "gate" in parts:
        asked, last = parts["gate"][0], parts["gate"][-1]
        status, arguments = last.get("decision", "paused"), asked.get("arguments", "")
        return {"kind": "tool", "status": status, "tool": asked["call"], "arguments": arguments}
    return {}


def describe(trace: Trace, at: str) -> JsonObject:
    """Everything about one address: how it began and ended, and what happened on the way."""
    found: JsonObject = {"at": at, "kind": None}
    attempts: dict[str, JsonObject] = {}
    parts: dict[str, list[Any]] = {}
    inside: list[str] = []
    for event in trace.events:
        kind, _, part = event["event"].partition(".")
        where = event.get("at", "")
        if kind == "http" and where.rpartition("/")[0] == at:
            attempt = attempts.setdefault(where, {})
            attempt |= _timed(attempt, event, part)
        elif where.startswith(f"{at}/") and part == "start":
            inside.append(where)
        elif where != at:
            continue
        elif part in ("start", "end"):
            found |= {"kind": kind} | _filled(
                trace, _timed(found, event, part), ("message", "input", "tools")
            )
        elif part == "chunks":
            parts.setdefault("chunks", []).extend(event["d"])
        else:
            parts.setdefault(kind, []).append(_rest(event) | {"event": event["event"]})
    if found["kind"] is None:
        found |= _never_begun(trace, parts)
    if "messages" in found:
        found["messages"] = [_blob(trace, name) for name in trace.effects[at].messages]
    params = found.get("params", {})
    if "output" in params:
        found["params"] = params | {"output": _blob(trace, params["output"])}
    more = {"http": [*attempts.values()], **parts, "inside": inside}
    return found | {name: value for name, value in more.items() if value}


def _timed(so_far: Mapping[str, Any], event: JsonObject, part: str) -> JsonObject:
    """The fields of a start or an end, with times in seconds."""
    seconds = event["t"] / 1e6
    if part == "start":
        return {"status": "in flight", **_rest(event), "started": seconds}
    started = so_far.get("started")
    return _rest(event) | {"seconds": None if started is None else round(seconds - started, 6)}


def _rest(event: JsonObject) -> JsonObject:
    return {name: value for name, value in event.items() if name not in _FRAME}


def _filled(trace: Trace, fields: JsonObject, names: tuple[str, ...]) -> JsonObject:
    blobs = {name: _blob(trace, fields[name]) for name in names if name in fields}
    if isinstance(blobs.get("input"), dict):  # of an agent: messages by their names
        messages = [_blob(trace, name) for name in blobs["input"]["messages"]]
        blobs["input"] = blobs["input"] | {"messages": messages}
    return fields | blobs


def _blob(trace: Trace, name: str) -> Any:
    """What stands under a hash; the hash where contents were not recorded."""
    return trace.blobs.get(name, name)


def lines_at(trace: Trace, at: str) -> Generator[bytes]:
    """The trace's own lines about an address, as they were written."""
    for line in trace.raw():
        where = from_json(line).get("at", "")
        if where == at or (where.startswith(f"{at}/h") and where.rpartition("/")[0] == at):
            yield line


def address_in(trace: Trace, given: str) -> str:
    """The address that somebody means: a whole one, or the end of one.

    Of several that end so, the one that the root agent's name alone makes whole is meant.

    Raises:
        TraceError: There is none, or more than one.
    """
    known = dict.fromkeys(event["at"] for event in trace.events if event.get("at"))
    ends = [at for at in known if at == given or at.endswith(f"/{given.strip('/')}")]
    root = trace.agent_start.get("at", "")
    for whole in (given, f"{root}/{given.strip('/')}"):
        if whole in known:
            return whole
    if len(ends) == 1:
        return ends[0]
    near = ends or get_close_matches(given, known, n=5, cutoff=0.3)
    has = "more than one address that ends with" if ends else "no address"
    listed = ", ".join((near or [*known])[:5]) + " …" * (len(near or known) > 5)
    raise TraceError(
        f"The run has {has} {given!r}; {'nearest' if near and not ends else 'it has'}: {listed}. "
        f"`{command_line('show', str(trace.path))}` shows all.",
        path=str(trace.path),
    )
