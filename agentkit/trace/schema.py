"""The schema `agentkit.trace/1`: the one table of all events, and what is checked with it.

The recorder writes what stands here, `capture` drops fields by it, the reader refuses
what does not fit it, and `docs/reference/trace.md` is its rendering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, cast, get_args

from agentkit.core.effects import SkipReason
from agentkit.messages import JsonObject

SCHEMA = "agentkit.trace/1"
Capture: TypeAlias = Literal["full", "metadata", "none"]
"""How much of a run its trace holds.

`full` is all of it, and the only one that can be replayed. `metadata` is what happened
without its contents: names, hashes, counts, tokens, times, statuses. `none` is that there
was a run, how it ended and what it used.
"""
Required: TypeAlias = Literal["always", "never", "if finished", "if ok", "if error"]
"""When an event has a field. A status of `cancelled` or `paused` is no finished one."""

_LEVELS: Mapping[str, int] = {"none": 0, "metadata": 1, "full": 2}
_UNFINISHED = ("cancelled", "paused")
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "text": (str, dict),  # an object is the mark of a text that JSON cannot hold
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "value": object,
    "address": str,
    "hash": str,
    "hashes": list,
}
BLOBS: Mapping[str, str] = {
    "message": "object",
    "input": "object",
    "tools": "array",
    "output": "object",
}
"""The kinds of blobs, and what their data is."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event.

    Attributes:
        type: A JSON type, or what it stands for: `address`; `hash`, the name of a blob;
            `hashes`, a list of them; `text`, a string or the mark of one that JSON cannot hold.
        required: When an event has it.
        kept: The lowest capture level that keeps it.
        about: What it holds.
        null: It may be null.
        of: The kind of blob that a hash names.
        choices: The values that a string may have.
    """

    type: str
    required: Required
    kept: Capture
    about: str
    null: bool = False
    of: str | None = None
    choices: tuple[str, ...] = ()

    def problem(self, value: Any) -> str | None:
        """Return what this field should be, if `value` is something else."""
        if value is None and self.null:
            return None
        fits = isinstance(value, _TYPES[self.type])
        if isinstance(value, bool) and self.type in ("integer", "number"):
            fits = False
        if self.type == "text" and isinstance(value, dict):
            mark = cast("Mapping[str, Any]", value)
            fits = mark.get("$nonjson") == "surrogates" and isinstance(mark.get("value"), str)
        if not fits:
            article = "an" if self.type[0] in "aio" else "a"
            return {"hashes": "a list of hashes", "text": "a text"}.get(
                self.type, f"{article} {self.type}"
            )
        if self.choices and value not in self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.type == "hashes" and not all(isinstance(one, str) for one in cast("Any", value)):
            return "a list of hashes"
        return None


@dataclass(frozen=True, slots=True)
class EventSchema:
    """One kind of event.

    Attributes:
        about: When it is written.
        fields: Its own fields, in the order in which they are written. Before them stand
            `event`, `seq` and `t`, and `at` where the event is `addressed`.
        addressed: It has an address.
    """

    about: str
    fields: Mapping[str, Field]
    addressed: bool = True

    @property
    def kept(self) -> Capture:
        """The lowest capture level that keeps the event: that of its first field to be kept."""
        return min((field.kept for field in self.fields.values()), key=_LEVELS.__getitem__)


FRAME: Mapping[str, Field] = {
    "event": Field("string", "always", "none", "What kind of event it is."),
    "seq": Field("integer", "always", "none", "The number of its line, from 0."),
    "t": Field("integer", "always", "none", "Monotonic microseconds since the trace was opened."),
}
AT = Field("address", "always", "none", "Where it happened: the address, made from causes.")

_USAGE = "Tokens and counts that are not zero."
_ERROR = Field(
    "object",
    "if error",
    "metadata",
    "`type`, `message`, `data`, `traceback`, `parts`; its type alone below full capture.",
)
_ERROR_TOO = Field("object", "never", "metadata", _ERROR.about)
_FP_ABOUT = "The fingerprint: equal ones ask for the same. It decides divergence."
_FP = Field("hash", "always", "metadata", _FP_ABOUT)


def _status(*choices: str, kept: Capture = "metadata") -> Field:
    return Field("string", "always", kept, "How it ended.", choices=choices)


_RUN_STATUS = _status("ok", "error", "limit", "cancelled", "paused", kept="none")
_WALL = Field("string", "always", "none", "The wall-clock time, UTC; the only one in a trace.")
_PROGRAM = Field("hash", "always", "none", "The hash of instructions, tools and schemas.")

EVENTS: Mapping[str, EventSchema] = {
    "trace.open": EventSchema(
        "The first line. A file whose first line is something else is not a trace.",
        {
            "schema": Field("string", "always", "none", f"`{SCHEMA}`."),
            "run": Field("string", "always", "none", "The run's id: a UUID 7 as 32 hex digits."),
            "wall": _WALL,
            "agentkit": Field("string", "never", "none", "agentkit's version.", null=True),
            "versions": Field("object", "never", "none", "Of Python, pydantic and httpx2."),
            "capture": Field(
                "string", "never", "none", "The capture level.", choices=tuple(_LEVELS)
            ),
            "redaction": Field(
                "object", "never", "none", "`key_id`: names the key of placeholders."
            ),
            "program": _PROGRAM,
            "fork": Field(
                "object",
                "never",
                "none",
                "`run`, `at` and `patch` of the run it was forked from; "
                "no patch below full capture.",
                null=True,
            ),
        },
        addressed=False,
    ),
    "trace.resume": EventSchema(
        "An interrupted or paused run goes on in the same file.",
        {"wall": _WALL, "program": _PROGRAM},
        addressed=False,
    ),
    "trace.close": EventSchema(
        "The run has ended. Nothing follows but `trace.resume`.",
        {
            "status": _RUN_STATUS,
            "lines": Field("integer", "always", "none", "How many lines there are, this one too."),
        },
        addressed=False,
    ),
    "blob": EventSchema(
        "A content that other events name by its hash. It stands once, before the first of them.",
        {
            "h": Field("hash", "always", "full", "blake2b-128 of its canonical JSON, redacted."),
            "kind": Field("string", "always", "full", "What it is.", choices=tuple(BLOBS)),
            "data": Field("value", "always", "full", "The content."),
        },
        addressed=False,
    ),
    "agent.start": EventSchema(
        "An agent begins: the run's own, one inside a tool, or one that takes over.",
        {
            "agent": Field("string", "always", "none", "Its name."),
            "input": Field(
                "hash",
                "always",
                "metadata",
                "`messages` that it begins with, by hash; the first `earlier` are history.",
                of="input",
            ),
            "options": Field("object", "never", "full", "Settings and limits of this run alone."),
        },
    ),
    "agent.end": EventSchema(
        "An agent ends.",
        {
            "status": _RUN_STATUS,
            "output": Field("value", "never", "full", "The output."),
            "usage": Field("object", "always", "none", _USAGE),
            "cost": Field("number", "never", "none", "USD, if known.", null=True),
            "error": _ERROR_TOO,
        },
    ),
    "model.start": EventSchema(
        "A model is asked.",
        {
            "model": Field("text", "always", "metadata", "Its name."),
            "since": Field(
                "address",
                "always",
                "metadata",
                "The agent's last request, if this one begins with all its messages.",
                null=True,
            ),
            "messages": Field(
                "hashes", "always", "metadata", "Its messages after those of `since`.", of="message"
            ),
            "tools": Field("hash", "always", "metadata", "What it may call.", of="tools"),
            "params": Field(
                "object",
                "always",
                "full",
                "Settings, `tool_choice`, and `output`, the hash of the output format.",
            ),
            "stream": Field("boolean", "never", "metadata", "It answers piece by piece."),
            "fp": _FP,
        },
    ),
    "model.chunks": EventSchema(
        "Deltas of an answer: about 25, or those of 50 ms, in one line.",
        {
            "d": Field(
                "array",
                "always",
                "full",
                "Pairs: microseconds since the last, and a text or another delta.",
            )
        },
    ),
    "model.end": EventSchema(
        "A model has answered, failed, or been cancelled.",
        {
            "status": _status("ok", "error", "cancelled"),
            "message": Field("hash", "if ok", "metadata", "The answer.", of="message"),
            "finish": Field("string", "if ok", "metadata", "Why it ended.", null=True),
            "usage": Field("object", "if ok", "metadata", _USAGE),
            "response": Field(
                "object", "never", "full", "`id`, `model`, `logprobs`, `extra`, `choices`."
            ),
            "error": _ERROR,
            "first_chunk": Field(
                "integer", "never", "metadata", "Microseconds to the first delta."
            ),
        },
    ),
    "http.start": EventSchema(
        "An HTTP attempt of a model call begins.",
        {
            "attempt": Field("integer", "always", "metadata", "Its number, from 0."),
            "host": Field("string", "never", "metadata", "The host, with its port."),
        },
    ),
    "http.end": EventSchema(
        "An HTTP attempt has ended.",
        {
            "status": Field("integer", "never", "metadata", "The status, if there is a response."),
            "retry_after": Field(
                "number", "never", "metadata", "Seconds that the server asks for."
            ),
            "delay": Field("integer", "never", "metadata", "Microseconds until the next attempt."),
            "request_id": Field("text", "never", "metadata", "The server's id."),
            "error": Field("text", "never", "full", "What failed."),
        },
    ),
    "tool.start": EventSchema(
        "A tool runs.",
        {
            "tool": Field("text", "always", "metadata", "Its name."),
            "call": Field("text", "always", "metadata", "The model's id of the call."),
            "arguments": Field("text", "always", "full", "The arguments as they came: JSON text."),
            "effect": Field(
                "string",
                "always",
                "metadata",
                "What it does to the world.",
                choices=("read", "write"),
            ),
            "fp": _FP,
        },
    ),
    "tool.chunks": EventSchema(
        "A tool reports progress.", {"d": Field("array", "always", "full", "The values.")}
    ),
    "tool.end": EventSchema(
        "A tool call has ended.",
        {
            "status": _status("ok", "error", "timeout", "denied", "cancelled", "paused"),
            "message": Field(
                "hash", "if finished", "metadata", "What the model is told.", of="message"
            ),
            "error": _ERROR_TOO,
            "fatal": Field("boolean", "never", "metadata", "It ends the run."),
            "usage": Field("object", "never", "metadata", "What its sub-agents have used."),
        },
    ),
    "tool.skip": EventSchema(
        "No tool runs a call that the model asked for.",
        {
            "tool": Field("text", "always", "metadata", "The tool that the model named."),
            "call": Field("text", "always", "metadata", "The model's id of the call."),
            "arguments": Field("text", "always", "full", "The arguments as they came: JSON text."),
            "reason": Field("string", "always", "metadata", "Why.", choices=get_args(SkipReason)),
            "message": Field(
                "hash",
                "always",
                "metadata",
                "What the model is told; null if its response stays out of the history.",
                null=True,
                of="message",
            ),
        },
    ),
    "compute.start": EventSchema(
        "A function of the application is called: instructions, a toolset, a validator, ….",
        {"name": Field("string", "always", "metadata", "Which."), "fp": _FP},
    ),
    "compute.end": EventSchema(
        "A function of the application has returned or failed.",
        {
            "status": _status("ok", "error", "cancelled", "paused"),
            "value": Field("value", "if ok", "full", "What it returned."),
            "usage": Field("object", "never", "metadata", "What its sub-agents have used."),
            "error": _ERROR,
        },
    ),
    "det": EventSchema(
        "A tool or function reads the clock or draws a number through its context.",
        {
            "kind": Field("string", "always", "metadata", "`now`, `uuid` or `random`."),
            "use": Field("integer", "always", "metadata", "Counts those of one kind and address."),
            "value": Field("value", "always", "full", "What it got."),
        },
    ),
    "tool.pending": EventSchema(
        "A call waits for a decision.",
        {
            "kind": Field(
                "string",
                "always",
                "metadata",
                "Why.",
                choices=("approval", "deferred", "in_flight"),
            ),
            "tool": Field("text", "always", "metadata", "Its name."),
            "call": Field("text", "always", "metadata", "The model's id of the call."),
            "arguments": Field("text", "always", "full", "The arguments as they came: JSON text."),
        },
    ),
    "tool.decision": EventSchema(
        "The decision.",
        {
            "decision": Field(
                "string",
                "always",
                "metadata",
                "Which.",
                choices=("approve", "deny", "edit", "answer"),
            ),
            "reason": Field(
                "text", "always", "full", "The reason, the other arguments, or the answer."
            ),
            "by": Field("text", "always", "metadata", "Who decided.", null=True),
        },
    ),
    "warning": EventSchema(
        "Something was changed on the way and the run goes on.",
        {
            "code": Field("string", "always", "metadata", "What, for programs."),
            "text": Field("text", "always", "full", "What, for people."),
            "data": Field("object", "never", "full", "Details."),
        },
    ),
    "log": EventSchema(
        "A line that the application has logged inside an effect; see `to_trace`.",
        {
            "level": Field("string", "always", "full", "Its level."),
            "text": Field("value", "always", "full", "Its text."),
            "data": Field("object", "never", "full", "Its other fields."),
        },
    ),
}
"""All events, in the order in which a run first writes them."""

ADDRESSED = frozenset(name for name, schema in EVENTS.items() if schema.addressed)
ENDS = frozenset(
    name
    for name, schema in EVENTS.items()
    if (status := schema.fields.get("status")) is not None and status.required == "always"
)
"""Events with a status that says how something ended."""


def problems(event: JsonObject, capture: Capture = "full") -> Iterator[str]:
    """Yield what an event lacks or has in another form, each as the end of a sentence.

    Args:
        event: An event. One of an unknown kind has no problems.
        capture: The level of its trace: what that drops need not be there.
    """
    schema = EVENTS.get(event["event"])
    if schema is None:
        return
    frame = {**FRAME, "at": AT} if schema.addressed else FRAME
    status, level = event.get("status"), _LEVELS[capture]
    for name, field in {**frame, **schema.fields}.items():
        if name in event:
            if (expected := field.problem(event[name])) is not None:
                yield f"has {event[name]!r:.80} as {name!r}; expected {expected}"
        elif _LEVELS[field.kept] <= level and _is_required(field, status):
            yield f"has no {name!r}"


def _is_required(field: Field, status: Any) -> bool:
    match field.required:
        case "always":
            return True
        case "if finished":
            return status not in _UNFINISHED
        case "if ok":
            return status not in (*_UNFINISHED, "error")
        case "if error":
            return status == "error"
        case "never":
            return False


def blobs_of(event: JsonObject) -> Iterator[tuple[str, str]]:
    """Yield the blobs that an event names: kind and hash."""
    schema = EVENTS.get(event["event"])
    for name, field in schema.fields.items() if schema is not None else ():
        if field.of is not None and event.get(name) is not None:
            names = event[name] if field.type == "hashes" else (event[name],)
            yield from ((field.of, one) for one in names)
    if isinstance(output := event.get("params", {}).get("output"), str):
        yield "output", output


@cache
def kept(capture: Literal["metadata", "none"]) -> Callable[..., MutableMapping[str, Any]]:
    """Return a structlog processor that drops what this level does not keep."""
    from structlog import DropEvent  # here: structlog takes 60 ms to import

    level = _LEVELS[capture]
    fields = {
        event: {
            *FRAME,
            "at",
            *(n for n, one in schema.fields.items() if _LEVELS[one.kept] <= level),
        }
        for event, schema in EVENTS.items()
        if _LEVELS[schema.kept] <= level
    }

    def keep(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        names = fields.get(event["event"])
        if names is None:
            raise DropEvent
        less = {name: value for name, value in event.items() if name in names}
        if "error" in less:
            less["error"] = {"type": less["error"]["type"]}
        if isinstance(less.get("fork"), dict):
            less["fork"] = {**less["fork"], "patch": None}
        return less

    return keep
