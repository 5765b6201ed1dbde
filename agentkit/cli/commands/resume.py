"""`agentkit resume`: continues a run that was paused or interrupted, with decisions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentkit.cli.console import command_line, print_line
from agentkit.cli.find import replayable
from agentkit.cli.load import Many, application, options_of
from agentkit.cli.view.describe import ends_with
from agentkit.cli.view.progress import Progress
from agentkit.cli.view.run import print_waiting, run_and_show
from agentkit.core.effects import Decision
from agentkit.errors import ConfigurationError
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
) -> None:
    """Continue a run that was paused or interrupted, in the same trace.

    What is recorded is not done again. Without a decision, a run that waits for one stays as
    it is, and the calls that wait are printed.

    Args:
        trace: The trace file, its name, or the end of a run's id. What happens is appended to it.
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        approve: ADDRESS: let this call run. The end of an address is enough, or the call's id.
            May be repeated, like the other decisions.
        deny: ADDRESS=REASON: do not let it run; the model reads the reason.
        answer: ADDRESS=TEXT: do not let it run; this is its result.
        edit: ADDRESS=JSON: let it run with other arguments.
        model: The model of the run, if it was not the agent's own.
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
    """
    recorded = replayable(trace)
    if (state := state_of(recorded)) == "ok":
        fork = command_line("fork", str(recorded.path), "--app", app, "--prompt", "TEXT")
        raise ConfigurationError(
            f"The run of {str(recorded.path)!r} has ended, and there is nothing to go on with. "
            f"`{fork}` runs it again with something changed."
        )
    texts = {"--approve": approve, "--deny": deny, "--answer": answer, "--edit": edit}
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
                recorded.path, decisions=decisions, deps=loaded.deps, on_event=progress.tree.event
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
