"""The schema `agentkit.trace/1`: the one table of all events, and what is checked with it.

The recorder writes what stands here, `capture` drops fields by it, the reader refuses
what does not fit it, and `docs/reference/trace.md` is its rendering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, cast, get_args

from agentkit.core.effects import OnCrash, SkipReason
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
        about: What it holds.
        required: When an event has it.
        kept: The lowest capture level that keeps it.
        null: It may be null.
        of: The kind of blob that a hash names.
        choices: The values that a string may have.
    """

    type: str
    about: str
    required: Required = "always"
    kept: Capture = "metadata"
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
        if self.type == "object" and isinstance(value, dict):
            fits = cast("Any", value).get("$nonjson", "object") == "object"  # the mark of a value
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
    "event": Field("string", "What kind of event it is.", kept="none"),
    "seq": Field("integer", "The number of its line, from 0.", kept="none"),
    "t": Field("integer", "Monotonic microseconds since the trace was opened.", kept="none"),
}
AT = Field("address", "Where it happened: the address, made from causes.", kept="none")


def _status(*choices: str, kept: Capture = "metadata") -> Field:
    return Field("string", "How it ended.", kept=kept, choices=choices)


_WALL = Field("string", "The wall-clock time, UTC; the only one in a trace.", kept="none")
_PROGRAM = Field("hash", "The hash of instructions, tools and schemas.", kept="none")
_RUN_STATUS = _status("ok", "error", "limit", "cancelled", "paused", kept="none")
_USAGE = "Tokens and counts that are not zero."
_ON_CRASH = Field(
    "string",
    "What becomes of it if it is interrupted, where that does not follow from `effect`.",
    "never",
    choices=get_args(OnCrash),
)
_INNER_USAGE = Field("object", "What its sub-agents have used.", "never")
_ERROR_ABOUT = "`type`, `message`, `data`, `traceback`, `parts`; its type alone below full capture."
_ERROR = Field("object", _ERROR_ABOUT, "if error")
_ERROR_TOO = Field("object", _ERROR_ABOUT, "never")
_FP = Field("hash", "The fingerprint: equal ones ask for the same. It decides divergence.")
_CALL: Mapping[str, Field] = {
    "tool": Field("text", "The tool's name."),
    "call": Field("text", "The model's id of the call."),
    "arguments": Field("text", "The arguments: JSON text, repaired where it was not.", kept="full"),
}
_ANSWER = "What the model reads"

EVENTS: Mapping[str, EventSchema] = {
    "trace.open": EventSchema(
        "The first line. A file whose first line is something else is not a trace.",
        {
            "schema": Field("string", f"`{SCHEMA}`.", kept="none"),
            "run": Field("string", "The run's id: a UUID 7 as 32 hex digits.", kept="none"),
            "wall": _WALL,
            "agentkit": Field("string", "agentkit's version.", "never", "none", null=True),
            "versions": Field("object", "Of Python, pydantic and httpx2.", "never", "none"),
            "capture": Field(
                "string", "The capture level.", "never", "none", choices=tuple(_LEVELS)
            ),
            "redaction": Field(
                "object", "`key_id`: names the key of placeholders.", "never", "none"
            ),
            "program": _PROGRAM,
            "fork": Field(
                "object",
                "`run`, `at` and `patch` of the run it was forked from; "
                "no patch below full capture.",
                "never",
                "none",
                null=True,
            ),
        },
        addressed=False,
    ),
    "trace.resume": EventSchema(
        "An interrupted or paused run goes on in the same file.",
        {
            "wall": _WALL,
            "program": _PROGRAM,
            "options": Field("object", "Settings, limits and model from here on.", "never", "full"),
        },
        addressed=False,
    ),
    "trace.close": EventSchema(
        "The run has ended. Nothing follows but `trace.resume`.",
        {
            "status": _RUN_STATUS,
            "lines": Field("integer", "How many lines there are, this one too.", kept="none"),
        },
        addressed=False,
    ),
    "blob": EventSchema(
        "A content that other events name by its hash. It stands once, before the first of them.",
        {
            "h": Field("hash", "blake2b-128 of its canonical JSON, redacted.", kept="full"),
            "kind": Field("string", "What it is.", kept="full", choices=tuple(BLOBS)),
            "data": Field("value", "The content.", kept="full"),
        },
        addressed=False,
    ),
    "agent.start": EventSchema(
        "An agent begins: the run's own, one inside a tool, or one that takes over.",
        {
            "agent": Field("string", "Its name.", kept="none"),
            "input": Field(
                "hash",
                "`messages` that it begins with, by hash; the first `earlier` are history.",
                of="input",
            ),
            "options": Field(
                "object", "Settings, limits and model of this run alone.", "never", "full"
            ),
        },
    ),
    "agent.end": EventSchema(
        "An agent ends.",
        {
            "status": _RUN_STATUS,
            "output": Field("value", "The output.", "never", "full"),
            "output_at": Field(
                "address",
                "The answer, or the call, whose JSON text is the output; instead of `output`.",
                "never",
                "full",
            ),
            "output_key": Field(
                "string", "The property of that JSON that is the output.", "never", "full"
            ),
            "usage": Field("object", _USAGE, kept="none"),
            "cost": Field("number", "USD, if known.", "never", "none", null=True),
            "error": _ERROR_TOO,
        },
    ),
    "model.start": EventSchema(
        "A request goes to a model.",
        {
            "model": Field("text", "Its name."),
            "since": Field(
                "address",
                "The agent's last request, if this one begins with all its messages.",
                null=True,
            ),
            "messages": Field("hashes", "Its messages after those of `since`.", of="message"),
            "tools": Field("hash", "What it may call.", of="tools"),
            "params": Field(
                "object",
                "Settings, `tool_choice`, and `output`, the hash of the output format.",
                kept="full",
            ),
            "stream": Field("boolean", "It answers piece by piece.", "never"),
            "fp": _FP,
        },
    ),
    "model.chunks": EventSchema(
        "Deltas of an answer: about 25, or those of 50 ms, in one line.",
        {
            "d": Field(
                "array",
                "Pairs: microseconds since the last, and a text or another delta.",
                kept="full",
            )
        },
    ),
    "model.end": EventSchema(
        "A model has answered, failed, or been cancelled.",
        {
            "status": _status("ok", "error", "cancelled"),
            "message": Field("hash", "The answer.", "if ok", of="message"),
            "finish": Field("string", "Why it ended.", "if ok", null=True),
            "usage": Field("object", _USAGE, "if ok"),
            "response": Field(
                "object", "`id`, `model`, `logprobs`, `extra`, `choices`.", "never", "full"
            ),
            "error": _ERROR,
            "first_chunk": Field("integer", "Microseconds to the first delta.", "never"),
        },
    ),
    "http.start": EventSchema(
        "An HTTP attempt of a model call begins.",
        {
            "attempt": Field("integer", "Its number, from 0."),
            "host": Field("string", "The host, with its port.", "never"),
        },
    ),
    "http.end": EventSchema(
        "An HTTP attempt has ended.",
        {
            "status": Field("integer", "The status, if there is a response.", "never"),
            "retry_after": Field("number", "Seconds that the server asks for.", "never"),
            "delay": Field("integer", "Microseconds until the next attempt.", "never"),
            "request_id": Field("text", "The server's id.", "never"),
            "error": Field("text", "What failed.", "never", "full"),
        },
    ),
    "tool.pending": EventSchema(
        "A call waits for a decision.",
        {
            "kind": Field("string", "Why.", choices=("approval", "deferred", "in_flight")),
            **_CALL,
        },
    ),
    "tool.decision": EventSchema(
        "The decision.",
        {
            "decision": Field("string", "Which.", choices=("approve", "deny", "edit", "answer")),
            "reason": Field("text", "The reason, the other arguments, or the answer.", kept="full"),
            "by": Field("text", "Who decided.", null=True),
        },
    ),
    "tool.start": EventSchema(
        "A tool runs.",
        {
            **_CALL,
            "effect": Field("string", "What it does to the world.", choices=("read", "write")),
            "on_crash": _ON_CRASH,
            "fp": _FP,
        },
    ),
    "tool.chunks": EventSchema(
        "A tool reports progress.", {"d": Field("array", "The values.", kept="full")}
    ),
    "tool.end": EventSchema(
        "A tool call has ended.",
        {
            "status": _status("ok", "error", "timeout", "denied", "cancelled", "paused"),
            "message": Field("hash", f"{_ANSWER}.", "if finished", of="message"),
            "error": _ERROR_TOO,
            "fatal": Field("boolean", "It ends the run.", "never"),
            "usage": _INNER_USAGE,
        },
    ),
    "tool.skip": EventSchema(
        "No tool runs a call of the model.",
        {
            **_CALL,
            "reason": Field("string", "Why.", choices=get_args(SkipReason)),
            "message": Field(
                "hash",
                f"{_ANSWER}; null if its response stays out of the history.",
                null=True,
                of="message",
            ),
        },
    ),
    "compute.start": EventSchema(
        "A function of the application is called: instructions, a toolset, a validator, ….",
        {
            "name": Field("string", "Which."),
            "arguments": Field("text", "What an output function is called with.", "never", "full"),
            "effect": Field(
                "string", "`write` of an output function that may.", "never", choices=("write",)
            ),
            "on_crash": _ON_CRASH,
            "fp": _FP,
        },
    ),
    "compute.end": EventSchema(
        "A function of the application has returned or failed.",
        {
            "status": _status("ok", "error", "cancelled", "paused"),
            "value": Field("value", "What it returned.", "if ok", "full"),
            "usage": _INNER_USAGE,
            "error": _ERROR,
        },
    ),
    "det": EventSchema(
        "A tool or function reads the clock or draws a number through its context.",
        {
            "kind": Field("string", "`now`, `uuid` or `random`."),
            "use": Field("integer", "Counts those of one kind and address."),
            "value": Field("value", "What it got.", kept="full"),
        },
    ),
    "warning": EventSchema(
        "Something was changed on the way and the run goes on.",
        {
            "code": Field("string", "What, for programs."),
            "text": Field("text", "What, for people.", kept="full"),
            "data": Field("object", "Details.", "never", "full"),
        },
    ),
    "log": EventSchema(
        "A line that the application has logged inside an effect; see `to_trace`.",
        {
            "level": Field("string", "Its level.", kept="full"),
            "text": Field("value", "Its text.", kept="full"),
            "data": Field("object", "Its other fields.", "never", "full"),
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
