"""Asks the person at the terminal: for a line, and for decisions about calls that wait."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from agentkit.cli.console import OUT, print_line
from agentkit.cli.view.progress import standing_still
from agentkit.core.effects import Decision, PendingCall
from agentkit.errors import ConfigurationError

_HOW = "yes, no REASON, edit JSON, answer TEXT, or later"
_DECIDE: dict[str, Callable[[str], Decision | None]] = {
    "yes": lambda _: Decision.approve(),
    "no": Decision.deny,
    "edit": Decision.edit,
    "answer": Decision.answer,
    "later": lambda _: None,
}


def is_somebody_there() -> bool:
    """Tell whether a question would reach a person."""
    return sys.stdin.isatty() and OUT.is_terminal


def read_line(question: str) -> str:
    """Read a line from the terminal, with editing where that is there.

    Raises:
        EOFError: The input has ended.
        KeyboardInterrupt: Ctrl-C, also within a run.
    """
    with contextlib.suppress(ImportError):
        pass  # input() uses it
    with _interruptible():
        return input(question)


def approve(pending: PendingCall) -> Decision | None:
    """Have a person decide about a call; None leaves it for later. An approver."""
    with standing_still():
        print_line(f"\n{pending.at} waits ({pending.kind}): {pending.call.name}", "yellow")
        print_line(f"  {pending.call.arguments}")
        while True:
            try:
                word, _, text = read_line(f"May it run? ({_HOW}) ").strip().partition(" ")
            except EOFError:
                return None
            kinds = [kind for kind in _DECIDE if word and kind.startswith(word.lower())]
            if len(kinds) != 1:
                print_line(f"Answer with {_HOW}; the first letter is enough.")
                continue
            try:
                return _DECIDE[kinds[0]](text.strip())
            except ConfigurationError as error:
                print_line(error.message, "yellow")


@contextmanager
def _interruptible() -> Generator[None]:
    """Let Ctrl-C end a question at once: in an event loop it would only be noted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
