"""The outline of a run: its steps and calls by address, as trees of them show them.

The command line draws it on a terminal, and `agentkit.trace.html` in a notebook.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from agentkit.core.effects import Address
from agentkit.messages import NO_USAGE, Usage
from agentkit.trace.effects import RecordedEffect
from agentkit.trace.index import RecordedEffects
from agentkit.trace.words import as_text, decided


@dataclass(slots=True, kw_only=True)
class Node:
    """A step or a call.

    Attributes:
        label: What it is: `step`, or the name of a tool.
        detail: The model, or the arguments.
        started: When it began, in seconds; None if it never did.
        ended: When it ended.
        status: How it ended, one of `MARKS`; None if it has not.
        result: The answer, the tool's result or the error.
        usage: What it has used.
        notes: Retries, warnings and decisions, in words.
    """

    label: str
    detail: str
    started: float | None
    ended: float | None = None
    status: str | None = None
    result: str = ""
    usage: Usage = NO_USAGE
    notes: list[str] = field(default_factory=list[str])


def outline(effects: RecordedEffects, chosen: Iterable[str] | None = None) -> dict[str, Node]:
    """Return the steps and calls of a run by address, in causal order.

    Calls of an answer of which nothing became, because the run paused or broke off, are there
    too.

    Args:
        effects: The effects of its trace.
        chosen: Only these of them, by address.

    Raises:
        TraceCorrupt: An event lacks what it has to have.
    """
    nodes: dict[str, Node] = {}
    repeated: list[Address] = []
    for at in effects if chosen is None else chosen:
        effect = effects[at]
        if effect.kind == "model":
            nodes[at] = _node(effects, effect)
            nodes |= open_calls(effects, effect)
        elif effect.kind == "tool" and effect.skipped == "repeated":
            repeated.append(effect.at.parent)
        elif effect.kind == "tool":
            nodes[at] = _node(effects, effect)
    for step in repeated:
        if step in nodes and not nodes[step].result:
            nodes[step].result = "not run: these calls repeat earlier ones"
    return dict(sorted(nodes.items(), key=lambda node: Address(node[0]).order))


def retried(status: object, error: str | None, delay: float) -> str:
    """Return in words that an HTTP attempt failed, and is repeated after `delay` seconds."""
    return f"{error or f'HTTP status {status}'}; asked again after {delay:.2g} s"


def waiting(label: str, detail: str) -> Node:
    """Return the node of a call that waits for a decision."""
    text = "waits for a decision"
    return Node(label=label, detail=detail, started=None, status="paused", result=text)


def _node(effects: RecordedEffects, effect: RecordedEffect) -> Node:
    if effect.skipped is not None:
        status, result = why_skipped(effects, effect)
        return Node(
            label=effect.name,
            detail=effect.arguments,
            started=None,
            status=status,
            result=result,
        )
    if effect.began is None or effect.in_doubt:
        return waiting(effect.name, effect.arguments)
    node = Node(
        label="step" if effect.kind == "model" else effect.name,
        detail=_model(effect) if effect.kind == "model" else effect.arguments,
        started=effect.began.t / 1e6,
    )
    node.notes += [warning.text or warning.code for warning in effect.warnings]
    node.notes += [
        retried(one.status, one.error, one.delay / 1e6)
        for one in effect.attempts
        if one.delay is not None
    ]
    if effect.decision is not None:
        node.notes.append(decided(effect.decision))
    if effect.end is not None and effect.ended is not None:
        content = _content(effects, effect)
        error = effect.error.message if effect.error is not None else ""
        node.status, node.ended = effect.status, effect.ended.t / 1e6
        node.result = error if content is None else content
        node.usage = Usage.from_json(effect.end.get("usage", {}))
    return node


def _content(effects: RecordedEffects, effect: RecordedEffect) -> str | None:
    """Return the content of the message that an effect came to; None without one."""
    content = effects.source.blobs.get(effect.message or "", {}).get("content")
    return None if content is None else as_text(content)


def open_calls(effects: RecordedEffects, step: RecordedEffect) -> dict[str, Node]:
    """Return the calls of an answer of which nothing became."""
    agent = effects.get(step.at.parent)
    answer = effects.source.blobs.get(step.message or "", {})
    over = agent is not None and agent.end is not None
    status = ("paused" if agent.status == "paused" else "skipped") if agent and over else None
    nodes: dict[str, Node] = {}
    for index, call in enumerate(answer.get("tool_calls") or ()):
        at, function = step.at.call(index), call["function"]
        if at not in effects:
            nodes[at] = Node(
                label=as_text(function["name"]),
                detail=as_text(function["arguments"]),
                started=None,
                status=status,
            )
    return nodes


def _model(effect: RecordedEffect) -> str:
    """Return the name of a model, and before it that of the one that answered in its place."""
    match (effect.end or {}).get("response"):
        case {"extra": {"answered_by": str(name)}}:
            return f"{name} of {effect.name}"
        case _:
            return effect.name


def why_skipped(effects: RecordedEffects, effect: RecordedEffect) -> tuple[str, str]:
    """Return how a call is shown that no tool ran: a status of `MARKS`, and a text."""
    text = _content(effects, effect) or ""
    match effect.skipped:
        case "output":
            return "ok", "the output"
        case "handoff":
            return "ok", text
        case "denied" | "answered" if effect.decision is not None:
            return effect.skipped, decided(effect.decision)
        case _:
            return "skipped" if text.startswith("Not executed") else "error", text
