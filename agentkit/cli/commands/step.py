"""`agentkit step`: walks through a recorded run, and goes on from a place in it with changes.

Nothing of the run is done again until `go`, which is a fork.
"""

from __future__ import annotations

import inspect
import sys
from cmd import Cmd
from contextlib import nullcontext
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
from agentkit.cli.find import find
from agentkit.cli.load import Application, application
from agentkit.cli.view.describe import address_in, damage_named, describe
from agentkit.cli.view.run import effects_of, print_error
from agentkit.core.effects import Decision
from agentkit.errors import AgentKitError, ConfigurationError, TraceError
from agentkit.messages import is_object
from agentkit.models import resolve_model
from agentkit.runtime.result import result_of
from agentkit.trace.effects import RecordedEffect
from agentkit.trace.reader import Trace
from agentkit.trace.summary import state_of
from agentkit.trace.words import MARKS, as_text, decided, pretty

_NAMES = "next previous goto list show messages edit changes undo go help quit".split()
_SHORT = {name[0]: name for name in _NAMES if name != "go"}


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
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
    """
    recorded = Trace.load(find(trace))
    for name, value in (("--model", model), ("--deps", deps)):
        if app is None and value is not None:
            raise ConfigurationError(f"{name} is for the agent of --app FILE.py:NAME: give both.")
    loading = nullcontext() if app is None else application(app, recorded, model=model, deps=deps)
    with loading as loaded:
        with damage_named(recorded):
            walk = _Walk(recorded, loaded)
            walk.begin()
        walk.follow()
    if walk.failed and not walk.use_rawinput:
        sys.exit(1)


class _Walk(Cmd):
    """A place in a run, what is changed there, and the commands that are typed or piped in.

    The docstrings of the commands are what `help` prints.
    """

    prompt = "step> "

    def __init__(self, trace: Trace, loaded: Application | None) -> None:
        # At a terminal `input` reads, with a history and line editing.
        self.use_rawinput = sys.stdin.isatty() and sys.stdout.isatty()
        super().__init__(stdout=None if self.use_rawinput else sys.stderr)
        if not self.use_rawinput:
            sys.stdin.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # of TextIO it is not known
        self._loaded = loaded
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
        runs = line.split(maxsplit=1)[:1] == ["go"]
        try:
            with nullcontext() if runs else damage_named(self._trace):
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
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ConfigurationError(f"There is no command {word!r}.{hint} `help` lists the commands.")

    def do_help(self, arg: str) -> None:
        """List the commands; each may be shortened to its first letter, but `go`."""
        for name in _NAMES:
            lines = inspect.getdoc(getattr(self, f"do_{name}")) or ""
            print_line(f"{name:<12}" + lines.replace("\n", "\n" + " " * 12))

    def do_quit(self, _: str) -> bool:
        """End the walk, as Ctrl-D does."""
        return True

    def do_EOF(self, _: str) -> bool:  # the name is Cmd's
        """End the walk where the input ends."""
        print(file=self.stdout)
        return True

    @property
    def _here(self) -> RecordedEffect:
        return self._places[self._number]

    def _enter(self, trace: Trace, at: str | None = None) -> None:
        """Begin with this trace, at this place if it has it."""
        effects = trace.effects.values()
        self._agents = [one.at for one in effects if one.kind == "agent"]
        self._places = [
            one
            for one in effects
            # That the arguments of a call were read is part of its approval.
            if one.kind != "agent" and not one.name.startswith("arguments:")
            if one.begun or one.pending is not None
        ]
        if not self._places:
            raise TraceError(
                f"In the run {trace.run} nothing was asked or done, so there is no step to take.",
                path=str(trace.path),
            )
        self._trace = trace
        self._number = next((n for n, one in enumerate(self._places) if one.at == at), 0)
        self._changes: tuple[Change, ...] = ()

    # Looking

    def do_next(self, _: str) -> None:
        """Go to the next effect: a model call, a tool call, a function."""
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
        """Go to an address, the end of one, or a number in the list."""
        if not place:
            raise ConfigurationError("goto where? An address, its end, or a number in the list.")
        numbers: dict[str, int] = {}
        for number, one in enumerate(self._places):
            numbers |= {str(number + 1): number, one.at: number}
        place = place if place.isdecimal() else address_in(self._trace, place)
        if place not in numbers:
            raise ConfigurationError(
                f"{place} is not an effect; `list` shows those of the run, from 1 to "
                f"{len(self._places)}."
            )
        self._number = numbers[place]
        self._look()

    def _look(self) -> None:
        self._print_place(self._number)

    def do_list(self, _: str) -> None:
        """List all effects; > is where you are, * is changed."""
        for number in range(len(self._places)):
            self._print_place(number)

    def _print_place(self, number: int) -> None:
        effect = self._places[number]
        here = ">" if number == self._number else " "
        changed = "*" if any(one.at == effect.at for one in self._changes) else " "
        status = effect.skipped or effect.status
        mark, style = MARKS.get(status, (shown(status), "yellow"))
        room = max(20, OUT.width - len(effect.at) - 12)
        text = Text.assemble(f"{here}{changed}{number + 1:>3} ", (shown(effect.at), "cyan"))
        text.append(f"  {shown(f'{effect.name} {effect.arguments}', room // 2)} ")
        text.append(mark, style).append(f" {shown(self._outcome(effect), room // 2)}", "dim")
        OUT.print(text, no_wrap=True, overflow="ellipsis")

    def _outcome(self, effect: RecordedEffect) -> str:
        """Return the outcome of an effect, in one line."""
        if effect.decision is not None and not effect.begun:
            return decided(effect.decision)
        message = self._trace.blobs.get(effect.message or "")
        if is_object(message):
            calls = [call["function"] for call in message.get("tool_calls") or ()]
            text = as_text(message.get("content") or "")
            return " ".join([text, *(f"→ {call['name']} {call['arguments']}" for call in calls)])
        if effect.error is not None:
            return effect.error.message
        return as_text(effect.output) if effect.kind == "compute" and effect.finished else ""

    def do_show(self, _: str) -> None:
        """Print everything about this effect."""
        print_effect(describe(self._trace, self._here.at))

    def do_messages(self, _: str) -> None:
        """Print the conversation up to here."""
        above = [at for at in self._agents if f"{self._here.at}/".startswith(f"{at}/")]
        agent, before = max(above, key=len), self._places[: self._number + 1]
        steps = [one.at for one in before if one.kind == "model" and one.at.parent == agent]
        if steps:
            call = describe(self._trace, steps[-1])
            direct = [one.at for one in before if one.at.parent == steps[-1]]
            after = [call, *(describe(self._trace, at) for at in direct)]
            messages = [*call.get("messages", ()), *(e["message"] for e in after if "message" in e)]
        else:
            messages = describe(self._trace, agent)["input"]["messages"]
        for number, message in enumerate(messages):
            print_message(f"message {number}", message)

    # Changing

    def do_edit(self, rest: str) -> None:
        """Change something here. Without TEXT, your $EDITOR opens.

        edit TEXT                       the result of this effect
        edit result TEXT                the same, also where TEXT begins with a word below
        edit approve, edit deny REASON  the decision about this call
        edit message N TEXT             another message in this request
        edit prompt TEXT, edit instructions TEXT
        edit setting NAME VALUE, edit model NAME
        """
        word, _, text = rest.partition(" ")
        at = self._here.at
        match word:
            case "approve" | "deny":
                check_asked(self._trace, at)
                decision = Decision.approve() if word == "approve" else Decision.deny(text.strip())
                self._add("result", decision)
            case "message":
                number, _, new = text.strip().partition(" ")
                index = message_number(self._trace, at, number)
                now = as_text(describe(self._trace, at)["messages"][index]["content"])
                self._add("messages", written(new, now), number=index)
            case "prompt" | "instructions":
                now = self._prompt() if word == "prompt" else self._instructions()
                self._add(word, written(text, now))
                print_line(f"If the result of {at} was meant: `undo`, and `edit result {rest}`.")
            case "setting":
                name, _, value = text.strip().partition(" ")
                if not value:
                    raise ConfigurationError(f"edit {rest}: expected edit setting NAME VALUE.")
                self._add("settings", settings_from([(name, value)]))
            case "model":
                resolve_model(text.strip())  # raises for an unknown name
                self._add("model", text.strip())
            case _:
                new = written(text if word == "result" else rest, self._editable())
                self._add("result", outcome_from(self._trace, at, new))

    def _editable(self) -> str:
        """Return the outcome of this effect as a text to edit; a message with calls as JSON."""
        message = self._trace.blobs.get(self._here.message or "")
        if not is_object(message):
            return pretty(self._here.output or "")
        return pretty(message if message.get("tool_calls") else message.get("content"))

    def _prompt(self) -> str:
        return as_text(self._trace.input()[0][-1].to_json()["content"])

    def _instructions(self) -> str:
        first = next(one.at for one in self._places if one.kind == "model")
        messages = describe(self._trace, first)["messages"]
        return next((as_text(one["content"]) for one in messages if one["role"] == "system"), "")

    def _add(self, what: What, value: Any, number: int | None = None) -> None:
        at = self._here.at if what in ("result", "messages") else self._from(what)
        new = Change(what=what, at=at, value=value, number=number)
        self._changes = joined(self._changes, new)
        print_line(f"{self._changes[-1].text()}. `go` runs on with that.")

    def _from(self, what: str) -> str | None:
        """Return where a change of the agent begins to hold: at its next model call."""
        if what == "prompt":
            return None
        for one in self._places[self._number :]:
            if one.kind == "model" and one.at.parent == self._agents[0]:
                return one.at
        raise ConfigurationError(
            f"There is no model call of {self._agents[0]} from here on that other {what} would "
            "change. Go back to one."
        )

    def do_changes(self, _: str) -> None:
        """Print what was changed so far."""
        print_line("\n".join(one.text() for one in self._changes) or "Nothing is changed.")

    def do_undo(self, _: str) -> None:
        """Take the last change back."""
        line = f"Undone: {self._changes[-1].text()}" if self._changes else "Nothing is changed."
        print_line(line)
        self._changes = self._changes[:-1]

    # Going on

    def do_go(self, rest: str) -> None:
        """Run on from the change, or from here: what was before stays as recorded.

        Calls that may write are held back; `go live` runs every call from there on again.
        """
        how = rest.removeprefix("on").strip()
        if how not in ("", "live"):
            raise ConfigurationError(f"go {rest}: expected go, or go live to let every tool run.")
        if self._loaded is None:
            raise ConfigurationError(
                "`go` runs the agent, and there is none: start with --app FILE.py:NAME."
            )
        at = self._changes[0].at if self._changes else self._here.at
        try:
            fork = forked(
                self._trace,
                self._loaded,
                at=at,
                patch=patch_of(self._changes),
                live=effects_of(self._trace, self._loaded.agent) if how == "live" else (),
                allow="go live",
            )
        except KeyboardInterrupt:
            print_note("Interrupted; you are where you were.")
            return
        self._enter(fork, at)
        print_line("\nYou are in the new run now.", "green")
        self._look()
