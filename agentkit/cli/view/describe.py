"""A trace as JSON documents: the run, and everything about one address.

Contents stand where the trace has hashes. Values that JSON cannot hold stay
marked, as in the trace.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterable, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from pydantic_core import from_json

from agentkit.cli.console import command_line
from agentkit.errors import AgentKitError, TraceCorrupt, TraceError
from agentkit.messages import JsonObject
from agentkit.trace.check import DAMAGE
from agentkit.trace.deltas import described as described_delta
from agentkit.trace.effects import HttpAttempt, RecordedEffect
from agentkit.trace.reader import Trace
from agentkit.trace.summary import summary

_FRAME = ("event", "seq", "t", "at")
_CANDIDATES = 20
"""Addresses that are listed where one has to be chosen."""


@contextmanager
def damage_named(trace: Trace) -> Generator[None]:
    """Turn what an odd event leads to into an error of its file: anybody may have written it."""
    try:
        yield
    except AgentKitError:
        raise
    except (*DAMAGE, ArithmeticError) as error:
        raw = command_line("show", str(trace.path), "--raw")
        raise TraceCorrupt(
            f"The trace {str(trace.path)!r} holds an event that cannot be shown "
            f"({type(error).__name__}: {error}). `{raw}` prints its lines.",
            path=str(trace.path),
        ) from error


def describe_run(trace: Trace) -> JsonObject:
    """Return the whole run: its summary, and its effects in the order in which they began."""
    pending = [
        {"at": one.at, "kind": one.kind, "tool": one.call.name, "arguments": one.call.arguments}
        for one in trace.pending
    ]
    effects = (one for one in trace.effects.values() if one.kind != "agent" and one.begun)
    return {
        **summary(trace),
        "pending": pending,
        "effects": [_filled(trace, _fields(one), ("message",)) for one in effects],
        "torn": trace.torn,
        "header": _rest(trace.header),
    }


def describe(trace: Trace, at: str) -> JsonObject:
    """Return everything about an effect: how it began and ended, and what happened in between."""
    effect = trace.effects[at]
    described = _filled(trace, _fields(effect), ("message", "input"))
    if effect.kind == "model":
        described["messages"] = [_blob(trace, name) for name in effect.messages]
        described["tools"] = _blob(trace, effect.tools or "")
        params = described.get("params", {})
        if "output" in params:
            described["params"] = params | {"output": _blob(trace, params["output"])}
    decision = effect.decision
    began = effect.began.t if effect.began is not None else 0
    more = {
        "http": [_attempt(one) for one in effect.attempts],
        "chunks": [[(one.t - began) / 1e6, described_delta(one.delta)] for one in effect.deltas],
        "progress": effect.progress,
        "waited": effect.pending and effect.pending.kind,
        "decision": decision and {"kind": decision.kind, "text": decision.text, "by": decision.by},
        "warning": [{"code": one.code, "text": one.text, **one.data} for one in effect.warnings],
        "inside": [one for one in trace.effects if one.startswith(f"{at}/")],
    }
    return described | {name: value for name, value in more.items() if value}


def _fields(effect: RecordedEffect) -> JsonObject:
    """Return the fields of a start and an end, with times in seconds."""
    start, end = effect.start, effect.end
    described: JsonObject = {"at": effect.at, "kind": effect.kind, "status": effect.status}
    if start is not None:
        described |= _rest(start) | {"started": start["t"] / 1e6}
        described.pop("messages", None)  # the history so far, at each step: `--at` has it
        described.pop("tools", None)
    elif effect.call is not None:
        status = effect.skipped or effect.status
        described |= {"tool": effect.name, "arguments": effect.arguments, "status": status}
        if effect.message is not None:
            described["message"] = effect.message
    if end is not None:
        described |= _rest(end)
    if described.pop("output_at", None) is not None:
        described.pop("output_key", None)
        described["output"] = effect.packed_output
    return (
        described if effect.seconds is None else described | {"seconds": round(effect.seconds, 6)}
    )


def _attempt(attempt: HttpAttempt) -> JsonObject:
    """Return an HTTP attempt with times in seconds."""
    ended, delay = attempt.ended, attempt.delay
    described = {
        "host": attempt.host,
        "status": "in flight" if ended is None else attempt.status,
        "seconds": ended and round((ended.t - attempt.began.t) / 1e6, 6),
        "error": attempt.error,
        "request_id": attempt.request_id,
        "delay": delay if delay is None else delay / 1e6,
    }
    return {name: value for name, value in described.items() if value is not None}


def _rest(event: JsonObject) -> JsonObject:
    return {name: value for name, value in event.items() if name not in _FRAME}


def _filled(trace: Trace, fields: JsonObject, names: tuple[str, ...]) -> JsonObject:
    blobs = {name: _blob(trace, fields[name]) for name in names if fields.get(name)}
    if isinstance(blobs.get("input"), dict):  # of an agent: messages by their names
        messages = [_blob(trace, name) for name in blobs["input"]["messages"]]
        blobs["input"] = blobs["input"] | {"messages": messages}
    return fields | blobs


def _blob(trace: Trace, name: str) -> Any:
    """Return the data of a blob; its name where contents were not recorded."""
    return trace.blobs.get(name, name)


def lines_at(trace: Trace, at: str) -> Generator[bytes]:
    """Yield the trace's own lines about an address, as they were written."""
    for line in trace.raw():
        where = from_json(line).get("at", "")
        if where == at or (where.startswith(f"{at}/h") and where.rpartition("/")[0] == at):
            yield line


def address_in(trace: Trace, text: str) -> str:
    """Return the address of an effect that a whole one or the end of one stands for.

    Of several that end so, it is the one right below the root agent. As in the tree, the names
    of agents may be left out.
    """
    known = [*trace.effects]
    ends = ends_with(trace, known, text)
    root = trace.agent_start.get("at", "")
    for whole in (text, f"{root}/{text.strip('/')}"):
        if whole in known:
            return whole
    if len(ends) == 1:
        return ends[0]
    near = ends or get_close_matches(text, known, n=5, cutoff=0.3)
    has = "more than one address that ends with" if ends else "no address"
    limit = _CANDIDATES if ends else 5
    listed = ", ".join((near or known)[:limit]) + " …" * (len(near or known) > limit)
    raise TraceError(
        f"The run has {has} {text!r}; {'nearest' if near and not ends else 'it has'}: {listed}. "
        f"`{command_line('show', str(trace.path))}` shows all.",
        path=str(trace.path),
    )


def ends_with(trace: Trace, addresses: Iterable[str], text: str) -> list[str]:
    """Return those of the addresses that end so; if none does, so without the names of agents."""
    end = text.strip("/")
    if not end:
        return []
    whole = [at for at in addresses if at == text or at.endswith(f"/{end}")]
    agents = {at for at, effect in trace.effects.items() if effect.kind == "agent"}
    return whole or [at for at in addresses if _ends_without(at, agents, end.split("/"))]


def _ends_without(at: str, agents: Container[str], end: Sequence[str]) -> bool:
    """Whether an address ends with these parts, where the names of agents are left out."""
    rest = list(end)
    while rest and at:
        above, _, last = at.rpartition("/")
        if last == rest[-1]:
            rest.pop()
        elif at not in agents or len(rest) == len(end):
            return False
        at = above
    return not rest
