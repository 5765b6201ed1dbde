"""`agentkit resume`: a run that was paused or interrupted goes on, with what was decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import anyio
from cyclopts import Parameter

from agentkit.cli.console import command_line, print_line
from agentkit.cli.find import found, state_of
from agentkit.cli.load import load_agent, options_of
from agentkit.cli.view.tree import RunTree
from agentkit.cli.view.watch import print_result, print_waiting, watched
from agentkit.core.effects import Decision, PendingCall
from agentkit.errors import ConfigurationError
from agentkit.runtime.result import RunResult, result_of
from agentkit.trace.open import check_replayable
from agentkit.trace.reader import Trace

_Many: TypeAlias = Annotated[list[str] | None, Parameter(negative="")]


def resume(
    trace: Path,
    /,
    *,
    app: Annotated[str, Parameter(name="--app")],
    approve: _Many = None,
    deny: _Many = None,
    answer: _Many = None,
    edit: _Many = None,
    model: str | None = None,
) -> None:
    """Go on with a run that was paused or interrupted, in the same trace.

    What is recorded is not done again. Without a decision, a run that waits for one stays as
    it is, and what it waits for is printed.

    Args:
        trace: The trace file, its name, or the end of a run's id. What happens is appended to it.
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        approve: ADDRESS: let this call run. An address may be given by its end, or be the
            call's id; may be repeated, as the other decisions.
        deny: ADDRESS=REASON: do not let it run; the reason is told to the model.
        answer: ADDRESS=TEXT: do not let it run; this is its result.
        edit: ADDRESS=JSON: let it run with other arguments.
        model: The model of the run, if it was not the agent's own.
    """
    recorded = Trace.load(found(trace))
    check_replayable(recorded)
    if (state := state_of(recorded)) == "ok":
        raise ConfigurationError(
            f"The run of {str(recorded.path)!r} has ended, and there is nothing to go on with. "
            f"`{command_line('fork', str(recorded.path))}` runs it again with something changed."
        )
    options = options_of(app, model)
    given = {"--approve": approve, "--deny": deny, "--answer": answer, "--edit": edit}
    decisions = _decisions(recorded.pending, given)
    if recorded.pending and not decisions and state != "running":
        print_waiting(recorded.pending, recorded.path, options)
        raise ConfigurationError("The run waits for a decision, and none was given.")
    agent = load_agent(app, recorded, model)
    tree = RunTree(f"run {recorded.run}, resumed")

    async def on() -> RunResult[Any]:
        assert recorded.path is not None
        return await agent.resume(recorded.path, decisions=decisions, on_event=tree.event)

    try:
        result = watched(tree, lambda: anyio.run(on))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or result_of(error) is not None:
            print_line(f"The trace is in {recorded.path}")
        raise
    print_result(result)
    print_line(f"The trace is in {recorded.path}")
    print_waiting(result.pending, recorded.path, options)


def _decisions(
    waiting: Sequence[PendingCall], given: dict[str, list[str] | None]
) -> dict[str, Decision]:
    """What was decided, by the whole address of each call.

    Raises:
        ConfigurationError: A decision names no call that waits, or more than one, or cannot
            be read; or there are two about one call.
    """
    made: dict[str, Decision] = {}
    for option, texts in given.items():
        for text in texts or ():
            name, sign, said = (text, "", "") if option == "--approve" else text.partition("=")
            if not sign and option in _FORMS:
                raise ConfigurationError(f"{option} {text!r}: expected {option} {_FORMS[option]}.")
            at = _meant(waiting, option, name)
            if at in made:
                raise ConfigurationError(f"There are two decisions about {at}; give one of them.")
            made[at] = _KINDS[option](said)
    return made


_FORMS = {"--answer": "ADDRESS=TEXT", "--edit": "ADDRESS=JSON"}
_KINDS: dict[str, Callable[[str], Decision]] = {
    "--approve": lambda _: Decision.approve(),
    "--deny": Decision.deny,
    "--answer": Decision.answer,
    "--edit": Decision.edit,
}


def _meant(waiting: Sequence[PendingCall], option: str, name: str) -> str:
    """The address of the call that waits and that somebody means."""
    whole = [one.at for one in waiting if name in (one.at, one.call.id)]
    ends = [one.at for one in waiting if one.at.endswith(f"/{name.strip('/')}")]
    here = whole or ends
    if len(here) != 1:
        waits = ", ".join(f"{one.at} ({one.call.name})" for one in waiting) or "none"
        many = "more than one call waits" if here else "no call waits"
        raise ConfigurationError(f"{option} {name}: {many} there. Those that wait: {waits}.")
    return here[0]
