"""`agentkit fork`: a recorded run with something changed, live from there on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import anyio
from cyclopts import Parameter

from agentkit import replay
from agentkit.agent import Agent
from agentkit.cli.console import command_line, print_line
from agentkit.cli.find import found, header_of, traces_folder, traces_in
from agentkit.cli.load import load_agent, options_of
from agentkit.cli.view.describe import address_in, asked_at, describe
from agentkit.cli.view.tally import effects_of
from agentkit.cli.view.tree import RunTree
from agentkit.cli.view.watch import not_run, print_result, print_waiting, watched
from agentkit.core.effects import Decision
from agentkit.errors import ConfigurationError, ReplayDivergence
from agentkit.messages import JsonObject, is_object
from agentkit.replay import Patch
from agentkit.replay.fork import LiveTools
from agentkit.runtime.result import RunResult, result_of
from agentkit.settings import ChatSettings
from agentkit.trace.reader import Trace

_MESSAGE = "--message N=TEXT"


def fork(
    trace: Path,
    /,
    *,
    app: Annotated[str, Parameter(name="--app")],
    at: str | None = None,
    prompt: str | None = None,
    instructions: str | None = None,
    message: Annotated[list[str] | None, Parameter(negative="")] = None,
    result: str | None = None,
    approve: Annotated[bool, Parameter(negative="")] = False,
    deny: str | None = None,
    model: str | None = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    tools: LiveTools = "by_effect",
    to: Annotated[Path | None, Parameter(name="--trace")] = None,
) -> None:
    """Run a recorded run again with something changed, and show what becomes of it.

    What does not depend on the change is answered from the recording, the rest is done.

    Args:
        trace: The trace file, or the end of a run's id. It stays as it is.
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        at: The address, or its end, of the effect from which things are different; everything
            before it stays as recorded. Alone: the effect is done again.
        prompt: Another prompt.
        instructions: Other instructions.
        message: N=TEXT: another message in the request at --at, as `agentkit show --at` numbers it.
        result: What the effect at --at comes to: a tool's result, or the model's answer.
        approve: Let the call at --at run: it then really runs, though it may write.
        deny: Do not let the call at --at run; the reason is told to the model.
        model: Another model, such as openai:gpt-4o; also the run's own, if the agent has another.
        settings: NAME=VALUE: another sampling parameter, such as temperature=0.2.
        tools: Tools whose call was not recorded so: those that only read run (by_effect), all run
            (live), or none does (recorded).
        to: A new file, or a folder, where the fork is recorded; by default the state folder.
    """
    original = Trace.load(found(trace))
    where = None if at is None else address_in(original, at)
    outcome = _outcome(original, where, result, approve, deny)
    if where is None and message:
        raise ConfigurationError("--message needs --at ADDRESS.")
    said = [_pair(one, _MESSAGE) for one in message or ()]
    pairs = [_pair(one, "--set NAME=VALUE") for one in settings or ()]
    patch = Patch(
        prompt=prompt,
        instructions=instructions,
        messages={message_number(original, where or "", n): text for n, text in said},
        result=outcome,
        settings=settings_from(pairs) if pairs else None,
        model=model,
    )
    if where is None and patch == Patch():
        raise ConfigurationError(
            "The fork changes nothing: give --at ADDRESS to do an effect again, or say what is "
            "different, such as --prompt TEXT."
        )
    agent = load_agent(app, original)
    options = options_of(app, model)
    forked(original, agent, at=where, patch=patch, tools=tools, to=to, options=options)


def _check_runs(
    trace: Trace, agent: Agent[Any], at: str | None, tools: LiveTools, allow: str
) -> None:
    """Refuse to do a call again that would be answered from the recording.

    Raises:
        ConfigurationError: The tool would not run.
    """
    started = (one for one in trace.events if one["event"] == "tool.start" and one["at"] == at)
    name = next((one["tool"] for one in started), None)
    if name is None or tools == "live":
        return
    writes = effects_of(trace, agent)[name] != "read"
    if writes or tools == "recorded":
        why = "it may write" if writes else "--tools recorded runs none"
        raise ConfigurationError(
            f"{name} at {at} would not be run: {why}, and nothing else is changed. "
            f"`{allow}` lets it run; or say what it comes to."
        )


def _outcome(
    trace: Trace, at: str | None, result: str | None, approve: bool, deny: str | None
) -> Any:
    """What the effect at the fork's address comes to; None to do it again."""
    given = {"--result": result, "--approve": approve or None, "--deny": deny}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise ConfigurationError(f"{' and '.join(chosen)} contradict each other; give one of them.")
    if chosen and at is None:
        raise ConfigurationError(f"{chosen[0]} needs --at ADDRESS.")
    if result is not None:
        return outcome_at(trace, at or "", result)
    if chosen:
        asked_at(trace, at or "")
    return Decision.approve() if approve else None if deny is None else Decision.deny(deny)


def forked(
    original: Trace,
    agent: Agent[Any],
    *,
    at: str | None,
    patch: Patch,
    tools: LiveTools = "by_effect",
    to: Path | None = None,
    allow: str = "--tools live",
    options: Sequence[str] = ("--app", "FILE.py:NAME"),
) -> Trace:
    """Fork a run, and show the tree, what came of it, and what differs from the original.

    Args:
        original: The run.
        agent: The agent that made it.
        at: The address from which things are different.
        patch: What is different.
        tools: Which tools run, of those whose call was not recorded so.
        to: Where the fork is recorded.
        allow: How to let every tool run, for whoever reads that one was not.
        options: The agent's, for the command that decides about a call.

    Raises:
        ConfigurationError: Nothing would be done.
        Exception: The fork ended with it; it was shown as far as it went, and
            `errors.result_of` has its trace.
    """
    if patch == Patch():
        _check_runs(original, agent, at, tools, allow)
    tree = RunTree(f"fork of {original.run}{f' at {at}' if at else ''}")
    record = to or f"{traces_folder()}{os.sep}"
    before = _files(to)
    failed: Exception | None = None

    async def again() -> RunResult[Any]:
        return await replay.fork(
            original, agent, at=at, patch=patch, tools=tools, record=record, on_event=tree.event
        )

    try:
        result = watched(tree, lambda: anyio.run(again))
    except KeyboardInterrupt:
        _say_where(original, _files(to) - before)
        raise
    except Exception as error:
        reached = result_of(error)
        if reached is None:
            raise  # it has not begun
        failed, result = error, reached
    else:
        print_result(result)
        if tools == "by_effect" and result.trace is not None:
            not_run(_held_back(original, result.trace, at, patch), allow)
    assert result.trace is not None
    print_waiting(result.pending, result.trace.path, options)
    _print_difference(original, result.trace)
    if failed is not None:
        raise _allowing(failed, allow) if tools != "live" else failed
    return result.trace


def _allowing(failed: Exception, allow: str) -> Exception:
    """The error, with how to let a tool run that was not."""
    if isinstance(failed, ReplayDivergence) and failed.kind == "unexpected_call":
        text = f"{failed.message}\n`{allow}` lets it run, and every other tool."
        return ReplayDivergence(text, **failed.data())
    return failed


def _held_back(original: Trace, made: Trace, at: str | None, patch: Patch) -> set[str]:
    """The writing tools that were answered from the recording where the fork does things again."""
    then = {one["at"]: _call(one) for one in original.events if one["event"] == "tool.start"}
    left_out: set[str] = set()
    for call in made.events:
        if call["event"] != "tool.start" or call["effect"] == "read":
            continue
        again = at is not None and f"{call['at']}/".startswith(f"{at}/")
        said = call["at"] == at and patch.result is not None
        if (again or then.get(call["at"]) != _call(call)) and not said:
            left_out.add(call["tool"])
    return left_out


def _call(start: JsonObject) -> tuple[Any, Any]:
    return start["tool"], start.get("arguments")


def _files(to: Path | None) -> set[Path]:
    """The traces where forks are recorded."""
    place = to or traces_folder()
    return {*traces_in([place])} if place.exists() else set()


def _say_where(original: Trace, new: set[Path]) -> None:
    """Where the trace of a fork is that was interrupted."""
    for path in sorted(new):
        if original.run in str(header_of(path).get("fork")):  # else it is of another process
            print_line(f"The trace of the fork, as far as it came, is in {path}")


def _print_difference(original: Trace, made: Trace) -> None:
    """What the change has changed, and where to see all of it."""
    compared = replay.diff(original, made)
    print_line(f"\n{compared.short()}")
    if made.path is None:
        print_line("The trace was not kept: it cannot be written where it was to go.")
    else:
        print_line(f"The trace is in {made.path}")
    if original.path is not None and made.path is not None and not compared.same:
        command = command_line("diff", str(original.path), str(made.path))
        print_line(f"All that differs:\n  {command}")


def outcome_at(trace: Trace, at: str, text: str) -> Any:
    """What an effect is to come to, from what somebody wrote.

    A model's answer may be a whole message as JSON; a call that never ran is answered by
    a decision; the value of a function is JSON, unless it was a text.

    Raises:
        ConfigurationError: The text cannot be meant.
    """
    effect = describe(trace, at)
    match effect["kind"]:
        case "model":
            message = _json(text)
            return message if is_object(message) and "role" in message else text
        case "tool":
            return text if "started" in effect else Decision.answer(text)
        case "compute" if not isinstance(effect.get("value"), str):
            value = _json(text)
            if value is None and text != "null":
                raise ConfigurationError(f"{at} comes to a JSON value, and this is none: {text!r}.")
            return value
        case "compute":
            return text
        case _:
            raise ConfigurationError(
                f"{at} is no effect that comes to a result: name a model call, a tool call or a "
                "function."
            )


def message_number(trace: Trace, at: str, text: str) -> int:
    """The number of a message in a request that can be changed there.

    Raises:
        ConfigurationError: There is no such message, or it comes from elsewhere.
    """
    effect = describe(trace, at)
    if effect["kind"] != "model":
        raise ConfigurationError(f"Messages belong to a model call; {at} is none.")
    messages = effect["messages"]
    if not text.isdecimal() or int(text) >= len(messages):
        raise ConfigurationError(
            f"There is no message {text!r}: the request at {at} has {len(messages)} messages, "
            "counted from 0."
        )
    if is_object(messages[int(text)]) and messages[int(text)].get("role") == "system":
        raise ConfigurationError(f"Message {text} comes from the instructions: change those.")
    return int(text)


def settings_from(pairs: Iterable[tuple[str, str]]) -> ChatSettings:
    """Sampling parameters as somebody wrote them: values are JSON, or else text.

    Raises:
        ConfigurationError: There is no such parameter, or it cannot have this value.
    """
    known = [one.name for one in fields(ChatSettings)]
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.4)
            has = f"nearest: {', '.join(near)}" if near else f"there is {', '.join(known)}"
            raise ConfigurationError(f"There is no setting {name!r}; {has}.")
        value = _json(text)
        values[name] = text if value is None else value
    return ChatSettings(**values)


def _pair(given: str, form: str) -> tuple[str, str]:
    name, sign, value = given.partition("=")
    if not sign:
        raise ConfigurationError(f"{form.split()[0]} {given!r}: expected {form}.")
    return name.strip(), value


def _json(text: str) -> Any:
    """The value that a text is the JSON of; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None
