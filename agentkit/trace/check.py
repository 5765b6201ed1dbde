"""Checks a trace before it is replayed, resumed, forked or compared: it is untrusted input.

The schema says what an event has. Here is what it cannot say: how events fit together, and
what stands in their objects.
"""

from __future__ import annotations

from typing import Any

from agentkit.core.spec import OfferedTool
from agentkit.errors import TraceError
from agentkit.messages import is_object, messages_from_json
from agentkit.settings import ChatSettings, Limits, limits_of, settings_of
from agentkit.trace.fields import DAMAGE, WIDEST
from agentkit.trace.reader import Trace

_KINDS = ("agent", "model", "tool", "compute")


def check_replayable(trace: Trace) -> None:
    """Refuse a trace that does not hold what a replay or a resumption needs.

    Raises:
        TraceError: It was recorded without contents.
        TraceCorrupt: An event is damaged.
    """
    check_events(trace)
    if trace.capture != "full":
        raise TraceError(
            f"The trace of {trace.run} was recorded with capture={trace.capture!r}, without "
            "the contents that replaying or resuming it needs. Record with capture='full'.",
            path=str(trace.path) if trace.path else None,
        )
    trace.input()
    recorded_options(trace)


def check_events(trace: Trace) -> None:
    """Check every event of a trace, and that they fit together.

    Raises:
        TraceCorrupt: An event lacks a field, has one of another type, or is not in its place.
    """
    seq, kinds = -1, dict[str, str]()
    for event in trace.events:
        trace.check(event)
        problem = None
        if not seq < event["seq"] < WIDEST:
            problem = f"has {event['seq']!r:.80} as 'seq'; the event before it has {seq}"
        kind, _, part = event["event"].partition(".")
        own = kind in _KINDS and part in ("start", "end", "skip")  # others are in one, or about it
        if problem is None and own and kinds.setdefault(event["at"], kind) != kind:
            problem = f"has {event['at']!r:.80} as 'at', where a {kinds[event['at']]} is"
        if problem is not None:
            raise trace.damaged(event, problem)
        seq = event["seq"]
    trace.effects.check()


def recorded_options(trace: Trace) -> tuple[ChatSettings | None, Limits | None]:
    """Return the settings and limits that a run was given instead of its agent's.

    Raises:
        TraceCorrupt: They are damaged.
    """
    options = trace.options()
    try:
        if any((one or 0) >= WIDEST for one in options.get("limits", {}).values()):
            raise ValueError("a limit is too large")
        return settings_of(options), limits_of(options)
    except DAMAGE as error:
        raise trace.damaged(trace.agent_start, f"has damaged 'options': {error}") from error


def fits(name: str, value: Any) -> bool:
    """Return whether a recorded value is one that the loop can go on with.

    Args:
        name: That of the function, as in `Compute.name`.
        value: What it returned.
    """
    try:
        match name:
            case "instructions":
                return value is None or isinstance(value, str)
            case "toolsets":
                return all(OfferedTool.from_json(tool).definition.name for tool in value)
            case "settings":
                return is_object(value["settings"]) and _is_choice(value["tool_choice"])
            case "compact":
                return value is None or len(messages_from_json(value)) > 0
            case _ if name.startswith(("approval:", "arguments:")) and is_object(value):
                if "problem" in value:
                    return isinstance(value["problem"], str)
                return isinstance(value["needed"], bool) and isinstance(value["arguments"], str)
            case _:
                return True
    except DAMAGE:
        return False


def _is_choice(value: Any) -> bool:
    return value is None or isinstance(value["name"] if is_object(value) else value, str)
