"""An approval across two processes: one pauses before a call, the other decides and continues.

pip install "agentkit-replay[local]"
python examples/approval.py ask "Delete the file draft.txt."
python examples/approval.py decide approval.jsonl approve
python examples/approval.py decide approval.jsonl deny "It is still needed."
python examples/approval.py decide approval.jsonl edit '{"path": "draft.old"}'

No process runs in between: the trace holds everything that the second one needs.
"""

import argparse
import sys
from pathlib import Path

import anyio

from agentkit import Agent, AgentKitError, Decision, Model, RunResult, Trace, tool


@tool(effect="read")
def list_files() -> list[str]:
    """List the files in the current folder."""
    return sorted(path.name for path in Path.cwd().iterdir() if path.is_file())


@tool(approval=True)
def delete_file(path: str) -> str:
    """Delete a file in the current folder."""
    file = Path.cwd() / Path(path).name
    file.unlink()
    return f"{file.name} is deleted."


def make_agent(model: str | Model) -> Agent:
    """Return the agent of both processes: `resume` compares it with the recording."""
    return Agent(model, name="keeper", tools=[list_files, delete_file])


async def ask(agent: Agent, prompt: str, trace: Path) -> RunResult[str]:
    """Run until the agent finishes or needs a decision."""
    return await agent.run(prompt, trace=trace)


async def decide(agent: Agent, trace: Path, decision: Decision) -> RunResult[str]:
    """Apply a decision to each call that the run waits for, and continue."""
    pending = Trace.load(trace).pending
    return await agent.resume(trace, decisions={call.at: decision for call in pending})


def report(result: RunResult[str], trace: Path) -> None:
    """Print the output, or the calls that wait for a decision."""
    if result.status != "paused":
        print(result.output)
    for pending in result.pending:
        print(f"Waiting for a decision: {pending.call.name} {pending.call.arguments}")
    if result.pending:
        print(f"To decide: python {sys.argv[0]} decide {trace} approve|deny|edit [TEXT]")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="local")
    commands = parser.add_subparsers(dest="command", required=True)
    ask_command = commands.add_parser("ask")
    ask_command.add_argument("prompt")
    ask_command.add_argument("--trace", type=Path, default=Path("approval.jsonl"))
    decide_command = commands.add_parser("decide")
    decide_command.add_argument("trace", type=Path)
    decide_command.add_argument("kind", choices=["approve", "deny", "edit"])
    decide_command.add_argument(
        "text", nargs="?", default="", help="the reason to deny, or the edited arguments"
    )
    options = parser.parse_args()
    agent = make_agent(options.model)

    async def work() -> None:
        if options.command == "ask":
            result = await ask(agent, options.prompt, options.trace)
        else:
            decision = Decision(options.kind, options.text, by="the terminal")
            result = await decide(agent, options.trace, decision)
        report(result, options.trace)

    try:
        anyio.run(work)
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")


if __name__ == "__main__":
    main()
