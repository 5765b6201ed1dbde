"""Helpers and applications of the command line's tests."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agentkit import tool
from agentkit.cli.main import app
from tests.support import LOADED, child_environment

COMMAND = (sys.executable, "-c", "from agentkit.cli import main; main()")
"""What the console script does."""


def agentkit(
    *arguments: str,
    cwd: Path,
    typed: str | None = None,
    columns: int | None = 120,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, without keys, and with a state folder below `cwd`.

    In a process of its own, which is forked from one that has imported everything.

    Args:
        arguments: Its words.
        cwd: Where.
        typed: What is piped in.
        columns: The terminal's; None is a pipe without a width.
        variables: Further environment variables.
    """
    env = environment(cwd, columns) | variables
    of_the_interpreter = any(name.startswith(("PYTHON", "LC_", "LANG")) for name in variables)
    if not of_the_interpreter:
        return LOADED.run([*COMMAND[1:], *arguments], cwd, env, typed)
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=env,
        input=typed,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def environment(cwd: Path, columns: int | None = 120) -> dict[str, str]:
    """Return the environment of a command."""
    inherited = child_environment(AGENTKIT_STATE_DIR=str(cwd / "state"))
    kept = {
        name: v for name, v in inherited.items() if not re.fullmatch("COLUMNS|.*_API_KEY", name)
    }
    return kept if columns is None else {**kept, "COLUMNS": str(columns)}


def on_terminal(
    folder: Path,
    arguments: Sequence[str],
    typed: Sequence[bytes],
    prompt: bytes | Callable[[bytes], bool],
    **more: str,
) -> tuple[int, str]:
    """Run a command with somebody at a terminal: the status, and what it showed.

    Args:
        folder: Where.
        arguments: Its words.
        typed: What is typed, one after the other.
        prompt: What each of them waits for: the end of what is shown, or what is shown at all.
        more: Further environment variables.
    """
    import pty

    ours, theirs = pty.openpty()
    process = LOADED.start(
        [*COMMAND[1:], *arguments],
        folder,
        environment(folder, None) | {"TERM": "dumb"} | more,
        (theirs, theirs, theirs),
        terminal=True,
    )
    os.close(theirs)
    left, seen = list(typed), b""
    while True:
        if not select.select([ours], [], [], 60)[0]:
            os.kill(process.pid, signal.SIGKILL)  # it waits for what nobody will type
        try:
            seen += os.read(ours, 65536)
        except OSError:  # the terminal has gone
            break
        if left and (prompt(seen) if callable(prompt) else seen.endswith(prompt)):
            time.sleep(0.1)  # a Ctrl-C between the prompt and the reading of a line is lost
            os.write(ours, left.pop(0))
            seen += b"|"
    os.close(ours)
    return process.wait(timeout=60), seen.decode()


_PART = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows of what was written, however tall it is.

    It knows what rich uses: going up, erasing a line, colours, and the cursor's sight.
    """
    lines, row, column = [""], 0, 0
    for part in _PART.finditer(written):
        text, number = part[0], part[1]
        if text == "\r":
            column = 0
        elif text == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif part[2] == "A":
            row = max(0, row - int(number or 1))
        elif part[2] == "K":
            lines[row] = ""
        elif part[2] is None:
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + len(text) :]
            column += len(text)
        else:
            assert part[2] == "m" or number == "?25", text
    return [line.rstrip() for line in lines]


def frames(written: str) -> list[list[str]]:
    """Return the screens between two drawings of what moves, the last one at the end."""
    ends = [part.start() for part in re.finditer(r"\r\x1b\[2K", written)]
    return [screen(written[:end]) for end in (*ends, len(written))]


def here(*arguments: str) -> None:
    """Run the command line in this process."""
    app(arguments, result_action="return_value")


def ran(folder: Path) -> list[str]:
    """Return the tools of the travel agent that ran, in order."""
    file = folder / "ran.txt"
    return file.read_text().splitlines() if file.exists() else []


@tool
def double(number: int) -> int:
    """Double a number."""
    if number == 13:
        raise ValueError("an unlucky\x1b[31m number")
    return 2 * number


@tool(approval=True)
def delete(path: str) -> str:
    """Delete a file."""
    return "gone"


TRAVEL = '''
from pathlib import Path

from agentkit import Agent, Decision, tool
from agentkit.testing import FunctionModel


def ran(what):
    with open("ran.txt", "a") as file:
        print(what, file=file)


@tool(effect="read")
def look(city: str) -> str:
    """Look at a city."""
    ran(f"look {city}")
    return f"{city} is sunny"


@tool
def book(city: str) -> str:
    """Book a trip."""
    ran(f"book {city}")
    return f"{city} is booked"


@tool(approval=True)
def pay() -> str:
    """Pay for it."""
    ran("pay")
    return "paid"


def answer(request):
    said = [message.text for message in request.messages if message.to_json()["role"] == "tool"]
    if not said:
        return [("look", {"city": "Paris"}), ("look", {"city": "Rome"})]
    if len(said) == 2:
        return [("book", {"city": "Rome" if "Rome is sunny" in said else "Paris"})]
    if len(said) == 3:
        return [("pay", {})]
    temperature = request.settings.get("temperature", "no")
    return f"{request.messages[0].text}: {said[2]}, {said[3]}, {temperature} degrees."


agent = Agent(FunctionModel(answer), tools=[look, book, pay], instructions="Kindly")

if __name__ == "__main__":
    agent.run_sync("go", trace="run.jsonl", approver=lambda pending: Decision.deny("no"))
    agent.run_sync("go", trace="paused.jsonl")
    Path("ran.txt").unlink()
'''
