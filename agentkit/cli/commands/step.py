"""`agentkit step`: walks through a recorded run, and goes on from a place in it with changes.

Nothing of the run is done again until `go`, which is a fork.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, cast, get_args

from cyclopts import Parameter
from rich.text import Text

from agentkit.agent import Agent
from agentkit.cli.commands.fork import forked, message_number, outcome_at, settings_from
from agentkit.cli.commands.show import print_effect, print_message
from agentkit.cli.console import ERR, OUT, print_line, shown
from agentkit.cli.find import found, state_of
from agentkit.cli.load import load_agent, options_of
from agentkit.cli.view.describe import address_in, asked_at, careful, describe, describe_run
from agentkit.cli.view.edit import Change, What, joined, patch_of, written
from agentkit.cli.view.tree import MARKS, as_text, decided, pretty
from agentkit.cli.view.watch import print_error
from agentkit.core.effects import Address, Decision
from agentkit.errors import AgentKitError, ConfigurationError, TraceError
from agentkit.messages import JsonObject, is_object
from agentkit.models import resolve_model
from agentkit.replay.fork import LiveTools
from agentkit.runtime.result import result_of
from agentkit.trace.reader import Trace

_PROMPT = "step> "
_BEGINS = ("model.start", "tool.start", "compute.start", "gate.ask")
_NAMES = "next previous goto list show messages edit changes undo help quit".split()
_SHORT = {name[0]: name for name in _NAMES}
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
    app: Annotated[str | None, Parameter(name="--app")] = None,
    model: str | None = None,
) -> None:
    """Walk through a recorded run, change something, and go on from there.

    Type `help` for the commands. They may be piped in; then the status is 1 if one fails.

    Args:
        trace: The trace file, or the end of a run's id. It stays as it is.
        app: The agent, as FILE.py:NAME or MODULE:NAME; only `go` needs it.
        model: The model of the run, if it was not the agent's own.
    """
    recorded = Trace.load(found(trace))
    if app is None and model is not None:
        raise ConfigurationError("--model is for the agent of --app FILE.py:NAME: give that, too.")
    agent = None if app is None else load_agent(app, recorded, model)
    person = sys.stdin.isatty() and sys.stdout.isatty()
    failed = False
    with careful(recorded):
        walk = _Walk(recorded, agent, lambda other: options_of(app, other or model))
        walk.begin()
    for line in _lines(person):
        if line.strip() in ("quit", "q"):
            break
        try:
            walk.obey(line)
        except Exception as error:
            if not isinstance(error, AgentKitError) and result_of(error) is None:
                raise
            failed = True
            print_error(error)
    if failed and not person:
        sys.exit(1)


def _lines(person: bool) -> Iterator[str]:
    """What is typed or piped in, to its end."""
    if person:
        with suppress(ImportError):  # there is none on Windows
            __import__("readline")  # gives `input` a history and line editing
    else:
        sys.stdin.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # of TextIO it is not known
    interrupted = False
    while True:
        if person:
            try:
                line = input(_PROMPT)
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                if interrupted:
                    raise
                interrupted = True  # the line is cleared; what was changed is not lost
                ERR.print("Ctrl-C once more, or `quit`, leaves.", style="yellow")
                continue
            interrupted = False
            yield line
        else:
            print(_PROMPT, end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                print(file=sys.stderr)
                return
            yield line


class _Walk:
    """Where somebody is in a run, and what they have changed."""

    def __init__(
        self, trace: Trace, agent: Agent[Any] | None, shell: Callable[[object], list[str]]
    ) -> None:
        self._agent, self._shell = agent, shell
        self._commands: dict[str, Callable[[str], None]] = {
            "next": lambda _: self._move(1),
            "previous": lambda _: self._move(-1),
            "goto": self._goto,
            "list": lambda _: self._list(),
            "show": lambda _: print_effect(describe(self._trace, self._here)),
            "messages": lambda _: self._messages(),
            "edit": self._edit,
            "changes": lambda _: self._tell_changes(),
            "undo": lambda _: self._undo(),
            "go": self._go,
            "help": lambda _: OUT.print(_HELP, highlight=False),
        }
        self._enter(trace)

    def obey(self, line: str) -> None:
        """Do what a line says.

        Raises:
            AgentKitError: It cannot be done.
        """
        word, _, rest = line.strip().partition(" ")
        name = _SHORT.get(word, word)
        if not name:
            return
        if name not in self._commands:
            near = get_close_matches(name, [*self._commands, "quit"], n=1, cutoff=0.5)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigurationError(
                f"There is no command {word!r}.{meant} `help` lists the commands."
            )
        # What goes wrong while the agent runs is no fault of the trace.
        with nullcontext() if name == "go" else careful(self._trace):
            self._commands[name](rest.strip())

    def begin(self) -> None:
        """Say where one is."""
        state, many = state_of(self._trace), len(self._places)
        print_line(f"run {self._trace.run}  {state}  {many} effects; `help` lists the commands")
        self._look()

    @property
    def _here(self) -> str:
        return self._places[self._number]

    def _enter(self, trace: Trace, at: str | None = None) -> None:
        """Begin with this trace, at this place if it has it."""
        kinds: dict[str, str] = {}
        for event in trace.events:
            if event["event"] in _BEGINS:
                kinds.setdefault(event["at"], event["event"].partition(".")[0])
        if not kinds:
            raise TraceError(
                f"In the run {trace.run} nothing was asked or done, so there is no step to take.",
                path=str(trace.path),
            )
        self._trace, self._kinds, self._places = trace, kinds, [*kinds]
        self._agents = [e["at"] for e in trace.events if e["event"] == "agent.start"]
        self._number = self._places.index(at) if at in kinds else 0
        self._changes: tuple[Change, ...] = ()

    # Looking

    def _move(self, by: int) -> None:
        if not 0 <= self._number + by < len(self._places):
            OUT.print(f"This is the {'last' if by > 0 else 'first'} effect.", style="yellow")
            return
        self._number += by
        self._look()

    def _goto(self, place: str) -> None:
        if not place:
            raise ConfigurationError("goto where? An address, its end, or a number in the list.")
        at = place
        if place.isdecimal():
            at = self._places[int(place) - 1] if 1 <= int(place) <= len(self._places) else place
        else:
            at = address_in(self._trace, place)
        if at not in self._kinds:
            raise ConfigurationError(
                f"{at} is no effect; `list` has those that there are, from 1 to "
                f"{len(self._places)}."
            )
        self._number = self._places.index(at)
        self._look()

    def _look(self) -> None:
        self._line(self._number, describe(self._trace, self._here))

    def _list(self) -> None:
        effects = {one["at"]: one for one in describe_run(self._trace)["effects"]}
        for number, at in enumerate(self._places):
            self._line(number, effects.get(at) or describe(self._trace, at))

    def _line(self, number: int, effect: JsonObject) -> None:
        at = self._places[number]
        here = ">" if number == self._number else " "
        changed = "*" if any(one.at == at for one in self._changes) else " "
        status = effect.get("status", "…")
        mark, style = MARKS.get(status, (shown(as_text(status)), "yellow"))
        name = as_text(effect.get("tool") or effect.get("model") or effect.get("name") or "")
        asked = as_text(effect.get("arguments", ""))
        room = max(20, OUT.width - len(at) - 12)
        text = Text.assemble(f"{here}{changed}{number + 1:>3} ", (shown(at), "cyan"))
        text.append(f"  {shown(f'{name} {asked}', room // 2)} ").append(mark, style)
        text.append(f" {shown(_came_to(effect), room // 2)}", "dim")
        OUT.print(text, no_wrap=True, overflow="ellipsis")

    def _messages(self) -> None:
        """The last request up to here, its answer, and the results that have come since."""
        above = [at for at in self._agents if f"{self._here}/".startswith(f"{at}/")]
        agent, before = max(above, key=len), self._places[: self._number + 1]
        steps = [at for at in before if self._kinds[at] == "model" and Address(at).parent == agent]
        if steps:
            asked = describe(self._trace, steps[-1])
            results = (describe(self._trace, at) for at in before if at.startswith(f"{steps[-1]}/"))
            direct = [one for one in results if Address(one["at"]).parent == steps[-1]]
            after = [one["message"] for one in (asked, *direct) if "message" in one]
            messages = [*asked.get("messages", ()), *after]
        else:
            messages = describe(self._trace, agent)["input"]["messages"]
        for number, message in enumerate(messages):
            print_message(f"message {number}", message)

    # Changing

    def _edit(self, rest: str) -> None:
        word, _, text = rest.partition(" ")
        effect = describe(self._trace, self._here)
        match word:
            case "approve" | "deny":
                asked_at(self._trace, self._here)
                decision = Decision.approve() if word == "approve" else Decision.deny(text.strip())
                self._add("result", decision)
            case "message":
                number, _, said = text.strip().partition(" ")
                index = message_number(self._trace, self._here, number)
                now = as_text(effect["messages"][index]["content"])
                self._add("message", written(said, now), number=index)
            case "prompt" | "instructions":
                now = self._prompt() if word == "prompt" else self._instructions()
                self._add(word, written(text, now))
                print_line(
                    f"If the result of {self._here} was meant: `undo`, and `edit result {rest}`."
                )
            case "setting":
                name, _, value = text.strip().partition(" ")
                if not value:
                    raise ConfigurationError(f"edit {rest}: expected edit setting NAME VALUE.")
                self._add("settings", settings_from([(name, value)]))
            case "model":
                resolve_model(text.strip())  # a name that nobody understands is said now
                self._add("model", text.strip())
            case _:
                said = written(text if word == "result" else rest, _now(effect))
                self._add("result", outcome_at(self._trace, self._here, said))

    def _prompt(self) -> str:
        return as_text(self._trace.input()[0][-1].to_json()["content"])

    def _instructions(self) -> str:
        first = next(event for event in self._trace.events if event["event"] == "model.start")
        messages = describe(self._trace, first["at"])["messages"]
        return next((as_text(one["content"]) for one in messages if one["role"] == "system"), "")

    def _add(self, what: What, value: Any, number: int | None = None) -> None:
        at = self._here if what in ("result", "message") else self._from(what)
        new = Change(what=what, at=at, value=value, number=number)
        self._changes = joined(self._changes, new)
        print_line(f"{self._changes[-1].said()}. `go` runs on with that.")

    def _from(self, what: str) -> str | None:
        """Where a change of the agent begins to hold: at its next model call; a prompt's at all."""
        if what == "prompt":
            return None
        for at in self._places[self._number :]:
            if self._kinds[at] == "model" and Address(at).parent == self._agents[0]:
                return at
        raise ConfigurationError(
            f"There is no model call of {self._agents[0]} from here on that other {what} would "
            "change. Go back to one."
        )

    def _tell_changes(self) -> None:
        for one in self._changes:
            print_line(one.said())
        if not self._changes:
            print_line("Nothing is changed.")

    def _undo(self) -> None:
        if not self._changes:
            print_line("Nothing is changed.")
            return
        print_line(f"Undone: {self._changes[-1].said()}")
        self._changes = self._changes[:-1]

    # Going on

    def _go(self, rest: str) -> None:
        words = rest.removeprefix("on").split() or ["by_effect"]
        if words[0] not in get_args(LiveTools) or len(words) > 1:
            raise ConfigurationError(f"go {rest}: expected go, or go live to let every tool run.")
        if self._agent is None:
            raise ConfigurationError(
                "`go` runs the agent, and there is none: start with --app FILE.py:NAME."
            )
        at = self._changes[0].at if self._changes else self._here
        tools = cast("LiveTools", words[0])
        patch = patch_of(self._changes)
        try:
            made = forked(
                self._trace,
                self._agent,
                at=at,
                patch=patch,
                tools=tools,
                allow="go live",
                options=self._shell(patch.model),
            )
        except KeyboardInterrupt:
            ERR.print("Interrupted; you are where you were.", style="yellow")
            return
        self._enter(made, at)
        OUT.print("\nYou are in the new run now.", style="green")
        self._look()


def _came_to(effect: JsonObject) -> str:
    """What came of an effect, in one line."""
    message = effect.get("message")
    if is_object(message):
        content = message.get("content")
        said = "" if content is None else as_text(content)
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        return " ".join([said, *(f"→ {call['name']} {call['arguments']}" for call in calls)])
    if "value" in effect:
        return as_text(effect["value"])
    decisions = [event for event in effect.get("gate", ()) if "decision" in event]
    return (
        decided(decisions[-1]) if decisions else as_text(effect.get("error", {}).get("message", ""))
    )


def _now(effect: JsonObject) -> str:
    """What an effect came to, as a text to edit; a message with calls as JSON."""
    message = effect.get("message")
    if not is_object(message):
        return pretty(effect.get("value", ""))
    return pretty(message if message.get("tool_calls") else message.get("content"))
