"""`agentkit resume`: continues a run that was paused or interrupted, or all of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from agentkit.cli.console import command_line, print_line, print_note
from agentkit.cli.find import replayable
from agentkit.cli.load import Many, application, applications, options_of
from agentkit.cli.view.describe import ends_with
from agentkit.cli.view.progress import Progress
from agentkit.cli.view.run import print_waiting, run_and_show
from agentkit.core.effects import Decision
from agentkit.durable import resume_all
from agentkit.errors import AgentKitError, ConfigurationError, safe_str
from agentkit.runtime.result import RunResult
from agentkit.trace.reader import Trace
from agentkit.trace.summary import state_of


def resume(
    trace: Path,
    /,
    *,
    app: str,
    approve: Many = None,
    deny: Many = None,
    answer: Many = None,
    edit: Many = None,
    model: str | None = None,
    deps: str | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Continue a run that was paused or interrupted, in the same trace; or all of a folder.

    What is recorded is not done again. Without a decision, a run that waits for one stays as
    it is, and the calls that wait are printed.

    Args:
        trace: The trace file, its name, or the end of a run's id. What happens is appended to it.
            A folder stands for all unfinished runs in it.
        app: The agent, as FILE.py:NAME or MODULE:NAME. For a folder, FILE.py or MODULE has
            the agents of all its runs.
        approve: ADDRESS: let this call run. The end of an address is enough, or the call's id.
            May be repeated, like the other decisions.
        deny: ADDRESS=REASON: do not let it run; the model reads the reason.
        answer: ADDRESS=TEXT: do not let it run; this is its result.
        edit: ADDRESS=JSON: let it run with other arguments.
        model: The model of the run, if it was not the agent's own.
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
        force: Go on although the agent has changed since the run was recorded.
    """
    texts = {"--approve": approve, "--deny": deny, "--answer": answer, "--edit": edit}
    if trace.is_dir():
        if any(texts.values()) or model is not None:
            raise ConfigurationError(
                f"{str(trace)!r} is a folder, and decisions and --model are for one run. Give its "
                "trace."
            )
        _resume_folder(trace, app, deps, force)
        return
    recorded = replayable(trace)
    if (state := state_of(recorded)) == "ok":
        fork = command_line("fork", str(recorded.path), "--app", app, "--prompt", "TEXT")
        raise ConfigurationError(
            f"The run of {str(recorded.path)!r} has ended, and there is nothing to go on with. "
            f"`{fork}` runs it again with something changed."
        )
    decisions = _decisions(recorded, texts)
    if recorded.pending and not decisions and state != "running":
        print_waiting(recorded.pending, recorded.path, options_of(app, model, deps))
        raise ConfigurationError("The run waits for a decision, and there is none.")
    progress = Progress(f"run {recorded.run}, resumed")
    progress.doing(f"Loading {app}")
    with progress, application(app, recorded, model=model, deps=deps) as loaded:
        loaded.check_deps()

        async def resumed() -> RunResult[Any]:
            assert recorded.path is not None
            return await loaded.agent.resume(
                recorded.path,
                decisions=decisions,
                deps=loaded.deps,
                on_event=progress.tree.event,
                force=force,
            )

        try:
            result, error = run_and_show(progress, lambda: loaded.run(resumed))
        except KeyboardInterrupt:
            print_line(f"The trace is in {recorded.path}")
            raise
        print_line(f"The trace is in {recorded.path}")
        if error is not None:
            raise error
        print_waiting(result.pending, recorded.path, loaded.options())


def _resume_folder(folder: Path, app: str, deps: str | None, force: bool) -> None:
    """Go on with all unfinished runs of a folder, and print what became of each.

    Raises:
        AgentKitError: One failed, or did not go on. One that waits for a decision has not failed.
    """
    with applications(app, deps=deps) as (loop, agents, value):
        resumed = loop.run(resume_all(folder, agents, deps=value, force=force))
    for one in resumed:
        print_line(str(one))
        if one.outcome in ("changed", "unreadable") and one.error is not None:
            for line in safe_str(one.error).splitlines()[1:]:
                print_line(line)
    if not resumed:
        print_note(f"There are no unfinished runs in {str(folder)!r}.")
    failed = sum(one.outcome not in ("finished", "paused") for one in resumed)
    if failed:
        raise AgentKitError(f"{failed} of {len(resumed)} unfinished runs did not go on to an end.")


def _decisions(trace: Trace, texts_by_option: dict[str, list[str] | None]) -> dict[str, Decision]:
    """Return the decisions by the address of their calls."""
    decisions: dict[str, Decision] = {}
    for option, texts in texts_by_option.items():
        for text in texts or ():
            name, sign, value = (text, "", "") if option == "--approve" else text.partition("=")
            if not sign and option in _FORMS:
                raise ConfigurationError(f"{option} {text!r}: expected {option} {_FORMS[option]}.")
            at = _waiting_at(trace, option, name)
            if at in decisions:
                raise ConfigurationError(f"There are two decisions about {at}; give one of them.")
            decisions[at] = _KINDS[option](value)
    return decisions


_FORMS = {"--answer": "ADDRESS=TEXT", "--edit": "ADDRESS=JSON"}
_KINDS: dict[str, Callable[[str], Decision]] = {
    "--approve": lambda _: Decision.approve(),
    "--deny": Decision.deny,
    "--answer": Decision.answer,
    "--edit": Decision.edit,
}


def _waiting_at(trace: Trace, option: str, name: str) -> str:
    """Return the address of the one waiting call that a decision names."""
    waiting = trace.pending
    whole = [one.at for one in waiting if name in (one.at, one.call.id)]
    here = whole or ends_with(trace, [one.at for one in waiting], name)
    if len(here) != 1:
        waits = ", ".join(f"{one.at} ({one.call.name})" for one in waiting) or "none"
        many = "more than one call waits" if here else "no call waits"
        raise ConfigurationError(f"{option} {name}: {many} there. Those that wait: {waits}.")
    return here[0]
