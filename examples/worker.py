"""A background worker: it answers the prompts of a folder, and first resumes what was cut off.

pip install "agentkit-replay[local]"
mkdir jobs; echo "What is 19% of 250?" > jobs/vat.txt
python examples/worker.py jobs

Kill it at any time and start it again: a run continues where its trace ends, and what it has
already done is not done again. Each job `NAME.txt` gets a trace, and then an answer, `NAME.out`.
"""

import argparse
from pathlib import Path

import anyio
from agentkit_tools.math import math_tools
from agentkit_tools.time import time_tools

from agentkit import Agent, AgentKitError, Model, RunResult, Trace


def make_agent(model: str | Model) -> Agent:
    """Return the agent of every job; a run is resumed with the same agent."""
    return Agent(model, name="worker", tools=[math_tools(), time_tools()])


async def finish(agent: Agent, job: Path) -> RunResult[str] | None:
    """Run a job, or resume it; return None if there is nothing left to do."""
    trace = job.with_suffix(".jsonl")
    if not trace.exists():
        return await agent.run(await anyio.Path(job).read_text(encoding="utf-8"), trace=trace)
    if Trace.load(trace).status == "interrupted":
        print(f"{job.name}: resumed")
        return await agent.resume(trace)
    return None


def jobs_of(folder: Path) -> list[Path]:
    """Return the jobs of a folder, those first that were begun."""
    return sorted(folder.glob("*.txt"), key=lambda job: not job.with_suffix(".jsonl").exists())


async def work(agent: Agent, folder: Path) -> None:
    """Finish the jobs of a folder."""
    for job in jobs_of(folder):
        try:
            result = await finish(agent, job)
        except AgentKitError as error:  # the next job may work
            print(f"{job.name}: {type(error).__name__}: {error.message}")
            continue
        if result is not None:
            job.with_suffix(".out").write_text(f"{result.output}\n", encoding="utf-8")
            print(f"{job.name}: {result.status}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="local")
    options = parser.parse_args()
    anyio.run(work, make_agent(options.model), options.folder)


if __name__ == "__main__":
    main()
