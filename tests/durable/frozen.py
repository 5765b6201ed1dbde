"""A process that a test stops in the middle of a run: FOLDER, and `unlocked` for no locks.

Its first tool ends when the file `go` is in the folder. Without locks it is as on a file system
that has none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from agentkit import Agent, tool
from agentkit.testing import ScriptedModel
from agentkit.trace import file


def agent(folder: Path, *, answers: int = 0) -> Agent[None]:
    """Make the agent, with a model that has given some of its answers already."""

    @tool(effect="read")
    async def note(text: str, blocks: bool = False) -> str:
        """Note something."""
        with (folder / "notes.txt").open("a") as notes:
            notes.write(f"{text}\n")
        while blocks and not (folder / "go").exists():
            await anyio.sleep(0.01)
        return "noted"

    script = [[("note", {"text": "one", "blocks": True})], [("note", {"text": "two"})], "Done."]
    return Agent(ScriptedModel(script[answers:]), name="noter", tools=[note])


async def main(folder: Path) -> None:
    """Run the agent and write its output."""
    result = await agent(folder).run("Go.", trace=folder / "run.jsonl")
    sys.stdout.write(result.output)


if __name__ == "__main__":
    if "unlocked" in sys.argv:
        file._locked = lambda descriptor: None
    anyio.run(main, Path(sys.argv[1]))
