"""`agentkit step`: walks through a recorded run, and goes on from a place in it with changes.

Nothing of the run is done again until `go`, which is a fork.
"""

from __future__ import annotations

import sys
from cmd import Cmd
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.text import Text

from agentkit.cli.changes import (
    Change,
    What,
    check_asked,
    joined,
    message_number,
    outcome_from,
    patch_of,
    settings_from,
    written,
)
from agentkit.cli.commands.fork import forked
from agentkit.cli.commands.show import print_effect, print_message
from agentkit.cli.console import OUT, print_line, print_note, shown
from agentkit.cli.find import find, state_of
from agentkit.cli.load import Application, application, options_of
from agentkit.cli.view.describe import address_in, damage_named, describe, describe_run
from agentkit.cli.view.run import print_error
from agentkit.cli.view.tally import effects_of
from agentkit.cli.view.tree import MARKS, as_text, decided, pretty
from agentkit.core.effects import Address, Decision
from agentkit.errors import AgentKitError, ConfigurationError, TraceError
from agentkit.messages import JsonObject, is_object
from agentkit.models import resolve_model
from agentkit.runtime.result import result_of
from agentkit.trace.reader import Trace

_NAMES = "next previous goto list show messages edit changes undo go help quit".split()
_SHORT = {name[0]: name for name in _NAMES if name != "go"}
_HELP = """\
next, n             go to the next effect: a model call, a tool call, a function
previous, p         go to the one before
goto PLACE, g       go to an address, the end of one, or a number in the list
list, l             all effects; > is where you are, * is changed
show, s             everything about this effect
messages, m         the conversation up to here

edit TEXT, e        the result of this effect: what a tool or the model answers
edit result TEXT    the same, also where TEXT begins with one of the words below
edit approve        decide about this call; or `edit deny REASON`
edit message N TEXT another message in this request
edit prompt TEXT    another prompt
edit instructions TEXT
edit setting NAME VALUE
edit model NAME     another model, from here on
                    The first word says what is changed. Without TEXT your $EDITOR opens.
changes, c          what was changed so far
undo, u             take the last change back

go, go on           run on from the change, or from here: what was before stays as
                    recorded. Tools that only read run; with `go live` all do.
help, h             this
quit, q             the end; also Ctrl-D"""


def step(
    trace: Path,
    /,
    *,
    app: str | None = None,
    model: str | None = None,
    deps: str | None = None,
) -> None:
    """Walk through a recorded run, change something, and go on from there.

    Type `help` for the commands. They may be piped in; then the status is 1 if one fails.

    Args:
        trace: The trace file, or the end of a run's id. It stays as it is.
        app: The agent, as FILE.py:NAME or MODULE:NAME; only `go` needs it.
        model: The model of the run, if it was not the agent's own.
        deps: What the agent's tools depend on, as FILE.py:NAME or MODULE:NAME: a value, or a
            function that returns it.
    """
    recorded = Trace.load(find(trace))
    for name, value in (("--model", model), ("--deps", deps)):
        if app is None and value is not None:
            raise ConfigurationError(f"{name} is for the agent of --app FILE.py:NAME: give both.")
    with ExitStack() as stack:
        loaded = None
        if app is not None:
            loaded = stack.enter_context(application(app, recorded, model=model, deps=deps))
        with damage_named(recorded):
            walk = _Walk(recorded, loaded, lambda other: options_of(app, other or model, deps))
            walk.begin()
        walk.follow()
    if walk.failed and not walk.use_rawinput:
        sys.exit(1)


class _Walk(Cmd):
    """A place in a run, what is changed there, and the commands that are typed or piped in."""

    prompt = "step> "

    def __init__(
        self,
        trace: Trace,
        loaded: Application | None,
        options: Callable[[str | None], list[str]],
    ) -> None:
        # At a terminal `input` reads, with a history and line editing.
        self.use_rawinput = sys.stdin.isatty() and sys.stdout.isatty()
        super().__init__(stdout=None if self.use_rawinput else sys.stderr)
        if not self.use_rawinput:
            sys.stdin.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # of TextIO it is not known
        self._loaded, self._options = loaded, options
        self._interrupted = False
        self.failed = False
        self._enter(trace)

    def begin(self) -> None:
        """Print where the walk begins."""
        state, many = state_of(self._trace), len(self._places)
        print_line(f"run {self._trace.run}  {state}  {many} effects; `help` lists the commands")
        self._look()

    def follow(self) -> None:
        """Obey every line that is typed or piped in, to the end."""
        while True:
            try:
                self.cmdloop()
                return
            except KeyboardInterrupt:
                print()
                if self._interrupted:
                    raise
                self._interrupted = True  # the line is cleared; what was changed is not lost
                print_note("Ctrl-C once more, or `quit`, leaves.")

    # As `Cmd` calls them

    def precmd(self, line: str) -> str:
        """Write a short command out."""
        self._interrupted = False
        word, space, rest = line.strip().partition(" ")
        return f"{_SHORT.get(word, word)}{space}{rest}"

    def onecmd(self, line: str) -> bool:
        """Obey a line; what cannot be done is printed, and the walk stays where it is."""
        # What goes wrong while the agent runs is no fault of the trace.
        try:
            with (
                nullcontext()
                if line.startswith("go ") or line == "go"
                else damage_named(self._trace)
            ):
                return super().onecmd(line)
        except Exception as error:
            if not isinstance(error, AgentKitError) and result_of(error) is None:
                raise
            self.failed = True
            print_error(error)
            return False

    def emptyline(self) -> bool:
        """Do nothing; by default the last command is repeated."""
        return False

    def completenames(self, text: str, *_: object) -> list[str]:
        """Return the commands that begin so."""
        return [name for name in _NAMES if name.startswith(text)]

    def default(self, line: str) -> None:
        """Refuse an unknown command."""
        word = line.split()[0]
        near = get_close_matches(word, _NAMES, n=1, cutoff=0.5)
        meant = f" Did you mean `{near[0]}`?" if near else ""
        raise ConfigurationError(f"There is no command {word!r}.{meant} `help` lists the commands.")

    def do_help(self, arg: str) -> None:
        """Print the commands."""
        OUT.print(_HELP, highlight=False)

    def do_quit(self, _: str) -> bool:
        """End the walk."""
        return True

    def do_EOF(self, _: str) -> bool:  # the name is Cmd's
        """End the walk where the input ends."""
        print(file=self.stdout)
        return True

    @property
    def _here(self) -> str:
        return self._places[self._number]

    def _enter(self, trace: Trace, at: str | None = None) -> None:
        """Begin with this trace, at this place if it has it."""
        effects = trace.effects.values()
        places = (one for one in effects if one.begun or one.pending is not None)
        kinds: dict[str, str] = {one.at: one.kind for one in places if one.kind != "agent"}
        if not kinds:
            raise TraceError(
                f"In the run {trace.run} nothing was asked or done, so there is no step to take.",
                path=str(trace.path),
            )
        self._trace, self._kinds, self._places = trace, kinds, [*kinds]
        self._agents = [one.at for one in effects if one.kind == "agent"]
        self._number = self._places.index(at) if at in kinds else 0
        self._changes: tuple[Change, ...] = ()

    # Looking

    def do_next(self, _: str) -> None:
        """Go to the next effect."""
        self._move(1)

    def do_previous(self, _: str) -> None:
        """Go to the effect before."""
        self._move(-1)

    def _move(self, by: int) -> None:
        if not 0 <= self._number + by < len(self._places):
            print_line(f"This is the {'last' if by > 0 else 'first'} effect.", "yellow")
            return
        self._number += by
        self._look()

    def do_goto(self, place: str) -> None:
        """Go to an address or a number."""
        if not place:
            raise ConfigurationError("goto where? An address, its end, or a number in the list.")
        at = place
        if not place.isdecimal():
            at = address_in(self._trace, place)
        elif 1 <= int(place) <= len(self._places):
            at = self._places[int(place) - 1]
        if at not in self._kinds:
            raise ConfigurationError(
                f"{at} is not an effect; `list` shows those of the run, from 1 to "
                f"{len(self._places)}."
            )
        self._number = self._places.index(at)
        self._look()

    def _look(self) -> None:
        self._print_place(self._number, describe(self._trace, self._here))

    def do_list(self, _: str) -> None:
        """List all effects."""
        effects = {one["at"]: one for one in describe_run(self._trace)["effects"]}
        for number, at in enumerate(self._places):
            self._print_place(number, effects.get(at) or describe(self._trace, at))

    def _print_place(self, number: int, effect: JsonObject) -> None:
        at = self._places[number]
        here = ">" if number == self._number else " "
        changed = "*" if any(one.at == at for one in self._changes) else " "
        status = effect.get("status", "…")
        mark, style = MARKS.get(status, (shown(as_text(status)), "yellow"))
        name = as_text(effect.get("tool") or effect.get("model") or effect.get("name") or "")
        arguments = as_text(effect.get("arguments", ""))
        room = max(20, OUT.width - len(at) - 12)
        text = Text.assemble(f"{here}{changed}{number + 1:>3} ", (shown(at), "cyan"))
        text.append(f"  {shown(f'{name} {arguments}', room // 2)} ").append(mark, style)
        text.append(f" {shown(_outcome(effect), room // 2)}", "dim")
        OUT.print(text, no_wrap=True, overflow="ellipsis")

    def do_show(self, _: str) -> None:
        """Print everything about the effect here."""
        print_effect(describe(self._trace, self._here))

    def do_messages(self, _: str) -> None:
        """Print the last request up to here, its answer, and the results that have come since."""
        above = [at for at in self._agents if f"{self._here}/".startswith(f"{at}/")]
        agent, before = max(above, key=len), self._places[: self._number + 1]
        steps = [at for at in before if self._kinds[at] == "model" and Address(at).parent == agent]
        if steps:
            call = describe(self._trace, steps[-1])
            direct = [at for at in before if Address(at).parent == steps[-1]]
            after = [call, *(describe(self._trace, at) for at in direct)]
            messages = [*call.get("messages", ()), *(e["message"] for e in after if "message" in e)]
        else:
            messages = describe(self._trace, agent)["input"]["messages"]
        for number, message in enumerate(messages):
            print_message(f"message {number}", message)

    # Changing

    def do_edit(self, rest: str) -> None:
        """Change something here."""
        word, _, text = rest.partition(" ")
        effect = describe(self._trace, self._here)
        match word:
            case "approve" | "deny":
                check_asked(self._trace, self._here)
                decision = Decision.approve() if word == "approve" else Decision.deny(text.strip())
                self._add("result", decision)
            case "message":
                number, _, new = text.strip().partition(" ")
                index = message_number(self._trace, self._here, number)
                now = as_text(effect["messages"][index]["content"])
                self._add("messages", written(new, now), number=index)
            case "prompt" | "instructions":
                now = self._prompt() if word == "prompt" else self._instructions()
                self._add(word, written(text, now))
                meant = f"If the result of {self._here} was meant"
                print_line(f"{meant}: `undo`, and `edit result {rest}`.")
            case "setting":
                name, _, value = text.strip().partition(" ")
                if not value:
                    raise ConfigurationError(f"edit {rest}: expected edit setting NAME VALUE.")
                self._add("settings", settings_from([(name, value)]))
            case "model":
                resolve_model(text.strip())  # raises for an unknown name
                self._add("model", text.strip())
            case _:
                new = written(text if word == "result" else rest, _editable(effect))
                self._add("result", outcome_from(self._trace, self._here, new))

    def _prompt(self) -> str:
        return as_text(self._trace.input()[0][-1].to_json()["content"])

    def _instructions(self) -> str:
        first = next(at for at, kind in self._kinds.items() if kind == "model")
        messages = describe(self._trace, first)["messages"]
        return next((as_text(one["content"]) for one in messages if one["role"] == "system"), "")

    def _add(self, what: What, value: Any, number: int | None = None) -> None:
        at = self._here if what in ("result", "messages") else self._from(what)
        new = Change(what=what, at=at, value=value, number=number)
        self._changes = joined(self._changes, new)
        print_line(f"{self._changes[-1].text()}. `go` runs on with that.")

    def _from(self, what: str) -> str | None:
        """Return where a change of the agent begins to hold: at its next model call."""
        if what == "prompt":
            return None
        for at in self._places[self._number :]:
            if self._kinds[at] == "model" and Address(at).parent == self._agents[0]:
                return at
        raise ConfigurationError(
            f"There is no model call of {self._agents[0]} from here on that other {what} would "
            "change. Go back to one."
        )

    def do_changes(self, _: str) -> None:
        """Print what was changed so far."""
        for one in self._changes:
            print_line(one.text())
        if not self._changes:
            print_line("Nothing is changed.")

    def do_undo(self, _: str) -> None:
        """Take the last change back."""
        if not self._changes:
            print_line("Nothing is changed.")
            return
        print_line(f"Undone: {self._changes[-1].text()}")
        self._changes = self._changes[:-1]

    # Going on

    def _tools(self) -> list[str]:
        """Return the names of all tools, of the agent and of the run."""
        assert self._loaded is not None
        return [*effects_of(self._trace, self._loaded.agent)]

    def do_go(self, rest: str) -> None:
        """Fork the run with the changes, or from here, and enter the fork."""
        how = rest.removeprefix("on").strip()
        if how not in ("", "live"):
            raise ConfigurationError(f"go {rest}: expected go, or go live to let every tool run.")
        if self._loaded is None:
            raise ConfigurationError(
                "`go` runs the agent, and there is none: start with --app FILE.py:NAME."
            )
        at = self._changes[0].at if self._changes else self._here
        patch = patch_of(self._changes)
        try:
            made = forked(
                self._trace,
                self._loaded,
                self._options(patch.get("model")),
                at=at,
                patch=patch,
                live=self._tools() if how == "live" else (),
                allow="go live",
            )
        except KeyboardInterrupt:
            print_note("Interrupted; you are where you were.")
            return
        self._enter(made, at)
        print_line("\nYou are in the new run now.", "green")
        self._look()


def _outcome(effect: JsonObject) -> str:
    """Return the outcome of an effect, in one line."""
    decision = effect.get("decision")
    if decision is not None and "started" not in effect:
        return decided(Decision(decision["kind"], decision["text"], decision["by"]))
    message = effect.get("message")
    if is_object(message):
        content = message.get("content")
        text = "" if content is None else as_text(content)
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        return " ".join([text, *(f"→ {call['name']} {call['arguments']}" for call in calls)])
    if "value" in effect:
        return as_text(effect["value"])
    return as_text(effect.get("error", {}).get("message", ""))


def _editable(effect: JsonObject) -> str:
    """Return the outcome of an effect as a text to edit; a message with calls as JSON."""
    message = effect.get("message")
    if not is_object(message):
        return pretty(effect.get("value", ""))
    return pretty(message if message.get("tool_calls") else message.get("content"))
