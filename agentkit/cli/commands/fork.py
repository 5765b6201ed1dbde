"""`agentkit fork`: a recorded run with something changed, live from there on."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from agentkit.agent import Agent
from agentkit.cli.changes import check_asked, message_number, outcome_from, settings_from
from agentkit.cli.console import AsJson, command_line, print_json, print_line
from agentkit.cli.find import header_of, replayable, traces_folder, traces_in
from agentkit.cli.load import Application, Many, application
from agentkit.cli.view.describe import address_in
from agentkit.cli.view.progress import Progress, Quiet, what_to_show
from agentkit.cli.view.run import (
    document,
    effects_of,
    print_held_back,
    print_ran,
    print_waiting,
    run_and_show,
    tools_at,
)
from agentkit.core.effects import Decision
from agentkit.errors import ConfigurationError, ReplayDivergence
from agentkit.replay import diff
from agentkit.runtime.result import RunResult
from agentkit.trace.reader import Trace


def fork(
    trace: Path,
    /,
    *,
    app: str,
    at: str | None = None,
    prompt: str | None = None,
    instructions: str | None = None,
    message: Many = None,
    result: str | None = None,
    approve: Annotated[bool, Parameter(negative="")] = False,
    deny: str | None = None,
    model: str | None = None,
    deps: str | None = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    live: Many = None,
    answer: Annotated[list[str] | None, Parameter(name="--answer", negative="")] = None,
    to: Annotated[Path | None, Parameter(name="--trace")] = None,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Run a recorded run again with something changed, and show the difference.

    What does not depend on the change is answered from the recording, the rest is done.

    Args:
        trace: The trace file, or the end of a run's id. It stays as it is.
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        at: The address, or its end, of the effect from which things are different; everything
            before it stays as recorded. Alone: the effect is done again.
        prompt: Another prompt.
        instructions: Other instructions.
        message: N=TEXT: another message in the request at --at, as `agentkit show --at` numbers it.
        result: The outcome of the effect at --at: a tool's result, or the model's answer.
        approve: Let the call at --at run: it then really runs, though it may write.
        deny: Do not let the call at --at run; the model reads the reason.
        model: Another model, such as openai:gpt-4o; also the run's own, if the agent has another.
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
        settings: NAME=VALUE: another sampling parameter, such as temperature=0.2.
        live: A tool whose calls run again, also if it writes, by name, or one call, by its address
            or the end of it. May be repeated.
        answer: TOOL=TEXT: what all calls of a tool are answered with; or one effect, as
            ADDRESS=TEXT. May be repeated.
        to: A new file, or a folder, where the fork is recorded; by default the state folder.
        quiet: Print the output and nothing else.
        json: Print one JSON document about the run, and nothing else on stdout.
    """
    show = what_to_show(quiet, json)
    original = replayable(trace)
    where = None if at is None else address_in(original, at)
    outcome = _outcome(original, where, result, approve, deny)
    if where is None and message:
        raise ConfigurationError("--message needs --at ADDRESS.")
    texts = [_pair(one, "--message N=TEXT") for one in message or ()]
    pairs = [_pair(one, "--set NAME=VALUE") for one in settings or ()]
    changes = {
        "prompt": prompt,
        "instructions": instructions,
        "messages": {message_number(original, where or "", n): text for n, text in texts} or None,
        "result": outcome,
        "answers": _answers(original, answer or ()) or None,
        "settings": settings_from(pairs) if pairs else None,
        "model": model,
    }
    patch = {name: value for name, value in changes.items() if value is not None}
    if where is None and not patch and not live:
        raise ConfigurationError(
            "The fork changes nothing: give --at ADDRESS to do an effect again, --live NAME to run "
            "a tool again, or say what is different, such as --prompt TEXT."
        )
    running = [_whole(original, one) for one in live or ()]
    progress = Progress(_title(original, where), show)
    progress.doing(f"Loading {app}")
    with progress, application(app, original, deps=deps) as loaded:
        forked(original, loaded, at=where, patch=patch, live=running, to=to, progress=progress)


def _title(original: Trace, at: str | None) -> str:
    return f"fork of {original.run}{f' at {at}' if at else ''}"


def _answers(trace: Trace, pairs: Iterable[str]) -> dict[str, Any]:
    """Return what tools and single effects are answered with."""
    answers: dict[str, Any] = {}
    for one in pairs:
        name, text = _pair(one, "--answer TOOL=TEXT")
        at = _whole(trace, name)
        answers[at] = outcome_from(trace, at, text) if at in trace.effects else text
    return answers


def _whole(trace: Trace, name: str) -> str:
    """Return a tool's name, or the address that one or its end stands for."""
    # A tool has no slash in its name: the end of an address has.
    return address_in(trace, name) if "/" in name and name[0] != "/" else name


def _check_runs(
    trace: Trace, agent: Agent[Any], at: str | None, live: Collection[str], allow: str
) -> None:
    """Refuse to do a call again that would be answered from the recording."""
    effect = trace.effects.get(at or "")
    if effect is None or effect.kind != "tool" or not effect.begun:
        return
    name = effect.name
    if effects_of(trace, agent)[name] != "read" and not {name, at} & {*live}:
        raise ConfigurationError(
            f"{name} at {at} would not be run: it may write, and nothing else is changed. "
            f"`{allow.replace('NAME', name)}` lets it run; or give its outcome."
        )


def _outcome(
    trace: Trace, at: str | None, result: str | None, approve: bool, deny: str | None
) -> Any:
    """Return the outcome of the effect at the fork's address; None to do it again."""
    options = {"--result": result, "--approve": approve or None, "--deny": deny}
    chosen = [name for name, value in options.items() if value is not None]
    if len(chosen) > 1:
        raise ConfigurationError(f"{' and '.join(chosen)} contradict each other; give one of them.")
    if chosen and at is None:
        raise ConfigurationError(f"{chosen[0]} needs --at ADDRESS.")
    if result is not None:
        return outcome_from(trace, at or "", result)
    if chosen:
        check_asked(trace, at or "")
    return Decision.approve() if approve else None if deny is None else Decision.deny(deny)


def forked(
    original: Trace,
    loaded: Application,
    *,
    at: str | None,
    patch: Mapping[str, Any],
    live: Collection[str] = (),
    to: Path | None = None,
    allow: str = "--live NAME",
    progress: Progress | None = None,
) -> Trace:
    """Fork a run; show its tree, its result, and what differs from the original.

    `patch` and `live` are arguments of `Agent.fork`; `allow` is how to let the tool NAME run,
    printed where one was held back; `progress` is what moves already. What ends the fork is
    raised when it has been shown.
    """
    loaded.check_deps()
    if not patch:
        _check_runs(original, loaded.agent, at, live, allow)
    progress = progress or Progress(_title(original, at))
    record = to or f"{traces_folder()}{os.sep}"

    async def work() -> RunResult[Any]:
        return await loaded.agent.fork(
            original,
            at=at,
            **patch,
            live=live,
            deps=loaded.deps,
            record=record,
            on_event=progress.tree.event,
        )

    before = _files(to)
    try:
        with progress:
            result, error = run_and_show(progress, lambda: loaded.run(work))
    except KeyboardInterrupt:
        _print_interrupted(original, _files(to) - before)
        raise
    assert result.trace is not None
    assert result.replayed is not None
    held_back = result.replayed.held_back
    if progress.show == "json":
        print_json(document(result, error) | {"fork_of": original.run})
    if progress.show != "tree":
        if error is not None:
            raise error
        return result.trace
    print_ran(result.trace, result.replayed.ran)
    if error is None:
        print_held_back(result.trace, held_back, allow)
    print_waiting(result.pending, result.trace.path, loaded.options(patch.get("model")))
    _print_difference(original, result.trace)
    if error is not None:
        raise _allowing(error, tools_at(result.trace, held_back), allow)
    return result.trace


def _allowing(error: Exception, tools: Iterable[str], allow: str) -> Exception:
    """Return the error, with how to let the tools run that were held back."""
    if isinstance(error, ReplayDivergence) and error.kind == "unexpected_call" and tools:
        options = " or ".join(f"`{allow.replace('NAME', name)}`" for name in sorted(tools))
        return ReplayDivergence(f"{error.message}\n{options} lets it run.", **error.data())
    return error


def _files(to: Path | None) -> set[Path]:
    """Return the traces where forks are recorded."""
    place = to or traces_folder()
    return {*traces_in([place])} if place.exists() else set()


def _print_interrupted(original: Trace, new: set[Path]) -> None:
    """Print where the trace of an interrupted fork is."""
    for path in sorted(new):
        if original.run in str(header_of(path).get("fork")):  # else it is of another process
            print_line(f"The trace of the fork, as far as it came, is in {path}")


def _print_difference(original: Trace, fork_trace: Trace) -> None:
    """Print what the change has changed, and where to see all of it."""
    compared = diff(original, fork_trace)
    print_line(f"\n{compared.short()}")
    if fork_trace.path is None:
        print_line("The trace was not kept: its file cannot be written.")
    else:
        print_line(f"The trace is in {fork_trace.path}")
    if original.path is not None and fork_trace.path is not None and not compared.same:
        command = command_line("diff", str(original.path), str(fork_trace.path))
        print_line(f"All that differs:\n  {command}")


def _pair(text: str, form: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigurationError(f"{form.split()[0]} {text!r}: expected {form}.")
    return name.strip(), value
