"""`agentkit chat`: a conversation with an application's agent, in the terminal."""

from __future__ import annotations

import json as json_module
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentkit.cli.console import AsJson, print_line
from agentkit.cli.find import traces_folder
from agentkit.cli.load import Application, application
from agentkit.cli.view.answer import Answer
from agentkit.cli.view.ask import approve, is_somebody_there, read_line
from agentkit.cli.view.progress import Progress, Quiet, Show, what_to_show
from agentkit.cli.view.run import document, print_error, print_output, print_waiting, reached
from agentkit.messages import Message, dump_messages, load_messages
from agentkit.runtime.result import RunResult
from agentkit.session import Session

_HELP = """/undo       forget the last prompt and its answer
/save FILE  write the conversation to a file; --history FILE goes on from it
/help       this
/exit       leave, as Ctrl-D does; Ctrl-C only ends an answer"""


def chat(
    app: str,
    /,
    *,
    model: str | None = None,
    deps: str | None = None,
    history: Path | None = None,
    trace: Path | None = None,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Talk to an agent: answers are streamed, and calls that need approval are asked about.

    /help lists what can be done besides. Ctrl-C ends an answer, Ctrl-D the conversation.

    Args:
        app: The agent, as FILE.py:NAME or MODULE:NAME.
        model: A model, instead of the agent's own.
        deps: What its tools need, as FILE.py:NAME: the value, or a function that returns it.
        history: A conversation to go on with, as /save has written it.
        trace: A folder where each run is recorded; by default the state folder.
        quiet: Print the answers and nothing of what is done for them.
        json: Read a prompt from each line of stdin, and print a JSON document a line.
    """
    show = what_to_show(quiet, json)
    loading = Progress("", show)
    loading.doing(f"Loading {app}")
    messages = () if history is None else load_messages(history.read_bytes())
    with loading, application(app, model=model, deps=deps) as loaded:
        loaded.check_deps()
        loading.end(erase=True)
        session = Session(
            loaded.agent,
            history=messages,
            deps=loaded.deps,
            trace=f"{trace or traces_folder()}{os.sep}",
            approver=approve if is_somebody_there() and not json else None,
        )
        _Chat(loaded, session, show).talk()


class _Chat:
    """A conversation, and where it stood before each of its prompts."""

    def __init__(self, loaded: Application, session: Session[Any, Any], show: Show) -> None:
        self._loaded = loaded
        self._session = session
        self._show: Show = show
        self._json = show == "json"
        self._before: list[tuple[Message, ...]] = []

    def talk(self) -> None:
        """Answer prompts until there are no more."""
        for line in self._prompts():
            word, _, rest = line.partition(" ")
            if word.startswith("/") and not self._json:
                if word == "/exit":
                    return
                self._command(word, rest.strip())
            else:
                self._answer(line)

    def _prompts(self) -> Iterator[str]:
        asks = sys.stdin.isatty() and not self._json
        while True:
            try:
                line = read_line("> ") if asks else sys.stdin.readline()
            except KeyboardInterrupt:
                print_line("\n(Ctrl-D leaves)", "dim")
                continue
            except EOFError:
                print_line("")
                return
            if not (line or asks):
                return
            if line.strip():
                yield line.strip()

    def _command(self, word: str, rest: str) -> None:
        if word == "/undo" and self._before:
            self._session.messages = self._before.pop()
            print_line("The last prompt and its answer are forgotten.", "dim")
        elif word == "/undo":
            print_line("There is nothing to undo.", "yellow")
        elif word == "/save" and rest:
            try:
                path = Path(shlex.split(rest)[0]).expanduser()
                path.write_text(dump_messages(self._session.messages), encoding="utf-8")
            except (OSError, ValueError) as error:
                print_error(error)
            else:
                print_line(f"The conversation is in {path}", "dim")
        else:
            print_line(_HELP)

    def _answer(self, prompt: str) -> None:
        """Answer a prompt. What ends the answer does not end the conversation."""
        before = self._session.messages
        self._before.append(before)
        try:
            result, error = reached(lambda: self._loaded.run(lambda: self._streamed(prompt)))
        except KeyboardInterrupt:
            if self._json:
                raise
            print_line("\n(stopped)", "yellow")
            return
        if self._json:
            print(json_module.dumps(document(result, error)), flush=True)
        elif error is not None:
            print_error(error)
        if result.status == "paused":
            self._session.messages = before  # its trace has the rest
            self._before.pop()
            if not self._json:
                path = None if result.trace is None else result.trace.path
                print_waiting(result.pending, path, self._loaded.options())

    async def _streamed(self, prompt: str) -> RunResult[Any]:
        with Answer(self._show) as answer:
            async with self._session.stream(prompt) as run:
                async for event in run:
                    answer.event(event, run.concerns(event))
            result = run.result
        if self._show != "json":
            if result.status == "ok" and not isinstance(result.output, str):
                print_output(result, "bold")
            print_line("")
            answer.print_totals()
        return result
