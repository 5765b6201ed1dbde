"""`agentkit show`: a recorded run, or everything about one address in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from agentkit.cli.console import (
    OUT,
    AsJson,
    Count,
    command_line,
    print_json,
    print_line,
    print_text,
    shown,
)
from agentkit.cli.find import find
from agentkit.cli.view.describe import address_in, damage_named, describe, describe_run, lines_at
from agentkit.cli.view.run import print_waiting
from agentkit.cli.view.tree import RunTree, cut, tree_of
from agentkit.core.effects import Decision
from agentkit.errors import ConfigurationError
from agentkit.messages import JsonObject, Usage, is_array, is_object
from agentkit.trace.reader import Trace
from agentkit.trace.summary import prompt_of, summary
from agentkit.trace.words import FAILED, MARKS, as_text, decided, forked_from, pretty, used

_SHORT = 60
_SHOWN = ("role", "content", "tool_calls", "tool_call_id", "name")
_NAMED = {"agent": "agent", "compute": "name", "model": "model", "tool": "tool"}
_PLACED = (
    "at",
    "kind",
    "status",
    "started",
    "seconds",
    "error",
    "message",
    "messages",
    "arguments",
)
"""What has a place of its own; everything else is printed as it is."""


def show(
    trace: Path,
    /,
    *,
    at: str | None = None,
    failed: Annotated[bool, Parameter(negative="")] = False,
    head: Count = None,
    last: Count = None,
    as_json: AsJson = False,
    raw: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show a recorded run: its steps and calls, times, tokens and output.

    Args:
        trace: The trace file, or the end of a run's id.
        at: An address, such as /agent/m0/t1, or its end: show everything about it.
        failed: Show only the steps and calls that failed, and what they are in.
        head: Show only the first steps and calls, so many of them.
        last: Show only the last ones.
        as_json: Print one JSON document.
        raw: Print the trace's own lines.
    """
    if as_json and raw:
        raise ConfigurationError("--json and --raw are two ways to print; give one of them.")
    if head is not None and last is not None:
        raise ConfigurationError("--head and --last are two ways to choose; give one of them.")
    narrowed = failed or head is not None or last is not None
    if narrowed and (at is not None or raw):
        raise ConfigurationError(
            "--failed, --head and --last choose steps and calls of a whole run: leave "
            f"{'--raw' if raw else '--at'} out."
        )
    recorded = Trace.load(find(trace))
    with damage_named(recorded):
        where = None if at is None else address_in(recorded, at)
        if raw:
            _print_lines(recorded.raw() if where is None else lines_at(recorded, where))
        elif as_json:
            document = describe_run(recorded) if where is None else describe(recorded, where)
            if narrowed:
                effects = [e for e in document["effects"] if not failed or e["status"] in FAILED]
                document["effects"] = cut(effects, head, last)
            print_json(document)
        elif where is None:
            tree = tree_of(recorded, title=_title(recorded))
            if narrowed:
                tree.narrow(failed=failed, head=head, last=last)
            _print_run(recorded, tree)
        else:
            print_effect(describe(recorded, where))


def _print_lines(lines: Iterable[bytes]) -> None:
    """Print bytes as they are for a program, and what is safe for a terminal."""
    for line in lines:
        if OUT.is_terminal:
            print(shown(line.decode("utf-8", "backslashreplace")), end="")
        else:
            sys.stdout.buffer.write(line)


def _title(trace: Trace) -> str:
    prompt = prompt_of(trace)
    return as_text(prompt) if prompt else "(no prompt)"


def _print_run(trace: Trace, tree: RunTree) -> None:
    run = summary(trace)
    OUT.print(
        Text(shown(f"run {run['run']}  {run['wall']}  {run['status']}"), style="bold"),
    )
    if run["fork"]:
        OUT.print(Text(shown(forked_from(run["fork"]))))
    capture = trace.header.get("capture", "full")
    if capture != "full":
        OUT.print(Text(shown(f"Recorded without contents: capture={capture!r}."), "yellow"))
    OUT.print(tree)
    if run["status"] == "running":
        OUT.print("The run is going on; this is the record so far.", style="yellow")
    elif run["status"] == "interrupted":
        OUT.print("The run was interrupted; what is recorded ends here.", style="yellow")
        if not trace.pending:
            command = command_line("resume", str(trace.path), "--app", "FILE.py:NAME")
            print_line(f"Go on: {command}")
    if run["status"] in ("paused", "interrupted"):
        print_waiting(trace.pending, trace.path)
    if run["error"] is not None:
        print_text(_failure(run["error"]), "red")
    elif run["output"] is not None:
        print_text(pretty(run["output"]))
    OUT.print(used(Usage.from_json(run["usage"])), style="dim")


def print_effect(effect: JsonObject) -> None:
    """Print everything about one address, as `describe` returns it."""
    status = effect.get("status", "")
    mark, style = MARKS.get(status, (shown(as_text(status)), "yellow"))
    name = as_text(effect.get(_NAMED.get(effect["kind"], ""), ""))
    head = Text.assemble((shown(effect["at"]), "bold cyan"), f"  {effect['kind']} ", shown(name))
    head.append(f" {mark}", style)
    if effect.get("seconds") is not None:
        head.append(f" {effect['seconds']:.3f} s", "dim")
    if "started" in effect:
        head.append(f", began {effect['started']:.3f} s into the run", "dim")
    OUT.print(head)
    for number, message in enumerate(effect.get("messages", ())):
        print_message(f"message {number}", message)
    if "arguments" in effect:
        _section("arguments", _indented_json(effect["arguments"]))
    placed = (*_PLACED, _NAMED.get(effect["kind"]))
    for name, value in effect.items():
        if name not in placed and value not in ({}, [], None):
            _section(name, _SECTIONS.get(name, _plain)(value))
    if "message" in effect:
        print_message("result" if effect["kind"] == "tool" else "answer", effect["message"])
    if "error" in effect:
        _section("error", _error(effect["error"]), "red")


def print_message(title: str, message: Any) -> None:
    """Print a message of a conversation, with its calls."""
    if not is_object(message):  # a hash: contents were not recorded
        _section(title, as_text(message))
        return
    role = as_text(message.get("role", "?"))
    content = message.get("content")
    text = "" if content is None else as_text(content)
    calls = message.get("tool_calls", ())
    text += "".join(
        f"\n→ {as_text(call['function']['name'])} {as_text(call['function']['arguments'])}"
        for call in calls
    )
    rest = {name: value for name, value in message.items() if name not in _SHOWN}
    if rest:
        text += f"\n{pretty(rest)}"
    _section(f"{title}, {role}", text.strip("\n"))


def _section(title: str, text: str, style: str = "default") -> None:
    """Print a title and what belongs to it, in one line if that is short."""
    if "\n" not in text and len(text) <= _SHORT:
        OUT.print(Text.assemble((f"{shown(title)}: ", "bold"), (shown(text), style)))
    else:
        OUT.print(Text(shown(title), "bold"))
        print_text(text, style, indent=2)


def _plain(value: Any) -> str:
    if is_object(value) and all(not isinstance(one, (dict, list)) for one in value.values()):
        return "\n".join(f"{name}: {as_text(one)}" for name, one in value.items()) or "none"
    return pretty(value)


def _indented_json(arguments: Any) -> str:
    try:
        return pretty(json.loads(arguments))
    except (ValueError, TypeError):
        return as_text(arguments)  # as the model sent it


def _failure(error: JsonObject) -> str:
    message = error.get("message")  # kept only with the contents
    return error["type"] + (f": {as_text(message)}" if message else "")


def _error(error: JsonObject) -> str:
    lines = [_failure(error)]
    if error.get("data"):
        lines.append(pretty(error["data"]))
    if error.get("traceback"):
        lines.append(as_text(error["traceback"]).rstrip())
    return "\n".join([*lines, *(indent(_error(part), "  ") for part in error.get("parts", ()))])


def _chunks(chunks: list[Any]) -> str:
    """Return when each piece came, in seconds since the call began."""
    return "\n".join(
        f"{seconds:9.3f} s  {json.dumps(piece, ensure_ascii=False)}" for seconds, piece in chunks
    )


def _attempts(attempts: list[JsonObject]) -> str:
    lines: list[str] = []
    for number, one in enumerate(attempts):
        line = f"{number}: {one['host'] or '?'} {as_text(one.get('status', one.get('error', '')))}"
        if "seconds" in one:
            line += f" after {one['seconds']:.3f} s"
        if "request_id" in one:
            line += f", request {as_text(one['request_id'])}"
        if "delay" in one:
            line += f", asked again after {one['delay']:.2g} s"
        lines.append(line)
    return "\n".join(lines)


def _progress(values: Iterable[Any]) -> str:
    return "\n".join(map(as_text, values))


def _decision(decision: JsonObject) -> str:
    return decided(Decision(decision["kind"], decision["text"], decision["by"]))


def _names(tools: Any) -> str:
    if not is_array(tools):
        return as_text(tools)
    return ", ".join(as_text(one.get("name") or one["function"]["name"]) for one in tools) or "none"


_SECTIONS = {
    "chunks": _chunks,
    "decision": _decision,
    "http": _attempts,
    "inside": "\n".join,
    "progress": _progress,
    "tools": _names,
}
