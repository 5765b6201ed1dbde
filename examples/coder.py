"""A coding helper on a folder: it reads as it likes, and each change waits for your approval.

pip install "agentkit-replay[local,tools]"
python examples/coder.py src "Rename the function main to start." --model openai:gpt-4o
"""

import argparse
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from agentkit_tools.files import files_tools

from agentkit import Agent, AgentKitError, Decision, Model
from agentkit.core.effects import PendingCall

INSTRUCTIONS = "Search and read before you edit. Change as little as needed, then say what you did."


def make_agent(model: str | Model, folder: Path) -> Agent:
    """Return an agent that works on the files of a folder and reaches nothing else."""
    return Agent(
        model,
        name="coder",
        tools=[files_tools(folder, write=True)],
        instructions=INSTRUCTIONS,
    )


def change(args: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a proposed change."""
    old, new = args.get("old", ""), args.get("new", args.get("text", ""))
    yield f"--- {args['path']}"
    yield from list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm=""))[2:]


async def ask(pending: PendingCall) -> Decision:
    """Show a change in the terminal and return the decision of the person there."""
    print(f"\n{pending.call.name}", *change(pending.args), sep="\n")
    try:
        answer = await anyio.to_thread.run_sync(input, "Do it? [y, or why not] ")
    except EOFError:
        answer = "Nobody is there to approve it."
    if answer.strip().lower() in ("y", "yes"):
        return Decision("approve", by="the terminal")
    return Decision("deny", answer, by="the terminal")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("task")
    parser.add_argument("--model", default="local")
    options = parser.parse_args()

    async def work() -> None:
        agent = make_agent(options.model, options.folder)
        print((await agent.run(options.task, approver=ask, trace="coder.jsonl")).output)

    try:
        anyio.run(work)
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")


if __name__ == "__main__":
    main()
