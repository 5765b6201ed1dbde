"""A background worker: it answers the prompts of a folder, and first resumes what was cut off.

pip install "agentkit-replay[local]"
mkdir jobs; echo "What is 19% of 250?" > jobs/vat.txt
python examples/worker.py jobs

Kill it at any time and start it again: a run continues where its trace ends, and what it has
already done is not done again. Start as many as you like: no two do the same
job, because each locks the trace that it writes.
Each job `NAME.txt` gets a trace, and then an answer, `NAME.out`.
"""

import argparse
from pathlib import Path

import anyio
from agentkit_tools.math import math_tools
from agentkit_tools.time import time_tools

from agentkit import Agent, AgentKitError, Model, RunResult, Trace
from agentkit.durable import resume_all


def make_agent(model: str | Model) -> Agent:
    """Return the agent of every job; a run is resumed with the same agent."""
    return Agent(model, name="worker", tools=[math_tools(), time_tools()])


def answer(trace: Path, result: RunResult[str]) -> None:
    """Write the answer beside the trace."""
    trace.with_suffix(".out").write_text(f"{result.output}\n", encoding="utf-8")


async def finish(agent: Agent, job: Path) -> None:
    """Do a job that no worker has begun, or write the answer that its trace has."""
    trace = job.with_suffix(".jsonl")
    if not trace.exists():  # if another worker begins it now, `run` refuses: the trace exists
        prompt = await anyio.Path(job).read_text(encoding="utf-8")
        answer(trace, await agent.run(prompt, trace=trace))
    elif Trace.load(trace).status == "ok":  # nothing is done again
        answer(trace, await agent.resume(trace))
    else:
        return  # another worker has it, or it has failed
    print(f"{job.name}: ok")


def jobs_of(folder: Path, resumed: set[Path]) -> list[Path]:
    """Return the jobs of a folder that are left."""
    done = {path.stem for path in (*folder.glob("*.out"), *resumed)}
    return sorted(job for job in folder.glob("*.txt") if job.stem not in done)


async def work(agent: Agent, folder: Path) -> None:
    """Finish the jobs of a folder that no other worker has."""
    resumed = await resume_all(folder, [agent])
    for one in resumed:
        print(one)
        if one.outcome == "finished" and one.result is not None:
            answer(one.path, one.result)
    for job in jobs_of(folder, {one.path for one in resumed}):
        try:
            await finish(agent, job)
        except AgentKitError as error:
            if not job.with_suffix(".jsonl").exists():  # no job can work: no model, or no key
                raise
            print(f"{job.name}: {type(error).__name__}: {error.message}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="local")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"there is no folder {options.folder}")
    try:
        anyio.run(work, make_agent(options.model), options.folder)
    except AgentKitError as error:
        parser.exit(1, f"{type(error).__name__}: {error.message}\n")


if __name__ == "__main__":
    main()
