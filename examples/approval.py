"""Asks before it acts: one process asks the model and pauses, another one decides and goes on.

pip install "agentkit-replay[local]"
python examples/approval.py ask "Delete the file draft.txt."
python examples/approval.py decide approval.jsonl approve
python examples/approval.py decide approval.jsonl deny "It is still needed."
python examples/approval.py decide approval.jsonl edit '{"path": "draft.old"}'

Nothing runs in between: what the second process needs is in the trace.
"""

import argparse
import sys
from pathlib import Path

import anyio

from agentkit import Agent, AgentKitError, Decision, Model, RunResult, tool


@tool(effect="read")
def list_files() -> list[str]:
    """The files of this folder."""
    return sorted(path.name for path in Path.cwd().iterdir() if path.is_file())


@tool(approval=True)
def delete_file(path: str) -> str:
    """Delete a file of this folder."""
    place = Path.cwd() / Path(path).name
    place.unlink()
    return f"{place.name} is deleted."


def make_agent(model: str | Model) -> Agent[str]:
    """The same in both processes: a resume compares it with what was recorded."""
    return Agent(model, name="keeper", tools=[list_files, delete_file])


async def ask(agent: Agent[str], prompt: str, trace: Path) -> RunResult[str]:
    """Run until the end, or until somebody has to decide."""
    return await agent.run(prompt, trace=trace)


async def decide(agent: Agent[str], trace: Path, decision: Decision) -> RunResult[str]:
    """Decide about what the run waits for now, and go on."""
    waiting = await agent.resume(trace)  # replays: nothing is asked and nothing is done again
    return await agent.resume(trace, decisions={one.at: decision for one in waiting.pending})


def report(result: RunResult[str], trace: Path) -> None:
    """Say what came of it, or what it waits for."""
    if result.status != "paused":
        print(result.output)
    for pending in result.pending:
        print(f"Waiting for a decision: {pending.call.name} {pending.call.arguments}")
    if result.pending:
        print(f"Go on with: {sys.argv[0]} decide {trace} approve|deny|edit [TEXT]")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="local")
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("ask")
    asking.add_argument("prompt")
    asking.add_argument("--trace", type=Path, default=Path("approval.jsonl"))
    deciding = commands.add_parser("decide")
    deciding.add_argument("trace", type=Path)
    deciding.add_argument("kind", choices=["approve", "deny", "edit"])
    deciding.add_argument("text", nargs="?", default="", help="the reason, or other arguments")
    given = parser.parse_args()
    agent = make_agent(given.model)

    async def work() -> None:
        if given.command == "ask":
            result = await ask(agent, given.prompt, given.trace)
        else:
            decision = Decision(given.kind, given.text, by="the terminal")
            result = await decide(agent, given.trace, decision)
        report(result, given.trace)

    try:
        anyio.run(work)
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")


if __name__ == "__main__":
    main()
